"""Metrics: in one process, over processes that end, on a running site."""

import json
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from django.conf import settings as site_values
from django.db import transaction
from django.test import Client
from filelock import FileLock
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from separations.checks.site_checks import metrics_token_is_strong
from separations.errors.fault import Fault
from separations.jobs import lifecycle
from separations.models import Job
from separations.monitoring import job_metrics, multiprocess, prometheus, registry
from separations.monitoring.restarts import RUN_VARIABLE
from separations.queue import queue_switch
from separations.worker import leases
from stemsite import web_server
from stemsite.supervisor.runs import Run
from tests.support.jobs import BERT, Submit, claimed, made
from tests.support.running_site import Browser, Site, raw, running, until, workers
from tests.support.sounds import ROOT, music, wav

pytestmark = pytest.mark.usefixtures("no_queue")
TOKEN = "tYp1cal-" + "0123456789abcdef" * 2
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]
OnCommit = Callable[..., Any]


def read(text: str) -> Values:
    """Every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(values: Values, name: str, **labels: str) -> float:
    return values.get((f"stemsite_{name}", frozenset(labels.items())), 0.0)


def now() -> Values:
    return read(prometheus.text().decode())


class Counted:
    """The difference that a block of code makes in the metrics."""

    def __enter__(self) -> "Counted":
        self._before = now()
        return self

    def __exit__(self, *_error: object) -> None:
        self._after = now()

    def __call__(self, name: str, **labels: str) -> float:
        return value(self._after, name, **labels) - value(self._before, name, **labels)


# Who may read


def test_there_is_nothing_without_a_token(visitor: Client, settings: Settings) -> None:
    assert visitor.get("/metrics").status_code == 404
    settings.METRICS_TOKEN = TOKEN
    for given in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ", "Bearer \xe9"):
        response = visitor.get("/metrics", headers={"Authorization": given})
        assert response.status_code == 401, given
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert response.content == b""
    response = visitor.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert b"stemsite_jobs" in response.content


def test_a_token_that_can_be_guessed_is_told_of(settings: Settings) -> None:
    for token, told in (("", []), (TOKEN, []), ("x" * 40, ["W024"]), ("metrics", ["W024"])):
        settings.METRICS_TOKEN = token
        found = [message.id for message in metrics_token_is_strong(None)]
        assert found == [f"stemsite.{each}" for each in told], token


# Answers


def test_answers_are_counted_by_route_and_never_by_address(visitor: Client) -> None:
    key = uuid.uuid4()
    with Counted() as counted:
        visitor.get(f"/songs/{key}?name=bob")
        visitor.get("/nothing/bob")
        visitor.generic("BREW", "/about")
        visitor.get("/admin/login/")
        visitor.get("/healthz")
        visitor.get("/about", headers={"Host": "bob.example.org"})
    route = "/<song:song>"
    assert counted("http_requests_total", method="GET", route=route, status="404") == 1
    assert counted("http_request_seconds_count", route=route) == 1
    assert counted("http_requests_total", method="GET", route="none", status="404") == 1
    assert counted("http_requests_total", method="other", route="/about", status="405") == 1
    assert counted("http_requests_total", method="GET", route="admin/", status="200") == 1
    assert counted("http_requests_total", method="GET", route="/healthz", status="200") == 1
    assert counted("http_requests_total", method="GET", route="none", status="400") == 1
    text = prometheus.text().decode()
    for word in ("bob", "BREW", str(key)):
        assert word not in text


def test_an_answer_is_in_flight_until_its_last_byte(
    visitor: Client,
    submit: Submit,
) -> None:
    job = submit()
    leases.finish(claimed(), *made(Job.objects.get(pk=job.pk)))
    session = visitor.session
    session["visitor"] = job.visitor
    session.save()
    before = value(now(), "http_requests_in_flight")
    response = visitor.get(f"/songs/{job.pk}/archive")
    assert response.status_code == 200
    assert value(now(), "http_requests_in_flight") == before + 1
    response.close()
    assert value(now(), "http_requests_in_flight") == before


def test_no_place_to_count_in_ends_no_request(
    visitor: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    (tmp_path / "file").touch()
    settings.METRICS_DIR = tmp_path / "file"
    monkeypatch.setattr(registry, "_made", [])
    assert registry.process_metrics() is None
    assert visitor.get("/about").status_code == 200


# Jobs


@pytest.mark.django_db
def test_ends_of_jobs_are_counted_with_what_they_took(
    submit: Submit,
    django_capture_on_commit_callbacks: OnCommit,
) -> None:
    with Counted() as counted, django_capture_on_commit_callbacks(execute=True):
        job, _twin = submit(), submit(BERT)
        leases.finish(claimed(), *made(Job.objects.get(pk=job.pk)))
        submit(BERT)
        lifecycle.cancel(submit(shifts=1))
        submit(shifts=2)
        leases.end_with(claimed(), Fault("engine_error", reason="x"))
    done = {"outcome": "done", "model": "tiny"}
    assert counted("jobs_total", **done, cached="no") == 1
    assert counted("jobs_total", **done, cached="yes") == 2
    assert counted("jobs_total", outcome="cancelled", model="tiny", cached="no") == 1
    assert counted("jobs_total", outcome="failed", model="tiny", cached="no") == 1
    assert counted("job_failures_total", code="engine_error") == 1
    assert counted("job_seconds_count", model="tiny") == 1
    assert counted("job_wait_seconds_count", model="tiny") == 1
    assert counted("audio_seconds_total", model="tiny") == pytest.approx(1.0)
    assert counted("job_transitions_total", state="queued", cause="submitted") == 5
    assert counted("job_transitions_total", state="done", cause="reused") == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_taken_back_is_not_counted(submit: Submit) -> None:
    job = submit()
    with Counted() as counted:
        with transaction.atomic():
            lifecycle.cancel(job)
            transaction.set_rollback(True)
        assert value(now(), "jobs_total", outcome="cancelled") == 0
    assert counted("job_transitions_total", state="cancelled", cause="cancelled") == 0
    with Counted() as counted:
        lifecycle.cancel(job)
    assert counted("job_transitions_total", state="cancelled", cause="cancelled") == 1


@pytest.mark.django_db
def test_counting_that_fails_ends_no_job(
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: OnCommit,
) -> None:
    monkeypatch.setattr(job_metrics, "_count_end", None)
    with django_capture_on_commit_callbacks(execute=True):
        job = submit()
        assert lifecycle.cancel(job)
    job.refresh_from_db()
    assert job.state == "cancelled"


# What is looked up


@pytest.mark.django_db
def test_the_queue_and_its_consumers_are_looked_up(
    submit: Submit,
    django_assert_max_num_queries: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Run(site_values.DATA_DIR, "http://127.0.0.1:8000") as run:
        run.record({"web": 0, "consumer": 3})
        monkeypatch.setenv(RUN_VARIABLE, run.mark)
        assert value(now(), "process_restarts_total", process="consumer") == 3
    submit()
    submit(BERT, shifts=1)
    running_now = claimed()
    Job.objects.filter(state="queued").update(queued_at=running_now.queued_at)
    queue_switch.pause("anna")
    queue_switch.Presence().beat(
        [queue_switch.SlotState("x", 2, 7), queue_switch.SlotState("", 2, 5)], 10**9
    )
    prometheus.text()
    with django_assert_max_num_queries(4):
        found = now()
    assert value(found, "jobs", state="queued") == 1
    assert value(found, "jobs", state="running") == 1
    assert value(found, "oldest_wait_seconds") > 0
    assert value(found, "queue_paused") == 1
    assert value(found, "consumers") == 1
    assert value(found, "slots", state="busy") == value(found, "slots", state="idle") == 1
    assert value(found, "engine_bytes") == 12
    assert value(found, "disk_free_bytes") > 0
    assert value(found, "kept_bytes", kind="uploads") > 0
    told = [labels for name, labels in found if name == "stemsite_memory_bytes"]
    assert len(told) == 3
    assert value(found, "database_up") == 1


# Processes

COUNTING = """
import os, signal, sys
from separations.monitoring.registry import process_metrics
process_metrics().audio_seconds.labels("tiny").inc(float(sys.argv[1]))
process_metrics().job_seconds.labels("tiny").observe(2.0)
process_metrics().in_flight.inc()
print("counted", flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Path:
    """A folder of counts of its own, which this process is not in yet."""
    settings.METRICS_DIR = tmp_path / "metrics"
    monkeypatch.setattr(web_server, "METRICS_DIR", settings.METRICS_DIR)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))  # for the processes that are started
    return Path(settings.METRICS_DIR)


