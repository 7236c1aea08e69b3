"""The API, request by request: authorization and answers."""

import errno
import io
import json
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import soundfile
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.http import UnreadablePostError
from django.test import Client
from django.test.utils import CaptureQueriesContext
from ninja import NinjaAPI
from pytest_django import Settings

from separations.access import api_tokens, token_auth
from separations.delivery import downloads
from separations.disk import disk_space
from separations.engine.options import Options, passes
from separations.engine.weights.store import read_model
from separations.errors import problem_details, user_messages
from separations.errors.fault import Fault
from separations.fair_use import quotas
from separations.models import Bucket, IdempotencyKey, Job, Owner, Upload
from separations.queue import queue_switch
from separations.worker import leases
from tests.support import sounds
from tests.support.jobs import claimed, made

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "site_settings")]
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return sounds.wav(tmp_path_factory.mktemp("song") / "a.wav", sounds.music(1.0)).read_bytes()


@pytest.fixture(autouse=True)
def consumer(db: None) -> None:
    """A consumer with a fresh heartbeat."""
    queue_switch.Presence().beat([], 0)


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna")


@pytest.fixture
def program(anna: User) -> Client:
    """A program with a token of Anna's."""
    _token, text = api_tokens.create(anna, "test", "30")
    return Client(headers={"Authorization": f"Bearer {text}"})


def send(client: Client, song: bytes, headers: Any = None, **form: Any) -> Any:
    file = SimpleUploadedFile(form.pop("name", "My_song.wav"), song)
    return client.post("/api/separate", {"file": file, **form}, headers=headers)


def told(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem that a response holds."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, PROBLEM), (
        response.content
    )
    found: dict[str, Any] = json.loads(response.content)
    assert (found["status"], found["code"]) == (status, code)
    assert found["detail"]
    assert found["type"] == f"/api/problems#{code}"
    return found


def finish() -> None:
    job = claimed()
    assert leases.finish(job, *made(job))


# A song's way through


def test_a_song_is_taken_followed_and_fetched(program: Client, song: bytes) -> None:
    response = send(program, song, stems="all", shifts="2", overlap="0.5")
    assert response.status_code == 202
    sent = response.json()
    assert (sent["status"], sent["progress"], sent["queue_position"]) == ("queued", 0, 1)
    assert (sent["title"], sent["model"], sent["token"]) == ("My song", "tiny", None)
    assert sent["options"]["shifts"] == 2
    assert sent["options"]["overlap"] == 0.5
    at = f"/api/separate/{sent['task_id']}"
    assert sent["links"]["self"] == f"http://testserver{at}"
    assert sent["links"]["stems"] == {}
    told(program.get(f"{at}/stems/drums"), 409, "not_done")
    told(program.get(f"{at}/archive"), 409, "not_done")
    finish()
    done = program.get(at).json()
    assert (done["status"], done["progress"], done["cached"]) == ("completed", 100, False)
    assert [stem["name"] for stem in done["stems"]] == ["drums", "bass", "other", "vocals"]
    assert done["stems"][0]["loudness"] == -20.0
    for link in (*done["links"]["stems"].values(), done["links"]["mixdown"]):
        answer = program.get(link.removeprefix("http://testserver"))
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "audio/wav")
        assert b"".join(answer).startswith(b"RIFF")
    archive = program.get(f"{at}/archive?format=flac")
    assert archive.headers["Content-Type"] == "application/zip"
    assert b"".join(archive).startswith(b"PK")
    told(program.get(f"{at}/stems/trumpet"), 404, "not_found")
    again = send(program, song, stems="all", shifts="2", overlap="0.5").json()
    assert (again["cached"], again["status"]) == (True, "completed")
    assert program.delete(at).status_code == 204
    told(program.get(at), 404, "not_found")


@pytest.mark.parametrize("who", ["a session", "nobody"])
def test_the_three_calls_work_as_they_are_written(song: bytes, who: str) -> None:
    client = Client(enforce_csrf_checks=True)
    headers = {}
    if who == "a session":
        session = client.session
        session["visitor"] = "a" * 32
        session.save()
        page = client.get("/").content.decode()
        headers["X-CSRFToken"] = page.split('csrfmiddlewaretoken" value="')[1].split('"')[0]
    form = {"file": SimpleUploadedFile("song.wav", song), "model": "tiny"}
    sent = client.post("/api/separate", form, headers=headers)
    assert sent.status_code == 202
    task_id, token = sent.json()["task_id"], sent.json()["token"]
    assert (token is None) == (who == "a session")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    finish()
    events = client.get(f"/api/separate/{task_id}/progress", headers=headers)
    assert '"status":"completed","progress":100' in b"".join(events).decode()
    stem = client.get(f"/api/separate/{task_id}/stems/vocals", headers=headers)
    assert b"".join(stem).startswith(b"RIFF")
    listed = client.get("/api/jobs?status=completed", headers=headers).json()
    assert [item["task_id"] for item in listed["items"]] == [task_id]


def test_the_next_song_to_run_is_the_first_in_the_queue(program: Client, song: bytes) -> None:
    send(program, song)
    claimed()
    places = [send(program, song, shifts=str(n)).json()["queue_position"] for n in (1, 2)]
    assert places == [1, 2], "whatever runs now waits no more"


