"""Kinds of files that hold sound or notes but are not read here, by their first bytes.

FFmpeg is not allowed to open them, so that it cannot say what they are.
"""

import os

MARKS = (  # place, bytes, name of the kind
    (0, b"MThd", "MIDI"),
    (0, b"#!AMR", "AMR"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"TTA1", "TTA"),
    (0, b"tBaK", "TAK"),
    (0, b"OFR ", "OptimFROG"),
    (0, b"DSD ", "DSD"),
    (0, b"FRM8", "DSD"),
    (0, b".snd", "AU"),
    (0, b".RMF", "RealAudio"),
    (0, b".ra\xfd", "RealAudio"),
    (0, b"FLV\x01", "Flash"),
    (0, b"\x0b\x77", "AC-3"),
    (0, b"\x7f\xfe\x80\x01", "DTS"),
    (0, b"\x00\x00\x01\xba", "MPEG-PS"),
    (8, b"AVI ", "AVI"),
    (8, b"8SVX", "8SVX"),
    (4, b"\x57\x90\x75\x36", "Audible"),
)
SYNC, TS_PACKET = 0x47, 188


def kind_of(file: int) -> str | None:
    """The name of the kind if the open file is of one that is not read here."""
    head = os.pread(file, 4 * TS_PACKET, 0)
    for place, mark, name in MARKS:
        if head.startswith(mark, place):
            return name
    starts = head[::TS_PACKET] if head else b""
    return "MPEG-TS" if len(starts) == 4 and set(starts) == {SYNC} else None
