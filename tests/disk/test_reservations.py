"""Room on the disk that running separations need: all who write beside them leave it."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from separations.delivery import encoding_cache
from separations.disk import disk_space, reservations
from separations.engine.options import Options
from separations.engine.process.engine_process import EngineProcess
from separations.errors.fault import Fault
from separations.jobs import lifecycle
from separations.models import Job, Owner
from separations.uploads import song_files
from separations.worker import crew as crews
from separations.worker import leases, resources
from separations.worker.slots import Slot
from tests.support import sounds
from tests.support.disks import resize

pytestmark = pytest.mark.usefixtures("no_queue")
MEGABYTE = 1_000_000


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at what is promised is a new one."""
    monkeypatch.setattr(reservations, "LOOK_SECONDS", -1.0)


@pytest.fixture
def disk(site_on_it: Path, site_settings: Settings) -> Path:
    """A disk of thirty megabytes, one of which stays free."""
    resize(site_on_it, "30m")
    site_settings.MIN_FREE_DISK_MB = 1
    return site_on_it


@pytest.fixture
def consumer(site_settings: Settings) -> reservations.Reservations:
    return reservations.Reservations()


def test_what_a_run_needs_yet_is_left_to_it(
    disk: Path, consumer: reservations.Reservations
) -> None:
    """Without the database: these tests have none."""
    left = disk_space.left()
    with consumer.hold(lambda: 10 * MEGABYTE):
        disk_space.check(disk, left - 10 * MEGABYTE)
        with pytest.raises(OSError, match="No space"):
            disk_space.check(disk, left - 10 * MEGABYTE + 1)
        assert disk_space.lacking() == 1, "so much the clean-up is to free"
        (disk / "other").write_bytes(bytes(left - 12 * MEGABYTE))
        with pytest.raises(Fault, match="disk_full"):
            disk_space.require_next(disk)
    disk_space.require_next(disk)


def test_what_runs_of_several_consumers_need_adds_up(
    disk: Path, consumer: reservations.Reservations
) -> None:
    other = disk.parent / reservations.FOLDER / "other-host.7"
    with consumer.hold(lambda: MEGABYTE), consumer.hold(lambda: 2 * MEGABYTE):
        other.write_text(str(3 * MEGABYTE))
        assert reservations.reserved(disk) == 6 * MEGABYTE
        assert reservations.reserved(disk.parent) == 0, "another disk"
    assert reservations.reserved(disk) == 3 * MEGABYTE
    os.utime(other, (time.time() - 61, time.time() - 61))
    assert reservations.reserved(disk) == 0, "its consumer is dead"
    os.utime(other, (1, 1))
    reservations.reserved(disk)
    assert list(other.parent.iterdir()) == []


def test_a_consumer_tells_what_becomes_of_it(
    disk: Path, site_settings: Settings, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "LOOK_SECONDS", 0.01)
    crew = crews.Crew()
    assert all(slot.reservations is crew._reservations for slot in crew._slots)
    needs = [5 * MEGABYTE]
    thread = threading.Thread(target=crew._publish_reservations)
    thread.start()
    try:
        with crew._reservations.hold(lambda: needs[0]):
            assert reservations.reserved(disk) == 5 * MEGABYTE
            needs[0] = 2 * MEGABYTE
            limit = time.monotonic() + 10
            while reservations.reserved(disk) != 2 * MEGABYTE:
                assert time.monotonic() < limit
                time.sleep(0.01)
    finally:
        crew.stop()
        thread.join(10)


def test_a_disk_that_takes_no_file_stops_no_run(
    disk: Path, consumer: reservations.Reservations, site_settings: Settings
) -> None:
    (Path(site_settings.DATA_DIR) / reservations.FOLDER).write_text("no folder")
    with consumer.hold(lambda: 1):
        consumer.publish()


def test_a_piece_looks_at_no_folder(
    disk: Path, consumer: reservations.Reservations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "LOOK_SECONDS", 60.0)
    with consumer.hold(lambda: MEGABYTE):
        assert reservations.reserved(disk) == MEGABYTE
        monkeypatch.setattr(reservations, "_read", lambda _folder: pytest.fail("a look"))
        for _ in range(20):
            disk_space.require_next(disk)


def test_an_upload_leaves_it(
    disk: Path, visitor: Client, consumer: reservations.Reservations, tmp_path: Path
) -> None:
    song = sounds.wav(tmp_path / "s.wav", sounds.music(1.0)).read_bytes()

    def send() -> int:
        sent = {"file": SimpleUploadedFile("s.wav", song), "model": "tiny"}
        return visitor.post("/", sent).status_code

    with consumer.hold(lambda: disk_space.left()):
        assert send() == 507
    assert send() == 302


def test_encodings_leave_it_and_go_for_it(
    disk: Path, consumer: reservations.Reservations, site_settings: Settings
) -> None:
    site_settings.MAX_ENCODINGS_GB = 0
    old = site_settings.RENDITION_DIR / "job" / "old.flac"
    new = site_settings.RENDITION_DIR / "other job"
    for folder in (old.parent, new):
        folder.mkdir()
    old.write_bytes(bytes(2 * MEGABYTE))
    margin = disk_space.room(disk).margin
    with consumer.hold(lambda: disk_space.left() - margin):
        encoding_cache.make_room(new, new, MEGABYTE)
        assert not old.exists()
        with pytest.raises(OSError, match="No space"):
            encoding_cache.make_room(new, new, 3 * MEGABYTE)


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    with EngineProcess() as process:
        yield process


@pytest.mark.django_db
def test_a_run_is_not_refused_what_is_promised_to_it(
    disk: Path, tmp_path: Path, engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sounds.wav(tmp_path / "s.wav", sounds.music(3.0))
    job = lifecycle.submit(
        song_files.accept_path(source, source.name), Options(model="tiny"), Owner(visitor="a" * 32)
    )
    running = leases.claim()
    assert running is not None
    need = resources.disk_need(job)
    # As full as it may be: to the byte what the run may take at most, and the margin.
    filler = disk_space.left() - need - disk_space.room(disk).margin
    (disk / "other").write_bytes(bytes(filler // 4096 * 4096))
    seen: list[int] = []

    def look(_slot: Slot, job: Job, staging: str) -> object:
        seen.append(reservations.reserved(disk))
        with pytest.raises(Fault, match="disk_full"):
            disk_space.require_room(disk, 5 * MEGABYTE)
        done = separate(_slot, job, staging)
        _slot.reservations.publish()
        seen.append(reservations.reserved(disk))
        return done

    separate = Slot._separate
    monkeypatch.setattr(Slot, "_separate", look)
    Slot(engine, 1, threading.Event()).run(running)
    job.refresh_from_db()
    assert job.state == Job.State.DONE
    assert seen[0] == need
    assert 0 < seen[1] < need, "without what is written already"
    assert reservations.reserved(disk) == 0
