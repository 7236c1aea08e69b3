"""The switch of the queue, and how consumers say that they are there."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from filelock import FileLock
from pytest_django import Settings

from separations import control, leases
from separations.models import Consumer
from tests.test_jobs import Submit, submit, upload

__all__ = ["submit", "upload"]  # fixtures
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "site_settings")]


def test_a_paused_queue_gives_nothing_out_until_it_goes_on(submit: Submit) -> None:
    submit()
    control.pause("anna")
    control.pause("anna")
    assert control.is_paused()
    assert leases.claim() is None
    control.resume()
    assert leases.claim() is not None


def test_a_pause_holds_for_who_waited_to_claim(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit()

    class Late(FileLock):
        def acquire(self, *args: Any, **kwargs: Any) -> Any:
            control.pause("anna")  # while it waited
            return super().acquire(*args, **kwargs)

    monkeypatch.setattr(leases, "FileLock", Late)
    assert leases.claim() is None


def test_a_consumer_is_there_while_its_heart_beats(settings: Settings) -> None:
    presence = control.Presence()
    assert control.standstill() == "no_consumer"
    presence.beat([control.SlotState("", 2, 0)], 10**9)
    presence.beat([control.SlotState("", 2, 5)], 10**9)
    assert control.standstill() == ""
    told = Consumer.objects.get()
    assert told.slots == [{"job": "", "threads": 2, "engine_bytes": 5}]
    assert told.machine["disk_free"] > 0
    silent = timezone.now() - timedelta(seconds=max(settings.LEASE_SECONDS, 20) + 1)
    Consumer.objects.update(heartbeat_at=silent)
    assert control.standstill() == "no_consumer"
    presence.beat([], 0)
    control.pause("anna")
    assert control.standstill() == "paused"
    control.resume()
    presence.leave()
    assert control.standstill() == "no_consumer"


def test_what_is_kept_is_added_up(settings: Settings) -> None:
    (settings.UPLOAD_DIR / "song").write_bytes(b"x" * 1000)
    control.Presence().beat([], 0)
    assert Consumer.objects.get().machine["uploads"] == 1000
