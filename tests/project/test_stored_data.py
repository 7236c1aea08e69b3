"""What sites keep and have handed out stays valid, whatever the code is called.

`tests/data/before_the_move` was made once by the site as it was then; see
`tests/support/make_fixture.py`. A red test here means that somebody's link, token, cookie or file
would be lost: change the code, never the fixture.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import types
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client, RequestFactory
from pytest_django import Settings

from separations.access import token_auth
from separations.accounts import tasks as mail_tasks
from separations.admin import job_history
from separations.delivery import downloads
from separations.engine.options import Options
from separations.engine.weights import checksums
from separations.engine.weights.store import read_model
from separations.fair_use import quotas, token_bucket
from separations.jobs import result_keys
from separations.models import Bucket, Delivery, IdempotencyKey, Job, Owner, Stem
from separations.models.account_names import FoldedNames
from separations.uploads import submission
from separations.webhooks import events
from separations.worker import tasks
from stemsite.signed_queue import SqliteQueue
from tests.support.disks import FOLDERS
from tests.support.sounds import ROOT

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("before", "no_queue")]
DATA = ROOT / "tests" / "data" / "before_the_move"
MADE: dict[str, Any] = json.loads((DATA / "handed_out.json").read_text())
ANNA_AT, VISITOR_AT = "198.51.100.7", "2001:db8:1:2::5"
OF_DJANGO = ("django_migrations", "django_content_type", "auth_permission")  # in every database
Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    """The tables of the old database after the migrations that came since, by their names."""
    folder = tmp_path_factory.mktemp("before")
    file = folder / "db.sqlite3"
    with closing(sqlite3.connect(file)) as database:
        database.executescript((DATA / "database.sql").read_text())
    environment = os.environ | {"DATA_DIR": str(folder), "SECRET_KEY": MADE["secret_key"]}
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    with closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        names = {name for (name,) in tables if not name.startswith("sqlite_")}
        return {
            name: [dict(row) for row in database.execute(f'SELECT * FROM "{name}"')]
            for name in names.difference(OF_DJANGO)
        }


@pytest.fixture
def before(
    site_settings: Settings,
    db: None,
    migrated: dict[str, Rows],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old site's database and files, its key, and its time: a minute after they were made."""
    for name in ("results", "uploads", "renditions"):
        target = site_settings.UPLOAD_DIR.parent / name
        shutil.copytree(DATA / name, target)
        setting = {"results": "RESULT_DIR", "uploads": "UPLOAD_DIR"}.get(name, "RENDITION_DIR")
        assert setting in FOLDERS
        setattr(site_settings, setting, target)
    site_settings.MODEL_DIR = DATA / "models"
    site_settings.SECRET_KEY = MADE["secret_key"]
    site_settings.PASSWORD_RESET_TIMEOUT = 10**12  # which looks at another clock than the one here
    monkeypatch.setattr(time, "time", lambda: MADE["made_at"] + 60.0)
    # Versions that are raised on purpose, so that old results and encodings are made anew.
    monkeypatch.setattr(result_keys, "DECODER_VERSION", MADE["result"]["decoder"])
    monkeypatch.setattr(result_keys, "OUTPUT_VERSION", MADE["result"]["output"])
    monkeypatch.setattr(downloads, "ENCODING_VERSION", MADE["result"]["encoding"])
    with connection.cursor() as cursor:
        for table, rows in migrated.items():
            for row in rows:
                columns = ", ".join(f'"{name}"' for name in row)
                marks = ", ".join(["%s"] * len(row))
                cursor.execute(
                    f'INSERT INTO "{table}" ({columns}) VALUES ({marks})', list(row.values())
                )


@pytest.fixture
def anna() -> Client:
    """The browser that was logged in."""
    return browser(sessionid=MADE["session"])


def browser(**cookies: str) -> Client:
    client = Client(REMOTE_ADDR=ANNA_AT)
    for name, value in cookies.items():
        client.cookies[name] = value
    return client


