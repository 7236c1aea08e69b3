"""The life of a job: who may change what, and what happens when two try."""

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, transaction
from django.utils import timezone
from pytest_django import Settings

from separations.engine.options import MIXTURE, Options
from separations.engine.process import engine_protocol
from separations.engine.process.engine_protocol import Progress
from separations.errors.fault import Fault
from separations.fair_use import address_ranges
from separations.jobs import fair_turns, lifecycle, result_keys, results
from separations.models import Job, Owner, Upload
from separations.uploads import song_files
from separations.worker import leases, resources
from tests.support import sounds
from tests.support.jobs import (
    ANNA,
    BERT,
    NAMES,
    Submit,
    claimed,
    fall_silent,
    finished,
    made,
    rested,
)

State = Job.State
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]


def test_a_job_goes_from_queue_to_stems(submit: Submit) -> None:
    job = submit()
    assert (job.state, job.progress, job.attempt) == (State.QUEUED, 0.0, 0)
    running = claimed()
    assert (running.state, running.attempt) == (State.RUNNING, 1)
    assert leases.heartbeat(running, Progress("separate", 0.5, 12.0))
    job.refresh_from_db()
    assert (job.stage, job.percent, job.remaining) == ("separate", 50, 12.0)
    assert leases.finish(running, *made(running))
    job.refresh_from_db()
    assert (job.state, job.percent, job.lease) == (State.DONE, 100, None)
    assert [stem.name for stem in job.stems.all()] == list(NAMES)
    assert all(stem.path.is_file() for stem in job.stems.all())


def test_jobs_are_taken_in_order_and_by_priority(submit: Submit) -> None:
    first, second, urgent = submit(), submit(shifts=1), submit(shifts=2)
    Job.objects.filter(pk=urgent.pk).update(priority=5)
    urgent.refresh_from_db()
    assert Job.objects.ahead_of(second).count() == 2
    assert Job.objects.ahead_of(urgent).count() == 0
    assert [claimed().pk for _ in range(3)] == [urgent.pk, first.pk, second.pk]
    assert leases.claim() is None


