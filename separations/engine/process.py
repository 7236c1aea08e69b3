"""What the engine process does: requests in, messages out.

It keeps the last model loaded, works on one song at a time, and is meant to be killed: whoever
started it may do so at any moment, and when that one dies the closed pipe ends it.
"""

import contextlib
import errno
import logging
import math
import os
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from loky import cpu_count

from separations.audio.decode import decode
from separations.audio.info import SAMPLE_RATE
from separations.audio.stems import StemWriter
from separations.engine import memory, messages, politeness, separator
from separations.engine.bank import Bank
from separations.engine.messages import Done, Failed, Progress, Request, StemFile
from separations.engine.options import (
    ALL_STEMS,
    MIXTURE,
    Options,
    needed_models,
    stem_names,
)
from separations.engine.song import write_song
from separations.engine.store import ModelInfo, read_model
from separations.faults import Fault, storage_fault
from stemsite.logs import about_job

logger = logging.getLogger(__name__)
# Shares of the whole work, from timing songs of one to ten minutes; the rest is the chunks'.
DECODE_SHARE = 0.02
ENCODE_SHARE = 0.01
TIMED_CHUNKS = 8
SPARE_SECONDS = 60  # that a song may be longer than it was said to be; then it is another one

Send = Callable[[messages.Message], None]


class Engine:
    """Warm networks and the way from a file to stems."""

    def __init__(self) -> None:
        self._warm: tuple[tuple[str, Options], Bank] | None = None

    def _bank(self, info: ModelInfo, request: Request, wait: Callable[[], None]) -> Bank:
        # What may differ between songs that run on the same networks.
        options = replace(
            request.options, stems=ALL_STEMS, rest="mixture", shifts=0, overlap=0.0, split=True
        )
        wanted = (info.digest, options)
        if self._warm is None or self._warm[0] != wanted:
            self._warm = None  # free the old one before the new one comes
            memory.forget_peak()
            folders = Path(request.model_dir), Path(request.engine_dir)
            self._warm = (wanted, Bank(info, *folders, options, wait))
        return self._warm[1]

    def run(self, request: Request, send: Send) -> Done:
        """Separate the song of `request`; progress goes to `send`, faults are raised."""
        options = request.options
        if not options.threads:
            options = replace(options, threads=cpu_count())
            request = replace(request, options=options)
        staging = Path(request.staging)
        send(Progress("start", 0.0, None))
        if not Path(request.source).exists():
            raise Fault("upload_gone")  # deleted since it was asked for
        memory.forget_peak()
        info = read_model(Path(request.model_dir), options.model)
        if options.device == "cuda":
            _see_that_there_is_cuda()
        bank = self._bank(info, request, lambda: send(Progress("start", 0.0, None)))
        for part in needed_models(info, options):
            bank.network(part)  # now: to compile one takes a while, which only this thread may tell

        def decoded(frames: int) -> None:
            share = min(1.0, frames / max(1, request.frames))
            send(Progress("decode", DECODE_SHARE * share, None))

        mixture = staging / "mixture.f32"
        # Closed, so that a decoder does not outlive a song that cannot be written.
        seconds = request.frames / SAMPLE_RATE + SPARE_SECONDS if request.frames else math.inf
        with contextlib.closing(decode(Path(request.source), seconds)) as blocks:
            song = write_song(blocks, mixture, decoded)
        try:
            written = _separate(info, bank, song, options, staging, send)
        except RuntimeError:
            # From its start, so that all of a song is one engine's work.
            if not bank.fall_back():
                raise
            logger.warning("OpenVINO failed; torch takes the song", exc_info=True)
            written = _separate(info, bank, song, options, staging, send)
        mixture.unlink()
        return Done(song.frames, written[1:], written[0], memory.peak(), str(bank.plan))


def _separate(
    info: ModelInfo, bank: Bank, song: separator.Song, options: Options, staging: Path, send: Send
) -> list[StemFile]:
    """Write `song` and its stems as they are made; the song is the first of what is returned."""
    names = [MIXTURE, *stem_names(options, info)]
    with contextlib.ExitStack() as stack:
        writers = {}
        for name in names:
            writers[name] = StemWriter(staging / f"{name}.flac")
            stack.callback(writers[name].close)
        send(Progress("separate", DECODE_SHARE, None))
        clock = _ChunkClock(send)
        separation = separator.Separation(info, bank.network, song, options, bank.side_by_side)
        for block in separation.blocks(clock.chunk_done):
            writers[MIXTURE].write(song.read(block.start, block.start + block.frames))
            for name, samples in block.stems.items():
                writers[name].write(samples)
        send(Progress("encode", 1.0 - ENCODE_SHARE, 0.0))
        for writer in writers.values():
            writer.finish()
    return [StemFile(name, writers[name].peak, writers[name].loudness) for name in names]


class _ChunkClock:
    """Turns finished chunks into progress and an estimate of what is left."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._times: deque[float] = deque([time.monotonic()], maxlen=TIMED_CHUNKS + 1)

    def chunk_done(self, done: int, total: int) -> None:
        self._times.append(time.monotonic())
        each = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        fraction = DECODE_SHARE + (1 - DECODE_SHARE - ENCODE_SHARE) * done / total
        self._send(Progress("separate", fraction, (total - done) * each))


def _see_that_there_is_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise Fault("no_cuda")


def serve() -> None:
    """Answer requests from standard input until it closes."""
    # Standard output belongs to the messages; whatever a library prints goes to the log instead.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    politeness.step_back()
    memory.go_first()
    requests: queue.Queue[Request] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            requests.put(messages.read_request(line))
        os._exit(0)  # nobody is left to work for

    threading.Thread(target=listen, daemon=True).start()

    def send(message: messages.Message) -> None:
        try:
            channel.write(messages.write_message(message) + "\n")
        except BrokenPipeError:
            os._exit(0)  # likewise

    engine = Engine()
    while True:
        request = requests.get()
        with about_job(request.job):
            try:
                answer: messages.Message = engine.run(request, send)
            except Exception as error:  # noqa: BLE001 (whatever it is, it is reported)
                fault = _as_fault(error)
                answer = Failed(fault.code, fault.params, traceback.format_exc())
        send(answer)


def _as_fault(error: Exception) -> Fault:
    if isinstance(error, Fault):
        return error
    if isinstance(error, OSError) and error.errno != errno.ENOMEM:
        return storage_fault(error)
    # torch says so in words only: "not enough memory", "CUDA out of memory".
    no_memory = isinstance(error, MemoryError | OSError) or "memory" in str(error)
    if no_memory and isinstance(error, MemoryError | OSError | RuntimeError):
        return Fault("out_of_memory")
    return Fault("engine_error", reason=type(error).__name__)