@pytest.mark.parametrize("url", ["https://example.org/x", ""])
def test_what_is_tried_again_and_again_is_counted_as_songs_are(
    program: Client, song: bytes, settings: Settings, url: str
) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "upload": (2, 3600)}
    more = {"webhook_url": url} if url else {}
    at = f"/api/separate/{send(program, song, **more).json()['task_id']}"
    answers = []
    for _ in range(2):
        program.post(f"{at}/cancel")
        answers.append(program.post(f"{at}/retry").status_code)
    assert answers == [202, 429]


def test_downloads_know_ranges_formats_and_what_the_reader_has(
    program: Client, song: bytes
) -> None:
    task = send(program, song).json()
    assert task["sample_rate"] == sounds.RATE
    at = f"/api/separate/{task['task_id']}/stems/drums"
    finish()
    assert program.get(f"{at}?sample_rate=48000").json()["code"] == "bad_field"
    Upload.objects.update(sample_rate=96_000)
    refused = program.get(f"{at}?sample_rate=song&format=opus").json()
    assert (refused["code"], refused["status"]) == ("rate_not_in_format", 422)
    resampled = program.get(f"{at}?sample_rate=song&format=wav24")
    assert '"My song (Drums) 96 kHz 24-bit.wav"' in resampled.headers["Content-Disposition"]
    assert soundfile.info(io.BytesIO(b"".join(resampled))).samplerate == 96_000
    whole = program.get(at)
    etag = whole.headers["ETag"]
    assert "attachment" in whole.headers["Content-Disposition"]
    assert "My song (Drums).wav" in whole.headers["Content-Disposition"]
    part = program.get(at, headers={"Range": "bytes=0-3"})
    assert (part.status_code, b"".join(part)) == (206, b"RIFF")
    assert program.get(at, headers={"If-None-Match": etag}).status_code == 304
    head = program.head(at)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]
    for accept, told_as in (
        ("application/octet-stream", "application/octet-stream"),
        ("*/*", None),
    ):
        answer = program.head(at, headers={"Accept": accept})
        assert answer.headers["Content-Type"] == (told_as or "audio/wav")
        assert "Accept" in answer.headers["Vary"].split(", ")
    asked = program.head(f"{at}?format=mp3&bitrate=128")
    assert (asked.status_code, asked.headers["Content-Type"]) == (200, "audio/mpeg")
    assert not Job.objects.get().rendition_folder.exists(), "nothing is encoded for a question"
    mp3 = program.get(f"{at}?format=mp3&bitrate=128")
    assert mp3.headers["Content-Type"] == "audio/mpeg"
    best = program.get(f"{at}?format=mp3")
    assert int(best.headers["Content-Length"]) > 2 * int(mp3.headers["Content-Length"])
    short = program.get(f"{at}?from=0.2&to=0.3")
    left_out = int(whole.headers["Content-Length"]) - int(short.headers["Content-Length"])
    assert left_out == (44_100 - 4_410) * 4
    beyond = program.get(at, headers={"Range": "bytes=999999999-"})
    told(beyond, 416, "bad_range")
    assert beyond.headers["Content-Range"] == f"bytes */{whole.headers['Content-Length']}"
    told(program.get(f"{at}?format=mp3&bitrate=129"), 422, "bad_option")
    told(program.get(f"{at}?format=wav&bitrate=128"), 422, "bad_option")
    told(program.get(f"{at}?format=aiff"), 422, "bad_field")
    told(program.get(f"{at}?from=5&to=3"), 422, "bad_option")
    for each in (whole, part, mp3, best, short):
        each.close()


