"""The probes. Middleware answers them, so they are no rows of the table in test_permissions.py."""

import json
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from django.test import Client
from django.urls import Resolver404, resolve
from django.utils import timezone
from pytest_django import Settings

from separations.audio import child_process
from separations.audio.sandbox.decoder_process import decoder_check
from separations.models import Consumer, FaultCount
from separations.monitoring import fault_counts, health
from separations.monitoring.middleware import PROBES
from separations.queue import queue_switch
from tests.support import sounds
from tests.support.running_site import until

pytestmark = pytest.mark.usefixtures("no_queue", "site_settings")
CHECKS = ("database", "consumer", "engine", "decoder", "queue", "disk", "model")
ALL_WELL = dict.fromkeys(CHECKS, "ok")


@pytest.fixture
def consumer(transactional_db: None) -> queue_switch.Presence:
    """A consumer that is there; in records that other threads can see."""
    presence = queue_switch.Presence()
    presence.beat([queue_switch.SlotState("", 2, 0)], 10**9)
    return presence


def ready() -> tuple[int, dict[str, str]]:
    response = Client().get("/readyz")
    answer = json.loads(response.content)
    assert answer["status"] == ("ready" if response.status_code == 200 else "not ready")
    assert ("Retry-After" in response.headers) == (response.status_code == 503)
    return response.status_code, answer["checks"]


