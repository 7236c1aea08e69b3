"""Sends logged errors to Sentry if SENTRY_DSN is set: the cleaned log record and no more.

Every error of the site is logged, so events are made from log records. What Sentry's package would
collect besides (headers, addresses, local variables, queries, bodies) is left out. The web server
and the consumer call `start`; without SENTRY_DSN the package is not imported.
"""

import logging
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from separations.logs.formatter import HIDDEN, LineFormatter, job_id, request_id
from separations.logs.secret_tokens import IN_ADDRESSES

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

LONGEST_TRACE = 100  # lines of one that came from another process
# Names of songs in the texts of libraries' exceptions, from where a quote or a phrase begins.
SONGS = re.compile(r"[^\n:\"'<>]*\.(?:mp3|wav|flac|ogg|opus|m4a|aac|aiff?|wma)\b", re.IGNORECASE)
# Folders of the machine, and addresses of the site that hold ids of songs; the last part may stay.
PATHS = re.compile(r"(?<![\w/:.])/(?:[^/\s'\"]+/)+")
ROUTED = ("django.request", "gunicorn.error")  # the log shows URL patterns for their paths
SAFE_KEYS = ("event_id", "timestamp", "platform", "level", "logger", "environment", "release")
FRAME_KEYS = ("filename", "function", "module", "lineno", "in_app")


def check(dsn: str) -> None:
    """Raises ImproperlyConfigured when errors cannot be sent to `dsn`."""
    place = urlsplit(dsn)
    if place.scheme not in ("http", "https") or not place.username or not place.path.strip("/"):
        raise ImproperlyConfigured("SENTRY_DSN must be like https://KEY@sentry.example.org/1.")
    if find_spec("sentry_sdk") is None:
        raise ImproperlyConfigured(
            "SENTRY_DSN is set, but the package that sends is not installed: "
            ".venv/bin/pip install 'sentry-sdk>=2.75'"
        )


def start() -> None:
    """Send errors that are logged from now on, if SENTRY_DSN is set."""
    from django.conf import settings

    if not settings.SENTRY_DSN:
        return
    import sentry_sdk
    from sentry_sdk.integrations.atexit import AtexitIntegration
    from sentry_sdk.integrations.dedupe import DedupeIntegration
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration
    from sentry_sdk.integrations.logging import LoggingIntegration
    from sentry_sdk.integrations.threading import ThreadingIntegration

    sentry_sdk.init(
        dsn=settings.SENTRY_DSN,
        environment=settings.SENTRY_ENVIRONMENT,
        release=settings.SENTRY_RELEASE,  # even if empty: else the package runs git
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            LoggingIntegration(level=None, event_level=logging.ERROR),
            ThreadingIntegration(),
            ExcepthookIntegration(),
            DedupeIntegration(),
            AtexitIntegration(callback=lambda _pending, _seconds: None),
        ],
        before_send=scrub_event,
        max_breadcrumbs=0,
        send_default_pii=False,
        max_request_body_size="never",
        include_local_variables=False,
        include_source_context=False,
        auto_session_tracking=False,
        send_client_reports=False,
        server_name="",
    )


def scrub_event(event: "Event", hint: "Hint") -> "Event | None":
    """Build the event that is sent, from harmless fields alone and with scrubbed texts.

    Returns None, so that nothing is sent, for a client's mistake that was logged as an error.
    """
    record: logging.LogRecord | None = hint.get("log_record")
    if record is not None and record.name.startswith("django.security"):
        return None
    given: Mapping[str, Any] = event
    found: dict[str, Any] = {key: given[key] for key in SAFE_KEYS if given.get(key)}
    if record is not None:
        message = LineFormatter().message(record)
        if record.name not in ROUTED:
            message = scrub(message)
        found["logentry"] = {"formatted": message}
        if trace := str(getattr(record, "trace", "")):
            lines = trace.strip("\n").split("\n")[-LONGEST_TRACE:]
            found["extra"] = {"trace": [scrub(line) for line in lines]}
    if "exception" in given:
        values = given["exception"].get("values") or ()
        found["exception"] = {"values": [_exception(each) for each in values]}
    ids = {"request_id": request_id.get(), "job_id": job_id.get()}
    found["tags"] = {name: value for name, value in ids.items() if value}
    return found  # type: ignore[return-value]


def scrub(text: str) -> str:
    """`text` as the log shows it, and without names of songs, paths and tokens."""
    text = IN_ADDRESSES.sub(r"\1…", text)
    text = SONGS.sub(HIDDEN, text)
    text = PATHS.sub("…/", text)
    return LineFormatter().cleaned(text)


def _exception(value: Mapping[str, Any]) -> dict[str, Any]:
    frames = (value.get("stacktrace") or {}).get("frames") or ()
    return {
        "type": value.get("type"),
        "module": value.get("module"),
        "value": scrub(str(value.get("value") or "")),
        "stacktrace": {
            "frames": [{key: frame[key] for key in FRAME_KEYS if key in frame} for frame in frames]
        },
    }
