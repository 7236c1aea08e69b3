"""The queue's messages: JSON that is signed with the site's key. Nothing is ever unpickled.

Huey's own messages are pickles: an attacker who can write to the queue's file, to Redis or to the
database runs code as the site. Here a message is data, and one that this site did not sign is
dropped with a line in the log, so that an attacker cannot start the site's tasks either.

A dropped message loses nothing: the database's rows say what has to be done, and the consumer reads
them by itself. That holds for messages of older versions too, which are pickles.

What an attacker can still do there: delete messages, and send one again while it is fresh.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from django.conf import settings
from django.core import signing
from django.core.exceptions import ImproperlyConfigured

DRIVERS = ("redis", "psycopg")


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Let imports of these packages fail meanwhile, as if they were not installed."""
    # What None means there: "The module cache" in Python's reference.
    absent: dict[str, Any] = {name: None for name in packages if name not in sys.modules}
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


# Huey imports the drivers of all its storages where they are installed: 15 MB in each process.
with hidden(*(() if os.environ.get("HUEY_URL") or os.environ.get("HUEY_URL_FILE") else DRIVERS)):
    from huey import PostgresHuey, RedisHuey, SqliteHuey
    from huey.api import Huey, Task
    from huey.exceptions import HueyException
    from huey.registry import Message
    from huey.serializer import Serializer
    from huey.storage import BaseSqlStorage

logger = logging.getLogger(__name__)

SALT = "stemsite.queue"
FRESH = timedelta(days=1)
VALUES = ("id", "name", "retries", "retry_delay", "priority", "timeout", "retry_backoff")
TIMES = ("eta", "expires_resolved")
UNSUPPORTED = ("on_complete", "on_error", "chord_config")


class Refused(Exception):
    """A message in the queue is not one of this site's."""


class SignedJson(Serializer):  # type: ignore[misc] # Huey has no types
    """Messages as JSON with a signature, by SECRET_KEY or one of SECRET_KEY_FALLBACKS."""

    def serialize(self, data: object) -> bytes:
        """Raises TypeError for anything but a Message whose values JSON can hold."""
        if not isinstance(data, Message):
            raise TypeError(f"The queue carries messages alone, not {type(data).__name__}.")
        if any(getattr(data, name) for name in UNSUPPORTED):
            raise TypeError("The queue carries single tasks: no pipelines, groups or chords.")
        fields = {name: getattr(data, name) for name in VALUES}
        for name in TIMES:
            time = getattr(data, name)
            fields[name] = time and time.isoformat()
        fields |= {"args": list(data.args or ()), "kwargs": data.kwargs or {}}
        return signing.dumps(fields, salt=SALT).encode()

    def deserialize(self, data: bytes) -> Message:
        """Raises Refused unless `serialize` of this site made `data` within FRESH."""
        try:
            fields = signing.loads(bytes(data).decode("ascii"), salt=SALT, max_age=FRESH)
            for name in TIMES:
                fields[name] = fields[name] and datetime.fromisoformat(fields[name])
            fields["name"] = settings.MOVED_NAMES.get(fields["name"], fields["name"])
            return Message(**fields)
        except signing.SignatureExpired as error:
            raise Refused("it is more than a day old") from error
        except (signing.BadSignature, UnicodeDecodeError) as error:
            raise Refused("it is not signed with this site's key") from error
        except (ValueError, TypeError, KeyError) as error:
            raise Refused("it is of another version") from error


class SignedHuey(Huey):  # type: ignore[misc]
    """Huey that carries signed messages and drops all others.

    It stores no results of tasks: nothing reads them, and errors can hold what visitors sent.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, serializer=SignedJson(), results=False, immediate=False, **options)

    def create_tables(self) -> None:
        """Create the queue's tables, if it lies in a database and has none."""
        if isinstance(self.storage, BaseSqlStorage):
            self.storage.initialize_schema()

    def dequeue(self) -> Task | None:
        data = self.storage.dequeue()
        return None if data is None else self._read(data)

    def _deserialize_all(self, messages: list[bytes]) -> list[Task]:
        return [task for task in map(self._read, messages) if task is not None]

    def _check_revoked(self, data: Any, *arguments: Any) -> tuple[bool, bool]:
        """The site never revokes a task, so a record that one is revoked is not the site's."""
        return False, False

    def _read(self, data: bytes) -> Task | None:
        try:
            return self.deserialize_task(data)
        except Refused as error:
            logger.warning("A message in the queue was dropped: %s", error)
        except HueyException:
            logger.warning("A message in the queue was dropped: there is no such task")
        return None


class SqliteQueue(SignedHuey, SqliteHuey):  # type: ignore[misc]
    """A queue in a SQLite file."""


class RedisQueue(SignedHuey, RedisHuey):  # type: ignore[misc]
    """A queue in Redis."""


class PostgresQueue(SignedHuey, PostgresHuey):  # type: ignore[misc]
    """A queue in PostgreSQL."""


def queue_at(url: str, file: Path) -> SignedHuey:
    """The queue at `url` (HUEY_URL), or in `file` if that is empty. Opens and makes nothing yet."""
    scheme = urlparse(url).scheme
    if scheme == "":
        return SqliteQueue("stemsite", filename=str(file), strict_fifo=True, create_tables=False)
    if scheme in ("redis", "rediss"):
        return RedisQueue("stemsite", url=url)
    if scheme in ("postgres", "postgresql"):
        return PostgresQueue("stemsite", dsn=url, create_tables=False)
    raise ImproperlyConfigured(
        f"HUEY_URL must begin with redis:// or postgresql://, not {scheme}:."
    )
