"""Where jobs stand in the queue, and what it costs to ask each second."""

import random
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from separations.access.permissions import VISITOR
from separations.audio.store.stem_file import StemWriter
from separations.delivery import playback
from separations.engine.process.engine_protocol import Progress
from separations.models import Consumer, Job, Upload
from separations.queue import queue_position, queue_switch
from separations.uploads import song_files
from separations.worker import leases
from tests.support import sounds

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
State = Job.State
ANNA = "a" * 32
Queue = Callable[..., Job]
Queries = Callable[[int], Any]


@pytest.fixture
def upload(site_settings: Settings, tmp_path: Path) -> Upload:
    return song_files.accept_path(sounds.wav(tmp_path / "s.wav", sounds.music(1.0)), "song.wav")


@pytest.fixture(autouse=True)
def consumer(db: None) -> None:
    """Somebody works, as far as anybody can tell."""
    queue_switch.Presence().beat([], 0)


@pytest.fixture
def queue(upload: Upload) -> Queue:
    """Put a job into the queue; each has a result of its own unless `result_key` says otherwise."""
    options = {"model": "tiny", "engine": "torch", "precision": "float32"}

    def put(**more: Any) -> Job:
        values = {"result_key": uuid.uuid4().hex, "queued_at": timezone.now(), **more}
        return Job.objects.create(
            upload=upload, visitor=ANNA, model="tiny", options=options, **values
        )

    return put


@pytest.fixture
def anna(visitor: Client) -> Client:
    """The browser that the queued songs belong to."""
    session = visitor.session
    session[VISITOR] = ANNA
    session.save()
    visitor.cookies["sessionid"] = session.session_key or ""
    return visitor


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the queue are kept, as they are on a site."""
    monkeypatch.setattr(queue_position, "FRESH_SECONDS", 60.0)
    monkeypatch.setattr(queue_position, "_snapshots", queue_position._Snapshots())


def run(job: Job, **more: Any) -> None:
    held = {"lease": uuid.uuid4(), "heartbeat_at": timezone.now()}
    Job.objects.filter(pk=job.pk).update(state=State.RUNNING, **held, **more)
    job.refresh_from_db()


def poll(client: Client, job: Job, partial: str) -> str:
    """The address that the part polls."""
    page = client.get(f"/songs/{job.pk}/{partial}").content.decode()
    found = re.search(rf'hx-get="(/songs/{job.pk}/{partial}\?seen=\w+)"', page)
    assert found is not None
    return found[1]


def test_everybodys_place_is_what_each_would_find_alone(queue: Queue) -> None:
    chance = random.Random(7)
    now = timezone.now()
    for number in range(60):
        queue(
            result_key=f"key {chance.randrange(40)}",
            priority=chance.choice((-1, 0, 0, 0, 1)),
            turn=chance.randrange(4),
            queued_at=now + timedelta(seconds=number),
        )
    for key in ("key 3", "key 20"):
        job = Job.objects.filter(result_key=key).first()
        if job is not None:
            run(job)
    for job in Job.objects.filter(state=State.QUEUED):
        way = queue_position.standing_of(job)
        if job.run != job:
            assert way.run == job.run, "it is attached to one that runs"
            continue
        # Whoever sent the same song in before them, the stems are for both.
        ahead = [
            set(Job.objects.ahead_of(twin).values_list("result_key", flat=True))
            for twin in Job.objects.filter(result_key=job.result_key)
        ]
        sooner = min(map(len, ahead))
        assert way == queue_position.Standing(job, before=sooner, place=sooner - 1)
        assert queue_position._alone(job) == way


def test_who_sends_a_song_that_waits_already_has_its_place(queue: Queue) -> None:
    run(queue())
    first = queue()
    for _ in range(10):
        queue()
    twin = queue(result_key=first.result_key)
    for job in (first, twin):
        assert queue_position.standing_of(job) == queue_position.Standing(job, before=1, place=1)


@pytest.mark.usefixtures("kept")
def test_nobody_is_told_of_a_look_of_hours_ago(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes while another looks anew waits for that, if there was no look for long."""
    job = queue()
    queue_switch.pause("root")
    assert queue_position.standing_of(job).held_up == "paused"
    queue_switch.resume()
    keeper = queue_position._snapshots
    assert keeper._snapshot is not None
    asked: list[bool] = []

    class Held:
        """A lock that somebody holds, and leaves with a new look."""

        def acquire(self, *, blocking: bool) -> bool:
            asked.append(blocking)
            if blocking:
                keeper._snapshot = queue_position._read_queue()
            return blocking

        def release(self) -> None:
            pass

    monkeypatch.setattr(keeper, "_lock", Held())
    for age, held_up in ((queue_position.FRESH_SECONDS + 1, "paused"), (3600.0, "")):
        keeper._snapshot = replace(keeper._snapshot, taken=time.monotonic() - age)
        monkeypatch.setattr(queue_position, "STALE_SECONDS", 2 * queue_position.FRESH_SECONDS)
        assert queue_position.standing_of(job).held_up == held_up
    assert asked == [False, True]