def test_cancel_retry_and_what_is_too_late_for_them(program: Client, song: bytes) -> None:
    at = f"/api/separate/{send(program, song).json()['task_id']}"
    told(program.post(f"{at}/retry"), 409, "not_over")
    cancelled = program.post(f"{at}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert "cancelled already" in told(program.post(f"{at}/cancel"), 409, "already_over")["detail"]
    retried = program.post(f"{at}/retry")
    assert (retried.status_code, retried.json()["status"]) == (202, "queued")
    finish()
    told(program.post(f"{at}/retry"), 409, "not_over")


def test_a_failure_is_told_as_a_problem(program: Client, song: bytes) -> None:
    from separations.errors.fault import Fault

    at = f"/api/separate/{send(program, song).json()['task_id']}"
    leases.fail(claimed(), Fault("timed_out", minutes=10))
    failed = program.get(at).json()
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == "timed_out"
    assert "10 minutes" in failed["error"]["detail"]
    told(program.get(f"{at}/stems/drums"), 409, "not_done")
    stream = b"".join(program.get(f"{at}/progress")).decode()
    assert stream.startswith("retry: 2000\nid: "), "no block without data"
    assert stream.endswith("\n\n")
    assert stream.count("\n\n") == 1
    last = json.loads(stream.split("data: ")[1])
    assert (last["status"], last["error"]) == ("failed", failed["error"])


def test_who_waits_for_the_run_of_another_sees_its_progress(program: Client, song: bytes) -> None:
    from separations.engine.process.engine_protocol import Progress

    first = send(program, song).json()
    second = send(program, song).json()
    leases.heartbeat(claimed(), Progress("separate", 0.5, 7.2))
    for task in (first, second):
        now = program.get(f"/api/separate/{task['task_id']}").json()
        assert (now["status"], now["progress"], now["eta"]) == ("processing", 50, 8)
        assert (now["stage"], now["queue_position"]) == ("separate", None)


def test_the_list_has_pages_and_filters(program: Client, song: bytes, anna: User) -> None:
    ids = [send(program, song, shifts=str(n)).json()["task_id"] for n in range(3)]
    program.post(f"/api/separate/{ids[0]}/cancel")
    listed = program.get("/api/jobs?per_page=2&page=1").json()
    assert [item["task_id"] for item in listed["items"]] == [ids[2], ids[1]]
    assert (listed["count"], listed["pages"]) == (3, 2)
    assert listed["next"].endswith("page=2")
    ends = program.get("/api/jobs?page=1").headers
    assert ends["Deprecation"] == "@1795824000"
    assert ends["Sunset"] == "Sun, 28 Nov 2027 00:00:00 GMT"
    assert "Deprecation" not in program.get("/api/jobs").headers
    assert listed["previous"] is None
    last = program.get(listed["next"].removeprefix("http://testserver")).json()
    assert [item["task_id"] for item in last["items"]] == [ids[0]]
    assert last["next"] is None
    for query, count in (
        ("status=cancelled", 1),
        ("status=queued", 2),
        ("status=queued&status=cancelled", 3),
        ("model=tiny", 3),
        ("model=none", 0),
    ):
        assert program.get(f"/api/jobs?{query}").json()["count"] == count, query
    told(program.get("/api/jobs?page=3"), 404, "not_found")
    told(program.get("/api/jobs?page=0"), 422, "bad_field")
    told(program.get("/api/jobs?status=done"), 422, "bad_field")
    told(program.get("/api/jobs?model=%00"), 422, "bad_field")  # PostgreSQL takes no such text


def test_songs_that_come_or_go_meanwhile_move_no_page(
    program: Client, song: bytes, anna: User
) -> None:
    first = send(program, song).json()["task_id"]
    same = Job.objects.get()
    began = same.created_at
    for n in range(4):  # two and two of the very same time, which pages part
        same.pk = uuid.UUID(int=n + 1)
        same.save(force_insert=True)
        age = timedelta(hours=n // 2 + 1)
        Job.objects.filter(pk=same.pk).update(created_at=began - age)
    everything = program.get("/api/jobs").json()
    ids = [item["task_id"] for item in everything["items"]]
    assert (len(ids), ids[0], everything["next"]) == (5, first, None)

    def page(address: str) -> tuple[list[str], dict[str, Any]]:
        found = program.get(address.removeprefix("http://testserver")).json()
        return [item["task_id"] for item in found["items"]], found

    shown, one = page("/api/jobs?per_page=2&status=queued")
    assert (shown, one["page"], one["previous"]) == (ids[:2], 1, None)
    assert f"cursor={one['next_cursor']}" in one["next"]
    send(program, song)  # it is the newest
    program.delete(f"/api/separate/{ids[0]}")
    shown, two = page(one["next"])
    assert (shown, two["page"], two["count"]) == (ids[2:4], None, 5)
    Job.objects.filter(pk=ids[3]).delete()  # the one that the cursor names
    shown, three = page(two["next"])
    assert (shown, three["next"], three["next_cursor"]) == (ids[4:], None, None)
    shown, back = page(three["previous"])
    assert shown == [ids[1], ids[2]]
    assert page(back["next"])[0] == ids[4:]
    newest, top = page(back["previous"])
    assert (len(newest), top["previous"]) == (1, None)
    assert page(f"/api/jobs?per_page=2&cursor={two['next_cursor']}")[0] == ids[4:]
    for bad in ("x", "YTE", "A" * 99, "é", "YTAwMDEtMDEtMDFUMDA6MDA6MDArMTQ6MDAgMQ"):
        refused = program.get("/api/jobs", {"cursor": bad}, headers={"Accept-Language": "ko"})
        (error,) = told(refused, 422, "bad_field")["errors"]
        assert error["message"].startswith("이 목록의 커서가 아닙니다.")


def test_what_is_new_waits_and_what_is_there_does_not(program: Client, song: bytes) -> None:
    waiting = send(program, song, key("a"))
    assert waiting.status_code == 202
    assert waiting.headers["Location"] == waiting.json()["links"]["self"]
    assert send(program, song, key("a")).status_code == 202
    finish()
    for again in (send(program, song, key("a")), send(program, song)):
        assert (again.status_code, again.json()["status"]) == (201, "completed")
        assert again.headers["Location"] == again.json()["links"]["self"]
    cancelled = send(program, song, shifts="1").json()["task_id"]
    at = f"/api/separate/{cancelled}"
    program.post(f"{at}/cancel")
    retried = program.post(f"{at}/retry")
    assert (retried.status_code, retried.headers["Location"]) == (202, f"http://testserver{at}")
    program.post(f"{at}/cancel")
    finish_of(send(program, song, shifts="1"))
    retried = program.post(f"{at}/retry")
    assert (retried.status_code, retried.json()["cached"]) == (200, True)


def finish_of(answer: Any) -> None:
    assert answer.status_code == 202
    finish()


def test_the_gain_of_formats_without_head_room_is_told(
    program: Client, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = send(program, song).json()
    assert sent["gain_db"] is None
    finish()
    at = f"/api/separate/{sent['task_id']}"
    assert program.get(at).json()["gain_db"] == 0.0
    Job.objects.get().stems.filter(name="bass").update(peak=2.0)  # as if it exceeded full scale
    assert program.get(at).json()["gain_db"] == -6.02
    for what, gain in (
        ("stems/drums", "-6.02"),
        ("stems/drums?format=flac", "-6.02"),
        ("stems/drums?format=float32", "0.00"),
        ("archive", "-6.02"),
        ("mixdown?mix=drums:0:0:m", None),
    ):
        answer = program.get(f"{at}/{what}")
        if gain is None:
            assert float(answer.headers["Stemsite-Gain-Db"]) <= 0
        else:
            assert answer.headers["Stemsite-Gain-Db"] == gain, what
        answer.close()
    searched: list[int] = []

    def peak_of(*_anything: object) -> float:
        searched.append(1)
        return 2.0

    monkeypatch.setattr(downloads, "peak_of", peak_of)
    for is_told in (True, False):  # the second one is cached
        answer = program.get(f"{at}/mixdown?mix=bass:0:0:m&format=flac")
        assert b"".join(answer).startswith(b"fLaC")
        assert answer.headers.get("Stemsite-Gain-Db") == ("-6.02" if is_told else None)
    assert len(searched) == 1, "what is cached needs no search for its peak"


def test_the_limits_are_told_to_whoever_asks(
    program: Client, song: bytes, settings: Settings
) -> None:
    settings.MAX_QUEUED_JOBS, settings.MAX_MINUTES_A_DAY = 3, 10
    settings.MAX_OWNER_STORAGE_GB = 1
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "upload": (5, 60), "api": (40, 60)}
    send(program, song, shifts="6")  # six passes over a second
    found = program.get("/api/limits").json()
    assert found["max_bytes"] == settings.MAX_UPLOAD_MB * 1_000_000
    assert found["max_seconds"] == settings.MAX_DURATION_SECONDS
    assert ".mp3" in found["extensions"]
    formats = {each["name"]: each for each in found["formats"]}
    assert formats["mp3"]["bit_rates"] == [128, 192, 256, 320]
    assert formats["opus"]["sample_rates"] == [48_000]
    assert formats["mp3"]["sample_rates"] == [32_000, 44_100, 48_000]
    assert formats["wav24"]["sample_rates"] == []  # all
    assert [formats[n]["may_be_turned_down"] for n in ("wav", "float32")] == [True, False]
    rates = {each["name"]: each for each in found["rates"]}
    assert (rates["upload"]["quota"], rates["upload"]["left"]) == (5, 4)
    assert (rates["api"]["window"], rates["api"]["left"]) == (60, 39), "with this one"
    had = found["quotas"]
    assert had["songs_waiting"] == {"most": 3, "left": 2}
    assert had["minutes_a_day"] == {"most": 10, "left": 9.9}
    assert 0.9 < had["storage_gb"]["left"] <= had["storage_gb"]["most"] == 1.0
    assert Client().get("/api/limits").json()["quotas"]["songs_waiting"]["left"] == 3
    settings.MAX_QUEUED_JOBS = settings.MAX_OWNER_STORAGE_GB = 0
    unlimited = program.get("/api/limits").json()["quotas"]
    assert unlimited["songs_waiting"] == {"most": None, "left": None}
    assert unlimited["storage_gb"] == {"most": None, "left": None}


def test_the_size_of_the_disk_is_not_for_strangers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Owner] = []

    def stored(owner: Owner) -> int:
        looks.append(owner)
        return 2 * 10**9

    monkeypatch.setattr(quotas, "bytes_stored_of", stored)
    # An account that no other test has: what it stores is remembered for a while.
    _token, text = api_tokens.create(User.objects.create_user("carl", pk=4711), "test", "30")
    program = Client(headers={"Authorization": f"Bearer {text}"})

    def told_to(client: Client) -> Any:
        return client.get("/api/limits").json()["quotas"]["storage_gb"]

    settings.MAX_OWNER_STORAGE_GB = 5
    assert told_to(Client()) == {"most": 5.0, "left": 5.0}
    assert [told_to(program)["left"] for _ in range(3)] == [3.0] * 3
    assert len(looks) == 1, "whoever asks often has no files counted each time"
    settings.MAX_OWNER_STORAGE_GB = None
    assert told_to(Client()) is None
    assert told_to(program)["most"] > 0
    monkeypatch.setattr(disk_space, "most_of_an_owner", lambda: -1.0)
    assert told_to(program) == {"most": 0.0, "left": 0.0}

    def away() -> float:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(disk_space, "most_of_an_owner", away)
    told(program.get("/api/limits"), 500, "storage")


def test_answers_say_how_much_is_left_of_their_limit(
    program: Client, song: bytes, settings: Settings
) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "upload": (2, 3600), "api": (3, 300)}

    def limit(answer: Any) -> tuple[str, str]:
        return answer.headers["RateLimit-Policy"], answer.headers["RateLimit"]

    first = send(program, song)
    assert limit(first) == ('"upload";q=2;w=3600', '"upload";r=1;t=1800')
    assert "upload" in limit(send(program, song, shifts="99"))[0], "what is refused counts as well"
    refused = send(program, song)
    assert told(refused, 429, "too_many_requests")["limit"] == "upload"
    wait = int(refused.headers["Retry-After"])
    assert 1740 <= wait <= 1800
    assert limit(refused)[1] == f'"upload";r=0;t={wait}'
    said = refused.json()["detail"]
    assert said.endswith(f"the limit for songs sent is reached. Try again in {wait // 60} min.")
    left = [limit(program.get("/api/jobs"))[1] for _ in range(3)]
    assert left == [f'"api";r={n};t={max(100, 100 * n)}' for n in (2, 1, 0)]
    refused = program.get("/api/jobs")
    wait = int(refused.headers["Retry-After"])
    assert f"for requests is reached. Try again in {wait} s." in refused.json()["detail"]
    told_later = Fault("too_many_requests", wait=1741, limit="api")
    assert problem_details.response(told_later).headers["Retry-After"] == "1800"
    assert user_messages.sentence(told_later).endswith("Try again in 30 min.")
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "api": (100, 300)}  # written in batches
    other = Client(REMOTE_ADDR="192.0.2.9")
    left = [limit(other.get("/api/models"))[1].partition(";t")[0] for _ in range(3)]
    assert left == [f'"api";r={n}' for n in (99, 98, 97)]
    with CaptureQueriesContext(connection) as asked:
        other.get("/api/models")
    assert sum("bucket" in each["sql"] for each in asked) == 1, "for counting and telling alike"
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "api": (0, 0)}
    assert "RateLimit" not in program.get("/api/jobs").headers


