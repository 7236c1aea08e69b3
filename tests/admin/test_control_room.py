"""The control room: its figures, its warnings, its switch."""

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone, translation
from pytest_django import Settings

from separations.admin.control_room import charts, dashboard, last_day
from separations.audio.sandbox.decoder_process import decoder_check
from separations.models import Consumer, FaultCount, Job, Owner, Upload
from separations.queue import queue_switch
from separations.web.number_format import lasting, longest, share, size
from separations.worker import retention, tasks
from tests.support.jobs import BERT, Submit, claimed

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "site_settings")]
ROOM = "/admin/control/"
NOW = timezone.now()


def ended(upload: Upload, minutes_ago: float, took: float = 100.0, **values: Any) -> Job:
    """A job of 200 s of audio that ended some time ago."""
    Upload.objects.update(seconds=200.0)
    finished = NOW - timedelta(minutes=minutes_ago)
    given: dict[str, Any] = {"state": "done", "frames": 1, "progress": 1.0, **values}
    if given["state"] != "done":
        given |= {"frames": None, "progress": 0.0}
    return Job.objects.create(
        upload=upload,
        visitor=BERT.visitor,
        model="tiny",
        options={},
        result_key=uuid.uuid4().hex * 2,
        host="box",
        engine="torch float32",
        queued_at=finished - timedelta(seconds=took + 10),
        started_at=finished - timedelta(seconds=took),
        finished_at=finished,
        **given,
    )


def consumer(*working_on: Job | None, silent: float = 0.0) -> Consumer:
    """A consumer with a slot for each job, or an idle one."""
    presence = queue_switch.Presence()
    slots = [queue_switch.SlotState(str(job.pk) if job else "", 2, 5) for job in working_on]
    presence.beat(slots, 10**9)
    then = timezone.now() - timedelta(seconds=silent)
    Consumer.objects.update(host="box", heartbeat_at=then)
    return Consumer.objects.get()


def test_numbers_are_written_for_people() -> None:
    assert [lasting(each) for each in (0, 75.2, 3599.6, 4000)] == [
        "0:00",
        "1:15",
        "1:00:00",
        "1:06:40",
    ]
    sizes = [size(each) for each in (0, 34_000_000, 1_240_000_000, 2e12)]
    assert sizes == ["0 kB", "34 MB", "1.2 GB", "2.0 TB"]
    assert (share(1, 3), share(0, 0)) == (33, None)
    limits = [longest(each) for each in (6, 60, 90, 600, 3600, 5400, 7300)]
    assert limits == [
        "0.1 minute",
        "1 minute",
        "1.5 minutes",
        "10 minutes",
        "1 hour",
        "1 hour 30 minutes",
        "2 hours",
    ]
    with translation.override("ko"):
        assert longest(5400) == "1시간 30분"


def test_the_last_day_is_added_up_by_hours(upload: Upload) -> None:
    ended(upload, 0, took=50)
    ended(upload, 0, took=150)
    ended(upload, 0, cached=True, took=0)
    ended(upload, 180, state="failed", error_code="timed_out", error_params={"minutes": 7})
    ended(upload, 190, state="failed", error_code="engine_died")
    ended(upload, 200, state="failed", error_code="timed_out", error_params={"minutes": 3})
    ended(upload, 100, state="cancelled")
    ended(upload, 25 * 60)  # too long ago
    day = last_day.day(NOW)
    assert (day.done, day.cached, day.failed, day.cancelled) == (3, 1, 3, 1)
    assert day.speed == pytest.approx(0.5)
    assert day.minutes == pytest.approx(400 / 60)
    assert len(day.hours) == last_day.HOURS
    assert day.hours[-1].done == 3
    assert day.hours[-1].minutes == pytest.approx(400 / 60)
    assert sum(hour.failed for hour in day.hours[:-1]) == 3
    assert day.hours[-1].start <= NOW < day.hours[-1].start + timedelta(hours=1)
    assert [(each.code, each.count) for each in day.failures] == [
        ("timed_out", 2),
        ("engine_died", 1),
    ]
    assert "after 7 minutes" in day.failures[0].sentence, "as it was the last time"