def test_who_lacks_memory_is_told_so_when_it_is_their_turn(queue: Queue) -> None:
    run(queue())
    first, second = (queue(stage=Job.Stage.MEMORY) for _ in range(2))
    lacking = [queue_position.standing_of(job).lacks_memory for job in (first, second)]
    assert lacking == [True, False]


@pytest.mark.usefixtures("kept")
def test_the_queue_is_looked_at_once_for_all(
    queue: Queue, django_assert_num_queries: Queries
) -> None:
    jobs = [queue() for _ in range(3)]
    with django_assert_num_queries(3):  # the queue, the switch, the consumers
        assert [queue_position.standing_of(job).before for job in jobs] == [0, 1, 2]


@pytest.mark.usefixtures("kept")
def test_a_song_that_came_after_the_look_knows_its_place(queue: Queue) -> None:
    queue_position.standing_of(queue())
    assert queue_position.standing_of(queue()).before == 1


def test_a_look_is_soon_too_old(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_position, "FRESH_SECONDS", 0.05)
    first, second = queue(), queue()
    assert queue_position.standing_of(second).before == 1
    first.delete()
    keeper = queue_position._snapshots
    taken = keeper.latest().taken
    while keeper.latest().taken == taken:
        pass
    assert queue_position.standing_of(second).before == 0


@pytest.mark.parametrize(
    ("before", "status", "card"),
    [(0, 1, 2), (1, 1, 2), (2, 2, 2), (4, 3, 3), (8, 5, 5), (30, 5, 5)],
)
def test_who_waits_long_is_asked_for_less_often(
    queue: Queue, anna: Client, before: int, status: int, card: int
) -> None:
    for _ in range(before):
        queue()
    job = queue()
    for partial, seconds in (("status", status), ("card", card)):
        page = anna.get(f"/songs/{job.pk}/{partial}").content.decode()
        assert f'hx-trigger="every {seconds}s"' in page


def test_a_running_song_is_asked_for_each_second(queue: Queue, anna: Client) -> None:
    job, attached = queue(result_key="same"), queue(result_key="same")
    run(job)
    for each in (job, attached):
        assert 'hx-trigger="every 1s"' in anna.get(f"/songs/{each.pk}/status").content.decode()


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("partial", ["status", "card"])
def test_a_poll_that_finds_nothing_new_asks_for_session_and_job_alone(
    queue: Queue, anna: Client, partial: str, django_assert_num_queries: Queries
) -> None:
    running = queue()
    run(running)
    for job in (running, queue()):
        address = poll(anna, job, partial)
        queue_position.standing_of(
            queue()
        )  # the queue is looked at once a second, by whoever comes first
        with django_assert_num_queries(2):
            assert anna.get(address).status_code == 204


@pytest.mark.parametrize("partial", ["status", "card"])
def test_a_waiting_song_is_polled_without_a_look_at_its_files(
    queue: Queue, anna: Client, monkeypatch: pytest.MonkeyPatch, partial: str
) -> None:
    address = poll(anna, queue(), partial)
    monkeypatch.setattr(playback, "read_model", None)
    monkeypatch.setattr(playback, "readable_cells", None)
    assert anna.get(address).status_code == 204


def _more_is_heard(job: Job) -> None:
    job.staging_folder.mkdir()
    for name in ("mixture", "drums", "bass", "other", "vocals"):
        writer = StemWriter(job.staging_folder / f"{name}.flac")
        writer.write(sounds.music(4.0))
        writer.close()


