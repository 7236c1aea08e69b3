"""Filters for numbers as people read them: `{{ seconds|lasting }}`, `{{ bytes|size }}`."""

from django import template

from separations import figures

register = template.Library()
register.filter("lasting", figures.lasting)
register.filter("size", figures.size)


@register.filter
def less(value: float, part: float) -> float:
    """What is left of `value` without `part`."""
    return value - part