def test_models_are_told(program: Client) -> None:
    found = Client().get("/api/models").json()["items"]
    tiny = next(model for model in found if model["name"] == "tiny")
    assert tiny["is_default"]
    assert tiny["sources"] == ["drums", "bass", "other", "vocals"]
    assert next(m for m in found if m["name"] == "tiny_ft")["passes"] == 4


# What clients send


FIELDS = ("model", "stems", "rest", "segment", "shifts", "overlap", "split")


def form_of_the_description() -> dict[str, dict[str, Any]]:
    described = Client().get("/api/openapi.json").json()
    form = described["components"]["schemas"]["SeparationRequest"]
    fields: dict[str, dict[str, Any]] = form["properties"]
    return fields


def test_the_defaults_of_the_description_and_empty_fields_ask_for_the_same(
    program: Client, song: bytes
) -> None:
    fields = form_of_the_description()
    assert set(FIELDS) < set(fields)
    defaults = {name: each["default"] for name, each in fields.items() if "default" in each}
    assert {"stems", "shifts", "overlap", "split"} < set(defaults)
    spelled = {name: str(value) for name, value in defaults.items()}  # as Python does: True
    as_json = {name: json.dumps(value).strip('"') for name, value in defaults.items()}
    empty = dict.fromkeys((*FIELDS, "webhook_url"), "")
    asked = [send(program, song, **form) for form in ({}, spelled, as_json, empty)]
    assert [answer.status_code for answer in asked] == [202] * 4
    assert len({json.dumps([a.json()["options"], a.json()["model"]]) for a in asked}) == 1


