"""What a separation may take: memory, time and silence."""

import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.utils import timezone
from pytest_django import Settings

from separations.checks import site_checks
from separations.engine import memory
from separations.engine.options import Options
from separations.engine.process.engine_process import EngineProcess
from separations.engine.process.engine_protocol import Done, Progress
from separations.engine.weights.store import read_model
from separations.errors.fault import Fault
from separations.jobs import lifecycle
from separations.logs.formatter import LineFormatter
from separations.models import Job, Owner
from separations.uploads import song_files
from separations.web.presenters.song import present_song
from separations.worker import leases, resources
from separations.worker.slots import Slot
from tests.support import sounds
from tests.support.engines import request_for
from tests.support.running_site import until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
ANNA = Owner(visitor="a" * 32)
Submit = Callable[..., Job]


@pytest.fixture
def submit(site_settings: Settings, tmp_path: Path) -> Submit:
    def make(seconds: float = 1.0, seed: int = 0, **options: Any) -> Job:
        source = sounds.wav(tmp_path / "s.wav", sounds.music(seconds, seed=seed))
        upload = song_files.accept_path(source, f"{seed}.wav")
        return lifecycle.submit(upload, Options(**{"model": "tiny", **options}), ANNA)

    return make


def run(engine: EngineProcess) -> None:
    job = leases.claim()
    assert job is not None
    Slot(engine, 1, threading.Event()).run(job)


# Memory


