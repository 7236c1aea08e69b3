"""The admin with a hundred thousand of everything: no list counts, sorts or reads all of it."""

import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from separations.admin.base import MAX_COUNTED
from separations.admin.job_history import visitor_tag
from separations.models import ApiToken, Consumer, Delivery, Job, ShareLink, Stem, Upload

MANY = 100_000
A_MOMENT = 0.3  # seconds; generous: most take a hundredth of it
FIRST, USERS = 10, 5
NOW = timezone.now()
MODELS = ("htdemucs", "htdemucs_6s", "htdemucs_ft")
LISTS = ("job", "upload", "stem", "sharelink", "apitoken", "delivery", "consumer")
QUICK = (
    "job/",
    "job/?p=2",
    "job/?p=100",
    "job/?o=10",  # the oldest first
    "job/?state__exact=queued",
    "job/?state__exact=failed",
    "job/?state__exact=done&p=2",
    "job/?model=rarest",
    "job/?model=htdemucs",
    "job/?error_code=disk_full",
    "job/?error_code=timed_out&p=2",
    "job/?cached=yes",
    "job/?state__exact=failed&model=htdemucs_ft",
    f"job/?created_at__year={NOW.year}",
    f"job/?created_at__year={NOW.year}&created_at__month={NOW.month}",
    f"job/?created_at__gte={(NOW - timedelta(days=7)).date()}",
    "upload/",
    "upload/?codec=flac&p=2",
    "upload/?o=9",
    "stem/",
    "stem/?name=vocals&p=2",
    "sharelink/",
    "apitoken/",
    "delivery/",
    "delivery/?state__exact=given_up",
    f"apitoken/?created_at__gte={(NOW - timedelta(days=7)).date()}",
)
SEARCHES = (
    "job/?q=Song 5 of 77",
    "job/?q=nothing is called so",
    "job/?q=user3",
    "upload/?q=nothing is called so",
    "stem/?q=nothing is called so",
    "sharelink/?q=nothing is called so",
    "apitoken/?q=nothing is called so",
    "delivery/?q=nothing is called so",
)
STEMS_IN_ORDER = 'ORDER BY "separations_stem"."id" DESC LIMIT 50'  # the table's own order
RARE_VISITOR = "5eldom" + "0" * 26
STATES = ("done",) * 7 + ("failed",) * 2 + ("cancelled",)


@dataclass(frozen=True)
class Rows:
    """One of each, from the middle."""

    job: Job
    user: User


