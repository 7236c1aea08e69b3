"""Pages, partials, players and downloads, for browsers without JavaScript and with htmx."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
from django.contrib.auth.models import Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import ProtectedError
from django.test import Client
from pytest_django import Settings

from separations.audio.store.stem_file import StemWriter
from separations.engine.process.engine_protocol import Progress
from separations.errors.fault import Fault
from separations.jobs import lifecycle, results
from separations.models import Job, Upload
from separations.worker import leases
from tests.support import sounds
from tests.support.jobs import made
from tests.support.pages import Post, wav_bytes

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
HTMX = {"HX-Request": "true"}


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content


# Uploading


def test_the_first_page_offers_the_models_that_are_there(visitor: Client) -> None:
    page = visitor.get("/").content.decode()
    assert 'name="model" value="tiny" checked' in page
    assert 'value="tiny_6s"' in page
    assert "Vocals and instrumental" in page
    assert "About 4 times slower" in page
    assert 'enctype="multipart/form-data"' in page


def test_without_models_the_page_says_so(
    visitor: Client, settings: Settings, tmp_path: Path
) -> None:
    settings.MODEL_DIR = tmp_path
    assert "No model is installed" in visitor.get("/").content.decode()


def test_a_song_becomes_a_queued_job_and_a_page(
    post: Post,
    visitor: Client,
    no_queue: list[None],
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        response = post(model="tiny_6s", stems="vocals")
    job = Job.objects.get()
    assert response.status_code == 302
    assert response.headers["Location"] == f"/songs/{job.pk}"
    assert (job.model, job.stem_choice, job.state) == ("tiny_6s", "vocals", Job.State.QUEUED)
    assert len(no_queue) == 1
    page = visitor.get(response.headers["Location"]).content.decode()
    assert '<noscript><meta http-equiv="refresh"' in page
    assert "Your song is next." in page
    assert 'hx-trigger="every 1s"' in page


def test_several_songs_make_several_jobs(post: Post, song: bytes) -> None:
    response = post(("a.wav", song), ("b.wav", song), ("c.wav", song))
    assert response.status_code == 302
    assert response.headers["Location"] == "/"
    assert sorted(Upload.objects.values_list("title", flat=True)) == ["a", "b", "c"]


def test_htmx_gets_a_card_that_polls_itself(post: Post) -> None:
    response = post(headers=HTMX)
    page = response.content.decode()
    job = Job.objects.get()
    assert f'hx-get="/songs/{job.pk}/card?seen=' in page
    assert "<html" not in page


def test_the_queue_position_is_told(post: Post, song: bytes, visitor: Client) -> None:
    post(
        ("a.wav", song),
        ("b.wav", wav_bytes(sounds.music(1.0))),
        ("c.wav", wav_bytes(sounds.music(1.5))),
    )
    last = Job.objects.order_by("queued_at").last()
    assert last is not None
    assert "2 songs before yours." in visitor.get(f"/songs/{last.pk}/status").content.decode()


BAD: dict[str, tuple[str, bytes, int, str]] = {
    "not audio": ("a.mp3", b"words " * 999, 415, "not an audio file"),
    "empty": ("a.mp3", b"", 400, "empty"),
    "wrong extension": ("a.exe", b"MZ", 415, "MP3, WAV, FLAC"),
    "no extension": ("song", b"x", 415, "not an audio file"),
    "too short": ("a.wav", wav_bytes(sounds.music(1.0)[:, :1]), 422, "too short"),
    "no numbers": ("a.wav", wav_bytes(sounds.music(1.0) * np.nan), 422, "NaN"),
    "cut off": ("a.wav", wav_bytes(sounds.music(4.0))[:300_001], 422, "cut off"),
    "too long": ("a.wav", wav_bytes(sounds.music(6.0)), 413, "longer than 0.0833 minutes"),
    "too large": ("a.wav", wav_bytes(sounds.music(4.0)), 413, "larger than 1 MB"),
}


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["plain", "htmx"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_a_sentence_and_leaves_nothing(
    post: Post,
    settings: Settings,
    kept_files: Callable[[], list[Path]],
    caplog: pytest.LogCaptureFixture,
    case: str,
    headers: dict[str, str],
) -> None:
    name, content, status, sentence = BAD[case]
    settings.MAX_DURATION_SECONDS = 5
    if case == "too large":
        settings.MAX_UPLOAD_MB = 1
    response = post((name, content), headers=headers)
    page = response.content.decode()
    assert response.status_code == status
    assert sentence in page
    assert ("<html" in page) == (headers == {})
    assert kept_files() == []
    assert not Upload.objects.exists()
    assert not caplog.records


def test_good_songs_are_taken_beside_bad_ones(post: Post, song: bytes, visitor: Client) -> None:
    response = post(("bad.mp3", b"words " * 999), ("good.wav", song))
    assert response.status_code == 415
    page = response.content.decode()
    assert "<strong>bad.mp3</strong>" in page
    assert "good" in page
    assert Job.objects.get().upload.title == "good"


def test_nothing_sent_is_said(visitor: Client) -> None:
    response = visitor.post("/", {})
    assert response.status_code == 400
    assert "Choose an audio file first" in response.content.decode()


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [({"model": "gone"}, "gone is not installed"), ({"stems": "kazoo"}, "no stem “kazoo”")],
)
def test_a_choice_that_is_not_offered_is_refused(
    post: Post, kept_files: Callable[[], list[Path]], choice: dict[str, str], sentence: str
) -> None:
    response = post(**choice)
    assert response.status_code == 422
    assert sentence in response.content.decode()
    assert kept_files() == []


def test_a_stem_of_another_model_is_refused_and_the_song_not_kept(
    post: Post, kept_files: Callable[[], list[Path]]
) -> None:
    response = post(model="tiny", stems="piano")
    assert response.status_code == 422
    assert "no stem “piano”" in response.content.decode()
    assert kept_files() == []


def test_names_are_shown_never_used_or_trusted(
    post: Post, song: bytes, visitor: Client, kept_files: Callable[[], list[Path]]
) -> None:
    post(("../../<script>alert(1)</script>.wav", song))
    page = visitor.get("/").content.decode()
    assert "<script>alert" not in page
    (kept,) = kept_files()
    assert re.fullmatch(r"[0-9a-f]{32}", kept.name)


def test_the_demo_song_is_one_click_away(visitor: Client) -> None:
    response = visitor.post("/demo")
    job = Job.objects.get()
    assert response.headers["Location"] == f"/songs/{job.pk}"
    assert job.upload.title == "Feelings (excerpt)"


# Watching


def test_polling_stops_by_itself(post: Post, visitor: Client) -> None:
    post()
    job = Job.objects.get()
    for partial in ("status", "card"):
        assert visitor.get(f"/songs/{job.pk}/{partial}").status_code == 200
    lifecycle.cancel(job)
    for partial in ("status", "card"):
        response = visitor.get(f"/songs/{job.pk}/{partial}")
        assert response.status_code == 286
        assert "hx-trigger" not in response.content.decode()


def test_a_failure_is_told_in_the_readers_language(post: Post, visitor: Client) -> None:
    post()
    job = leases.claim()
    assert job is not None
    leases.fail(job, Fault("out_of_memory"))
    page = visitor.get(f"/songs/{job.pk}").content.decode()
    assert "Not enough memory" in page
    assert "Try again" in page
    korean = visitor.get(f"/songs/{job.pk}", headers={"Accept-Language": "ko"}).content.decode()
    assert "메모리가 부족합니다" in korean


def test_cancel_retry_and_delete(post: Post, visitor: Client) -> None:
    post()
    job = Job.objects.get()
    visitor.post(f"/songs/{job.pk}/cancel")
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED
    visitor.post(f"/songs/{job.pk}/retry")
    job.refresh_from_db()
    assert job.state == Job.State.QUEUED
    page = visitor.post(f"/songs/{job.pk}/delete", follow=True).content.decode()
    assert "were deleted" in page
    assert not Job.objects.exists()


def test_again_with_another_model(finished: Job, visitor: Client) -> None:
    response = visitor.post(f"/songs/{finished.pk}/again", {"model": "tiny_6s", "stems": "all"})
    new = Job.objects.exclude(pk=finished.pk).get()
    assert response.headers["Location"] == f"/songs/{new.pk}"
    assert (new.model, new.upload) == ("tiny_6s", finished.upload)


# Listening and keeping


def test_the_finished_page_has_a_player_and_a_download_for_each_stem(
    finished: Job, visitor: Client
) -> None:
    page = visitor.get(f"/songs/{finished.pk}").content.decode()
    for name in ("drums", "bass", "other", "vocals"):
        assert f'<audio controls preload="none" src="/songs/{finished.pk}/stems/{name}"' in page
        assert f'formaction="/songs/{finished.pk}/stems/{name}"' in page
    assert "refresh" not in page
    assert "every " not in page


@pytest.mark.parametrize(
    ("asked", "answer", "part"),
    [
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=100-199", 206, slice(100, 200)),
        ("bytes=5000-", 206, slice(5000, None)),
        ("bytes=-77", 206, slice(-77, None)),
        ("bytes=0-99999999", 206, slice(0, None)),
        ("bytes=-99999999", 206, slice(0, None)),
        ("bytes=99999999-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=9-3", 416, None),
        ("bytes=0-1,5-6", 200, slice(0, None)),
        ("bytes=x-y", 200, slice(0, None)),
        ("bytes=" + "9" * 5000 + "-", 200, slice(0, None)),
        ("bytes=-", 200, slice(0, None)),
        ("pages=1-2", 200, slice(0, None)),
        ("", 200, slice(0, None)),
    ],
)
def test_players_can_seek(
    finished: Job, visitor: Client, asked: str, answer: int, part: slice | None
) -> None:
    url = f"/songs/{finished.pk}/stems/bass"
    whole = body(visitor.get(url))
    response = visitor.get(url, headers={"Range": asked})
    assert response.status_code == answer
    if part is None:
        assert response.headers["Content-Range"] == f"bytes */{len(whole)}"
        return
    expected = whole[part]
    assert body(response) == expected
    assert response.headers["Content-Length"] == str(len(expected))
    assert response.headers["Content-Type"] == "audio/wav"
    if answer == 206:
        start = part.indices(len(whole))[0]
        expected_range = f"bytes {start}-{start + len(expected) - 1}/{len(whole)}"
        assert response.headers["Content-Range"] == expected_range


def test_a_changed_file_is_sent_whole(finished: Job, visitor: Client) -> None:
    url = f"/songs/{finished.pk}/stems/bass"
    etag = visitor.get(url).headers["ETag"]
    same = visitor.get(url, headers={"Range": "bytes=0-9", "If-Range": etag})
    other = visitor.get(url, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)
    assert visitor.get(url, headers={"If-None-Match": etag}).status_code == 304


FORMATS = {
    "wav": ("WAV", "PCM_16", "audio/wav"),
    "wav24": ("WAV", "PCM_24", "audio/wav"),
    "float32": ("WAV", "FLOAT", "audio/wav"),
    "flac": ("FLAC", "PCM_24", "audio/flac"),
    "mp3-192": ("MP3", "MPEG_LAYER_III", "audio/mpeg"),
}


@pytest.mark.parametrize("asked", FORMATS)
def test_every_format_downloads_under_the_songs_name(
    finished: Job, visitor: Client, asked: str
) -> None:
    kind, subtype, content_type = FORMATS[asked]
    response = visitor.get(f"/songs/{finished.pk}/stems/drums?format={asked}&download=1")
    assert response.headers["Content-Type"] == content_type
    disposition = unquote(response.headers["Content-Disposition"])
    assert disposition.startswith("attachment")
    assert "한국어 노래 (Drums)" in disposition
    assert disposition.endswith(f".{kind.lower()}")
    with soundfile.SoundFile(io.BytesIO(body(response))) as file:
        assert (file.format, file.subtype, file.frames) == (kind, subtype, finished.frames)
    if kind == "MP3":
        again = visitor.get(f"/songs/{finished.pk}/stems/drums?format={asked}&download=1")
        assert len(body(again)) == int(response.headers["Content-Length"])


@pytest.mark.parametrize("asked", ["wav", "float32", "mp3-128"])
def test_all_stems_come_in_one_zip(finished: Job, visitor: Client, asked: str) -> None:
    response = visitor.get(f"/songs/{finished.pk}/archive?format={asked}&download=1")
    data = body(response)
    assert response.headers["Content-Length"] == str(len(data))
    which = {"wav": ".wav", "float32": " 32-bit float.wav", "mp3-128": " 128 kbps.mp3"}[asked]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        labels = ("Drums", "Bass", "Other", "Vocals")
        names = [f"한국어 노래 ({label}){which}" for label in labels]
        assert archive.namelist() == names
        one = body(visitor.get(f"/songs/{finished.pk}/stems/bass?format={asked}"))
        assert archive.read(names[1]) == one


def test_the_size_of_a_zip_can_be_asked(finished: Job, visitor: Client) -> None:
    url = f"/songs/{finished.pk}/archive"
    head = visitor.head(url)
    assert head.headers["Content-Length"] == str(len(body(visitor.get(url))))
    assert body(head) == b""


def test_float_stems_keep_their_level_and_integer_ones_share_a_gain(
    finished: Job, visitor: Client
) -> None:
    finished.stems.filter(name="bass").update(peak=2.0)  # as if the bass exceeded full scale
    page = visitor.get(f"/songs/{finished.pk}").content.decode()
    assert "turned down together by 6.0 dB" in page

    def samples(asked: str) -> sounds.Samples:
        data = body(visitor.get(f"/songs/{finished.pk}/stems/drums?format={asked}"))
        return soundfile.read(io.BytesIO(data), dtype="float32")[0]  # type: ignore[no-any-return]

    np.testing.assert_allclose(samples("wav24"), samples("float32") / 2, atol=2**-20)


@pytest.mark.parametrize("query", ["format=ogg", "format=mp3-999", "format=wav-", "format=../x"])
def test_unknown_formats_are_refused(finished: Job, visitor: Client, query: str) -> None:
    for place in ("stems/drums", "archive"):
        response = visitor.get(f"/songs/{finished.pk}/{place}?{query}")
        assert response.status_code == 422
        assert "wav24" in response.content.decode()


def test_stems_that_are_gone_or_never_were_are_said(finished: Job, visitor: Client) -> None:
    assert visitor.get(f"/songs/{finished.pk}/stems/kazoo").status_code == 404
    for stem in finished.stems.all():
        stem.path.unlink()
    for place in ("stems/drums", "archive"):
        response = visitor.get(f"/songs/{finished.pk}/{place}")
        assert response.status_code == 410
        assert "Upload the song again" in response.content.decode()


# Listening


def test_what_is_finished_can_be_heard_while_the_job_runs(post: Post, visitor: Client) -> None:
    post(("a.wav", wav_bytes(sounds.music(6.0))))
    job = leases.claim()
    assert job is not None
    place = f"/songs/{job.pk}/stems/vocals"
    assert visitor.get(f"{place}/chunks/0").status_code == 404
    assert 'value="0"' in visitor.get(f"/songs/{job.pk}/status").content.decode()
    job.staging_folder.mkdir()
    names = ("mixture", "drums", "bass", "other", "vocals")
    writers = [StemWriter(job.staging_folder / f"{name}.flac") for name in names]
    for writer in writers:
        writer.write(sounds.music(4.0))
    status = visitor.get(f"/songs/{job.pk}/status").content.decode()
    assert 'id="reach" value="65536" data-frames="264600"' in status
    chunk = visitor.get(f"{place}/chunks/0")
    samples, rate = soundfile.read(io.BytesIO(chunk.content), dtype="float32")
    assert (len(samples), rate) == (65_536, sounds.RATE)
    assert chunk.headers["X-Exponent"] == "0"
    assert visitor.get(f"{place}/chunks/1").status_code == 404
    assert len(body(visitor.get(f"{place}/peaks"))) == 2 * 32
    assert len(body(visitor.get(f"{place}/peaks", headers={"Range": "bytes=40-"}))) == 24
    for writer in writers:
        writer.close()


def test_the_moment_a_run_ends_is_not_heard(post: Post, visitor: Client) -> None:
    """Its files are in their place a moment before its row says so."""
    post()
    job = leases.claim()
    assert job is not None
    done, staging = made(job)
    results.publish(staging, job)
    assert visitor.get(f"/songs/{job.pk}/stems/drums/chunks/0").status_code == 200
    assert leases.finish(job, done, staging)
    assert visitor.get(f"/songs/{job.pk}/stems/drums/chunks/0").status_code == 200


def test_the_player_gets_chunks_of_stems_and_song_alone(finished: Job, visitor: Client) -> None:
    place = f"/songs/{finished.pk}/stems"
    for name in ("drums", "mixture"):
        chunk = visitor.get(f"{place}/{name}/chunks/1")
        assert chunk.status_code == 200
        assert "immutable" in chunk.headers["Cache-Control"]
        samples = soundfile.read(io.BytesIO(chunk.content))[0]
        assert len(samples) == 2 * sounds.RATE - 65_536
    for wrong in ("drums/chunks/2", "mixture2/chunks/0", "..%2Fdrums/chunks/0", "drums/chunks/-1"):
        assert visitor.get(f"{place}/{wrong}").status_code == 404


def test_a_poll_that_brings_nothing_new_is_empty(post: Post, visitor: Client) -> None:
    post()
    job = leases.claim()
    assert job is not None
    for partial in ("status", "card"):
        page = visitor.get(f"/songs/{job.pk}/{partial}").content
        assert len(page) < 5_000
        seen = re.search(rf"{partial}\?seen=(\w+)", page.decode())
        assert seen is not None
        again = f"/songs/{job.pk}/{partial}?seen={seen[1]}"
        assert visitor.get(again).status_code == 204
        assert leases.heartbeat(job, Progress("separate", 0.5 + len(partial) / 100, 9.0))
        assert visitor.get(again).status_code == 200


def test_the_last_poll_brings_levels_and_downloads(finished: Job, visitor: Client) -> None:
    response = visitor.get(f"/songs/{finished.pk}/status?seen=something")
    page = response.content.decode()
    assert response.status_code == 286
    assert "LUFS" in page
    for part in ("reach", "level-drums", "takeaway", "after"):
        assert re.search(rf'id="{part}"[^>]*hx-swap-oob', page), part


# Strangers


def test_strangers_find_nothing(finished: Job, site_settings: Settings) -> None:
    stranger = Client()
    stranger.get("/")
    gets = ["", "/status", "/card", "/stems/drums", "/archive"]
    gets += ["/stems/drums/chunks/0", "/stems/drums/peaks"]
    posts = ("/cancel", "/retry", "/again", "/delete")
    for path in gets:
        assert stranger.get(f"/songs/{finished.pk}{path}").status_code == 404, path
    for path in posts:
        assert stranger.post(f"/songs/{finished.pk}{path}").status_code == 404, path
    assert Job.objects.filter(pk=finished.pk).exists()
    assert finished.upload.title not in stranger.get("/").content.decode()
    assert "There is nothing here" in stranger.get(f"/songs/{finished.pk}").content.decode()


@pytest.mark.parametrize("path", ["cancel", "retry", "again", "delete"])
def test_changes_need_a_post_with_the_right_token(
    finished: Job, visitor: Client, path: str
) -> None:
    assert visitor.get(f"/songs/{finished.pk}/{path}").status_code == 405
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(f"/songs/{finished.pk}/{path}").status_code == 403


def test_the_policy_allows_this_site_alone(visitor: Client) -> None:
    response = visitor.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy.replace("'wasm-unsafe-eval'", "")  # no script, but pitch
    page = response.content.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"\s(style|on\w+)=", page)
    links = re.findall(r'(?:src|href|action)="([^"]+)"', page)
    assert links
    assert all(re.match(r"/(?!/)|#", link) for link in links)


# Language


def test_the_browsers_language_is_spoken_and_can_be_switched(visitor: Client) -> None:
    korean = visitor.get("/", headers={"Accept-Language": "ko-KR,ko;q=0.9"}).content.decode()
    assert '<html lang="ko">' in korean
    assert "곡을 스템으로 나누세요" in korean
    visitor.post("/i18n/setlang/", {"language": "ko"})
    assert '<html lang="ko">' in visitor.get("/").content.decode()


def test_the_licence_of_the_weights_is_told(visitor: Client) -> None:
    assert "research and personal use" in visitor.get("/about").content.decode()


def test_the_switch_leads_back_to_a_page_that_can_be_opened(finished: Job, visitor: Client) -> None:
    finished.upload.path.unlink()
    refused = visitor.post(f"/songs/{finished.pk}/again", {"model": "tiny_6s", "stems": "all"})
    assert refused.status_code == 410
    assert f'name="next" value="/songs/{finished.pk}"' in refused.content.decode()


# Admin


def test_the_operator_sees_and_handles_jobs(
    finished: Job, admin_client: Client, site_settings: Settings
) -> None:
    for model in ("upload", "job", "stem"):
        page = admin_client.get(f"/admin/separations/{model}/?q=한국어")
        assert page.status_code == 200
        assert "한국어 노래" in page.content.decode()
    change = admin_client.get(f"/admin/separations/job/{finished.pk}/change/").content.decode()
    assert "vocals" in change
    listing = admin_client.get("/admin/separations/job/").content.decode()
    assert f'href="/songs/{finished.pk}"' in listing
    assert "delete_selected" not in listing
    assert admin_client.get(f"/songs/{finished.pk}").status_code == 200, "staff see every song"
    asked = {"action": "delete_jobs", "_selected_action": [str(finished.pk)]}
    assert "cannot be taken back" in admin_client.post("/admin/separations/job/", asked).text
    assert Job.objects.exists()
    admin_client.post("/admin/separations/job/", {**asked, "post": "yes"})
    assert not Job.objects.exists()
    assert not finished.result_folder.exists()


def test_the_operator_deletes_one_job_with_its_files(
    finished: Job, admin_client: Client, kept_files: Callable[[], list[Path]]
) -> None:
    address = f"/admin/separations/job/{finished.pk}/delete/"
    assert "permission" not in admin_client.get(address).content.decode()
    admin_client.post(address, {"post": "yes"})
    assert not Job.objects.exists()
    assert kept_files() == []


def test_staff_need_the_permission(
    finished: Job, client: Client, django_user_model: Any, site_settings: Settings
) -> None:
    clerk = django_user_model.objects.create_user("clerk", is_staff=True)
    client.force_login(clerk)
    assert client.get(f"/songs/{finished.pk}").status_code == 404
    clerk.user_permissions.add(Permission.objects.get(codename="view_job"))
    assert client.get(f"/songs/{finished.pk}").status_code == 200
    assert client.post(f"/songs/{finished.pk}/delete").status_code == 404


def test_a_user_with_songs_is_not_deleted_from_under_them(
    finished: Job, django_user_model: Any
) -> None:
    user = django_user_model.objects.create_user("cleo")
    Job.objects.update(user=user)
    with pytest.raises(ProtectedError):
        user.delete()


def test_the_operator_can_cancel_and_retry(post: Post, admin_client: Client) -> None:
    post()
    job = Job.objects.get()
    for action, state in (("cancel_jobs", "cancelled"), ("retry_jobs", "queued")):
        admin_client.post(
            "/admin/separations/job/", {"action": action, "_selected_action": [str(job.pk)]}
        )
        job.refresh_from_db()
        assert job.state == state


def test_tabs_that_send_their_first_songs_at_once_are_one_visitor(
    visitor: Client, song: bytes, no_queue: list[None]
) -> None:
    visitor.get("/")
    introduced = visitor.cookies["visitor"].value
    made = []
    for _ in range(2):  # each with the cookies from before the other one's answer
        visitor.cookies.clear()
        visitor.cookies["visitor"] = introduced
        data = {"file": SimpleUploadedFile("a.wav", song), "model": "tiny", "stems": "all"}
        made.append(visitor.post("/", data).headers["Location"])
    assert [visitor.get(address).status_code for address in made] == [200, 200]
    stranger = Client()
    stranger.cookies["visitor"] = introduced[:-1]
    assert stranger.get(made[0]).status_code == 404
    stranger.get("/")
    assert stranger.cookies["visitor"].value not in (introduced, introduced[:-1])