def program(token: str) -> Client:
    return Client(REMOTE_ADDR=VISITOR_AT, headers={"Authorization": f"Bearer {token}"})


def is_in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


# The records


def test_the_records_are_all_there() -> None:
    assert User.objects.get().username == "anna"
    assert Counter(Job.objects.values_list("state", flat=True)) == {"done": 3, "queued": 1}
    assert Stem.objects.count() == 12
    assert all(stem.path.is_file() for stem in Stem.objects.all())
    assert all(job.upload.is_kept for job in Job.objects.all())
    assert Bucket.objects.exists()


# Log-ins, and what else browsers hold


def test_who_was_logged_in_still_is(anna: Client) -> None:
    assert MADE["job"] in anna.get("/").content.decode()
    assert is_in(anna)
    assert not is_in(browser(sessionid="another"))


@pytest.fixture
def moved_backend(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """The authentication backend in a module of another name, and in its own no longer."""
    module = types.ModuleType("tests.a_new_home")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(module)["Backend"] = type("Backend", (FoldedNames,), {})
    path = f"{module.__name__}.Backend"
    settings.AUTHENTICATION_BACKENDS = [path]
    return path


def test_a_log_in_outlives_a_move_of_its_backend(
    anna: Client, moved_backend: str, settings: Settings
) -> None:
    session = anna.session
    stored = session["_auth_user_backend"]
    settings.MOVED_NAMES = {}
    assert not is_in(anna)
    settings.MOVED_NAMES = {stored: moved_backend}
    assert is_in(anna)
    # An earlier version, to which a site may have to go back, still reads it.
    assert anna.session["_auth_user_backend"] == stored
    assert anna.post("/account/logout").status_code == 302
    assert not is_in(anna)


def test_a_password_still_logs_in() -> None:
    client = Client(REMOTE_ADDR=ANNA_AT)
    client.post("/account/login", {"username": "ANNA", "password": MADE["password"]})
    assert is_in(client)


def test_a_visitors_session_keeps_its_songs() -> None:
    visitor = browser(sessionid=MADE["visitor_session"])
    assert visitor.get(f"/songs/{MADE['waiting_job']}").status_code == 200
    assert visitor.get(f"/songs/{MADE['job']}").status_code == 404


def test_a_browser_that_only_looked_is_who_it_was_told_to_be() -> None:
    introduced = browser(visitor=MADE["visitor_cookie"])
    song = SimpleUploadedFile("A_song.wav", (DATA / "song.wav").read_bytes())
    response = introduced.post("/", {"file": song})
    assert response.status_code == 302
    sent = Job.objects.get(pk=uuid.UUID(response.headers["Location"].rpartition("/")[2]))
    assert sent.visitor == MADE["visitor"]
    assert sent.cached, "the same song has its stems at once, from the results that were kept"


def test_guesses_are_counted_where_they_were(settings: Settings) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "login": (20, 900), "name": (30, 900)}
    keys = set(Bucket.objects.values_list("key", flat=True))
    for text, key in MADE["buckets"].items():
        assert token_bucket.name_hash(text) == key
        assert key in keys
    stranger, known = Client(REMOTE_ADDR=VISITOR_AT), browser(known=MADE["known"])
    known_to_be = Bucket.objects.filter(pk=MADE["known_bucket"])
    Bucket.objects.update(tokens=5.0)
    wrong = {"username": "anna", "password": "a wrong one"}
    stranger.post("/account/login", wrong)
    assert known_to_be.get().tokens == 5.0
    known.post("/account/login", wrong)
    assert known_to_be.get().tokens < 30.0
    assert known_to_be.get().tokens != 5.0, "the cookie says which browser it is"
    assert set(Bucket.objects.values_list("key", flat=True)) == keys


