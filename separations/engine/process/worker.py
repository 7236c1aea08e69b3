"""The engine process: read requests, separate songs, write messages.

It keeps the last model loaded and works on one song at a time. Its parent may kill it at any
moment; when the parent dies, the closed pipe ends it.
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

from separations.audio.child_process import claim_stdout
from separations.audio.free_space import Room
from separations.audio.info import SAMPLE_RATE
from separations.audio.sandbox.decoder_process import decoder_slots
from separations.audio.song_reader import decode
from separations.audio.store.stem_file import StemWriter
from separations.engine import memory, priority
from separations.engine.inference import separator
from separations.engine.options import MIXTURE, Options, needed_models, stem_names
from separations.engine.process import engine_protocol
from separations.engine.process.engine_protocol import (
    PING,
    Done,
    Failed,
    Loaded,
    Progress,
    Ready,
    Request,
    StemFile,
)
from separations.engine.process.network_cache import NetworkCache
from separations.engine.process.song_file import write_song
from separations.engine.tuning import tuner
from separations.engine.weights.store import ModelInfo, read_model
from separations.errors.fault import Fault, storage_fault
from separations.logs.formatter import job_context

logger = logging.getLogger(__name__)
# Shares of the whole work, from timing songs of one to ten minutes; the rest is the chunks'.
DECODE_SHARE = 0.02
ENCODE_SHARE = 0.01
TIMED_CHUNKS = 8
SPARE_SECONDS = 60  # that a song may exceed its stated length; with more it is another song

Send = Callable[[engine_protocol.Message], None]


class Engine:
    """Separates songs, and caches the networks of the last model."""

    def __init__(self) -> None:
        self._warm: tuple[tuple[str, Options], NetworkCache] | None = None

    def _networks_for(
        self, info: ModelInfo, request: Request, wait: Callable[[], None]
    ) -> NetworkCache:
        options = request.options.of_networks()
        wanted = (info.digest, options)
        if self._warm is None or self._warm[0] != wanted or self._warm[1].is_outdated():
            self._warm = None  # free the old networks before loading others
            memory.reset_peak()
            folders = Path(request.model_dir), Path(request.engine_dir)
            self._warm = (wanted, NetworkCache(info, *folders, options, wait))
        return self._warm[1]

    def load(self, request: Request, send: Send) -> Loaded:
        """Load the networks that the songs to come need, without a song."""
        options = _with_threads(request.options)
        info = read_model(Path(request.model_dir), options.model)
        networks = self._load(info, replace(request, options=options), send)
        return Loaded(str(networks.plan))

    def _load(self, info: ModelInfo, request: Request, send: Send) -> NetworkCache:
        """The networks for the options of `request`, loaded."""
        if request.options.device == "cuda":
            _check_cuda()
        compiled = Room(Path(request.engine_dir), request.keep_free)

        def wait() -> None:
            send(Progress("start", 0.0, None))
            compiled.check_next(tuner.SCRATCH_BYTES)

        networks = self._networks_for(info, request, wait)
        for part in needed_models(info, request.options):
            networks.network(part)  # now: only this thread may send progress while one is compiled
        send(Ready())  # a process that died before did so without a song
        return networks

    def run(self, request: Request, send: Send) -> Done:
        """Separate the song of `request`; progress goes to `send`, faults are raised."""
        options = _with_threads(request.options)
        request = replace(request, options=options)
        staging = Path(request.staging)
        room = Room(staging, request.keep_free)
        send(Progress("start", 0.0, None))
        if not Path(request.source).exists():
            raise Fault("upload_gone")  # deleted since the request
        memory.reset_peak()
        info = read_model(Path(request.model_dir), options.model)
        networks = self._load(info, request, send)

        def decoded(frames: int) -> None:
            room.check_next()
            share = min(1.0, frames / max(1, request.frames))
            send(Progress("decode", DECODE_SHARE * share, None))

        if request.decoder_dir:
            decoder_slots.set_up(1, request.decoders, Path(request.decoder_dir))
        mixture = staging / "mixture.f32"
        # Closed explicitly, so that the decoder ends when the song cannot be written.
        seconds = request.frames / SAMPLE_RATE + SPARE_SECONDS if request.frames else math.inf
        with contextlib.closing(decode(Path(request.source), seconds)) as blocks:
            song = write_song(blocks, mixture, decoded)
        try:
            written = _separate(info, networks, song, options, room, send)
        except RuntimeError:
            # From the start, so that one engine makes the whole song.
            if not networks.fall_back():
                raise
            logger.warning("OpenVINO failed; torch takes the song", exc_info=True)
            written = _separate(info, networks, song, options, room, send)
        mixture.unlink()
        return Done(song.frames, written[1:], written[0], memory.peak(), str(networks.plan))


def _with_threads(options: Options) -> Options:
    return options if options.threads else replace(options, threads=cpu_count())


def _separate(
    info: ModelInfo,
    networks: NetworkCache,
    song: separator.Song,
    options: Options,
    room: Room,
    send: Send,
) -> list[StemFile]:
    """Separate `song` and store it and its stems block by block; returns its file, then theirs."""
    names = [MIXTURE, *stem_names(options, info)]
    with contextlib.ExitStack() as stack:
        writers = {}
        for name in names:
            writers[name] = StemWriter(room.folder / f"{name}.flac", room.check_next)
            stack.callback(writers[name].close)
        send(Progress("separate", DECODE_SHARE, None))
        clock = _ChunkClock(send)
        separation = separator.Separation(
            info, networks.network, song, options, networks.side_by_side
        )
        for block in separation.blocks(clock.chunk_done):
            writers[MIXTURE].write(song.read(block.start, block.start + block.frames))
            for name, samples in block.stems.items():
                writers[name].write(samples)
        send(Progress("encode", 1.0 - ENCODE_SHARE, 0.0))
        for writer in writers.values():
            writer.finish()
    return [StemFile(name, writers[name].peak, writers[name].loudness) for name in names]


class _ChunkClock:
    """Computes progress and the remaining time from finished chunks."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._times: deque[float] = deque([time.monotonic()], maxlen=TIMED_CHUNKS + 1)

    def chunk_done(self, done: int, total: int) -> None:
        self._times.append(time.monotonic())
        each = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        fraction = DECODE_SHARE + (1 - DECODE_SHARE - ENCODE_SHARE) * done / total
        self._send(Progress("separate", fraction, (total - done) * each))


