"""The switch of the queue, and how consumers say that they are there."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from filelock import FileLock
from pytest_django import Settings

from separations.models import Consumer
from separations.queue import queue_switch
from separations.worker import leases
from tests.support.jobs import Submit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "site_settings")]


def test_a_paused_queue_gives_nothing_out_until_it_goes_on(submit: Submit) -> None:
    submit()
    queue_switch.pause("anna")
    queue_switch.pause("anna")
    assert queue_switch.is_paused()
    assert leases.claim() is None
    queue_switch.resume()
    assert leases.claim() is not None


def test_a_pause_holds_for_who_waited_to_claim(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit()

    class Late(FileLock):
        def acquire(self, *args: Any, **kwargs: Any) -> Any:
            queue_switch.pause("anna")  # while it waited
            return super().acquire(*args, **kwargs)

    monkeypatch.setattr(leases, "FileLock", Late)
    assert leases.claim() is None


def test_a_consumer_is_there_while_its_heart_beats(settings: Settings) -> None:
    presence = queue_switch.Presence()
    assert queue_switch.standstill() == "no_consumer"
    presence.beat([queue_switch.SlotState("", 2, 0)], 10**9)
    presence.beat([queue_switch.SlotState("", 2, 5)], 10**9)
    assert queue_switch.standstill() == ""
    told = Consumer.objects.get()
    assert told.slots == [{"job": "", "threads": 2, "engine_bytes": 5}]
    assert told.machine["disk_free"] > 0
    silent = timezone.now() - timedelta(seconds=max(settings.LEASE_SECONDS, 20) + 1)
    Consumer.objects.update(heartbeat_at=silent)
    assert queue_switch.standstill() == "no_consumer"
    presence.beat([], 0)
    queue_switch.pause("anna")
    assert queue_switch.standstill() == "paused"
    queue_switch.resume()
    presence.leave()
    assert queue_switch.standstill() == "no_consumer"


def test_what_is_kept_is_added_up(settings: Settings) -> None:
    (settings.UPLOAD_DIR / "song").write_bytes(b"x" * 1000)
    queue_switch.Presence().beat([], 0)
    assert Consumer.objects.get().machine["uploads"] == 1000
