"""Filters for numbers as people read them: `{{ seconds|lasting }}`, `{{ bytes|size }}`."""

from django import template

from separations.web import number_format

register = template.Library()
register.filter("lasting", number_format.lasting)
register.filter("size", number_format.size)


@register.filter
def less(value: float, part: float) -> float:
    """`value` minus `part`."""
    return value - part