class Process:
    """Another process of the site, that counts and then is killed."""

    def __init__(self, seconds: float) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", COUNTING, str(seconds)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._child.stdout is not None
        assert self._child.stdout.readline() == b"counted\n"

    def die(self) -> None:
        self._child.communicate()
        assert self._child.returncode == -signal.SIGKILL


def counts(folder: Path) -> tuple[float, float, float]:
    """Seconds of sound, jobs, and requests in flight, in the files of all processes."""
    from prometheus_client.multiprocess import MultiProcessCollector

    with multiprocess.locked(folder):
        multiprocess.sweep(folder)
    found: dict[str, float] = {}
    for metric in MultiProcessCollector(None, str(folder)).collect():
        for sample in metric.samples:
            if sample.name.endswith(("total", "_count", "flight")):
                found[sample.name] = found.get(sample.name, 0) + sample.value
    names = ("audio_seconds_total", "job_seconds_count", "http_requests_in_flight")
    return tuple(found.get(f"stemsite_{name}", 0.0) for name in names)  # type: ignore[return-value]


def test_counts_outlive_the_process_that_counted(place: Path) -> None:
    first, second = Process(10.0), Process(5.0)
    assert counts(place) == (15.0, 2, 2)
    first.die()
    assert counts(place) == (15.0, 2, 1)
    assert counts(place) == (15.0, 2, 1), "what was added up is added up once"
    third = Process(1.0)
    second.die()
    assert counts(place) == (16.0, 3, 1)
    third.die()
    files = {file.name.partition("_")[0] for file in place.glob("*.db")}
    assert files <= {"counter", "histogram", "gauge"}
    assert counts(place) == (16.0, 3, 0)
    assert {file.name for file in place.glob("*")} == {
        "counter_past.db",
        "histogram_past.db",
        "lock",
    }