def test_a_process_that_answers_is_healthy(db: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        response = Client().get("/healthz")
    assert (response.status_code, response.content) == (200, b"ok\n")


def test_a_site_where_all_is_well_is_ready(consumer: queue_switch.Presence) -> None:
    assert ready() == (200, ALL_WELL)


def test_counts_that_cannot_be_written_delay_no_probe(
    consumer: queue_switch.Presence, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, free = Event(), Event()

    def write() -> None:
        written.set()
        free.wait(10)

    monkeypatch.setattr(fault_counts, "_written", [float("inf")])
    monkeypatch.setattr(fault_counts, "_unwritten", Counter())
    monkeypatch.setattr(fault_counts, "write", write)
    fault_counts.count(FaultCount.Kind.REFUSED, "empty")
    try:
        assert ready() == (200, ALL_WELL)
        assert written.wait(10)
    finally:
        free.set()


def test_a_paused_queue_is_ready_and_says_so(consumer: queue_switch.Presence) -> None:
    queue_switch.pause("anna")
    assert ready() == (200, {**ALL_WELL, "paused": "yes"})


def test_without_a_consumer_it_is_not_ready(
    consumer: queue_switch.Presence, settings: Settings
) -> None:
    silent = timezone.now() - timedelta(seconds=settings.LEASE_SECONDS + 1)
    Consumer.objects.update(heartbeat_at=silent)
    nobody = {"consumer": "none is heard of", "engine": "unknown"}
    assert ready() == (503, {**ALL_WELL, **nobody})
    presence = queue_switch.Presence()
    presence.beat([], 0)
    assert ready()[0] == 200
    presence.leave()
    assert ready()[0] == 503


def test_a_consumer_whose_own_tests_fail_is_no_help(consumer: queue_switch.Presence) -> None:
    slots = [queue_switch.SlotState("", 2, 0)]
    consumer.beat(slots, 10**9, {"engine": "no torch"})
    assert ready() == (503, {**ALL_WELL, "engine": "does not start"})
    assert queue_switch.standstill() == "broken"
    assert "a part of the site does not work" in Client().get("/").text
    consumer.beat(slots, 10**9, {"decoder": "no av"})
    assert ready() == (503, {**ALL_WELL, "engine": "cannot read songs"})
    queue_switch.Presence().beat(slots, 10**9)
    assert ready() == (200, ALL_WELL), "another one works"
    assert queue_switch.standstill() == ""


def test_without_a_decoder_it_is_not_ready_and_songs_are_turned_away_at_once(
    consumer: queue_switch.Presence,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As after an installation that broke under a running site."""
    broken = tmp_path / "packages" / "av"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libav is gone')")
    song = sounds.wav(tmp_path / "s.wav", sounds.music(0.5))
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(broken.parent))
        page = upload(song)
    assert page.status_code == 503
    assert "not your file" in page.text
    assert page.headers["Retry-After"] == "60"
    assert ready() == (503, {**ALL_WELL, "decoder": "cannot read songs"})
    (told,) = (each for each in caplog.records if each.levelname == "ERROR")
    assert "status 1" in told.getMessage()
    assert "libav is gone" in told.getMessage()
    started, start = list[int](), child_process.start
    monkeypatch.setattr(child_process, "start", lambda *_, **__: started.append(1))
    problem = upload(song, "/api/separate")
    assert (problem.status_code, problem.json()["code"]) == (503, "decoder_unavailable")
    assert "libav" not in problem.text
    assert started == [], "it is not tried for each song"
    monkeypatch.setattr(child_process, "start", start)
    assert decoder_check.check() == ""
    assert ready() == (200, ALL_WELL)
    assert FaultCount.objects.get(kind="decoder").code == "status 1"
    refused = FaultCount.objects.filter(kind="refused")
    assert until(refused.first, 10).code == "decoder_unavailable"


def upload(song: Path, address: str = "/") -> Any:
    with song.open("rb") as file:
        return Client().post(address, {"file": file})


def test_what_is_in_the_way_is_named(consumer: queue_switch.Presence, settings: Settings) -> None:
    settings.MIN_FREE_DISK_MB = 10**9
    assert ready() == (503, {**ALL_WELL, "disk": "nearly full"})
    settings.MIN_FREE_DISK_MB = 0
    settings.DEFAULT_MODEL = "gone"
    assert ready() == (503, {**ALL_WELL, "model": "missing"})
    (settings.MODEL_DIR / "broken").mkdir(exist_ok=True)
    (settings.MODEL_DIR / "broken" / "broken.yaml").write_text("models: [nothing]")
    settings.DEFAULT_MODEL = "broken"
    assert ready() == (503, {**ALL_WELL, "model": "unusable"})


def test_a_queue_that_fails_is_named_without_its_words(
    consumer: queue_switch.Presence, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    from huey import SqliteHuey

    folder = settings.DATA_DIR / "secret-place"
    folder.mkdir()
    settings.HUEY = SqliteHuey("stemsite", filename=str(folder / "queue"))
    (folder / "queue").unlink()
    (folder / "queue").mkdir()
    assert ready() == (503, {**ALL_WELL, "queue": "broken"})
    assert "unable to open" in caplog.text, "the operator reads what it was"


def test_the_log_tells_of_a_change_once(
    consumer: queue_switch.Presence, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    ready()
    caplog.clear()
    for free in (10**9, 10**9, 0, 0):
        settings.MIN_FREE_DISK_MB = free
        ready()
    told = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
    assert told == ["WARNING Not ready: disk: nearly full", "INFO Ready again"]


def test_what_hangs_is_waited_for_no_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch, consumer: queue_switch.Presence
) -> None:
    begun, end = [], Event()

    def hang() -> dict[str, str]:
        begun.append(1)
        end.wait(30)
        return {"database": "ok", "consumer": "ok", "engine": "ok"}

    hanging = health.Check(hang, "database", "consumer", "engine")
    monkeypatch.setattr(health, "CHECKS", (hanging, *health.CHECKS[1:]))
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.3)
    started = time.monotonic()
    unknown = {"consumer": "unknown", "engine": "unknown"}
    wanted = {**ALL_WELL, "database": "no answer", **unknown}
    for _ in range(3):
        assert ready() == (503, wanted)
    assert time.monotonic() - started < 3
    assert len(begun) == 1, "each probe would leave a thread behind"
    end.set()
    hanging.begin().result(5)
    assert ready() == (200, ALL_WELL)


def test_probes_come_by_address_and_by_http(
    consumer: queue_switch.Presence, settings: Settings
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.ALLOWED_HOSTS = ["stems.example.org"]
    settings.ACCOUNTS = "required"
    settings.METRICS_TOKEN = "t" * 40
    by_address = Client(headers={"Host": "203.0.113.7:8000"})
    assert by_address.get("/about").status_code == 400
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 401)):
        response = by_address.get(path)
        assert response.status_code == status, path
        assert response.headers["Cache-Control"] == "no-store"
        assert "sandbox" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Length"] == str(len(response.content))
        assert not response.cookies
        assert "Vary" not in response.headers


def test_they_can_be_looked_at_and_nothing_else(
    consumer: queue_switch.Presence, settings: Settings
) -> None:
    settings.METRICS_TOKEN = "t" * 40
    for path in PROBES:
        whole, head = Client().get(path), Client().head(path)
        assert (head.status_code, head.content) == (whole.status_code, b"")
        assert head.headers["Content-Length"] == str(len(whole.content))
        for method in ("post", "put", "delete", "options"):
            response = getattr(Client(), method)(path)
            assert response.status_code == 405
            assert response.headers["Allow"] == "GET, HEAD"
        with pytest.raises(Resolver404):
            resolve(path)
    assert Client().get("/healthz/").status_code == 404
