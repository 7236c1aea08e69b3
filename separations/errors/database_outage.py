"""Recognizes a database that is busy or cannot write, and the fault to answer with."""

import logging
import sqlite3
import time
from threading import Lock

from django.db import DatabaseError, OperationalError, connection

from separations.errors.fault import Fault

logger = logging.getLogger(__name__)
LOGGED_EVERY = 60.0  # seconds, in each process: every request has the same error
# A disk that is full, fails or was made read-only.
SQLITE_CODES = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}
SQLITE_CODES |= {sqlite3.SQLITE_CANTOPEN}
SQLITE_TEXTS = ("disk is full", "disk I/O error", "readonly database", "unable to open database")
SQLSTATES = ("53100", "58030", "25006")  # disk_full, io_error, read_only_sql_transaction


def outage(error: BaseException | None) -> Fault | None:
    """The fault for a request that failed with `error`: cannot_record while the database cannot
    write, busy while others write or it restarts, None for all other errors."""
    if not isinstance(error, DatabaseError | sqlite3.Error):
        return None
    if cannot_write(error):
        return Fault("cannot_record", wait=60)
    if not isinstance(error, OperationalError | sqlite3.OperationalError):
        return None
    if connection.vendor == "sqlite" and "locked" not in str(error):
        return None  # a missing table, for example: waiting does not help
    return Fault("busy", wait=10)


def cannot_write(error: BaseException) -> bool:
    """Whether the database cannot write: a disk that is full, broken or read-only. (The queue's
    database too, if that is SQLite.)"""
    cause = error.__cause__ or error
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        if code is not None:
            return code & 0xFF in SQLITE_CODES
    if getattr(cause, "sqlstate", None) in SQLSTATES:
        return True
    return connection.vendor == "sqlite" and any(text in str(error) for text in SQLITE_TEXTS)


class OncePerMinute:
    """Logs an error that many requests have once a minute."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._logged: dict[str, float] = {}

    def error(self, fault: Fault, error: BaseException) -> None:
        if self._is_due(fault.code):
            logger.error("The database takes nothing just now (%s): %s", fault.code, error)

    def warn(self, key: str, text: str, *args: object) -> None:
        """Log a warning, once a minute for each `key`; there are few keys."""
        if self._is_due(key):
            logger.warning(text, *args)

    def _is_due(self, key: str) -> bool:
        now = time.monotonic()
        with self._lock:
            last = self._logged.get(key)
            if last is not None and now - last < LOGGED_EVERY:
                return False
            self._logged[key] = now
        return True


log = OncePerMinute()


def log_if_outage(error: BaseException) -> bool:
    """Log an error of a loop if the database cannot write. Returns whether it did; else the caller
    logs it."""
    fault = outage(error)
    if fault is None or fault.code != "cannot_record":
        return False
    log.error(fault, error)
    return True


class OutageFilter(logging.Filter):
    """Drops Django's error record, with its traceback, for requests that failed in an outage."""

    def filter(self, record: logging.LogRecord) -> bool:
        return outage(record.exc_info[1]) is None if isinstance(record.exc_info, tuple) else True