def fill() -> Rows:
    """Ten songs, jobs, stems, links, deliveries and tokens; a minute between two."""
    owners = User.objects.bulk_create(User(username=f"user{n}", password="!") for n in range(USERS))
    jobs = []
    for n in range(FIRST):
        at = NOW - timedelta(minutes=n)
        upload = _upload(n)
        upload.save()
        job = _job(n, at, upload, owners)
        job.save()
        jobs.append(job)
        Stem.objects.create(job=job, name=("vocals", "drums")[n % 2], position=0, peak=0.5)
        ShareLink.objects.create(job=job, token_hash=f"{n:032x}")
        ApiToken.objects.create(
            user=owners[n % USERS], name=f"{n}", hint="st", token_hash=f"{n:032x}"
        )
        state = "given_up" if n == 0 else "delivered"
        Delivery.objects.create(job=job, url="https://example.org/hook", body="{}", state=state)
        for kind in (Upload, Job, ShareLink, ApiToken, Delivery):
            newest = kind._default_manager.filter(created_at__gt=NOW)
            newest.update(created_at=at)
    Consumer.objects.create(host="box", pid=1, started_at=NOW, heartbeat_at=NOW)
    return Rows(jobs[FIRST // 2], owners[0])


def multiply(times: int) -> None:
    """Copy all of it so many times, further and further back: the fastest way to many rows."""
    another_id = "substr({0}, 1, 24) || printf('%08x', n)"
    earlier = "strftime('%Y-%m-%d %H:%M:%f', {0}, '-' || (n * 10) || ' minutes')"
    changed = {
        "id": another_id,
        "upload_id": another_id,
        "job_id": another_id,
        "token_hash": "{0} || printf('%08x', n)",
        "result_key": "substr({0}, 9) || printf('%08x', n)",
        "samples_sha256": "printf('%08x', (n * 7919 + {0}) & 4294967295) || substr({0}, 9)",
        "visitor": "printf('%08x', n) || substr({0}, 9)",
        "title": "{0} || ' of ' || n",
        **dict.fromkeys(("created_at", "queued_at", "started_at", "finished_at"), earlier),
    }
    with connection.cursor() as cursor:
        for model in (Upload, Job, Stem, ShareLink, ApiToken, Delivery):
            columns = [str(field.column) for field in model._meta.concrete_fields]
            if model is Stem:
                columns.remove("id")  # a number
            values = ", ".join(changed.get(name, "{0}").format(f'"{name}"') for name in columns)
            names = ", ".join(f'"{name}"' for name in columns)
            table = model._meta.db_table
            cursor.execute(f"""
                WITH RECURSIVE numbers(n) AS
                    (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {times - 1})
                INSERT INTO {table} ({names}) SELECT {values} FROM {table}, numbers
            """)


def _upload(n: int) -> Upload:
    return Upload(
        file_name=f"song{n}.mp3",
        title=f"Song {n}",
        artist=f"Band {n % 1000}",
        bytes=4_000_000,
        seconds=200.0,
        container="mp3",
        codec=("mp3", "flac")[n % 2],
        sample_rate=44_100,
        channels=2,
        samples_sha256=f"{n * 7919:08x}{n:032x}".ljust(64, "f"),
    )


def _job(n: int, at: datetime, upload: Upload, owners: list[User]) -> Job:
    state = STATES[n]
    ended = state != "queued"
    done = state == "done"
    return Job(
        upload=upload,
        user=owners[n % len(owners)] if n % 2 else None,
        visitor=f"{n % 5000:032x}",
        model=MODELS[n % 3],
        options={"model": MODELS[n % 3], "stems": "all"},
        result_key=f"{n:032x}".ljust(64, "f"),
        state=state,
        progress=1.0 if done else 0.0,
        frames=44_100 if done else None,
        attempt=1,
        error_code=("engine_died", "timed_out")[n % 2] if state == "failed" else "",
        cached=done and n % 4 == 0,
        queued_at=at,
        started_at=at + timedelta(seconds=5) if ended else None,
        finished_at=at + timedelta(seconds=65) if ended else None,
    )


def rare(upload: Upload, owners: list[User]) -> Job:
    """A job older than all others, of a model, with an error and in a queue that no other has."""
    at = NOW - timedelta(days=400)
    odd: list[dict[str, Any]] = [
        {"state": "queued", "error_code": "", "finished_at": None, "model": "htdemucs"},
        {"state": "failed", "error_code": "disk_full", "finished_at": at, "model": "rarest"},
    ]
    for n, values in enumerate(odd):
        job = _job(n, at, upload, owners)
        job.result_key, job.visitor, job.user = f"{n:08x}".ljust(64, "e"), RARE_VISITOR, None
        job.cached, job.frames, job.progress = False, None, 0.0
        for name, value in values.items():
            setattr(job, name, value)
        job.save()
        Job.objects.filter(pk=job.pk).update(created_at=at)
    return job


def ask(client: Client, address: str) -> tuple[Any, list[str], float]:
    """An admin page, what it asked the database but for who is there, and how long that took.

    The seconds of the database alone: to make a page takes as long with ten rows.
    """
    with CaptureQueriesContext(connection) as queries:
        page = client.get(f"/admin/separations/{address}")
    took = sum(float(query["time"]) for query in queries)
    assert page.status_code == 200, (address, page.headers)
    asked = [query["sql"] for query in queries if "session" not in query["sql"]]
    return (
        page,
        [sql for sql in asked if 'FROM "auth_user" WHERE "auth_user"."id"' not in sql],
        took,
    )


@pytest.fixture(scope="module")
def many(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Rows]:
    """A full database for the tests of this module, in one transaction that is taken back."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    with django_db_blocker.unblock():
        outer = transaction.atomic()
        outer.__enter__()
        rows = fill()
        boss = Client()
        boss.force_login(User.objects.create_superuser("boss"))
        with override_settings(STORAGES={**settings.STORAGES, "staticfiles": plain}):
            for address in (*(f"{name}/" for name in LISTS), *QUICK, *SEARCHES):
                first = address.replace("&p=2", "").replace("?p=100", "")
                few[address] = len(ask(boss, first)[1])
        began = time.monotonic()
        multiply(MANY // FIRST)
        rare(Upload.objects.all()[0], list(User.objects.all()[:USERS]))
        print(f"\n{MANY} jobs made in {time.monotonic() - began:.1f} s")
    yield rows
    with django_db_blocker.unblock():
        transaction.set_rollback(True)
        outer.__exit__(None, None, None)


few: dict[str, int] = {}  # address → queries with ten rows


@pytest.fixture
def staff(many: Rows, visitor: Client) -> Client:
    visitor.force_login(User.objects.get(username="boss"))
    return visitor


def plan(sql: str) -> list[tuple[bool, str]]:
    """SQLite's steps, and of each whether it is the query's own, not that of one within it."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        return [(row[1] == 0, str(row[3])) for row in cursor.fetchall()]


@pytest.mark.parametrize("address", QUICK)
def test_a_list_reads_what_it_shows_and_no_more(staff: Client, address: str) -> None:
    _page, queries, took = ask(staff, address)
    print(f"\n{address}: {len(queries)} queries, {took * 1000:.0f} ms", end="")
    assert len(queries) == few[address]
    assert took < A_MOMENT
    for sql in queries:
        for own, step in plan(sql):
            in_order = step == "SCAN separations_stem" and STEMS_IN_ORDER in sql
            assert in_order or not re.fullmatch(r"SCAN separations_\w+", step), (step, sql)
            assert not (own and step == "USE TEMP B-TREE FOR ORDER BY"), sql
        assert "DISTINCT" not in sql
        if "COUNT(" in sql:
            assert f"LIMIT {MAX_COUNTED + 1}" in sql


@pytest.mark.parametrize("address", SEARCHES)
def test_words_are_looked_for_in_a_moment(staff: Client, address: str) -> None:
    page, queries, took = ask(staff, address)
    print(f"\n{address}: {len(queries)} queries, {took * 1000:.0f} ms", end="")
    assert len(queries) == few[address]
    assert took < 5 * A_MOMENT  # songs are read one by one
    assert "searchbar" in page.text


@pytest.mark.parametrize("address", sorted({each.partition("?")[0] for each in SEARCHES}))
def test_many_words_are_looked_for_too(staff: Client, address: str) -> None:
    page = staff.get(f"/admin/separations/{address}", {"q": "word " * 600})
    assert page.status_code == 200


def test_every_list_is_known_here() -> None:
    known = admin.site._registry
    ours = {
        model._meta.model_name for model in known if model._meta.app_label == Job._meta.app_label
    }
    assert ours == set(LISTS)
    assert {address.partition("/")[0] for address in QUICK} == ours - {"consumer"}  # a handful


def test_what_is_looked_for_is_found(staff: Client, many: Rows) -> None:
    job = many.job
    oldest = Job.objects.order_by("created_at").first()
    assert oldest is not None
    for words, found in (
        (str(job.pk), job),
        (job.pk.hex, job),
        (job.pk.hex[:28], job),
        (str(job.pk)[:32], job),
        (job.upload.samples_sha256, job),
        (job.upload.samples_sha256[:48], job),
        (many.user.username.upper(), Job.objects.filter(user=many.user)[0]),
        (f"{job.upload.title} {job.upload.artist}", job),
    ):
        page, _queries, _took = ask(staff, f"job/?q={words}")
        assert f"/admin/separations/job/{found.pk}/change/" in page.text, words
    assert "0 jobs" in ask(staff, "job/?q=ffffffffffffffff")[0].text
    newest = Job.objects.filter(user=None)[0]
    page = ask(staff, f"job/?q={visitor_tag(newest.visitor)}")[0]
    assert f"/admin/separations/job/{newest.pk}/change/" in page.text


def test_the_songs_of_one_owner_are_listed_without_telling_who_it_is(
    staff: Client, many: Rows
) -> None:
    oldest = Job.objects.get(model="rarest")
    page = ask(staff, f"job/?owner_of={oldest.pk}")[0]
    assert "2 jobs" in page.text
    assert f"visitor {visitor_tag(RARE_VISITOR)}" in page.text
    assert RARE_VISITOR not in page.text
    assert "0 jobs" in ask(staff, f"job/?owner_of={uuid.uuid4()}")[0].text
    assert "0 jobs" in ask(staff, "job/?owner_of=nobody")[0].text
    assert Job.objects.filter(user=many.user).count() > MAX_COUNTED / 2
    assert many.user.username in ask(staff, f"job/?owner_of={many.job.pk}")[0].text


def test_dates_lead_down_to_days(staff: Client) -> None:
    for query, wanted in (
        ("", f"created_at__year={NOW.year}"),
        (f"created_at__year={NOW.year}", f"created_at__month={NOW.month}&"),
        (f"created_at__year={NOW.year}&created_at__month={NOW.month}", "created_at__day="),
    ):
        page, _queries, _took = ask(staff, f"job/?{query}")
        assert wanted in page.text.replace("&amp;", "&"), query
    day = f"created_at__year={NOW.year}&created_at__month={NOW.month}&created_at__day={NOW.day}"
    assert ask(staff, f"job/?{day}")[0].context["cl"].back
    for wrong in ("created_at__year=2020&created_at__month=13",):
        assert staff.get(f"/admin/separations/job/?{wrong}").status_code == 302


def test_what_no_page_shows_is_said_and_not_acted_upon(staff: Client) -> None:
    page = ask(staff, "job/")[0]
    assert f"The first {MAX_COUNTED} of more" in page.text
    asked = {"action": "cancel_jobs", "select_across": "1", "_selected_action": ["x"]}
    answer = staff.post("/admin/separations/job/", asked, follow=True)
    assert "too many at once" in answer.text
    assert Job.objects.filter(state="queued").exists()
    narrow = "/admin/separations/job/?model=rarest"
    assert "too many" not in staff.post(narrow, asked, follow=True).text


def test_nothing_is_sorted_by_what_has_no_index(staff: Client) -> None:
    for name in set(LISTS) - {"consumer"}:
        columns = len(ask(staff, f"{name}/")[0].context["cl"].list_display)
        for column in range(columns):
            for sql in ask(staff, f"{name}/?o={column}.-{column + 1}")[1]:
                assert (True, "USE TEMP B-TREE FOR ORDER BY") not in plan(sql), (name, column)


def test_the_control_room_looks_at_the_last_day_alone(staff: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        page = staff.get("/admin/control/")
    took = sum(float(query["time"]) for query in queries)
    assert page.status_code == 200
    print(f"\ncontrol room: {len(queries)} queries, {took * 1000:.0f} ms", end="")
    assert took < 2 * A_MOMENT
    for query in queries:
        steps = [step for _own, step in plan(query["sql"])]
        assert "SCAN separations_job" not in steps, query["sql"]