def test_a_waiting_job_counts_for_the_network_it_came_from() -> None:
    job = Job.objects.get(pk=MADE["waiting_job"])
    assert quotas.address_hash(Owner(job.visitor, None, MADE["client"])) == job.network != ""


def test_the_operator_knows_a_browser_by_the_same_tag() -> None:
    assert job_history.visitor_tag(MADE["newcomer"]["visitor"]) == MADE["visitor_tag"]


# Links


def test_a_shared_link_opens_the_song_and_plays_it(anna: Client) -> None:
    place = f"/s/{MADE['share_token']}"
    guest = Client()
    for address in (place, f"{place}/stems/drums", f"{place}/stems/drums/chunks/0"):
        assert guest.get(address).status_code == 200, address
    assert guest.get(f"/s/{'A' * 43}").status_code == 404
    assert place in anna.get(f"/songs/{MADE['job']}").content.decode(), "its owner can copy it"


def test_a_mailed_link_confirms_the_address() -> None:
    place = f"/account/confirm/{MADE['confirmation']}"
    Client().post(place)
    assert User.objects.get().email == "anna@example.net"
    assert Client().post(place).status_code == 404, "once"


def test_a_mailed_link_sets_a_new_password() -> None:
    client = Client()
    response = client.get(MADE["reset_path"])
    assert response.status_code == 302
    new = {"new_password1": "another mixture of 6", "new_password2": "another mixture of 6"}
    client.post(response.headers["Location"], new)
    assert User.objects.get().check_password("another mixture of 6")


# Programs


def test_a_token_of_an_account_acts_for_it() -> None:
    client = program(MADE["api_token"])
    assert [job["task_id"] for job in client.get("/api/jobs").json()["items"]] == [MADE["job"]]
    assert client.delete(f"/api/separate/{MADE['job']}").status_code == 204


def test_a_token_of_one_task_opens_that_task() -> None:
    client = program(MADE["task_token"])
    assert client.get(f"/api/separate/{MADE['task']}").status_code == 200
    assert client.get(f"/api/separate/{MADE['visitor_task']}").status_code == 404


def test_a_token_of_a_visitor_opens_what_they_sent() -> None:
    client = program(MADE["visitor_token"])
    assert client.get(f"/api/separate/{MADE['visitor_task']}").status_code == 200
    assert client.get(f"/api/separate/{MADE['task']}").status_code == 404


def test_a_request_that_is_repeated_makes_no_second_job() -> None:
    job = Job.objects.get(pk=MADE["job"])
    key, asked = MADE["idempotency"]["key"], MADE["idempotency"]["asked"]
    assert submission.IdempotentRequest.of(job.owner, key, *asked).earlier() == job
    newcomer = MADE["newcomer"]
    request = RequestFactory().post("/api/separate", REMOTE_ADDR=VISITOR_AT)
    owner = token_auth.new_visitor(request, newcomer["key"])
    assert owner.visitor == newcomer["visitor"], "who has no token is known by key and network"
    again = submission.IdempotentRequest.of(owner, newcomer["key"], *newcomer["asked"])
    assert again.earlier() == Job.objects.get(pk=MADE["task"])
    assert IdempotencyKey.objects.count() == 2


def test_webhooks_are_signed_with_the_secrets_that_receivers_have(anna: Client) -> None:
    delivery = Delivery.objects.get(pk=MADE["webhook_headers"]["webhook-id"])
    assert events.signed_headers(delivery, 1_800_000_000) == MADE["webhook_headers"]
    assert MADE["webhook_secret"] in anna.get("/account/tokens").content.decode()
    visitors = Job.objects.get(pk=MADE["visitor_task"])
    assert events.signing_secret(visitors.owner) == MADE["visitor_secret"]


# The queue


@pytest.fixture
def queue(tmp_path: Path, settings: Settings) -> Iterator[SqliteQueue]:
    """A queue of its own, with the site's tasks."""
    found = SqliteQueue("stemsite", filename=str(tmp_path / "queue.sqlite3"), strict_fifo=True)
    found._registry = settings.HUEY._registry
    yield found
    found.storage.close()