def test_the_site_starts_from_nothing(place: Path) -> None:
    Process(10.0).die()
    last = Process(1.0)
    assert counts(place) == (1.0, 1, 1)
    last.die()


def test_nobody_waits_for_a_database_that_does_not_answer(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that starts meanwhile needs the files to count in."""

    def slow() -> Iterator[Any]:
        with FileLock(place / "lock", blocking=False):
            yield from ()

    monkeypatch.setattr(prometheus, "_queue", slow)
    monkeypatch.setattr(prometheus, "_consumers", list)
    place.mkdir(parents=True)
    assert b"stemsite_database_up" in prometheus.text()


def test_the_web_server_starts_where_nothing_can_be_counted(place: Path) -> None:
    place.write_text("not a folder")
    log = Mock()
    web_server.on_starting(Mock(log=log))
    log.exception.assert_called_once()


def test_the_web_server_is_there_between_its_workers(place: Path) -> None:
    web_server.on_starting(None)
    Process(10.0).die()
    last = Process(1.0)
    assert counts(place) == (11.0, 2, 1)
    last.die()


def test_a_full_disk_can_end_no_process_that_counts(place: Path) -> None:
    """Pages of the mapped files are there before they are needed, for twice what there may be."""
    process = Process(1.0)
    own = [file for file in place.glob("*.db") if "past" not in file.name]
    assert len(own) == 3
    for file in own:
        assert file.stat().st_blocks * 512 >= file.stat().st_size > 0
    process.die()


def test_a_file_that_was_cut_off_in_the_middle_costs_only_itself(place: Path) -> None:
    process = Process(1.0)
    for kind in ("counter", "histogram", "gauge_livesum"):
        (place / f"{kind}_gone.db").write_bytes(b"\xff\x0f\x00\x00" + b"\xff" * 200)
    assert counts(place) == (1.0, 1, 1)
    process.die()


# The real site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, small_store: Path) -> Iterator[Site]:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny", "METRICS_TOKEN": TOKEN}
    settings |= {"WEB_WORKERS": "2", "WEB_THREADS": "8", "MIN_FREE_DISK_MB": "1"}
    settings |= {"LOG_FORMAT": "json", "TRUSTED_PROXIES": "1"}
    with running(tmp_path_factory.mktemp("metrics"), **settings) as started:
        yield started


def scraped(site: Site) -> Values:
    request = urllib.request.Request(f"{site.url}/metrics")
    request.add_header("Authorization", f"Bearer {TOKEN}")
    with urllib.request.urlopen(request, timeout=30) as response:
        return read(response.read().decode())


def ask(site: Site) -> None:
    urllib.request.urlopen(f"{site.url}/about", timeout=30).close()


def answered(site: Site) -> float:
    labels = {"method": "GET", "route": "/about", "status": "200"}
    return value(scraped(site), "http_requests_total", **labels)


def both_have_counted(site: Site) -> bool:
    return len(list((site.data_dir / "metrics").glob("counter_*.db"))) >= 3


@pytest.fixture(scope="module")
def separated(site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a job that the consumer ran; the web server gave its result out once more."""
    visitor = Browser(site)
    song = wav(tmp_path_factory.mktemp("songs") / "song.wav", music(2.0))
    job = visitor.upload(song)
    until(lambda: site.job(job)["state"] == "done")
    assert site.job(visitor.upload(song))["state"] == "done"
    return job


def test_a_songs_end_is_counted_by_whoever_ends_it(site: Site, separated: str) -> None:
    found = until(lambda: _with_an_end(site))
    done = {"outcome": "done", "model": "tiny"}
    assert value(found, "jobs_total", **done, cached="no") == 1, "by the consumer"
    assert value(found, "jobs_total", **done, cached="yes") == 1, "by the web server"
    assert value(found, "audio_seconds_total", model="tiny") == pytest.approx(2.0)
    assert value(found, "job_seconds_count", model="tiny") == 1
    assert value(found, "consumers") == 1


def _with_an_end(site: Site) -> Values | None:
    found = scraped(site)
    return found if value(found, "job_seconds_count", model="tiny") else None


def test_counts_of_all_workers_add_up_and_outlive_one(site: Site) -> None:
    def asked() -> float:
        ask(site)
        return both_have_counted(site)

    until(asked)
    before = answered(site)
    for _ in range(20):
        ask(site)
    assert answered(site) == before + 20
    killed, other = workers(site)
    killed.kill()
    until(lambda: len(workers(site)) == 2 and not killed.is_running())
    assert other.is_running()
    assert answered(site) == before + 20
    for _ in range(10):
        ask(site)
    assert answered(site) == before + 30
    assert value(scraped(site), "http_requests_in_flight") == 1, "the one that asks"


def test_every_line_is_json_and_says_what_it_is_about(site: Site, separated: str) -> None:
    given = "0190e6fb0f9e40008000000000000bad"
    head = b"GET /about HTTP/1.1\r\nHost: bob.example.org\r\nConnection: close\r\n"
    answer = raw(site, head + f"X-Request-ID: {given}\r\n\r\n".encode())
    assert f"X-Request-ID: {given}\r\n".encode() in answer
    for _ in range(20):  # after it, in the same thread of one of the workers: about no request
        raw(site, b"BOB bob\r\n\r\n")
    killed = workers(site)[0]
    killed.kill()  # which is told after all that was told of the requests
    logged = until(lambda: _logged(site, f"(pid:{killed.pid}) was sent SIGKILL"))
    started = [told for told in logged if "attempt 1" in told["message"]]
    assert {told["job_id"] for told in started} == {separated}
    (refused,) = (told for told in logged if told["logger"] == "django.security.DisallowedHost")
    assert refused["request_id"] == given
    unread = [told for told in logged if told["message"].endswith("it is no HTTP")]
    assert len(unread) == 20
    assert not any("request_id" in told for told in unread)


def _logged(site: Site, word: str) -> list[dict[str, Any]] | None:
    """What the site's processes and the supervisor logged, once `word` is in it."""
    text = site.log.read_text().rpartition("\n")[0]  # without a line that is being written
    told = [json.loads(line) for line in text.splitlines()]
    return told if word in text else None


def test_probes_tell_of_a_database_that_fails_and_not_how(site: Site) -> None:
    def probe() -> str:
        try:
            with urllib.request.urlopen(f"{site.url}/readyz", timeout=30) as response:
                return f"{response.status} {response.read().decode()}"
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode()}"

    until(lambda: probe().startswith("200 "), 30)
    with sqlite3.connect(site.data_dir / "db.sqlite3", timeout=20) as database:
        database.execute("ALTER TABLE separations_queueswitch RENAME TO gone")
    answer = probe()
    assert answer.startswith("503 ")
    assert '"database": "broken", "consumer": "unknown"' in answer
    assert not re.search("gone|switch|sqlite|Error", answer)
    assert value(scraped(site), "database_up") == 0
    assert answered(site) > 0
    head = raw(site, b"HEAD /healthz HTTP/1.1\r\nHOST\r\nConnection: close\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n"), "no body"
