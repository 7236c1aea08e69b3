"""Who shares a result: the same file for everybody, copies for one owner, and what a liar gains."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from separations.audio.sandbox.decoder_process import probe_isolated
from separations.engine.options import Options
from separations.errors.fault import Fault
from separations.jobs import lifecycle, result_keys, reuse
from separations.models import Job, Owner, Upload
from separations.uploads import song_files
from separations.worker import candidates, leases
from tests.support import sounds
from tests.support.jobs import ANNA, BERT, claimed, fall_silent, finished

State = Job.State
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "site_settings")]
TINY = Options(model="tiny")
Submit = Callable[..., Job]


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return sounds.encode(tmp_path / "song.flac", sounds.music(1.0), "flac", title="one")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The same samples in a file with another title."""
    return sounds.encode(tmp_path / "copy.flac", sounds.music(1.0), "flac", title="two")


def send(path: Path, owner: Owner = ANNA, options: Options = TINY) -> Job:
    return lifecycle.submit(song_files.accept_path(path, path.name, owner), options, owner)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which songs were read by a decoder, in order."""
    found: list[Path] = []

    def probe(path: Path, *more: Any) -> Any:
        found.append(path)
        return probe_isolated(path, *more)

    monkeypatch.setattr(song_files, "probe_isolated", probe)
    return found


# Everybody


def test_strangers_share_by_the_file(song: Path, decoded: list[Path]) -> None:
    first = finished(send(song))
    second = send(song, BERT)
    assert (second.state, second.cached, second.result_key) == (State.DONE, True, first.result_key)
    assert len(decoded) == 1


def test_strangers_do_not_share_copies_and_owners_do(song: Path, copy: Path) -> None:
    first = finished(send(song))
    stranger, own = send(copy, BERT), send(copy)
    assert first.upload.file_sha256 != own.upload.file_sha256
    assert first.upload.samples_sha256 == own.upload.samples_sha256
    assert (stranger.state, stranger.cached) == (State.QUEUED, False)
    assert (own.state, own.cached, own.result_key) == (State.DONE, True, first.result_key)
    assert (first.upload.title, own.upload.title) == ("one", "two")


def test_a_copy_is_not_shared_for_other_options(song: Path, copy: Path) -> None:
    finished(send(song))
    assert send(copy, options=replace(TINY, shifts=1)).state == State.QUEUED
    assert send(copy, options=replace(TINY, model="tiny_6s")).state == State.QUEUED


def test_a_copy_waits_for_the_song_that_is_being_made(song: Path, copy: Path) -> None:
    first, second = send(song), send(copy)
    assert claimed().pk == first.pk
    assert leases.claim() is None, "the copy is not run beside it"
    Job.objects.filter(pk=first.pk).update(state=State.QUEUED, lease=None)
    finished(first)
    second.refresh_from_db()
    assert (second.state, second.cached) == (State.DONE, True)


def test_another_decoder_reads_the_file_anew(
    song: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = finished(send(song))
    for module in (song_files, result_keys):
        monkeypatch.setattr(module, "DECODER_VERSION", "1 av 99")
    second = send(song, BERT)
    assert (second.state, second.upload.decoder) == (State.QUEUED, "1 av 99")
    assert second.result_key != first.result_key
    assert len(decoded) == 2


# A decoder that was taken over


def lying(monkeypatch: pytest.MonkeyPatch, victim: Job) -> None:
    """From now on decoders say of every song that its samples are the victim's."""

    def probe(path: Path, *more: Any) -> Any:
        return replace(probe_isolated(path, *more), samples_sha256=victim.upload.samples_sha256)

    monkeypatch.setattr(song_files, "probe_isolated", probe)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return sounds.wav(tmp_path / "other.wav", sounds.music(1.0, seed=1))