@pytest.mark.parametrize("text", ["false", "False", "FALSE", "0", "no", "off"])
def test_a_switch_is_read_however_a_client_spells_it(
    program: Client, song: bytes, text: str
) -> None:
    off = send(program, song, split=text, shifts="2.0", model="tiny_mdx").json()["options"]
    assert (off["split"], off["shifts"]) == (False, 2)
    told(send(program, song, split="f"), 422, "bad_field")
    told(send(program, song, shifts="2.5"), 422, "bad_field")


def test_a_field_that_nobody_knows_is_refused_with_the_nearest(
    program: Client, song: bytes
) -> None:
    def refused(answer: Any) -> tuple[list[str], str]:
        found = told(answer, 422, "bad_field")
        return [error["field"] for error in found["errors"]], found["detail"]

    assert refused(send(program, song, stem="vocals")) == (
        ["stem"],
        "There is no field “stem” here. Did you mean “stems”?",
    )
    at = f"/api/separate/{send(program, song).json()['task_id']}"
    assert Job.objects.count() == 1
    for address, name, near in (
        ("/api/jobs?status[]=completed", "status[]", "Did you mean “status”?"),
        ("/api/jobs?limit=5", "limit", "There are: status, model,"),
        (f"{at}/stems/drums?Format=mp3", "Format", "Did you mean “format”?"),
        (f"{at}/archive?bit_rate=320", "bit_rate", "Did you mean “bitrate”?"),
        (f"{at}/mixdown?_=1", "_", "There are: "),
        (f"{at}?token=x", "token", "takes none"),
        (f"{at}/progress?x=1", "x", "takes none"),
        ("/api/models?x", "x", "takes none"),
    ):
        fields, detail = refused(program.get(address))
        assert fields == [name]
        assert near in detail, (address, detail)
    file = {"file": SimpleUploadedFile("a.wav", song)}
    assert refused(program.post("/api/separate?model=tiny", file))[0] == ["model"]
    assert refused(program.post(f"{at}/cancel", {"reason": "none"}))[0] == ["reason"]
    assert refused(program.delete(f"{at}?force=1"))[0] == ["force"]
    audio = {"audio": SimpleUploadedFile("a.wav", song)}
    assert refused(program.post("/api/separate", audio))[0] == ["file", "audio"]
    assert refused(send(program, song, shifts="x", stem="drums"))[0] == ["shifts", "stem"]
    assert Job.objects.count() == 1, "nothing was done"
    told(Client().get(f"{at}?x=1"), 401, "unauthorized")


