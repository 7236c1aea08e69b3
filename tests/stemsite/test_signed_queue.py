"""The queue carries signed data; all other messages are dropped."""

import json
import logging
import os
import pickle
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as site_settings
from django.core import signing
from huey.registry import Message
from huey.serializer import Serializer
from pytest_django import Settings

from separations.worker import tasks
from stemsite import signed_queue
from stemsite.signed_queue import Refused, SignedJson, SqliteQueue
from tests.support.running_site import prepared, until
from tests.support.sounds import ROOT

SENT = Message("1", "a.b", args=("x",), kwargs={"secure": True}, priority=3)


class Command:
    """An object that runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.fixture
def small(tmp_path: Path) -> SqliteQueue:
    """A queue in a file of its own."""
    return SqliteQueue("stemsite", filename=str(tmp_path / "queue.sqlite3"), strict_fifo=True)


def test_a_message_arrives_as_it_was_sent() -> None:
    eta = datetime(2026, 11, 27, 12, 30, 0, 123, tzinfo=UTC)
    sent = SENT._replace(eta=eta, expires_resolved=datetime(2026, 1, 1), timeout=1.5)
    arrived = SignedJson().deserialize(SignedJson().serialize(sent))
    assert arrived == sent._replace(args=["x"])


def test_what_json_does_not_hold_is_not_sent() -> None:
    for sent in (
        SENT._replace(args=(b"bytes",)),
        SENT._replace(args=(object(),)),
        SENT._replace(on_complete=SENT),
        {"no": "message"},
    ):
        with pytest.raises(TypeError):
            SignedJson().serialize(sent)


def forged() -> dict[str, bytes]:
    """Messages of an attacker, and of an older version."""
    message = SignedJson().serialize(SENT)
    fields: dict[str, Any] = {"id": "1", "name": "a.b", "args": [], "kwargs": {}}
    return {
        "a pickle": Serializer().serialize(SENT),
        "a command": pickle.dumps(Command("exit 1")),
        "JSON without a signature": json.dumps(fields).encode(),
        "another key": signing.dumps(fields, key="k" * 50, salt=signed_queue.SALT).encode(),
        "another salt": signing.dumps(fields, salt="another").encode(),
        "another text": b"e30" + message[3:],
        "a cut message": message[:-1],
        "nothing": b"",
        "no text": b"\xff\xfe",
        "fields of another version": signing.dumps({"of": 1}, salt=signed_queue.SALT).encode(),
        "no object": signing.dumps([1], salt=signed_queue.SALT).encode(),
    }


@pytest.mark.parametrize("kind", list(forged()))
def test_what_the_site_did_not_sign_is_refused(kind: str) -> None:
    with pytest.raises(Refused):
        SignedJson().deserialize(forged()[kind])


def test_old_messages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    message = SignedJson().serialize(SENT)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_000)
    assert SignedJson().deserialize(message).id == "1"
    monkeypatch.setattr(time, "time", lambda: now + 87_000)
    with pytest.raises(Refused, match="more than a day old"):
        SignedJson().deserialize(message)


def test_a_retired_key_still_signs(settings: Settings) -> None:
    message = SignedJson().serialize(SENT)
    old, settings.SECRET_KEY = settings.SECRET_KEY, "n" * 50
    with pytest.raises(Refused):
        SignedJson().deserialize(message)
    settings.SECRET_KEY_FALLBACKS = [old]
    assert SignedJson().deserialize(message).id == "1"


def test_what_is_dropped_takes_nothing_with_it(
    small: SqliteQueue, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []
    known = small.task(name="known")(called.append)
    for content in forged().values():
        small.storage.enqueue(content)
        small.storage.add_to_schedule(content, datetime(2026, 1, 1))
    small.storage.enqueue(SignedJson().serialize(SENT))  # a task that there is no more
    known("first")
    with caplog.at_level(logging.WARNING):
        for _ in range(len(forged()) + 1):
            assert small.dequeue() is None
        assert small.read_schedule() == []
        task = small.dequeue()
    assert task is not None
    # A note that the task was revoked, as others may have left one.
    small.storage.put_data(task.revoke_id, pickle.dumps(Command("exit 1")))
    small.execute(task)
    assert called == ["first"]
    assert len(caplog.records) == 2 * len(forged()) + 1
    for record in caplog.records:
        assert record.getMessage().startswith("A message in the queue was dropped: ")
        assert record.exc_info is None


def test_no_results_are_kept(small: SqliteQueue) -> None:
    """Errors can hold what visitors sent, and nothing reads results."""

    def fails() -> None:
        raise ValueError("a@b.example")

    small.task(name="fails")(fails)()
    small.execute(small.dequeue())
    assert small.storage.result_store_size() == 0


def test_a_row_in_the_queue_runs_no_command(tmp_path: Path) -> None:
    """The attack as it was seen, on a real consumer."""
    folder = prepared(tmp_path / "data")
    harm = tmp_path / "harm"
    stale = folder / "incoming" / "stale.upload"
    with (tmp_path / "log").open("wb") as log:
        consumer = subprocess.Popen(
            [sys.executable, "manage.py", "run_consumer"],
            cwd=ROOT,
            env=os.environ | {"DATA_DIR": str(folder), "SECRET_KEY": str(site_settings.SECRET_KEY)},
            stderr=log,
            stdout=log,
        )
    try:
        until(lambda: _is_empty(folder))
        _put(folder, pickle.dumps(Command(f"touch {harm}")))
        _put(folder, Serializer().serialize(SENT))
        stale.write_bytes(b"x")
        os.utime(stale, (0, 0))
        _put(folder, site_settings.HUEY.serialize_task(tasks.clean.task_class()))
        until(lambda: not stale.exists(), 30)  # the consumer has gone on
    finally:
        consumer.send_signal(signal.SIGTERM)
        assert consumer.wait(30) == 0
    assert not harm.exists()
    text = (tmp_path / "log").read_text()
    assert (
        len(re.findall("WARNING stemsite.signed_queue A message in the queue was dropped", text))
        == 2
    )
    assert "Traceback" not in text


def _put(folder: Path, data: bytes) -> None:
    with closing(sqlite3.connect(folder / "queue.sqlite3", timeout=10)) as database, database:
        columns = "INSERT INTO task (queue, data, priority) VALUES (?, ?, 0)"
        database.execute(columns, ("stemsite", data))


def _is_empty(folder: Path) -> bool:
    """Whether the consumer has started, and read the messages that it sent at its start."""
    if not (folder / "queue.sqlite3").exists():
        return False
    with closing(sqlite3.connect(folder / "queue.sqlite3", timeout=10)) as database:
        found = database.execute("SELECT MAX(seq) FROM sqlite_sequence").fetchone()
        return bool(found[0]) and database.execute("SELECT * FROM task").fetchall() == []
