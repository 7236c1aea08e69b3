"""Check the answers of a sandboxed decoder, which may be anything, for plausibility."""

import json
import logging
import re
from typing import Any

from separations.audio.decoding.allowed_codecs import (
    DECODERS,
    DEMUXERS,
    HIGHEST_RATE,
    LOWEST_RATE,
    MOST_CHANNELS,
)
from separations.audio.info import (
    LONGEST_KEY,
    LONGEST_TEXT,
    MOST_BPM,
    MOST_COVER,
    MOST_TRACK,
    MOST_YEAR,
    AudioInfo,
    Tags,
    cover_type,
    is_printable,
)
from separations.errors.fault import Fault

logger = logging.getLogger(__name__)
# The faults that a decoder may report, each with its parameters.
FAULTS = {
    "empty": (),
    "not_audio": (),
    "no_audio": (),
    "absurd_rate": ("rate", "lowest", "highest"),
    "too_many_channels": ("channels", "most"),
    "too_long": ("max_minutes",),
    "too_much_sound": ("rate", "channels", "max_minutes"),
    "too_short": ("min_seconds",),
    "truncated": ("read",),
    "not_finite": (),
    "too_loud": ("decibels",),
    "damaged": (),
    "absurd_index": ("entries", "most"),
    "too_much_memory": (),
    "codec_not_read": ("codec",),
    "protected": (),
    "unreadable": (),  # an error in the decoder's Python, whose traceback is its error output
}
# Numbers, and names of codecs as "Monkey's Audio".
PARAM = re.compile(r"[0-9.e+-]{1,20}|[A-Za-z0-9][A-Za-z0-9' ._-]{0,19}")


def implausible(what: str) -> Fault:
    """Log an answer that no decoder gives, and make the fault for it."""
    logger.warning("Reading a song gave an answer that cannot be: %s", what)
    return Fault("unreadable")


def read_object(content: bytearray) -> dict[str, Any]:
    """A message as a JSON object. Raises the fault in it, if it holds one, or `unreadable`."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise implausible("text") from error
    if not isinstance(found, dict):
        raise implausible("text")
    if "fault" in found:
        raise _fault(found)
    return found


def _fault(found: dict[str, Any]) -> Fault:
    code, params = found["fault"], found.get("params")
    if not isinstance(code, str) or code not in FAULTS or not isinstance(params, dict):
        return implausible("fault")
    if set(params) != set(FAULTS[code]):
        return implausible("fault")
    if not all(PARAM.fullmatch(str(value)) for value in params.values()):
        return implausible("fault")
    return Fault(code, **params)


def read_info(found: Any, cover: bytes, max_seconds: float) -> AudioInfo:
    """The facts about a song, checked for plausibility."""
    try:
        tags = Tags(**found.pop("tags"), cover=cover)
        info = AudioInfo(**found, tags=tags)
    except (TypeError, AttributeError, KeyError) as error:
        raise implausible("facts") from error
    holds = (
        info.container in DEMUXERS
        and info.codec in DECODERS
        and is_whole(info.sample_rate, LOWEST_RATE, HIGHEST_RATE)
        and is_whole(info.channels, 1, MOST_CHANNELS)
        and is_whole(info.frames, 1, min(max_seconds, 1e9) * info.sample_rate)
        and _are_tags(info.tags)
        and isinstance(info.samples_sha256, str)
        and re.fullmatch(r"[0-9a-f]{64}", info.samples_sha256)
    )
    if not holds:
        raise implausible("facts")
    return info


def _are_tags(tags: Tags) -> bool:
    numbers = ((tags.track, MOST_TRACK), (tags.track_total, MOST_TRACK), (tags.year, MOST_YEAR))
    bpm = tags.bpm
    return (
        all(_is_line(text) for text in (tags.title, tags.artist, tags.album, tags.genre))
        and _is_line(tags.key, LONGEST_KEY)
        and all(value is None or is_whole(value, 1, most) for value, most in numbers)
        and (bpm is None or (type(bpm) is float and 0 < bpm <= MOST_BPM))
        and len(tags.cover) <= MOST_COVER
        and (not tags.cover or bool(cover_type(tags.cover)))
    )


def is_whole(value: Any, lowest: float, highest: float) -> bool:
    return type(value) is int and lowest <= value <= highest


def _is_line(text: Any, longest: int = LONGEST_TEXT) -> bool:
    return (
        isinstance(text, str)
        and len(text) <= longest
        and is_printable(text)
        and "\N{REPLACEMENT CHARACTER}" not in text
    )
