"""The process in which a song is decoded: `python -m separations.audio.child TASK LIMIT CPU`.

Standard input is the song, opened by whoever started it. The answer goes to standard output in
messages (`separations.audio.wire`; `separations.audio.isolated` reads them and believes none):

- probe: the facts, or a fault, for a song of at most LIMIT seconds;
- decode: the sample rate, blocks of stereo, and an end or a fault.

Everything is imported, and libraries are set up, before the sandbox closes.
"""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from separations.audio import sandbox
from separations.audio.probe import probe
from separations.audio.source import open_source
from separations.audio.stereo import gather, stereo
from separations.audio.wire import HEAD, MOST_SAMPLES, SAMPLES, TEXT, Block
from separations.faults import Fault

SONG, ANSWER = 0, 1
# PyAV imports these when it meets such a stream, which would be too late here.
for name in ("audio", "subtitles", "video"):
    importlib.import_module(f"av.{name}.stream")
    importlib.import_module(f"av.{name}.codeccontext")


def main() -> None:
    task, limit, cpu_seconds = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    say(missing=sandbox.enter(cpu_seconds))
    try:
        if task == "probe":
            say(info=asdict(probe(SONG, limit)))
        else:
            _decode()
    except Fault as fault:
        say(fault=fault.code, params=fault.params)
    # Nothing is left to tidy up, and not all of what Python does then would be allowed.
    os._exit(0)


def _decode() -> None:
    with open_source(SONG) as source:
        say(rate=source.stream.codec_context.sample_rate)
        for block in gather(stereo(source.frames())):
            for piece in _pieces(block):
                _send(SAMPLES, np.ascontiguousarray(piece))
        say(end=True)


def _pieces(block: Block) -> Iterator[Block]:
    for start in range(0, block.shape[1], MOST_SAMPLES):
        yield block[:, start : start + MOST_SAMPLES]


def say(**what: Any) -> None:
    """Send `what` as JSON."""
    _send(TEXT, np.frombuffer(json.dumps(what).encode(), np.uint8))


def _send(kind: bytes, content: np.ndarray[Any, Any]) -> None:
    left = memoryview(HEAD.pack(kind, content.nbytes) + content.tobytes())
    while left:
        left = left[os.write(ANSWER, left) :]


if __name__ == "__main__":
    main()
