"""What came of the inputs, and what must not have."""

import os
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tests.fuzz.inputs import Bait, Input
from tests.support.sounds import ROOT

FOUND = ROOT / "test-output" / "fuzz"
MUST_BE_ZERO = ("answers of 500", "hangs", "files left", "outside access", "wrong")


@dataclass
class Row:
    inputs: int = 0
    taken: int = 0
    refused: int = 0
    died: int = 0
    seconds: float = 0.0
    longest: float = 0.0


@dataclass
class Tally:
    """Counts by kind of input; violations by name."""

    rows: dict[str, Row] = field(default_factory=dict)
    violations: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, status: int, seconds: float, limit: float) -> list[str]:
        """Count an answer; returns what was wrong with it."""
        with self.lock:
            row = self.rows.setdefault(kind, Row())
            row.inputs += 1
            row.taken += status < 400
            row.refused += 400 <= status < 500
            row.seconds += seconds
            row.longest = max(row.longest, seconds)
        wrong = ["answers of 500"] if status >= 500 else []
        wrong += ["wrong"] if status == 429 else []  # the site's limits are to be off
        return wrong + (["hangs"] if seconds > limit else [])

    def died(self, kind: str) -> None:
        with self.lock:
            self.rows.setdefault(kind, Row()).died += 1

    def blame(self, violation: str, note: str, given: Input | None = None) -> None:
        """Note a violation, and keep the input that did it."""
        with self.lock:
            self.violations[violation] += 1
            if given is not None:
                FOUND.mkdir(parents=True, exist_ok=True)
                digest = sha256(given.data).hexdigest()[:12]
                kept = FOUND / f"{digest}{Path(given.name).suffix}"
                kept.write_bytes(given.data)
                note = f"{note}: {given.kind}, {given.name!r}, kept as {kept.relative_to(ROOT)}"
            self.notes.append(f"{violation}: {note}")

    def table(self) -> str:
        columns = ("inputs", "taken", "refused", "died", "mean s", "longest s")
        lines = ["| kind | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        total = Row()
        for kind, row in sorted(self.rows.items()):
            lines.append(_line(kind, row))
            for name in ("inputs", "taken", "refused", "died", "seconds"):
                setattr(total, name, getattr(total, name) + getattr(row, name))
            total.longest = max(total.longest, row.longest)
        verdict = ", ".join(f"{name} {self.violations[name]}" for name in MUST_BE_ZERO)
        return "\n".join([*lines, _line("all", total), "", verdict, *self.notes[:40]])


def _line(kind: str, row: Row) -> str:
    mean = row.seconds / max(1, row.inputs)
    counts = f"{row.inputs} | {row.taken} | {row.refused} | {row.died}"
    return f"| {kind} | {counts} | {mean:.2f} | {row.longest:.1f} |"


class Watch:
    """A file that nobody may read and a server that nobody may call."""

    def __init__(self, folder: Path) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind(self._server.getsockname())
        self._datagrams.setblocking(False)
        self._file = folder / "canary.wav"
        self._file.write_bytes(b"RIFF nothing to see here")
        self.bait = Bait(self._file, f"http://127.0.0.1:{self._server.getsockname()[1]}")
        self._callers = 0
        threading.Thread(target=self._listen, daemon=True).start()
        self._arm()
        self._file.read_bytes()
        if not self._was_read():
            raise RuntimeError("This file system does not note that a file was read.")
        with socket.create_connection(self._server.getsockname()):
            pass
        while not self._callers:
            time.sleep(0.01)
        self._callers = 0
        self._arm()

    def seen(self) -> list[str]:
        """Who came since the last time."""
        found = ["the canary was read"] if self._was_read() else []
        found += ["somebody called"] if self._callers else []
        with suppress(BlockingIOError):
            self._datagrams.recv(1)
            found.append("somebody sent something")
        self._callers = 0
        self._arm()
        return found

    def _arm(self) -> None:
        # Linux notes a reading when the last noted one is older than the last change.
        os.utime(self._file, ns=(1, self._file.stat().st_mtime_ns))

    def _was_read(self) -> bool:
        return self._file.stat().st_atime_ns != 1

    def _listen(self) -> None:
        while True:
            connection, _address = self._server.accept()
            self._callers += 1
            connection.close()
