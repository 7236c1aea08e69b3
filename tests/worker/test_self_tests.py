"""A consumer finds out by itself that it cannot separate, and its jobs do not pay for that."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django import Settings

from separations.audio.sandbox.decoder_check import DecoderCheck
from separations.audio.sandbox.decoder_process import decoder_check
from separations.engine.process.engine_process import EngineProcess
from separations.errors.fault import Fault
from separations.models import FaultCount, Job, Transition
from separations.monitoring import fault_counts
from separations.web.presenters.song import present_song
from separations.worker import leases, self_tests
from separations.worker.crew import Crew
from separations.worker.self_tests import SelfTests
from separations.worker.slots import Slot
from tests.support.jobs import Submit, claimed, rested

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "site_settings")]


CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"


def break_package(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, code: str = "") -> None:
    """Let processes to come find a package that cannot be imported."""
    (folder / name).mkdir(parents=True)
    code = code or f"raise ImportError('{name} is broken')"
    (folder / name / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def self_tests_of(busy: Callable[[], bool]) -> tuple[SelfTests, list[str]]:
    mended: list[str] = []
    made = SelfTests(
        *(busy, threading.Event(), lambda: mended.append("mended")),
        *(lambda _need: None, threading.Lock()),
    )
    return made, mended


def test_a_job_that_meets_an_engine_that_does_not_begin_goes_back_and_is_not_lost(
    submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit()
    tests, mended = self_tests_of(lambda: True)  # another slot's song runs
    with monkeypatch.context() as patch, EngineProcess() as engine:
        break_package(tmp_path / "packages", "av", patch)
        slot = Slot(engine, 1, threading.Event())
        slot.on_fault = tests.met
        slot.run(claimed())
        job.refresh_from_db()
        assert (job.state, job.attempt) == (Job.State.QUEUED, 0)
        assert leases.claim() is None, "it rests"
        assert not tests.may_claim()
        assert "av is broken" in tests.faults()["engine"]
    met = job.timeline.get(cause=Transition.Cause.FAULT)
    assert met.detail["error"] == "engine_unavailable"
    assert "ended with status 1" in met.trace
    assert "av is broken" in met.trace
    fault_counts.write()
    assert FaultCount.objects.get(kind="engine").code == "status 1"
    tests.test_what_is_due()
    assert not mended, "the next test comes after a while"
    monkeypatch.setattr(tests, "_next_engine_test", 0.0)
    tests.test_what_is_due()
    assert (tests.faults(), mended) == ({}, ["mended"])


def test_an_engine_without_torch_is_found_out_before_a_song_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """torch is loaded for the first song only, so that the process itself begins."""
    break_package(tmp_path / "packages", "torch", monkeypatch)
    tests, _mended = self_tests_of(lambda: False)
    tests.test_engine()
    tests.test_engine()
    assert "torch is broken" in tests.faults()["engine"]
    assert len([each for each in caplog.records if "No engine works" in each.message]) == 1


def test_no_engine_is_started_for_a_test_while_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    tests, _mended = self_tests_of(lambda: True)
    monkeypatch.setattr(tests, "_next_engine_test", 0.0)
    monkeypatch.setattr(self_tests, "EngineProcess", None)
    tests.test_what_is_due()
    tests.engine_answered()
    monkeypatch.setattr(tests, "_is_busy", lambda: False)
    tests.test_what_is_due()  # the song was a test
    tests.met(Fault("engine_died"))
    with pytest.raises(TypeError):
        tests.test_what_is_due()  # one starts
    tests.test_what_is_due()  # the next one comes after a while


def test_a_torch_that_crashes_as_it_loads_costs_no_attempt(
    submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU without its instructions, or a library that was cut off."""
    job = submit()
    tests, _mended = self_tests_of(lambda: False)
    break_package(tmp_path / "packages", "torch", monkeypatch, CRASH)
    with EngineProcess() as engine:
        slot = Slot(engine, 1, threading.Event())
        slot.on_fault = tests.met
        slot.run(claimed())
    job.refresh_from_db()
    assert (job.state, job.attempt) == (Job.State.QUEUED, 0)
    assert "signal SIGILL" in tests.faults()["engine"]