# What is refused


def test_bad_songs_and_options_are_refused_with_a_sentence(
    program: Client, song: bytes, kept_files: Any, settings: Settings
) -> None:
    settings.MAX_UPLOAD_MB = 1
    for status, code, form in (
        (415, "wrong_extension", {"name": "a.exe"}),
        (422, "bad_field", {"segment": "nan"}),
        (422, "bad_field", {"shifts": "many"}),
        (422, "bad_field", {"overlap": "1"}),
        (422, "bad_field", {"rest": "half"}),
        (422, "no_such_stem", {"stems": "trumpet"}),
        (422, "model_missing", {"model": "none"}),
        (422, "bad_model_name", {"model": "../../etc"}),
        (422, "too_much_work", {"shifts": "9"}),
        (422, "too_much_work", {"shifts": "2", "overlap": "0.9"}),
        (422, "bad_webhook", {"webhook_url": "http://127.0.0.1/"}),
    ):
        told(send(program, song, **form), status, code)
    told(send(program, b""), 400, "empty")
    told(send(program, b"no song at all" * 100), 415, "not_audio")
    told(send(program, bytes(1_100_000)), 413, "too_large")
    told(program.post("/api/separate", {"model": "tiny"}), 400, "no_file")
    told(program.post("/api/separate", {}, "application/json"), 415, "wrong_content_type")
    two = [SimpleUploadedFile("a.wav", song), SimpleUploadedFile("b.wav", song)]
    told(program.post("/api/separate", {"file": two}), 422, "one_file")
    told(program.put("/api/separate"), 405, "wrong_method")
    assert program.put("/api/separate").headers["Allow"] == "POST"
    told(program.get("/api/nothing"), 404, "not_found")
    told(program.get("/api/separate/1"), 404, "not_found")
    assert not Job.objects.exists()
    assert not Upload.objects.exists()
    assert kept_files() == []


def test_the_limits_of_the_site_hold_for_programs(
    program: Client, song: bytes, settings: Settings
) -> None:
    settings.MAX_QUEUED_JOBS = 1
    send(program, song)
    refused = send(program, song, shifts="1")
    told(refused, 429, "quota_queued")
    assert refused.headers["Retry-After"] == "60"
    settings.MAX_QUEUED_JOBS = 0
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "upload": (1, 60), "api": (2, 60)}
    assert send(program, song, shifts="1").status_code == 202
    refused = send(program, song, shifts="2")
    told(refused, 429, "too_many_requests")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert program.get("/api/jobs").status_code == 200
    assert program.get("/api/models").status_code == 200
    told(program.get("/api/jobs"), 429, "too_many_requests")


def test_more_passes_count_as_more_minutes(
    program: Client, song: bytes, settings: Settings
) -> None:
    settings.MAX_MINUTES_A_DAY = 0.1  # six passes over a second each
    assert send(program, song, shifts="5").status_code == 202
    told(send(program, song, shifts="4"), 429, "quota_minutes")


def test_more_networks_count_as_more_minutes(
    program: Client, song: bytes, settings: Settings
) -> None:
    settings.MAX_MINUTES_A_DAY = 0.1  # of four networks, one pass over a second and a half
    assert send(program, song, model="tiny_ft").status_code == 202
    refused = send(program, song, model="tiny_ft", shifts="2")
    told(refused, 429, "quota_minutes")
    assert send(program, song, model="tiny_ft", stems="vocals").status_code == 202, "one of four"
    assert "slower models count several times" in refused.json()["detail"]


def test_short_segments_are_padded_so_they_count_as_what_they_cost(
    site_settings: Settings, song: bytes
) -> None:
    tiny = read_model(site_settings.MODEL_DIR, "tiny")
    longest = tiny.longest_segment
    assert longest == 1.0
    half = replace(Options(model="tiny"), segment=longest / 2, shifts=3)
    assert passes(half, tiny) == 6.0
    assert passes(Options(overlap=0.0), tiny) == 1.0
    older = read_model(site_settings.MODEL_DIR, "tiny_mdx")
    assert passes(replace(half, model="tiny_mdx"), older) == 3.0


def test_an_upload_that_breaks_off_is_no_fault_of_the_site(
    program: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: object, *_args: object) -> bytes:
        raise UnreadablePostError("the other side went away")

    monkeypatch.setattr("django.core.handlers.wsgi.WSGIRequest.read", gone)
    program.raise_request_exception = False
    told(send(program, b"RIFF"), 400, "bad_request")


# Who asks