def test_refused_songs_and_deaths_are_told_by_cause(admin_client: Client) -> None:
    counts = {("refused", "too_long"): 3, ("refused", "empty"): 5, ("decoder", "signal SIGSEGV"): 2}
    for (kind, code), number in counts.items():
        hours = (timedelta(0), timedelta(hours=3), timedelta(days=2))
        for ago, part in zip(hours, (1, number - 1, 7), strict=True):
            FaultCount.objects.create(hour=NOW - ago, kind=kind, code=code, count=part)
    day = last_day.day(timezone.now())
    assert [(each.code, each.count) for each in day.refused] == [("empty", 5), ("too_long", 3)]
    assert [(each.ending, each.count) for each in day.deaths] == [("signal SIGSEGV", 2)]
    page = admin_client.get(ROOM).text
    assert "This song is longer than … minutes." in page
    assert "SIGSEGV" in page


def test_what_does_not_work_is_told_with_its_cause(admin_client: Client) -> None:
    presence = queue_switch.Presence()
    presence.beat([queue_switch.SlotState("", 2, 5)], 10**9, {"engine": "no torch at all"})
    page = admin_client.get(ROOM).text
    assert "No consumer can separate songs" in page
    assert "no torch at all" in page
    assert "The queue is open" not in page
    presence.beat([queue_switch.SlotState("", 2, 5)], 10**9)
    decoder_check.record("libav is gone")
    page = admin_client.get(f"{ROOM}switch").text
    assert "No consumer can separate songs" not in page
    assert "libav is gone" in page


def test_the_expected_wait_follows_from_queue_speed_and_slots(
    upload: Upload, submit: Submit
) -> None:
    assert dashboard.live().queue == dashboard.Queue(0, None, None), "no consumer, no promise"
    ended(upload, 5, took=100)  # half as long as the song
    idle = consumer(None, None)
    assert dashboard.live().queue.expected == 0.0, "there is a free slot"
    jobs = [submit(shifts=number) for number in range(3)]
    running = claimed()
    Job.objects.filter(pk=running.pk).update(remaining=30.0)
    idle.delete()
    consumer(running, None)
    Job.objects.filter(pk=jobs[1].pk).update(queued_at=NOW - timedelta(seconds=70))
    live = dashboard.live(NOW)
    assert live.queue.length == 2
    assert live.queue.longest_wait == pytest.approx(70)
    # A newcomer comes before the second of the songs that the same owner has waiting.
    assert live.queue.expected == pytest.approx((200 * 0.5 + 30) / 2)
    submit(BERT, shifts=3)
    submit(Owner("c" * 32), shifts=1)  # what waits already: it is made once
    assert dashboard.live(NOW).queue.expected == pytest.approx((2 * 200 * 0.5 + 30) / 2)
    queue_switch.pause("anna")
    assert dashboard.live().queue.expected is None, "nobody knows for how long"


def test_it_is_told_which_slot_works_on_what(upload: Upload, submit: Submit) -> None:
    ended(upload, 5)
    submit()
    running = claimed()
    consumer(None, running)
    live = dashboard.live()
    assert [(each.job.pk, each.slot) for each in live.running] == [(running.pk, 2)]
    slots = live.crews[0].slots
    assert [slot.running is not None for slot in slots] == [False, True]
    assert {slot.engine for slot in slots} == {"torch float32"}
    assert live.machines[0][1].memory_for_jobs == 10**9


def test_the_page_shows_all_of_it(upload: Upload, submit: Submit, admin_client: Client) -> None:
    ended(upload, 5)
    ended(upload, 5, state="failed", error_code="timed_out", error_params={"minutes": 7})
    submit()
    consumer(claimed())
    page = admin_client.get(ROOM).text
    for told in ("after 7 minutes", "torch float32", "Running jobs", "memory free", "0.50"):
        assert told in page, told
    assert 'role="alert"' not in page
    assert page.count('role="img"') == 2
    for chart in re.findall(r"<svg(.*?)</svg>", page, re.DOTALL):
        if 'role="img"' in chart:
            assert "<title" in chart
            assert "<desc" in chart
            assert "style=" not in chart
    assert page.count('<th scope="row">') >= last_day.HOURS, "the same figures in a table"
    assert f'href="{ROOM}"' in admin_client.get("/admin/").text


def test_without_a_consumer_the_page_is_loud(settings: Settings, admin_client: Client) -> None:
    page = admin_client.get(ROOM).text
    assert 'role="alert"' in page
    assert "run_consumer" in page
    silent = consumer(None, silent=settings.LEASE_SECONDS + 1)
    page = admin_client.get(ROOM).text
    assert 'role="alert"' in page
    assert "The last one was heard of at" in page
    silent.delete()
    consumer(None)
    assert 'role="alert"' not in admin_client.get(ROOM).text