def test_a_test_waits_for_the_machine_and_tells_a_lack_of_memory_from_a_broken_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tests, _mended = self_tests_of(lambda: False)
    room: list[int] = []
    faults = [Fault("out_of_memory"), Fault("engine_unavailable")]

    def check(_engine: EngineProcess, _give_up: object) -> bool:
        raise faults.pop(0)

    monkeypatch.setattr(tests, "_make_room", room.append)
    monkeypatch.setattr(EngineProcess, "check", check)
    with tests._machine:
        tests.test_engine()
    assert not room, "an engine is loaded, or the machine measured"
    tests.test_engine()
    assert tests.may_claim()
    assert room[0] > 1_000_000_000, "idle engines leave their memory"
    tests.test_engine()
    assert not tests.may_claim()


def test_a_lack_of_threads_is_an_engine_that_does_not_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    tests, _mended = self_tests_of(lambda: False)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        tests.test_engine()
        assert DecoderCheck(lambda: start(threading.current_thread())).check()
    assert "can't start new thread" in tests.faults()["engine"]


def test_a_consumer_that_cannot_read_songs_claims_none(submit: Submit) -> None:
    job = submit()
    crew = Crew()
    (slot, *_) = crew._slots
    decoder_check.record("libav is gone")
    assert not crew._run_next(slot)
    job.refresh_from_db()
    assert (job.state, job.attempt) == (Job.State.QUEUED, 0)


def test_pauses_grow_while_a_machine_is_broken_and_no_attempt_counts(submit: Submit) -> None:
    job, pauses = submit(), []
    for hours in (0, 0, 0.25, 12, 23.9):
        passed = timezone.now() - timedelta(hours=hours)
        Job.objects.filter(pk=job.pk).update(queued_at=timezone.now() - timedelta(days=2))
        job.timeline.filter(cause=Transition.Cause.FAULT).update(at=passed)
        leases.end_with(claimed(), Fault("decoder_unavailable"))
        job.refresh_from_db()
        assert (job.state, job.attempt) == (Job.State.QUEUED, 0)
        assert job.not_before is not None
        pauses.append((job.not_before - timezone.now()).total_seconds())
        rested(job)
    assert pauses == pytest.approx([30, 30, 900, 3600, 3600], abs=5)
    job.timeline.update(at=timezone.now() - timedelta(days=1.1))
    leases.end_with(claimed(), Fault("decoder_unavailable"))
    job.refresh_from_db()
    assert (job.state, job.error_code) == (Job.State.FAILED, "decoder_unavailable")


@pytest.mark.parametrize("code", ["decoder_died", "engine_died"])
def test_a_song_whose_process_died_is_tried_again_after_a_pause(
    submit: Submit, settings: Settings, code: str
) -> None:
    settings.MAX_ATTEMPTS = 3
    job, pauses = submit(), []
    for attempt in (1, 2):
        leases.end_with(claimed(), Fault(code, status=-9))
        job.refresh_from_db()
        assert (job.state, job.attempt) == (Job.State.QUEUED, attempt)
        assert job.not_before is not None
        pauses.append((job.not_before - timezone.now()).total_seconds())
        told = present_song(job)
        assert "The next one follows in about 1 minute." in told.waiting
        rested(job)
        job.refresh_from_db()
        assert present_song(job).waiting == "Your song is next."
        assert present_song(job).version != told.version, "pages are told"
    assert pauses == pytest.approx([5, 20], abs=3)
    leases.end_with(claimed(), Fault(code, status=-9))
    job.refresh_from_db()
    assert (job.state, job.error_code) == (Job.State.FAILED, code)