def test_a_token_is_who_it_says_and_nobody_else(
    program: Client, song: bytes, anna: User, site_settings: Settings
) -> None:
    at = f"/api/separate/{send(program, song).json()['task_id']}"
    assert Job.objects.get().user == anna
    bert = User.objects.create_user("bert", is_staff=True, is_superuser=True)
    _token, text = api_tokens.create(bert, "test", "30")
    for authorization in (f"Bearer {text}", f"bearer {text}"):
        stranger = Client(headers={"Authorization": authorization})
        told(stranger.get(at), 404, "not_found")  # staff or not
        assert stranger.get("/api/jobs").json()["count"] == 0
    # A session beside a token does not count.
    stranger.force_login(anna)
    told(stranger.get(at), 404, "not_found")
    for bad in ("Bearer", "Bearer x", "Bearer stemsite_" + "A" * 43, "Bearer stemsite_visitor_x"):
        client = Client(headers={"Authorization": bad})
        client.force_login(anna)
        answer = client.get(at)
        told(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    told(Client().get(at), 401, "unauthorized")
    told(Client().get(f"/api/separate/{uuid.uuid4()}"), 401, "unauthorized")
    anna.is_active = False
    anna.save()
    told(program.get(at), 401, "unauthorized")


def test_a_visitor_gets_a_token_for_their_songs(song: bytes, settings: Settings) -> None:
    sent = send(Client(), song).json()
    at = f"/api/separate/{sent['task_id']}"
    told(Client().get(at), 401, "unauthorized")
    known = Client(headers={"Authorization": f"Bearer {sent['token']}"})
    assert known.get(at).json()["status"] == "queued"
    second = send(known, song, shifts="1").json()
    assert second["token"] is None
    assert known.get("/api/jobs").json()["count"] == 2
    other = Client(headers={"Authorization": f"Bearer {send(Client(), song).json()['token']}"})
    told(other.get(at), 404, "not_found")
    told(other.delete(at), 404, "not_found")
    forged = sent["token"][:-3] + ("aaa" if not sent["token"].endswith("aaa") else "bbb")
    told(Client(headers={"Authorization": f"Bearer {forged}"}).get(at), 401, "unauthorized")
    settings.API_ANONYMOUS = False
    told(known.get(at), 401, "unauthorized")
    told(send(Client(), song), 401, "unauthorized")


def test_where_accounts_are_required_a_token_is_needed(
    program: Client, song: bytes, settings: Settings
) -> None:
    visitor = token_auth.visitor_token(Owner("a" * 32))
    settings.ACCOUNTS = "required"
    for client in (Client(), Client(headers={"Authorization": f"Bearer {visitor}"})):
        told(send(client, song), 401, "unauthorized")
        told(client.get("/api/models"), 401, "unauthorized")
    assert send(program, song).status_code == 202
    settings.ACCOUNTS = "off"
    told(program.get("/api/jobs"), 401, "unauthorized")


def test_a_browser_uses_its_session_and_its_csrf_token(song: bytes) -> None:
    browser = Client(enforce_csrf_checks=True)
    session = browser.session
    session["visitor"] = "a" * 32
    session.save()
    told(send(browser, song), 403, "stale_form")
    page = browser.get("/")
    token = page.content.decode().split('csrfmiddlewaretoken" value="')[1].split('"')[0]
    sent = send(browser, song, {"X-CSRFToken": token})
    assert sent.status_code == 202
    assert Job.objects.get().visitor == "a" * 32
    assert sent.json()["token"] is None
    at = f"/api/separate/{sent.json()['task_id']}"
    assert browser.get(at).status_code == 200
    told(browser.delete(at), 403, "stale_form")
    told(browser.post(f"{at}/cancel"), 403, "stale_form")
    assert browser.post(f"{at}/cancel", headers={"X-CSRFToken": token}).status_code == 200


def test_another_site_sends_nothing_in_a_visitors_name(song: bytes) -> None:
    told(send(Client(), song, {"Sec-Fetch-Site": "cross-site"}), 403, "stale_form")


# Once


def key(letter: str) -> dict[str, str]:
    return {"Idempotency-Key": letter * 20}


def test_a_request_that_comes_again_makes_no_second_job(
    program: Client, song: bytes, kept_files: Any
) -> None:
    first = send(program, song, key("a"))
    files = kept_files()
    second = send(program, song, key("a"))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert kept_files() == files
    told(send(program, song, key("a"), shifts="1"), 422, "idempotency_mismatch")
    told(send(program, song + b"\0\0\0\0", key("a")), 422, "idempotency_mismatch")
    assert send(program, song, key("b")).json()["task_id"] != first.json()["task_id"]
    told(send(program, song, {"Idempotency-Key": "short"}), 422, "bad_idempotency_key")
    bert = User.objects.create_user("bert")
    _token, text = api_tokens.create(bert, "test", "30")
    theirs = Client(headers={"Authorization": f"Bearer {text}"})
    assert send(theirs, song, key("a")).json()["task_id"] != first.json()["task_id"]


def with_token(answer: dict[str, Any]) -> Client:
    return Client(headers={"Authorization": f"Bearer {answer['token']}"})


def seen_by(client: Client) -> set[str]:
    return {each["task_id"] for each in client.get("/api/jobs").json()["items"]}


def test_a_visitor_whose_answer_was_lost_gets_it_again(song: bytes) -> None:
    first, second = send(Client(), song, key("a")).json(), send(Client(), song, key("a")).json()
    assert first["task_id"] == second["task_id"]
    for each in (first, second):
        program = with_token(each)
        assert seen_by(program) == {first["task_id"]}
        assert program.get(f"/api/separate/{first['task_id']}").status_code == 200
    IdempotencyKey.objects.all().delete()  # a day later the key opens nothing any more
    later = send(Client(), song, key("a")).json()
    assert later["task_id"] != first["task_id"]
    assert seen_by(with_token(later)) == {later["task_id"]}
    elsewhere = Client(REMOTE_ADDR="192.0.2.1")
    assert send(elsewhere, song, key("a")).json()["task_id"] != first["task_id"]


def test_who_sends_the_same_from_the_same_network_sees_no_other_song(song: bytes) -> None:
    first = send(Client(), song, key("a")).json()
    owner = with_token(first)
    later = send(owner, song, shifts="1").json()
    assert later["token"] is None
    assert seen_by(owner) == {first["task_id"], later["task_id"]}
    stranger = with_token(send(Client(), song, key("a")).json())
    assert seen_by(stranger) == {first["task_id"]}
    told(stranger.get(f"/api/separate/{later['task_id']}"), 404, "not_found")
    told(stranger.delete(f"/api/separate/{later['task_id']}"), 404, "not_found")
    theirs = send(stranger, song, shifts="2").json()
    assert seen_by(stranger) == {first["task_id"], theirs["task_id"]}
    assert seen_by(owner) == {first["task_id"], later["task_id"]}
    third = with_token(send(Client(), song, key("a")).json())
    assert seen_by(third) == {first["task_id"]}


def test_nor_do_they_learn_what_other_calls_are_signed_with(song: bytes) -> None:
    hook = {"webhook_url": "https://example.org/x"}
    first = send(Client(), song, key("a"), **hook).json()
    later = send(with_token(first), song, shifts="1", **hook).json()
    again = send(Client(), song, key("a"), **hook).json()
    assert again["webhook_secret"] == first["webhook_secret"], "of the one song"
    assert later["webhook_secret"] != first["webhook_secret"]


def test_a_song_that_an_account_has_taken_over_is_opened_by_no_such_token(
    song: bytes, anna: User
) -> None:
    first = send(Client(), song, key("a")).json()
    Job.objects.update(user=anna, network="")
    told(with_token(first).get(f"/api/separate/{first['task_id']}"), 404, "not_found")
    assert seen_by(with_token(first)) == set()


def test_a_request_that_failed_can_be_sent_again_with_its_key(
    program: Client, song: bytes, settings: Settings
) -> None:
    settings.MAX_QUEUED_JOBS = 1
    send(program, song)
    told(send(program, song, key("a"), shifts="1"), 429, "quota_queued")
    settings.MAX_QUEUED_JOBS = 0
    assert send(program, song, key("a"), shifts="1").status_code == 202


@pytest.mark.parametrize("most", [0, 1], ids=["no limit", "room for one"])
def test_of_two_same_requests_at_once_one_makes_the_job(
    program: Client,
    song: bytes,
    kept_files: Any,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    from separations.uploads.submission import IdempotentRequest

    settings.MAX_QUEUED_JOBS = most
    settings.MAX_MINUTES_A_DAY = 600
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "upload": (0, 0), "api": (0, 0)}
    first = send(program, song, key("a")).json()
    files = kept_files()
    counted = sorted(Bucket.objects.values_list("key", "tokens"))
    looks = iter([None])
    really = IdempotentRequest.earlier
    monkeypatch.setattr(IdempotentRequest, "earlier", lambda self: next(looks, really(self)))
    assert send(program, song, key("a")).json()["task_id"] == first["task_id"]
    assert Job.objects.count() == Upload.objects.count() == 1
    assert kept_files() == files
    assert sorted(Bucket.objects.values_list("key", "tokens")) == counted


def test_keys_are_forgotten_after_a_day(program: Client, song: bytes) -> None:
    from datetime import timedelta

    from django.utils import timezone

    from separations.worker import retention

    send(program, song, key("a"))
    retention.clean()
    assert IdempotencyKey.objects.count() == 1
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(days=1, minutes=1))
    retention.clean()
    assert IdempotencyKey.objects.count() == 0
    assert Job.objects.count() == 1


