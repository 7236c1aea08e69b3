"""Refused songs and dead processes are counted by the hour and the cause, at little cost."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import InterfaceError
from django.test import Client
from django.utils import timezone

from separations.errors.fault import Fault
from separations.models import FaultCount
from separations.monitoring import fault_counts
from separations.worker import retention

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "site_settings")]


@pytest.fixture(autouse=True)
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of the site."""
    monkeypatch.setattr(fault_counts, "_written", [float("-inf")])


def counted() -> dict[tuple[str, str], int]:
    fault_counts.write()
    rows = FaultCount.objects.values_list("kind", "code", "count")
    return {(kind, code): count for kind, code, count in rows}


def test_what_comes_fast_is_written_together(django_assert_num_queries: Any) -> None:
    fault = Fault("unreadable", status=-11)
    fault_counts.count_decoder_death(fault)
    assert FaultCount.objects.get().code == "signal SIGSEGV"
    with django_assert_num_queries(0):
        for _ in range(100):
            fault_counts.count_refusals([fault, Fault("empty")])
    wanted = {("decoder", "signal SIGSEGV"): 1, ("refused", "unreadable"): 100}
    assert counted() == {**wanted, ("refused", "empty"): 100}
    fault_counts.count_refusals([fault])
    assert counted()["refused", "unreadable"] == 101


def test_a_database_that_cannot_be_written_refuses_no_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_args: object) -> None:
        raise InterfaceError("connection already closed")  # no DatabaseError

    with monkeypatch.context() as patch:
        patch.setattr(fault_counts, "_add", fail)
        patch.setattr(fault_counts, "MOST_UNWRITTEN", 3)
        for number in range(9):
            fault_counts.count(fault_counts.Kind.REFUSED, f"code{number}")
    assert len(counted()) == 3


def test_songs_that_pages_and_programs_send_in_vain_are_counted(tmp_path: Path) -> None:
    noise = b"no music at all" * 100
    for address in ("/", "/api/separate"):
        Client().post(address, {"file": SimpleUploadedFile("a.mp3", noise)})
        Client().post(address, {"file": SimpleUploadedFile("a.exe", noise)})
    assert counted() == {("refused", "not_audio"): 2, ("refused", "wrong_extension"): 2}


def test_old_counts_are_deleted() -> None:
    fault_counts.count(fault_counts.Kind.REFUSED, "empty")
    fault_counts.write()
    retention.clean()
    assert FaultCount.objects.count() == 1
    FaultCount.objects.update(hour=timezone.now() - timedelta(days=2.1))
    retention.clean()
    assert FaultCount.objects.count() == 0
