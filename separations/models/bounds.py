"""Bounds of levels and lengths in the database, as conditions for constraints."""

from django.db.models import Q

from separations.audio.level_limits import HIGHEST_PEAK

LONGEST = 1e9  # seconds, of a song or until a job is done
LOUDEST = 1000.0  # LUFS, above or below full scale


def is_level(field: str) -> Q:
    """A finite level: databases store infinity and NaN, JSON has neither."""
    return Q(**{f"{field}__gte": 0.0, f"{field}__lte": HIGHEST_PEAK})


def is_loudness(field: str) -> Q:
    return Q(**{field: None}) | Q(**{f"{field}__gte": -LOUDEST, f"{field}__lte": LOUDEST})
