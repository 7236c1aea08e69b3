"""The log formatter: lines that cannot forge other lines, and without personal data.

Logs are copied, mailed and stored elsewhere, and what visitors send ends up in them: names of
files, addresses, the texts of exceptions. So every line goes through this formatter. No Django
here: the engine process logs with it too.
"""

import ipaddress
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from separations.logs.secret_tokens import hide_tokens

HIDDEN = "[hidden]"
# Before the lines that continue a record (a traceback's), so that none can pose as a record.
CONTINUED = "    | "
# Each of these reads a character once, or a bounded number of times, however long the text is.
AT = "@\N{FULLWIDTH COMMERCIAL AT}\N{SMALL COMMERCIAL AT}"
NAME = rf"[^\s{AT}<>\"'=(,;:\\/]"
WORDS = rf"(?<!{NAME})(?<!{NAME}'){NAME}++(?:'{NAME}++)*+"  # o'brien as a whole
QUOTED = r'"(?:[^"\\]|\\.){1,64}+"'
# A domain may lack dots (localhost) but then begins with a letter, or be a number in brackets.
DOMAIN = r"(?:\[[^\]\s]{2,80}+\]|[^\W\d_][\w-]*+(?:\.[\w-]+)*|[\w-]+(?:\.[\w-]+)+)"
MAIL = re.compile(rf"(?:{QUOTED}|{WORDS})[{AT}]{DOMAIN}")
# The same as part of an address on the web, where @ is %40, or %2540 in one within another.
ESCAPED = re.compile(r"[\w.%~!*+-]++")
ESCAPED_MAIL = re.compile(r"[\w%].*?%(?:25)*40[\w%]")
ADDRESS = re.compile(r"(?<![\w.:])[0-9A-Fa-f:.]{2,}+(?!\w)")
# PostgreSQL repeats a row's values: "Key (email)=(…) already exists."
DETAIL = re.compile(r"DETAIL:.*")
SHORT = 12  # characters of an id in a line of text

# The request that is answered, and the job that is worked on.
request_id: ContextVar[str] = ContextVar("request_id", default="")
job_id: ContextVar[str] = ContextVar("job_id", default="")


@contextmanager
def job_context(job: object) -> Iterator[None]:
    """Add the job's id to every line that this thread logs."""
    token = job_id.set(str(job))
    try:
        yield
    finally:
        job_id.reset(token)


@dataclass(frozen=True)
class Personal:
    """A personal value in a log record: shown only where LOG_PERSONAL is yes."""

    value: object

    def __str__(self) -> str:
        return HIDDEN


class LineFormatter(logging.Formatter):
    """One line for a record, without control characters and, unless `personal`, personal data.

    personal: whether names of files and people, e-mail and network addresses may be shown.
    """

    def __init__(self, *, personal: bool = False) -> None:
        super().__init__()
        self._personal = personal

    def format(self, record: logging.LogRecord) -> str:
        message = self.message(record)
        head = f"{record.levelname} {record.name} {_ids(message)}{message}"
        return "\n".join([head, *(CONTINUED + line for line in self.trace(record))])

    def message(self, record: logging.LogRecord) -> str:
        """The record's message, cleaned."""
        return self.cleaned(self._message(record))

    def trace(self, record: logging.LogRecord) -> list[str]:
        """The lines of its traceback, and of one from another process, cleaned."""
        return [self.cleaned(line) for line in self._more(record)]

    def _message(self, record: logging.LogRecord) -> str:
        if self._personal:
            return _with(record, lambda arg: arg.value if isinstance(arg, Personal) else arg)
        if record.name.startswith("django.security"):
            # Its messages quote the request: host names, names of files, paths.
            return f"A request was refused: {record.name.rpartition('.')[2]}"
        if record.name == "gunicorn.error" and record.getMessage().startswith("Invalid request"):
            return "A request was refused: it is no HTTP"
        if record.name in ("django.request", "gunicorn.error"):
            # Paths hold ids of songs and tokens of share links; the URL pattern is enough.
            return _with(record, lambda arg: _route(record) if _is_place(str(arg)) else arg)
        return record.getMessage()

    def _more(self, record: logging.LogRecord) -> list[str]:
        texts = [getattr(record, "trace", "")]
        if record.exc_info and (self._personal or not record.name.startswith("django.security")):
            texts.append(self.formatException(record.exc_info))
        if record.stack_info:
            texts.append(self.formatStack(record.stack_info))
        # Only "\n" ends a line here: `splitlines` has many more, which `printable` escapes.
        return [line for text in texts if text for line in str(text).strip("\n").split("\n")]

    def cleaned(self, text: str) -> str:
        """`text` on one line, without tokens and, unless `personal`, without addresses."""
        text = hide_tokens(printable(text))
        if self._personal:
            return text
        text = DETAIL.sub(f"DETAIL: {HIDDEN}", text)
        text = MAIL.sub(HIDDEN, text)
        text = ESCAPED.sub(lambda run: HIDDEN if ESCAPED_MAIL.match(run[0]) else run[0], text)
        return ADDRESS.sub(lambda found: _without_address(found[0]), text)


class JsonFormatter(LineFormatter):
    """One JSON object for a record, with the same texts, for programs that collect logs."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self.message(record),
        }
        more = {"request_id": request_id.get(), "job_id": job_id.get(), "trace": self.trace(record)}
        line |= {name: value for name, value in more.items() if value}
        return json.dumps(line, ensure_ascii=False)


FORMATS: dict[str, type[LineFormatter]] = {"text": LineFormatter, "json": JsonFormatter}


def formatter(kind: str, *, personal: bool = False) -> LineFormatter:
    """Make a formatter. kind: "text" or "json"."""
    return FORMATS[kind](personal=personal)


def _ids(message: str) -> str:
    """The first characters of the request's and the job's id, unless the message has them."""
    about = (("request", request_id.get()), ("job", job_id.get()))
    return "".join(
        f"[{kind} {each[:SHORT]}] " for kind, each in about if each and each not in message
    )


def printable(text: str) -> str:
    """`text` without characters that end a line, move the cursor or turn the direction of text."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _with(record: logging.LogRecord, change: Any) -> str:
    """The record's message with each of its arguments changed."""
    args = record.args
    if isinstance(args, tuple):
        return str(record.msg) % tuple(change(arg) for arg in args) if args else str(record.msg)
    if args:
        return str(record.msg) % {name: change(arg) for name, arg in args.items()}
    return str(record.msg)


def _is_place(text: str) -> bool:
    """Whether a text is a path or a whole URL, as a request line may hold it."""
    return text.startswith("/") or "://" in text


def _route(record: logging.LogRecord) -> str:
    match = getattr(getattr(record, "request", None), "resolver_match", None)
    return f"/{match.route}" if match is not None else HIDDEN


def _without_address(text: str) -> str:
    """Hide the address in `text`, which may have a port; a loopback address stays."""
    for address in (text, text.rstrip(".:"), text.rpartition(":")[0]):
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            continue
        if found.is_loopback or found.is_unspecified:
            return text
        return HIDDEN + text[len(address) :]
    return text