def test_memory_is_that_of_the_narrowest_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    machine = memory.total()

    def group(version: str, path: str, limit: str, used: int, cache: int) -> None:
        folder = tmp_path / "cgroup" / path
        folder.mkdir(parents=True)
        names = memory.VERSION_1 if version == "1" else memory.VERSION_2
        (folder / names[0]).write_text(limit + "\n")
        (folder / names[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")

    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/site/consumer\n")
    group("2", "site/consumer", "max", 0, 0)
    assert memory.total() == machine
    group("2", "site2", "1", 0, 0)
    (tmp_path / "cgroup" / "site" / "memory.max").write_text("3000000000")
    (tmp_path / "cgroup" / "site" / "memory.current").write_text("2500000000")
    (tmp_path / "cgroup" / "site" / "memory.stat").write_text("inactive_file 500000000")
    assert memory.total() == min(machine, 3_000_000_000)
    assert memory.available() == 1_000_000_000
    (tmp_path / "proc" / "self" / "cgroup").write_text("9:cpu:/\n4:memory:/docker/abc\n")
    group("1", "memory/docker", "2000000000", 100, 0)
    assert memory.total() == 2_000_000_000
    # In a container the path is the host's, and its own cgroup is mounted as the topmost.
    (tmp_path / "proc" / "self" / "cgroup").write_text("4:memory:/elsewhere\n")
    (tmp_path / "cgroup" / "memory" / "memory.limit_in_bytes").write_text("1500000000")
    (tmp_path / "cgroup" / "memory" / "memory.usage_in_bytes").write_text("0")
    (tmp_path / "cgroup" / "memory" / "memory.stat").write_text("")
    assert memory.total() == 1_500_000_000


@pytest.mark.parametrize(
    ("megabytes", "cpus", "asked", "slots"),
    [
        (4_000, 4, 0, 1),  # the usual small server: one song on all its cores
        (8_000, 16, 0, 4),
        (4_000, 16, 0, 2),  # memory for two only
        (4_000, 16, 1, 1),
        (8_000, 2, 3, 3),
        (1_000, 2, 4, 1),
    ],
)
def test_slots_are_what_memory_and_cpus_hold(
    site_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    megabytes: int,
    cpus: int,
    asked: int,
    slots: int,
) -> None:
    site_settings.MEMORY_MB, site_settings.SLOTS = megabytes, asked
    monkeypatch.setattr(resources, "cpu_count", lambda: cpus)
    assert resources.slots() == slots
    assert resources.threads() == max(1, cpus // slots)


def test_what_a_model_took_before_is_what_it_is_expected_to_take(submit: Submit) -> None:
    job = submit()
    estimate = memory.estimated_need(read_model(_store(), "tiny"), 0)
    assert resources.need(job) == estimate
    with EngineProcess() as engine:
        run(engine)
    job.refresh_from_db()
    assert job.memory_used is not None
    assert 100e6 < job.memory_used < 1200e6
    assert resources.need(submit(seed=1)) == int(resources.SPARE * job.memory_used)
    assert resources.need(submit(seed=2, model="tiny_6s")) >= estimate


def _store() -> Path:
    from django.conf import settings

    return Path(settings.MODEL_DIR)


def test_a_job_that_does_not_fit_waits_and_says_so(submit: Submit, settings: Settings) -> None:
    settings.MEMORY_MB = 3_400  # less the margin: room for one and a half
    submit()
    second, third = submit(seed=1), submit(seed=2)
    running = leases.claim()
    assert running is not None
    assert leases.claim() is None
    second.refresh_from_db()
    assert (second.state, second.stage) == (Job.State.QUEUED, Job.Stage.MEMORY)
    assert "enough memory" in present_song(second).waiting
    assert "before yours" in present_song(third).waiting
    leases.fail(running, Fault("engine_error", reason="test"))
    taken = leases.claim()
    assert taken is not None
    assert (taken.pk, taken.stage) == (second.pk, Job.Stage.START)


def test_jobs_on_another_machine_take_nothing_from_this_one(
    submit: Submit, settings: Settings
) -> None:
    settings.MEMORY_MB = 3_400
    elsewhere = submit()
    Job.objects.filter(pk=elsewhere.pk).update(
        state=Job.State.RUNNING,
        lease=uuid.uuid4(),
        heartbeat_at=timezone.now(),
        host="another",
        memory_reserved=10**10,
    )
    submit(seed=1)
    assert leases.claim() is not None


def test_a_job_alone_may_always_try(submit: Submit, settings: Settings) -> None:
    settings.MEMORY_MB = 500
    submit()
    job = leases.claim()
    assert job is not None
    assert job.memory_reserved == resources.capacity()


def test_an_engine_over_its_budget_is_stopped_and_then_tried_alone(
    submit: Submit, settings: Settings
) -> None:
    settings.MEMORY_MB = 100  # python and torch alone take more
    settings.MAX_ATTEMPTS = 2
    job = submit(seconds=20.0)
    with EngineProcess() as engine:
        run(engine)
        job.refresh_from_db()
        assert (job.state, job.attempt) == (Job.State.QUEUED, 1)
        assert job.memory_reserved == resources.capacity(), "its next attempt gets all there is"
        assert engine.pid is None
        run(engine)
    job.refresh_from_db()
    assert (job.state, job.error_code) == (Job.State.FAILED, "out_of_memory")
    assert "Not enough memory" in present_song(job).error


def test_an_engine_that_gets_no_memory_says_so(tmp_path: Path, small_store: Path) -> None:
    """With a real limit on its address space."""
    source = sounds.wav(tmp_path / "s.wav", sounds.music(60.0))
    with EngineProcess() as engine:
        running = engine.run(request_for(source, tmp_path / "t", small_store), 60.0)
        until(lambda: _stage(next(running)) == "separate")
        process = psutil.Process(engine.pid)
        less = process.memory_info().vms // 2  # so that no array it lets go can be had again
        process.rlimit(psutil.RLIMIT_AS, (less, less))
        with pytest.raises(Fault, match="out_of_memory"):
            list(running)


def _stage(message: Progress | Done | None) -> str:
    return message.stage if isinstance(message, Progress) else ""


@pytest.fixture
def cgroup() -> Iterator[tuple[Path, Path]]:
    """A memory cgroup to put processes in, and the file of its limit, where one can be made."""
    for home, limit in (
        (memory.CGROUPS / "memory", "memory.limit_in_bytes"),
        (memory.CGROUPS, "memory.max"),
    ):
        folder = home / f"stemsite-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / limit).exists():
                yield folder, folder / limit
                return
        finally:
            folder.rmdir()
    pytest.skip("no memory cgroup can be made here")


def test_an_engine_killed_by_the_kernel_is_told_from_others(
    cgroup: tuple[Path, Path], tmp_path: Path, small_store: Path
) -> None:
    folder, limit = cgroup
    source = sounds.wav(tmp_path / "s.wav", sounds.music(120.0))
    with EngineProcess() as engine:
        running = engine.run(request_for(source, tmp_path / "t", small_store), 60.0)
        next(running)
        limit.write_text(str(60_000_000))
        (folder / "cgroup.procs").write_text(str(engine.pid))
        with pytest.raises(Fault, match="out_of_memory"):
            list(running)


def test_the_operator_hears_of_too_little_memory(site_settings: Settings) -> None:
    site_settings.MEMORY_MB = 2_600
    assert site_checks.default_model_fits_in_memory(None) == []
    site_settings.MEMORY_MB = 1_800
    (warning,) = site_checks.default_model_fits_in_memory(None)
    assert warning.id == "stemsite.W002"
    assert "tiny is expected to take 1.2 GB" in warning.msg


def test_a_fault_is_logged_with_the_jobs_id_and_where_it_happened(
    submit: Submit, caplog: pytest.LogCaptureFixture
) -> None:
    job = submit()
    job.upload.path.write_bytes(b"no music " * 500)
    with EngineProcess() as engine:
        run(engine)
    job.refresh_from_db()
    assert (job.state, job.error_code) == (Job.State.FAILED, "not_audio")
    (record,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert str(job.pk) in record.getMessage()
    shown = LineFormatter().format(record)
    assert "    | Traceback" in shown
    assert "audio/sandbox/" in shown, "where it happened in the engine"


# Time


def test_slower_models_get_more_time(site_settings: Settings, small_store: Path) -> None:
    def minutes(model: str, seconds: float = 180.0, **options: Any) -> float:
        info = read_model(small_store, model)
        return resources.time_limit(Options(**options), info, seconds) / 60

    assert minutes("tiny") == 10
    assert minutes("tiny_ft") == 40
    assert minutes("tiny", shifts=3) == 30
    assert minutes("tiny", overlap=0.5) == pytest.approx(15)
    assert minutes("tiny", overlap=0.0) == 10
    assert minutes("tiny", seconds=600) == 10
    assert minutes("tiny", seconds=7200) == 120, "a concert of two hours"


def test_a_job_that_takes_too_long_is_ended(submit: Submit, settings: Settings) -> None:
    settings.JOB_TIMEOUT_SECONDS = 0
    job = submit()
    with EngineProcess() as engine:
        run(engine)
        assert engine.pid is None
    job.refresh_from_db()
    assert (job.state, job.error_code) == (Job.State.FAILED, "timed_out")


class Clock:
    """What the watch takes for the time."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(resources, "time", clock)
    return clock


@pytest.fixture
def watch(submit: Submit, clock: Clock) -> resources.Watch:
    submit()
    job = leases.claim()
    assert job is not None
    return resources.Watch(job)


def test_a_slow_machine_gets_the_time_its_first_chunk_shows_it_needs(
    watch: resources.Watch, clock: Clock
) -> None:
    clock.now = 100.0
    watch.check(Progress("separate", 0.05, 1900.0), 0)
    while clock.now < resources.PATIENCE * 2000:
        watch.check(Progress("separate", 0.1, 10_000.0), 0)
        clock.now += 100
    clock.now = resources.PATIENCE * 2000 + 1
    with pytest.raises(Fault, match="timed_out"):
        watch.check(Progress("separate", 0.9, 10.0), 0)


def test_silence_ends_a_run_but_not_at_once(
    watch: resources.Watch, clock: Clock, settings: Settings
) -> None:
    clock.now = settings.STALL_SECONDS - 1
    watch.check(None, 0)
    watch.check(Progress("decode", 0.01, None), 0)
    clock.now *= 2
    watch.check(None, 0)
    clock.now += 10
    with pytest.raises(Fault, match="stalled"):
        watch.check(None, 0)


def test_a_stopped_engine_is_noticed_and_replaced(submit: Submit, settings: Settings) -> None:
    """With a real process that is frozen."""
    settings.STALL_SECONDS = 1
    job = submit(seconds=60.0)
    with EngineProcess() as engine:
        timer = threading.Thread(target=_freeze, args=(engine, signal.SIGSTOP))
        timer.start()
        run(engine)
        timer.join()
    job.refresh_from_db()
    assert (job.state, job.attempt) == (Job.State.QUEUED, 1)


def _freeze(engine: EngineProcess, signal_number: int) -> None:
    os.kill(until(lambda: engine.pid), signal_number)