def test_pause_and_resume_say_who_and_when(admin_client: Client, no_queue: list[None]) -> None:
    page = admin_client.post(f"{ROOM}pause", follow=True).text
    assert queue_switch.is_paused()
    assert "By admin, since" in page
    assert "Go on" in page
    assert "Pause the queue" not in page
    queue_switch.pause("anna")
    assert "paused already" in admin_client.post(f"{ROOM}pause", follow=True).text
    assert "By anna, since" in admin_client.get(ROOM).text, "who was first stays"
    page = admin_client.post(f"{ROOM}resume", follow=True).text
    assert not queue_switch.is_paused()
    assert "Pause the queue" in page


def test_parts_refresh_themselves_and_say_nothing_new_with_nothing(admin_client: Client) -> None:
    consumer(None)
    part = admin_client.get(f"{ROOM}switch").text
    known = re.search(r'hx-get="([^"]+)"', part)
    assert known is not None
    assert admin_client.get(known[1]).status_code == 204
    queue_switch.pause("anna")
    changed = admin_client.get(known[1])
    assert "By anna" in changed.text
    assert "<html" not in changed.text
    for part in ("live", "day"):
        assert "<html" not in admin_client.get(f"{ROOM}{part}").text


def test_a_part_does_not_become_a_log_in_page(client: Client) -> None:
    answer = client.get(f"{ROOM}live", headers={"HX-Request": "true"})
    assert answer.headers["HX-Refresh"] == "true"
    assert b"password" not in answer.content


def test_what_would_be_deleted_is_told_and_stays(settings: Settings, admin_client: Client) -> None:
    left = settings.STAGING_DIR / ("0" * 32)
    left.mkdir()
    (left / "x").write_bytes(b"x" * 2_000_000)
    page = admin_client.get(f"{ROOM}waste").text
    assert "left by runs that were broken off" in page
    assert "2.0 MB" in page
    assert "<html" in page
    part = admin_client.get(f"{ROOM}waste", headers={"HX-Request": "true"}).text
    assert "2.0 MB" in part
    assert "<html" not in part
    assert left.exists()


def test_a_clean_up_at_work_is_told(admin_client: Client, monkeypatch: Any) -> None:
    def busy(**_: object) -> None:
        raise retention.Busy

    monkeypatch.setattr(retention, "clean", busy)
    assert "at work just now" in admin_client.get(f"{ROOM}waste").text


def test_every_kind_of_waste_has_words() -> None:
    from separations.admin.control_room.views import KINDS

    source = re.findall(r'[Ww]aste\(\s*"([a-z ]+)"', open(retention.__file__).read())  # noqa: PTH123, SIM115
    assert set(source) == set(KINDS)


def test_clean_asks_a_consumer(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    monkeypatch.setattr(tasks, "clean_soon", lambda: asked.append(None))
    assert "as soon as one runs" in admin_client.post(f"{ROOM}clean", follow=True).text
    consumer(None)
    assert "is cleaning up now" in admin_client.post(f"{ROOM}clean", follow=True).text
    assert len(asked) == 2


def test_a_chart_is_as_tall_as_its_highest_column() -> None:
    chart = charts.stacked(("done", "failed"), [(3, 1), (2, 0), (0, 0)])
    assert chart.highest == 4
    shapes = [(bar.kind, bar.x, bar.y, bar.height) for bar in chart.bars]
    assert shapes == [
        ("done", "16.0", "30.0", "90.0"),
        ("failed", "16.0", "0.0", "30.0"),
        ("done", "176.0", "60.0", "60.0"),
    ]
    assert charts.stacked(("done",), []).bars == ()


def test_a_handful_of_queries_whatever_there_is(
    upload: Upload, submit: Submit, admin_client: Client, django_assert_num_queries: Any
) -> None:
    ended(upload, 1)
    idle = consumer(None)
    few = 14
    with django_assert_num_queries(few):
        admin_client.get(ROOM)
    for number in range(12):
        ended(upload, number, state="failed", error_code=f"code{number}")
        ended(upload, number)
    submit()
    idle.delete()
    consumer(claimed(), None)
    with django_assert_num_queries(few):
        admin_client.get(ROOM)
