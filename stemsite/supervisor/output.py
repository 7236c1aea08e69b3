"""What the site's processes print, each line with the time and the name of its process before it.

With LOG_FORMAT=json lines pass as they are, and the supervisor's own are JSON too.
"""

import io
import logging
import sys
from contextlib import suppress
from datetime import datetime
from typing import TextIO

from honcho.colour import get_colours
from honcho.printer import Message, Printer

from separations.logs.formatter import JsonFormatter
from stemsite.supervisor.writer import Writer

LOGGER = "stemsite.supervisor"
OWN_NAME = "system"


class Output:
    """Standard output, shared by several processes. Printing never waits: see `writer`.

    as_json: whether what they print is JSON already.
    """

    def __init__(self, names: list[str], *, as_json: bool, writer: Writer | None = None) -> None:
        self._printer = Printer(
            sys.stdout, width=max(map(len, [OWN_NAME, *names])), prefix=not as_json
        )
        self._colours = dict(zip(names, get_colours(), strict=False))
        self._json = JsonFormatter() if as_json else None
        self._writer = writer or Writer()
        self._dropped = 0  # lines, since there was no room for one

    def line(self, name: str, text: bytes | str) -> None:
        """Print a line of the process `name`. It is dropped while nobody reads what was printed."""
        self._tell_dropped()
        if self._dropped or not self._put(sys.stdout, self._formatted(name, text)):
            self._dropped += 1

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Print a line of the supervisor's own."""
        self._tell_dropped()
        if self._json is not None:
            record = logging.LogRecord(LOGGER, level, __file__, 0, text, None, None)
            text = self._json.format(record)
        self._put(sys.stdout, self._formatted(OWN_NAME, text), always=True)

    def stopped(self, reason: str) -> None:
        """Print why the site does not run: the last line, on standard error."""
        if self._json is not None:
            self.say(f"Stopped: {reason}", logging.ERROR)
        else:
            self._put(sys.stderr, f"\nStopped: {reason}\n", always=True)

    def close(self) -> None:
        """Wait a moment for those who read."""
        self._tell_dropped(even_now=True)
        self._writer.close()

    def _tell_dropped(self, *, even_now: bool = False) -> None:
        """Say how many lines were dropped, where they are missing: once all before is written."""
        if self._dropped and (even_now or self._writer.is_empty()):
            count, self._dropped = self._dropped, 0
            self.say(f"{count} lines were dropped here, as nobody read them", logging.WARNING)

    def _formatted(self, name: str, text: bytes | str) -> str:
        self._printer.output = line = io.StringIO()
        colour = self._colours.get(name)
        self._printer.write(Message("line", text, datetime.now(), name, colour))
        return line.getvalue()

    def _put(self, file: TextIO | None, text: str, *, always: bool = False) -> bool:
        """Have a text written to a file; True also where the file is closed."""
        if file is not None:
            with suppress(OSError, ValueError):
                encoded = text.encode(file.encoding, "replace")
                return self._writer.put(file.fileno(), encoded, always=always)
        return True
