"""The process that decodes a song: `python -m separations.audio.sandbox.worker TASK LIMIT CPU`.

Standard input is the song, opened by the parent. Answers go to standard output as messages
(`audio.decoding.decoder_protocol`); `audio.sandbox.decoder_process` reads and checks them:

- probe: the facts about a song of at most LIMIT seconds and its cover, or a fault;
- decode: the sample rate, blocks of stereo, and an end or a fault.

Everything is imported, and libraries are set up, before the sandbox closes.
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import av
import numpy as np

from separations.audio.decoding.decoder_protocol import (
    COVER,
    HEAD,
    MOST_SAMPLES,
    SAMPLES,
    TEXT,
    Block,
)
from separations.audio.decoding.downmix import gather, stereo
from separations.audio.decoding.mp4_index import check_index
from separations.audio.decoding.probe import probe
from separations.audio.decoding.source import open_source
from separations.audio.info import AudioInfo
from separations.audio.sandbox import lockdown
from separations.errors.fault import Fault

SONG, ANSWER = 0, 1
# PyAV imports these when it meets such a stream, which would be too late here.
for name in ("audio", "subtitles", "video"):
    importlib.import_module(f"av.{name}.stream")
    importlib.import_module(f"av.{name}.codeccontext")


def main() -> None:
    task, limit, cpu_seconds = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    send(missing=lockdown.enter(cpu_seconds))
    try:
        check_index(SONG)
        if task == "probe":
            _send_info(probe(SONG, limit))
        else:
            _decode()
    except MemoryError:  # FFmpeg's, too; its memory is free again
        send(fault="too_much_memory", params={})
    except Fault as fault:
        send(fault=fault.code, params=fault.params)
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, av.error.FFmpegError):
            raise  # of the disk, or the parent is gone
        # An error in this program or PyAV, which the same song would cause each time.
        traceback.print_exc()
        send(fault="unreadable", params={})
        os._exit(1)
    # The sandbox forbids some of what Python does at its end, and there is nothing to clean up.
    os._exit(0)


def _send_info(info: AudioInfo) -> None:
    """The facts, with the cover's length in place of the cover, which follows them."""
    cover, found = info.tags.cover, asdict(info)
    found["tags"].pop("cover")
    send(info=found, cover=len(cover))
    if cover:
        _write(COVER, np.frombuffer(cover, np.uint8))


def _decode() -> None:
    with open_source(SONG) as source:
        send(rate=source.rate)
        for block in gather(stereo(source.frames())):
            for piece in _pieces(block):
                _write(SAMPLES, np.ascontiguousarray(piece))
        send(end=True)


def _pieces(block: Block) -> Iterator[Block]:
    for start in range(0, block.shape[1], MOST_SAMPLES):
        yield block[:, start : start + MOST_SAMPLES]


def send(**what: Any) -> None:
    """Send `what` as JSON."""
    _write(TEXT, np.frombuffer(json.dumps(what, allow_nan=False).encode(), np.uint8))


def _write(kind: bytes, content: np.ndarray[Any, Any]) -> None:
    left = memoryview(HEAD.pack(kind, content.nbytes) + content.tobytes())
    while left:
        left = left[os.write(ANSWER, left) :]


if __name__ == "__main__":
    main()