def test_who_lies_about_samples_gives_nobody_else_their_stems(
    song: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying(monkeypatch, victim := send(song, BERT))
    lifecycle.cancel(victim)
    lie = finished(send(other))
    assert send(song, BERT).state == State.QUEUED, "Bert is not given what Anna's file holds"
    assert lie.result_key != victim.result_key


def test_a_copy_is_never_run_under_the_key_of_a_file_it_may_not_be(
    song: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anna sends Bert's file too, and has hers wait for its result, or take over its place."""
    first = send(song)
    lying(monkeypatch, first)
    lie = send(other)
    assert lie.result_key == first.result_key, "attached"
    lifecycle.cancel(first)
    run = claimed()
    assert run.pk == lie.pk
    assert run.result_key != first.result_key
    finished_run(run)
    assert send(song, BERT).state == State.QUEUED


def finished_run(run: Job) -> None:
    Job.objects.filter(pk=run.pk).update(state=State.QUEUED, lease=None)
    finished(run)


def test_a_copy_that_is_tried_again_while_it_is_claimed_starts_under_its_own_key(
    song: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = send(song)
    key = first.result_key
    lying(monkeypatch, first)
    lie = send(other)
    lifecycle.cancel(first)
    reserve = candidates.reserve_memory

    def reserving(job: Job, idle_bytes: int) -> bool:
        monkeypatch.setattr(candidates, "reserve_memory", reserve)
        lifecycle.cancel(lie)
        lifecycle.retry(first, ANNA)  # to be a copy of, once more
        lifecycle.retry(lie, ANNA)
        lifecycle.cancel(first)
        return reserve(job, idle_bytes)

    monkeypatch.setattr(candidates, "reserve_memory", reserving)
    run = claimed()
    assert run.pk == lie.pk
    assert run.result_key != key


def test_a_copy_that_inherits_a_run_and_loses_it_starts_under_its_own_key(
    song: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = send(song)
    lying(monkeypatch, first)
    lie = send(other)
    assert claimed().pk == first.pk
    lifecycle.cancel(first)
    heir = Job.objects.get(pk=lie.pk)
    assert (heir.state, heir.result_key) == (State.RUNNING, first.result_key)
    fall_silent(heir)
    leases.recover()
    run = claimed()
    assert run.pk == lie.pk
    assert run.result_key != first.result_key


def test_not_even_where_its_model_cannot_be_read_for_a_moment(
    song: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = send(song)
    lying(monkeypatch, first)
    lie = send(other)
    lifecycle.cancel(first)

    def unreadable(*_args: object) -> None:
        raise Fault("model_unusable", model="tiny", reason="test")

    monkeypatch.setattr(reuse, "read_model", unreadable)
    run = claimed()
    assert run.pk == lie.pk
    assert run.result_key != first.result_key


# SHARE_RESULTS


def test_owners_alone(settings: Settings, song: Path, copy: Path, decoded: list[Path]) -> None:
    settings.SHARE_RESULTS = "owner"
    finished(send(song))
    assert [send(path).state for path in (song, copy)] == [State.DONE, State.DONE]
    assert len(decoded) == 2, "the song, and the copy"
    assert send(song, BERT).state == State.QUEUED
    assert len(decoded) == 3


def test_owners_keep_their_results_when_they_log_in(settings: Settings, song: Path) -> None:
    settings.SHARE_RESULTS = "owner"
    first, waiting = finished(send(song)), send(song, options=replace(TINY, shifts=1))
    user = User.objects.create_user("anna")
    Job.objects.update(user=user, network="")
    signed_in = Owner(visitor="c" * 32, user_id=user.pk)
    second = send(song, signed_in)
    assert (second.state, second.result_key) == (State.DONE, first.result_key)
    run = claimed()
    assert run.pk == waiting.pk
    assert run.result_key == result_keys.own_key(run), "the account's, not the browser's"


def test_nobody(settings: Settings, song: Path, copy: Path, decoded: list[Path]) -> None:
    settings.SHARE_RESULTS = "no"
    first = finished(send(song))
    again = [send(song), send(copy), send(song, BERT)]
    assert {job.state for job in again} == {State.QUEUED}
    assert len({first.result_key, *(job.result_key for job in again)}) == 4
    assert len(decoded) == 4


def test_a_job_that_waits_goes_by_the_setting_when_it_starts(
    settings: Settings, song: Path
) -> None:
    first, second = send(song), send(song, BERT)
    assert first.result_key == second.result_key
    settings.SHARE_RESULTS = "owner"
    runs = [claimed(), claimed()]
    assert {run.pk for run in runs} == {first.pk, second.pk}, "each for itself"


def test_a_retried_job_finds_its_copy(song: Path, copy: Path) -> None:
    second = send(copy)
    lifecycle.cancel(second)
    first = send(song)
    assert claimed().pk == first.pk
    assert lifecycle.retry(Job.objects.get(pk=second.pk), ANNA)
    second.refresh_from_db()
    assert (second.state, second.result_key) == (State.QUEUED, first.result_key)


def test_rows_of_earlier_versions_share_with_nobody(song: Path) -> None:
    send(song)
    Upload.objects.update(decoder="")
    Job.objects.update(recipe="", result_key="0" * 64)
    assert send(song, BERT).result_key != "0" * 64
    assert claimed().result_key != "0" * 64