@pytest.mark.parametrize("name", list(MADE["messages"]))
def test_a_message_in_the_queue_is_one_of_its_task(queue: SqliteQueue, name: str) -> None:
    queue.storage.enqueue(MADE["messages"][name].encode())
    task = queue.dequeue()
    module = mail_tasks if name.startswith("mail") else tasks
    assert type(task) is getattr(module, name).task_class


def test_a_message_outlives_a_move_of_its_task(tmp_path: Path, settings: Settings) -> None:
    called = []
    queue = SqliteQueue("stemsite", filename=str(tmp_path / "queue.sqlite3"), strict_fifo=True)
    queue.task(name="moved")(lambda *_args: called.append(1))
    settings.MOVED_NAMES = {}
    message = MADE["messages"]["mail_reset_links"].encode()
    queue.storage.enqueue(message)
    assert queue.dequeue() is None
    (old,) = {name for name in stored_tasks() if name.endswith(".mail_reset_links")}
    settings.MOVED_NAMES = {old: f"{__name__}.moved"}
    queue.storage.enqueue(message)
    queue.execute(queue.dequeue())
    assert called == [1]
    queue.storage.close()


def stored_tasks() -> set[str]:
    """The names of tasks in the messages, as they were signed."""
    from django.core import signing

    return {
        signing.loads(each, salt="stemsite.queue")["name"] for each in MADE["messages"].values()
    }


def test_every_stored_name_is_listed_and_leads_somewhere(settings: Settings, anna: Client) -> None:
    stored = stored_tasks() | {anna.session["_auth_user_backend"]}
    assert stored == set(settings.MOVED_NAMES)
    registry = settings.HUEY._registry
    for old in stored_tasks():
        assert registry.string_to_task(settings.MOVED_NAMES[old])


# Files


def test_encodings_that_are_kept_are_found_again(site_settings: Settings) -> None:
    client = program(MADE["api_token"])
    kept = files_in(site_settings.RENDITION_DIR)
    place = f"/api/separate/{MADE['job']}"
    form = {"format": "opus", "bitrate": "96"}
    stem = client.get(f"{place}/stems/drums", form)
    mix = client.get(f"{place}/mixdown", {**form, "mix": MADE["mix"]})
    keys = {name: etag.strip('"') for name, etag in MADE["etags"].items()}
    etags = {"stem": stem.headers["ETag"], "mix": mix.headers["ETag"]}
    assert {name: etag[1:].partition("-")[0] for name, etag in etags.items()} == keys
    for answer in (stem, mix):
        assert answer.getvalue() in kept.values()
    assert files_in(site_settings.RENDITION_DIR) == kept


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class AsThen(Options):
    """Options as they were: one that is added later makes another recipe on purpose."""

    def that_change_samples(self) -> dict[str, Any]:
        options: dict[str, Any] = MADE["result"]["options"]
        return options


def test_results_have_the_same_keys(settings: Settings) -> None:
    job, made = Job.objects.get(pk=MADE["job"]), MADE["result"]
    model = read_model(settings.MODEL_DIR, "tiny")
    assert model.digest == made["model_digest"]
    assert result_keys.recipe_of(AsThen(model="tiny"), model) == made["recipe"] == job.recipe
    for share, key in made["keys"].items():
        settings.SHARE_RESULTS = share
        assert result_keys.own_key(job) == key
    settings.SHARE_RESULTS = "owner"
    visitors = Job.objects.get(pk=MADE["task"])
    assert result_keys.own_key(visitors) == MADE["visitor_result_key"]


def test_a_models_record_is_read(settings: Settings) -> None:
    model = read_model(settings.MODEL_DIR, "tiny")
    assert checksums.was_known(model)
    checksums.check_unchanged(model)
