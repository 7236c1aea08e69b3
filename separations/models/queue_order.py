"""The order of the queue: the one definition that queries, indexes and places follow."""

from collections.abc import Mapping

from django.db.models import Q

# Priority by the staff first, then rounds of the queue (see `jobs.fair_turns`), then time.
QUEUE_ORDER = ("-priority", "turn", "queued_at", "pk")


def comes_before(place: Mapping[str, object]) -> Q:
    """The rows that QUEUE_ORDER puts before a place.

    Args:
        place: values of the first fields of QUEUE_ORDER, or of all of them.
    """
    earlier, equal = Q(), Q()
    for name in QUEUE_ORDER:
        field = name.removeprefix("-")
        if field not in place:
            break
        comparison = "gt" if name.startswith("-") else "lt"
        earlier |= equal & Q(**{f"{field}__{comparison}": place[field]})
        equal &= Q(**{field: place[field]})
    return earlier


def place_of(row: object) -> dict[str, object]:
    """A row's values of all fields of QUEUE_ORDER."""
    fields = (name.removeprefix("-") for name in QUEUE_ORDER)
    return {field: getattr(row, field) for field in fields}