def _check_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise Fault("no_cuda")


def serve() -> None:
    """Answer requests from standard input until it closes."""
    channel = claim_stdout()
    priority.lower_priority()
    memory.offer_to_out_of_memory_killer()
    requests: queue.Queue[Request | None] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            is_ping = line.strip() == PING
            requests.put(None if is_ping else engine_protocol.read_request(line))
        os._exit(0)  # the parent is gone

    threading.Thread(target=listen, daemon=True).start()

    def send(message: engine_protocol.Message) -> None:
        try:
            channel.write(engine_protocol.write_message(message) + "\n")
        except BrokenPipeError:
            os._exit(0)  # the parent is gone

    engine = Engine()
    while True:
        request = requests.get()
        with job_context(request.job if request else ""):
            try:
                if request is None:
                    send(_answer())
                    continue
                work = engine.load if request.load_only else engine.run
                send(work(request, send))
            except Exception as error:  # noqa: BLE001 (reported to the parent)
                fault = _as_fault(error)
                trace = f"{traceback.format_exc()}{fault.trace}"
                send(Failed(fault.code, fault.params, trace))


def _answer() -> Ready:
    """The answer to PING, after a computation."""
    import torch

    torch.zeros(1).exp_()
    return Ready()


def _as_fault(error: Exception) -> Fault:
    if isinstance(error, Fault):
        return error
    if isinstance(error, ImportError):  # a missing or broken package
        return Fault("engine_unavailable")
    if isinstance(error, OSError) and error.errno != errno.ENOMEM:
        return storage_fault(error)
    # torch has no error type for it, only words: "not enough memory", "CUDA out of memory".
    no_memory = isinstance(error, MemoryError | OSError) or "memory" in str(error)
    if no_memory and isinstance(error, MemoryError | OSError | RuntimeError):
        return Fault("out_of_memory")
    return Fault("engine_error", reason=type(error).__name__)