# What it says of itself


def test_the_description_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Client().get("/api/openapi.json").content
    monkeypatch.setattr(NinjaAPI, "get_openapi_schema", None)
    assert Client().get("/api/openapi.json").content == first


def test_every_problem_is_explained_to_people_and_programs(client: Client) -> None:
    page = client.get("/api/problems", headers={"Accept": "text/html,*/*;q=0.8"})
    assert "Accept" in page.headers["Vary"]
    for code in user_messages.FAULTS:
        assert f'id="{code}"' in page.content.decode()
    asked = client.get("/api/problems?format=json", headers={"Accept": "text/html"})
    preferred = client.get("/api/problems", headers={"Accept": "application/json"})
    assert asked.json() == preferred.json()
    items = {item["code"]: item for item in asked.json()["items"]}
    assert set(items) == set(user_messages.FAULTS)
    assert items["too_large"]["status"] == 413
    assert items["too_large"]["type"] == "/api/problems#too_large"
    assert "{max_mb} MB" in items["too_large"]["detail"]
    assert b"<dt" in client.get("/api/problems").content, "as for who does not say"


def test_an_error_in_a_view_is_a_problem_without_details(
    program: Client, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = f"/api/separate/{send(program, song).json()['task_id']}"

    def broken(*_args: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("separations.api.routes.songs.serialize_task", broken)
    program.raise_request_exception = False
    response = program.get(at)
    told(response, 500, "broken")
    assert b"secret" not in response.content