def test_a_job_taken_by_another_runner_meanwhile_is_not_taken_twice(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit()
    looked_at = type(Job.objects.waiting()).first

    def first_then_lost(queue: object) -> Job | None:
        found: Job | None = looked_at(queue)  # type: ignore[arg-type]
        monkeypatch.undo()
        # A runner on another machine is quicker.
        Job.objects.filter(pk=job.pk).update(
            state=State.RUNNING, lease=uuid.uuid4(), heartbeat_at=timezone.now(), attempt=1
        )
        return found

    monkeypatch.setattr(type(Job.objects.waiting()), "first", first_then_lost)
    assert leases.claim() is None
    job.refresh_from_db()
    assert job.attempt == 1


@pytest.mark.parametrize("act", ["heartbeat", "finish", "fail", "hand_back"])
def test_who_lost_the_lease_changes_nothing(submit: Submit, act: str) -> None:
    submit()
    late = claimed()
    fall_silent(late)
    leases.recover()
    current = claimed()
    assert current.pk == late.pk
    done, staging = made(late)
    acts = {
        "heartbeat": lambda: leases.heartbeat(late, Progress("separate", 0.9, None)),
        "finish": lambda: leases.finish(late, done, staging),
        "fail": lambda: leases.fail(late, Fault("engine_error", reason="late")),
        "hand_back": lambda: leases.hand_back(late, Fault("stalled", seconds=1)),
    }
    assert acts[act]() is False
    after = Job.objects.get(pk=current.pk)
    assert (after.state, after.lease, after.progress) == (State.RUNNING, current.lease, 0.0)
    assert not after.stems.exists()
    assert not after.result_folder.exists(), "nothing is published either"


def test_a_silent_runner_loses_its_job_to_the_queue(submit: Submit, settings: Settings) -> None:
    job = submit()
    running = claimed()
    fall_silent(running, settings.LEASE_SECONDS - 1)
    assert leases.recover() == 0
    fall_silent(running, settings.LEASE_SECONDS + 1)
    assert leases.recover() == 1
    job.refresh_from_db()
    assert (job.state, job.attempt, job.lease) == (State.QUEUED, 1, None)


def test_after_the_last_attempt_it_fails_with_the_reason(
    submit: Submit, settings: Settings
) -> None:
    job = submit()
    for _ in range(settings.MAX_ATTEMPTS):
        fall_silent(claimed())
        assert leases.recover() == 1
    job.refresh_from_db()
    assert (job.state, job.error_code) == (State.FAILED, "lost")
    assert job.error_params == {"attempts": settings.MAX_ATTEMPTS}


def test_a_graceful_stop_is_no_attempt(submit: Submit) -> None:
    job = submit()
    assert leases.hand_back(claimed())
    job.refresh_from_db()
    assert (job.state, job.attempt) == (State.QUEUED, 0)


def test_a_dead_engine_is_tried_again_then_given_up(submit: Submit, settings: Settings) -> None:
    job = submit()
    for attempt in range(1, settings.MAX_ATTEMPTS + 1):
        leases.try_again_or_fail(claimed(), Fault("engine_died", status=-9))
        job.refresh_from_db()
        last = attempt == settings.MAX_ATTEMPTS
        assert job.state == (State.FAILED if last else State.QUEUED)
        rested(job)
    assert job.error_code == "engine_died"


def test_cancelling_takes_the_lease_away(submit: Submit) -> None:
    job = submit()
    running = claimed()
    assert lifecycle.cancel(job)
    assert not leases.heartbeat(running, None)
    job.refresh_from_db()
    assert job.state == State.CANCELLED
    assert not lifecycle.cancel(job)


def test_a_failed_job_can_be_tried_again(submit: Submit) -> None:
    job = submit()
    leases.fail(claimed(), Fault("out_of_memory"))
    assert lifecycle.retry(Job.objects.get(pk=job.pk))
    job.refresh_from_db()
    assert (job.state, job.error_code, job.attempt) == (State.QUEUED, "", 0)
    assert not lifecycle.retry(job)


def test_a_retry_needs_the_song(submit: Submit) -> None:
    job = submit()
    lifecycle.cancel(job)
    job.upload.path.unlink()
    with pytest.raises(Fault, match="upload_gone"):
        lifecycle.retry(job)


def test_the_same_work_is_not_done_twice(submit: Submit, tmp_path: Path) -> None:
    first = finished(submit())
    same = submit(BERT)
    assert (same.state, same.cached, same.result_key) == (State.DONE, True, first.result_key)
    assert [stem.name for stem in same.stems.all()] == list(NAMES)
    other = submit(shifts=1)
    assert other.state == State.QUEUED
    first.stems.all()[0].path.unlink()
    mended = submit(BERT)
    assert mended.state == State.QUEUED, "a result with a missing stem is not handed out"
    Job.objects.filter(pk=other.pk).delete()
    finished(mended)
    assert results.is_whole(mended)
    assert results.is_whole(first)


def test_options_that_change_nothing_share_a_result(submit: Submit) -> None:
    assert submit(threads=1).result_key == submit(threads=2).result_key
    assert submit(stems="vocals").result_key != submit().result_key
    assert submit(model="tiny_6s").result_key != submit().result_key


def test_deleting_leaves_no_file_behind(
    submit: Submit, kept_files: Callable[[], list[Path]]
) -> None:
    job = finished(submit())
    assert len(kept_files()) == 1 + 3 * len((MIXTURE, *NAMES))
    lifecycle.remove(job)
    assert kept_files() == []
    assert not Upload.objects.exists()


def test_deleting_keeps_what_another_job_needs(
    submit: Submit, kept_files: Callable[[], list[Path]]
) -> None:
    first = finished(submit())
    second = submit(BERT)
    lifecycle.remove(first)
    assert all(stem.path.is_file() for stem in second.stems.all())
    assert second.upload.path.is_file()
    lifecycle.remove(second)
    assert kept_files() == []


def test_a_result_stays_while_another_job_is_about_to_need_it(submit: Submit) -> None:
    first = finished(submit())
    first.stems.all()[0].path.unlink()
    submit(BERT)
    second = claimed()
    done, staging = made(second)
    lifecycle.remove(first)
    assert leases.finish(second, done, staging)
    assert results.is_whole(Job.objects.get(pk=second.pk))


def test_again_keeps_what_was_not_asked_anew(submit: Submit, upload: Upload) -> None:
    job = submit(shifts=2)
    new = lifecycle.again(job, replace(Options(), model="tiny_6s"), ANNA)
    assert (new.upload, new.model, new.options["shifts"]) == (upload, "tiny_6s", 2)


def test_a_stale_row_cannot_be_written(submit: Submit) -> None:
    job = submit()
    for bad in (
        {"state": State.RUNNING},
        {"progress": 1.5},
        {"state": State.DONE, "finished_at": timezone.now()},
        {"state": State.FAILED, "finished_at": timezone.now()},
        {"state": State.CANCELLED},
        {"visitor": ""},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            Job.objects.filter(pk=job.pk).update(**bad)


def test_owners_see_their_own(submit: Submit, django_user_model: type) -> None:
    mine = submit(ANNA)
    assert list(Job.objects.visible_to(ANNA)) == [mine]
    assert not Job.objects.visible_to(BERT).exists()
    assert not Job.objects.visible_to(Owner(visitor="")).exists()
    user = django_user_model.objects.create_user("cleo")  # type: ignore[attr-defined]
    own = submit(Owner(visitor="c" * 32, user_id=user.pk), shifts=3)
    assert list(Job.objects.visible_to(Owner("", user.pk))) == [own]
    assert not Job.objects.visible_to(Owner("c" * 32)).exists(), "signed out, it is not shown"


# One run for the same result


def test_ten_identical_jobs_cost_one_run(submit: Submit) -> None:
    same = [submit(Owner(visitor=f"{number:032x}")) for number in range(10)]
    running = claimed()
    assert leases.claim() is None, "the others are attached to it"
    later = submit(shifts=1)
    assert list(Job.objects.ahead_of(later)) == [running], "they take none of its time"
    Job.objects.filter(pk=later.pk).delete()
    assert leases.finish(running, *made(running))
    for job in same:
        job.refresh_from_db()
        assert job.state == State.DONE
        assert [stem.name for stem in job.stems.all()] == list(NAMES)
        assert job.cached == (job.pk != running.pk)
    assert sum(job.attempt for job in same) == 1


def test_who_cancels_a_shared_run_leaves_it_to_the_next(submit: Submit) -> None:
    first, second = submit(ANNA), submit(BERT)
    running = claimed()
    assert leases.heartbeat(running, Progress("separate", 0.4, 9.0))
    assert lifecycle.cancel(first)
    heir = Job.objects.get(pk=second.pk)
    assert (heir.state, heir.lease, heir.progress) == (State.RUNNING, running.lease, 0.4)
    assert leases.heartbeat(running, None), "the run goes on under the same lease"
    assert leases.finish(running, *made(running))
    states = {job.pk: job.state for job in Job.objects.all()}
    assert states == {first.pk: State.CANCELLED, second.pk: State.DONE}


def test_a_shared_run_whose_song_was_deleted_is_tried_with_the_heirs_song(
    submit: Submit, tmp_path: Path
) -> None:
    submit(ANNA)
    source = sounds.wav(tmp_path / "again.wav", sounds.music(1.0))
    second = lifecycle.submit(song_files.accept_path(source, "b.wav"), Options(model="tiny"), BERT)
    running = claimed()
    lifecycle.cancel(running)
    leases.end_with(running, Fault("upload_gone"))
    second.refresh_from_db()
    assert (second.state, second.attempt) == (State.QUEUED, 1)


def test_what_befalls_a_run_befalls_all_who_wait_for_it(submit: Submit) -> None:
    same = [submit(ANNA), submit(BERT)]
    other = submit(shifts=1)
    leases.fail(claimed(), Fault("timed_out", minutes=10))
    for job in same:
        job.refresh_from_db()
        assert (job.state, job.error_code) == (State.FAILED, "timed_out")
    other.refresh_from_db()
    assert other.state == State.QUEUED


def test_two_runs_for_one_result_cannot_be_recorded(submit: Submit) -> None:
    submit(ANNA)
    second = submit(BERT)
    claimed()
    row = {"state": State.RUNNING, "lease": uuid.uuid4(), "heartbeat_at": timezone.now()}
    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.filter(pk=second.pk).update(**row)


def test_a_job_queued_just_before_its_result_came_is_served_from_it(submit: Submit) -> None:
    late = submit(BERT)
    Job.objects.filter(pk=late.pk).update(state=State.CANCELLED, finished_at=timezone.now())
    finished(submit())
    Job.objects.filter(pk=late.pk).update(state=State.QUEUED, finished_at=None)
    assert leases.claim() is None
    late.refresh_from_db()
    assert (late.state, late.cached, late.attempt) == (State.DONE, True, 0)


def test_a_new_version_of_the_engine_makes_new_results(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(submit())
    monkeypatch.setattr(result_keys, "OUTPUT_VERSION", engine_protocol.OUTPUT_VERSION + 1)
    assert submit().state == State.QUEUED


def test_what_waited_through_an_upgrade_is_made_by_the_new_engine(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = submit(ANNA)
    lifecycle.cancel(cancelled)
    old = finished(submit(BERT))
    waiting = submit(ANNA, shifts=1)
    monkeypatch.setattr(result_keys, "OUTPUT_VERSION", engine_protocol.OUTPUT_VERSION + 1)
    assert claimed().result_key != waiting.result_key
    assert lifecycle.retry(cancelled)
    cancelled.refresh_from_db()
    assert cancelled.state == State.QUEUED, "the old engine's result is not handed out"
    assert cancelled.result_key != old.result_key


def test_a_job_whose_model_is_gone_is_run_and_says_so(
    submit: Submit, settings: Settings, tmp_path: Path
) -> None:
    submit()
    settings.MODEL_DIR = tmp_path
    with pytest.raises(Fault, match="model_missing"):
        resources.Watch(claimed())


def test_a_stem_that_the_model_has_no_more_is_said(submit: Submit) -> None:
    job = submit(stems="vocals")
    Job.objects.filter(pk=job.pk).update(options={**job.options, "stems": "piano"})
    with pytest.raises(Fault, match="no_such_stem"):
        resources.Watch(claimed())
    assert lifecycle.cancel(job)
    job.refresh_from_db()
    with pytest.raises(Fault, match="no_such_stem"):
        lifecycle.retry(job, ANNA)


def test_the_same_file_is_not_decoded_twice(
    upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(*_args: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(song_files, "probe_isolated", probe)
    known = song_files.accept_path(upload.path, "Another_name.wav")
    assert (known.samples_sha256, known.seconds) == (upload.samples_sha256, upload.seconds)
    assert (known.title, known.file_name) == ("Another name", "Another_name.wav")
    assert known.pk != upload.pk
    assert known.path.read_bytes() == upload.path.read_bytes()


# Whose turn it is


def in_order(queue: list[Job]) -> list[int]:
    """Which of `queue` are claimed, in the order in which they are."""
    numbers = {job.pk: number for number, job in enumerate(queue)}
    order = []
    while (job := leases.claim()) is not None:
        order.append(numbers[job.pk])
        leases.fail(job, Fault("engine_error", reason="test"))
    return order


def test_twenty_songs_do_not_starve_one(submit: Submit) -> None:
    queue = [submit(ANNA, shifts=0, overlap=number / 100) for number in range(20)]
    claimed_first = claimed()
    assert claimed_first.pk == queue[0].pk
    queue.append(submit(BERT, overlap=0.5))
    queue.append(submit(BERT, overlap=0.6))
    leases.fail(claimed_first, Fault("engine_error", reason="test"))
    assert in_order(queue)[:6] == [1, 20, 2, 21, 3, 4]


def test_newcomers_do_not_starve_who_waits(submit: Submit) -> None:
    submit(ANNA, overlap=0.1)
    second = submit(ANNA, overlap=0.2)
    newcomers_before = 0
    while (job := claimed()).pk != second.pk:
        submit(Owner(visitor=f"{newcomers_before:032x}"), overlap=0.3 + newcomers_before / 100)
        newcomers_before += 1
        leases.fail(job, Fault("engine_error", reason="test"))
        assert newcomers_before < 4


def stranger(number: int) -> Owner:
    """One of many behind an address, or one who drops their cookies."""
    return Owner(visitor=f"{number:032x}", client="192.0.2.1")


def test_dropped_cookies_bring_no_turns(submit: Submit) -> None:
    queue = [submit(stranger(number), overlap=number / 100) for number in range(10)]
    queue.append(submit(replace(BERT, client="198.51.100.7"), overlap=0.5))
    last = queue[9]
    assert lifecycle.cancel(last)
    assert lifecycle.retry(last, stranger(9))
    assert in_order(queue) == [0, 1, 2, 3, 4, 10, 5, 6, 7, 8, 9]


def test_what_takes_as_long_as_many_songs_comes_as_many_rounds_later(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = submit().upload.seconds
    monkeypatch.setattr(fair_turns, "ROUND_SECONDS", seconds)
    long = [submit(stranger(number), shifts=4, overlap=0.1 + number / 100) for number in range(4)]
    assert [job.turn for job in long] == [4] * 4, "four passes stand for four songs"
    assert submit(BERT, overlap=0.2).turn == 1
    last = long[0]
    assert lifecycle.cancel(last)
    assert lifecycle.retry(last, stranger(0))
    last.refresh_from_db()
    assert last.turn == 4


def test_a_whole_range_of_ipv6_brings_few_turns(submit: Submit) -> None:
    """Each /64 has its places in a round, all of a /56 four times as many, a /48 sixteen times."""

    def turns(count: int, address: str) -> Counter[int]:
        owners = [
            Owner(visitor=uuid.uuid4().hex, client=address_ranges.client_range(address.format(n)))
            for n in range(count)
        ]
        return Counter(submit(each, overlap=n / 1000).turn for n, each in enumerate(owners))

    assert turns(6, "2001:db8:1:7::{}") == {0: 1, 1: 4, 2: 1}
    assert turns(16, "2001:db8:1:{}::1") == {1: 12, 2: 4}
    assert turns(2, "2001:db8:2::{}") == {1: 2}, "elsewhere"
    assert turns(60, "2001:db8:1:{}00::1") == {1: 48, 2: 12}


def test_what_is_tried_again_takes_turns_as_before(submit: Submit) -> None:
    queue = [submit(stranger(number), overlap=number / 100) for number in range(12)]
    for job in queue:
        assert lifecycle.cancel(job)
    assert not Job.objects.exclude(network="").exists(), "it is forgotten where they were"
    for number, job in enumerate(queue):
        assert lifecycle.retry(job, stranger(number) if number < 6 else None)
    turns = list(Job.objects.order_by("queued_at").values_list("turn", flat=True))
    assert turns[:6] == [0, 1, 1, 1, 1, 2]
    assert turns[6:] == [1, 1, 1, 1, 2, 2], "by the staff, who do not know where either"


def test_songs_moved_to_the_end_hold_nobody_up(submit: Submit) -> None:
    flood = [submit(stranger(number), overlap=number / 100) for number in range(9)]
    album = [submit(ANNA, overlap=number / 100) for number in range(20, 26)]
    late = Job.objects.filter(pk__in=[job.pk for job in (*flood[1:], *album)])
    assert fair_turns.prioritise(late, fair_turns.LAST) == 14
    assert submit(stranger(99), overlap=0.5).turn == 1
    assert submit(ANNA, overlap=0.6).turn == 1


def test_it_is_forgotten_where_a_song_came_from_when_it_ends(submit: Submit) -> None:
    first, beside = submit(stranger(1)), submit(stranger(2))
    assert first.network == beside.network != ""
    assert "192.0.2.1" not in first.network
    finished(first)
    beside.refresh_from_db()
    from_store = submit(stranger(3))
    other = submit(stranger(4), overlap=0.3)
    leases.fail(claimed(), Fault("engine_error", reason="test"))
    other.refresh_from_db()
    assert [job.state for job in (first, beside, from_store, other)] == [State.DONE] * 3 + [
        State.FAILED
    ]
    assert [job.network for job in (first, beside, from_store, other)] == [""] * 4


def test_an_account_has_its_turn_wherever_it_is(submit: Submit, django_user_model: Any) -> None:
    queue = [submit(stranger(number), overlap=number / 100) for number in range(8)]
    user = django_user_model.objects.create_user("anna")
    queue.append(submit(Owner("", user.pk, "192.0.2.1"), overlap=0.5))
    assert queue[-1].network == ""
    assert in_order(queue) == [0, 1, 2, 3, 4, 8, 5, 6, 7]


def test_staff_can_move_a_job(submit: Submit) -> None:
    queue = [submit(ANNA, overlap=0.1), submit(BERT, overlap=0.2), submit(ANNA, overlap=0.3)]
    assert fair_turns.prioritise(Job.objects.filter(pk=queue[2].pk), fair_turns.FIRST) == 1
    assert fair_turns.prioritise(Job.objects.filter(pk=queue[0].pk), fair_turns.LAST) == 1
    assert in_order(queue) == [2, 1, 0]
    assert fair_turns.prioritise(Job.objects.all(), fair_turns.FIRST) == 0, "nothing waits any more"


# Storing


def test_a_result_that_cannot_be_moved_leaves_no_row(
    submit: Submit, settings: Settings, kept_files: Callable[[], list[Path]]
) -> None:
    job = submit()
    running = claimed()
    done, staging = made(running)
    job.result_folder.parent.write_bytes(b"in the way")
    with pytest.raises(OSError):  # noqa: PT011 (which one depends on the system)
        leases.finish(running, done, staging)
    job.refresh_from_db()
    assert job.state == State.RUNNING
    assert not job.stems.exists()
    leases.end_with(running, Fault("storage", reason="x"))
    job.refresh_from_db()
    assert job.state == State.FAILED


def test_a_result_that_cannot_be_recorded_is_found_by_the_next_attempt(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit()
    running = claimed()
    publish = results.publish

    def publish_and_break(staging: Path, job: Job) -> None:
        publish(staging, job)
        raise OperationalError("disk I/O error")

    monkeypatch.setattr(results, "publish", publish_and_break)
    with pytest.raises(OperationalError):
        leases.finish(running, *made(running))
    monkeypatch.undo()
    leases.end_with(running, Fault("database"))
    job.refresh_from_db()
    assert (job.state, job.stems.count()) == (State.QUEUED, 0)
    assert submit(BERT).state == State.QUEUED, "a result without a row is served to nobody"
    again = claimed()
    assert leases.finish(again, *made(again))
    assert results.is_whole(Job.objects.get(pk=job.pk))
