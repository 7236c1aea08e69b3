"""What the site's processes print, each line with the time and the name of its process before it.

With LOG_FORMAT=json lines pass as they are, and the supervisor's own are JSON too.
"""

import logging
import sys
from contextlib import suppress
from datetime import datetime

from honcho.colour import get_colours
from honcho.printer import Message, Printer

from separations.logs.formatter import JsonFormatter

LOGGER = "stemsite.supervisor"
OWN_NAME = "system"


class Output:
    """Standard output, shared by several processes.

    as_json: whether what they print is JSON already.
    """

    def __init__(self, names: list[str], *, as_json: bool) -> None:
        self._printer = Printer(
            sys.stdout, width=max(map(len, [OWN_NAME, *names])), prefix=not as_json
        )
        self._colours = dict(zip(names, get_colours(), strict=False))
        self._json = JsonFormatter() if as_json else None

    def line(self, name: str, text: bytes | str) -> None:
        """Print a line of the process `name`."""
        message = Message("line", text, datetime.now(), name, self._colours.get(name))
        # A closed terminal or pipe must not end the site.
        with suppress(OSError, ValueError):
            self._printer.write(message)

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Print a line of the supervisor's own."""
        if self._json is not None:
            record = logging.LogRecord(LOGGER, level, __file__, 0, text, None, None)
            text = self._json.format(record)
        self.line(OWN_NAME, text)

    def stopped(self, reason: str) -> None:
        """Print why the site does not run: the last line, on standard error."""
        if self._json is not None:
            self.say(f"Stopped: {reason}", logging.ERROR)
        else:
            with suppress(OSError, ValueError):
                sys.stderr.write(f"\nStopped: {reason}\n")
