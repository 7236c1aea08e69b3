"""Processes of the site that kill themselves at a point of their work, drawn by a seed.

`python -m tests.faults.points` is a consumer, `tests.faults.points:application` the web server. The
code that runs is the site's own; here its functions are only wrapped, to note what they did and to
die before or after one of them. Nothing is cleaned up: it is SIGKILL.
"""

import functools
import importlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from separations.engine.process import engine_process, engine_protocol

WEB = (
    "uploads.song_files._store",
    "uploads.song_files._record",
    "uploads.song_files._store_cover",
    "jobs.lifecycle.submit",
    "jobs.lifecycle.cancel",
    "jobs.lifecycle._pass_on",
    "jobs.lifecycle.remove",
    "jobs.results.release",
    "jobs.results._set_aside",
    "worker.tasks.wake",
    "worker.tasks._send",
)
CONSUMER = (
    "worker.leases.claim",
    "worker.leases._start",
    "worker.leases.heartbeat",
    "worker.leases.finish",
    "jobs.endings.share_result",
    "worker.leases.hand_back",
    "worker.leases.end_with",
    "worker.leases.recover",
    "jobs.results.sync",
    "jobs.results._set_aside",
    "jobs.results.publish",
    "worker.retention.clean",
    "worker.retention._remove",
)
PUBLISHING = (
    "worker.leases.finish",
    "jobs.endings.share_result",
    "jobs.results.publish",
    "jobs.results.sync",
)
STAGES = ("start", "decode", "separate", "encode")  # where an engine is killed by its consumer
DECODER = "decoder"  # or where the decoder of the engine is killed


def note(kind: str, what: str) -> None:
    """Append a line to the journal of the scenario, in one piece."""
    line = f"{time.time():.3f} {kind} {os.getpid()} {what}\n"
    journal = os.open(os.environ["FAULTS_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, line.encode())
    os.close(journal)


class Doom:
    """Where this process dies: at the `countdown`th time it comes to `point`, if it ever does."""

    def __init__(self, points: tuple[str, ...], stages: tuple[str, ...] = ()) -> None:
        lines = Path(os.environ["FAULTS_JOURNAL"]).read_text().count("\n")
        draw = random.Random(f"{os.environ['FAULTS_SEED']}-{lines}")
        # One death in three while the engine works, one while its stems are published.
        publishing = tuple(point for point in PUBLISHING if point in points)
        self._point = draw.choice(draw.choice((points, stages or points, publishing or points)))
        self._after = draw.random() < 0.5
        self._countdown = draw.randint(1, 3)
        self._armed = os.environ.get("FAULTS_ARMED") == "yes"
        for name in points:
            self._wrap(name)
        if self._point in stages:
            self._watch_engine()

    def _wrap(self, name: str) -> None:
        module_name, _, attribute = name.rpartition(".")
        module = importlib.import_module(f"separations.{module_name}")
        function: Callable[..., Any] = getattr(module, attribute)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._pass(name, after=False)
            answer = function(*args, **kwargs)
            if name == "worker.leases.finish" and answer:
                note("finished", args[0].pk.hex)
            self._pass(name, after=True)
            return answer

        setattr(module, attribute, wrapped)

    def _watch_engine(self) -> None:
        """Kill the engine when it reports the drawn stage."""
        read = engine_protocol.read_message

        def read_and_kill(line: str) -> Any:
            message = read(line)
            at = "start" if self._point == DECODER else self._point
            if self._armed and getattr(message, "stage", "") == at:
                self._countdown -= 1
                if self._countdown == 0 and self._point == DECODER:
                    threading.Thread(target=_kill_next_decoder, daemon=True).start()
                elif self._countdown == 0:
                    note("kill", f"engine at {self._point}")
                    for child in psutil.Process().children():
                        child.kill()
            return message

        setattr(engine_process, "read_message", read_and_kill)  # noqa: B010 (it is not the host's own)

    def _pass(self, name: str, *, after: bool) -> None:
        if not self._armed or name != self._point or after != self._after:
            return
        self._countdown -= 1
        if self._countdown <= 0:
            note("kill", f"{'after' if after else 'before'} {name}")
            os.kill(os.getpid(), signal.SIGKILL)


def _kill_next_decoder() -> None:
    """Kill the decoder that the engine starts next, a moment after its start."""
    for _ in range(2000):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if "separations.audio.sandbox.worker" in child.cmdline():
                    time.sleep(random.uniform(0.0, 0.4))
                    note("kill", "decoder of an engine")
                    child.kill()
                    return
        time.sleep(0.005)


def _web() -> Any:
    from stemsite.wsgi import application

    Doom(WEB)
    return application


if __name__ == "__main__":
    import django
    from django.core.management import call_command

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "stemsite.settings")
    django.setup()
    Doom(CONSUMER, (*STAGES, DECODER))
    call_command("run_consumer")
elif "gunicorn" in sys.modules:
    application = _web()