CHANGES: dict[str, Callable[[Job], object]] = {
    "stage": lambda job: leases.heartbeat(job, Progress("decode", 0.5, 50.0)),
    "percent": lambda job: leases.heartbeat(job, Progress("separate", 0.51, 50.0)),
    "what can be heard": _more_is_heard,
    "handed back": lambda job: leases.hand_back(job),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_the_page_tells_of_a_run_is_new(queue: Queue, anna: Client, change: str) -> None:
    job = queue()
    run(job, stage="separate", progress=0.5, remaining=50.0, attempt=1)
    address = poll(anna, job, "status")
    assert anna.get(address).status_code == 204
    CHANGES[change](job)
    assert anna.get(address).status_code == 200


@pytest.mark.parametrize(("left", "later"), [(50.0, 40.0), (300.0, 200.0)])
def test_what_is_left_of_a_run_is_new(
    queue: Queue, anna: Client, left: float, later: float
) -> None:
    job = queue()
    run(job, stage="separate", progress=0.5, remaining=left)
    address = poll(anna, job, "status")
    assert leases.heartbeat(job, Progress("separate", 0.5, left - 0.1))
    assert anna.get(address).status_code == 204
    assert leases.heartbeat(job, Progress("separate", 0.5, later))
    assert anna.get(address).status_code == 200


def test_hours_that_are_left_are_told_as_hours(queue: Queue, anna: Client) -> None:
    job = queue()
    for seconds, told in ((59.0 * 60, "59 min"), (5040.0, "1 h 24 min"), (7195.0, "2 h 0 min")):
        run(job, stage="separate", progress=0.5, remaining=seconds)
        answer = anna.get(f"/songs/{job.pk}/status").content.decode().lower()
        assert f"about {told} left" in answer
    Upload.objects.filter(pk=job.upload_id).update(seconds=7200.4)
    assert "2:00:00 · 44.1 kHz · tiny" in anna.get(f"/songs/{job.pk}").content.decode()


def test_a_new_place_in_the_queue_is_new(queue: Queue, anna: Client) -> None:
    first, second = queue(), queue()
    for partial in ("status", "card"):
        address = poll(anna, second, partial)
        assert anna.get(address).status_code == 204
        run(first)
        assert anna.get(address).status_code == 204, "as many are before it"
        Job.objects.filter(pk=second.pk).update(stage=Job.Stage.MEMORY)
        assert anna.get(address).status_code == 200
        Job.objects.filter(pk=second.pk).update(stage=Job.Stage.WAIT)
        Job.objects.filter(pk=first.pk).update(state=State.QUEUED, lease=None)
        late = queue(priority=1)
        assert anna.get(address).status_code == 200
        late.delete()


def test_an_ended_song_says_so_whatever_was_seen(queue: Queue, anna: Client) -> None:
    job = queue()
    address = poll(anna, job, "status")
    Job.objects.filter(pk=job.pk).update(state=State.CANCELLED, finished_at=timezone.now())
    for seen in (address, f"/songs/{job.pk}/status?seen=cancelled_0_0"):
        assert anna.get(seen).status_code == 286


def test_polls_of_strangers_cost_what_polls_of_nothing_cost(
    queue: Queue, anna: Client, django_assert_num_queries: Queries
) -> None:
    address = poll(anna, queue(), "status")
    stranger = Client()
    session = stranger.session
    session[VISITOR] = "b" * 32
    session.save()
    stranger.cookies["sessionid"] = session.session_key or ""
    never = re.sub("/songs/[^/]+/", f"/songs/{uuid.uuid4()}/", address)
    for each in (address, never):
        with django_assert_num_queries(2):
            assert stranger.get(each).status_code == 404


# What holds everybody up


def test_the_page_says_why_nothing_is_started(queue: Queue, anna: Client) -> None:
    job = queue()
    address = poll(anna, job, "status")
    queue_switch.pause("root")
    told = anna.get(address)
    assert told.status_code == 200, "this is news"
    assert "has paused it" in told.content.decode()
    assert "has paused it" in anna.get(f"/songs/{job.pk}").content.decode()
    assert "has paused it" in anna.get("/").content.decode()
    assert "root" not in told.content.decode()
    queue_switch.resume()
    Consumer.objects.all().delete()
    assert "is not running" in anna.get(address).content.decode()
    card = anna.get(f"/songs/{job.pk}/card").content.decode()
    assert "is not running" in card
    queue_switch.Presence().beat([], 0)
    assert "is not running" not in anna.get("/").content.decode()
    assert anna.get(address).status_code == 204


def test_who_is_being_separated_is_not_told_of_a_pause(queue: Queue) -> None:
    job = queue()
    run(job, stage="separate", progress=0.5, attempt=1)
    queue_switch.pause("root")
    assert queue_position.standing_of(job).held_up == ""
    queue_switch.resume()
    Consumer.objects.update(faults={"engine": "torch is gone"})
    queue_position._snapshots = queue_position._Snapshots()
    assert queue_switch.standstill() == "broken"
    assert queue_position.standing_of(job).held_up == "", "its own consumer works on it"
    Consumer.objects.all().delete()
    queue_position._snapshots = queue_position._Snapshots()
    assert queue_position.standing_of(job).held_up == "no_consumer"
