"""Webhooks: allowed addresses, bodies and signatures, and delivery whatever receivers do."""

import json
import shutil
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone, translation
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings
from standardwebhooks import Webhook

from separations.api import named_values
from separations.api.webhook_schemas import WebhookCall
from separations.errors import user_messages
from separations.errors.fault import Fault
from separations.jobs import lifecycle, ownership
from separations.models import Delivery, Job, Owner, Upload
from separations.webhooks import address_rules, dispatcher, events, http_client
from separations.webhooks.address_rules import Target, literal
from separations.webhooks.dispatcher import Dispatcher
from separations.webhooks.http_client import CallFailed
from separations.webhooks.special_addresses import is_public
from separations.worker import leases
from tests.support import sounds
from tests.support.jobs import ANNA, BERT, Submit, claimed, finished
from tests.support.receivers import Receiver, elapsed, receiving
from tests.support.running_site import Browser, running, until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
State = Delivery.State


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture
def near(site_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allows receivers on this machine, and short delays."""
    site_settings.WEBHOOK_PRIVATE_ADDRESSES = True
    monkeypatch.setattr(dispatcher, "DELAYS", (0.02,) * 4)


@pytest.fixture
def upload(site_settings: Settings) -> Upload:
    """An upload without a real file: these tests begin when its job has ended."""
    upload = Upload.objects.create(
        file_name="a.wav",
        title="A",
        bytes=1,
        seconds=1.0,
        container="wav",
        codec="pcm_s16le",
        sample_rate=44_100,
        channels=2,
        file_sha256="0" * 64,
        samples_sha256="0" * 64,
    )
    upload.path.write_bytes(b"x")
    return upload


@pytest.fixture
def ended(near: None, submit: Submit, receiver: Receiver) -> Callable[..., Delivery]:
    """A job that ended and whose owner asked to be called."""

    def make(owner: Owner = ANNA, url: str = "") -> Delivery:
        job = submit(owner)
        Job.objects.filter(pk=job.pk).update(webhook_url=url or receiver.url)
        lifecycle.cancel(Job.objects.get(pk=job.pk))
        return job.deliveries.get()

    return make


def work(until_true: Callable[[], object], *, by: Dispatcher | None = None) -> None:
    """Run a dispatcher's rounds in this thread until a condition holds."""
    at_work = by or Dispatcher()

    def turn() -> bool:
        at_work.run_once()
        at_work.wait(0.02)
        return bool(until_true())

    until(turn, 10)


def state_of(delivery: Delivery) -> str:
    delivery.refresh_from_db()
    return delivery.state


def settled(delivery: Delivery) -> Callable[[], bool]:
    return lambda: state_of(delivery) != State.WAITING


# What is sent


def test_a_call_says_how_a_song_ended_and_is_signed(
    ended: Callable[..., Delivery], receiver: Receiver
) -> None:
    delivery = ended()
    work(settled(delivery))
    (call,) = receiver.calls
    assert call.path == "/hook?from=stemsite"
    assert call.headers["Host"] == f"127.0.0.1:{receiver.port}"
    assert call.headers["Content-Type"] == "application/json"
    assert call.headers["User-Agent"] == "Stemsite"
    assert call.headers["webhook-id"] == str(delivery.pk)
    told = Webhook(events.signing_secret(delivery.job.owner)).verify(call.body, call.headers)
    assert told["type"] == "separation.cancelled"
    assert datetime.fromisoformat(told["timestamp"]) == delivery.job.finished_at
    assert told["data"] == {
        "task_id": str(delivery.job_id),
        "status": "cancelled",
        "error": None,
        "cached": False,
        "stems": [],
    }
    assert (delivery.state, delivery.attempts, delivery.outcome) == ("delivered", 1, "HTTP 204")
    assert delivery.ended_at is not None


def told_of(job: Job) -> dict[str, Any]:
    """What a job's call says, which is as the API describes it."""
    body = job.deliveries.get().body
    call = WebhookCall.model_validate_json(body, extra="forbid")
    assert call.type in named_values.EVENTS
    data: dict[str, Any] = json.loads(body)["data"]
    return data


def test_the_stems_are_named_and_who_was_served_from_the_store_is_told(
    submit: Submit,
) -> None:
    first, second = submit(), submit(BERT)
    Job.objects.update(webhook_url="https://example.org/")
    finished(first)
    assert told_of(first)["status"] == "completed"
    assert told_of(first)["stems"] == ["drums", "bass", "other", "vocals"]
    assert not told_of(first)["cached"]
    assert told_of(second)["stems"] == told_of(first)["stems"]
    assert told_of(second)["cached"]


def test_a_fault_is_told_in_english(submit: Submit) -> None:
    job = submit()
    Job.objects.update(webhook_url="https://example.org/")
    with translation.override("ko"):
        leases.fail(claimed(), Fault("timed_out", minutes=10))
    told = told_of(job)
    assert told["status"] == "failed"
    assert told["error"]["code"] == "timed_out"
    assert told["error"]["detail"].startswith("This song was not done after 10 minutes")


def test_the_dispatcher_is_woken_when_an_end_is_committed(
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    heard: list[int] = []
    monkeypatch.setattr(events, "_listeners", [lambda: heard.append(1)])
    job, silent = submit(), submit(BERT)
    Job.objects.filter(pk=job.pk).update(webhook_url="https://example.org/")
    with django_capture_on_commit_callbacks(execute=True):
        lifecycle.cancel(Job.objects.get(pk=job.pk))
        assert heard == []
    assert heard == [1]
    with django_capture_on_commit_callbacks(execute=True):
        lifecycle.cancel(silent)
    assert heard == [1]


# Secrets


def test_each_owner_has_a_secret_of_their_own(settings: Settings) -> None:
    anna, bert = (User.objects.create_user(name) for name in ("anna", "bert"))
    owners = [Owner("", anna.pk), Owner("", bert.pk), ANNA, BERT, Owner(f"{anna.pk}")]
    secrets = [events.signing_secret(owner) for owner in owners]
    assert len(set(secrets)) == len(owners)
    assert all(secret.startswith("whsec_") and len(secret) == 50 for secret in secrets)
    assert events.signing_secret(Owner("x", anna.pk)) == secrets[0], "the account's, everywhere"
    events.renew_secret(anna)
    renewed = events.signing_secret(Owner("", anna.pk))
    events.renew_secret(anna)
    assert len({secrets[0], renewed, events.signing_secret(Owner("", anna.pk))}) == 3
    assert events.signing_secret(Owner("", bert.pk)) == secrets[1]


def test_a_song_that_a_log_in_claims_keeps_the_secret_its_receiver_has(
    ended: Callable[..., Delivery],
) -> None:
    given = events.signing_secret(ANNA)
    delivery = ended(ANNA)
    account = User.objects.create_user("anna")
    assert ownership.claim(ANNA.visitor, account.pk) == 1
    delivery.job.refresh_from_db()
    headers = events.signed_headers(delivery, round(time.time()))
    for secret in (given, events.signing_secret(Owner("", account.pk))):
        assert Webhook(secret).verify(delivery.body, headers)


def test_receivers_follow_a_change_of_the_sites_key(
    ended: Callable[..., Delivery], settings: Settings
) -> None:
    delivery = ended()
    old = events.signing_secret(delivery.job.owner)
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another" * 10
    headers = events.signed_headers(delivery, round(time.time()))
    new = events.signing_secret(delivery.job.owner)
    assert new != old
    for secret in (old, new):
        assert Webhook(secret).verify(delivery.body, headers)
    settings.SECRET_KEY_FALLBACKS = []
    headers = events.signed_headers(delivery, round(time.time()))
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(old).verify(delivery.body, headers)


# Where to

PRIVATE = (
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "017700000001",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "168.63.129.16",
    "192.0.2.1",
    "224.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fec0::1]",
    "[fd00::1]",
    "[ff02::1]",
    "[2001:db8::1]",
)
PUBLIC = ("93.184.215.14", "[2606:2800:21f:cb07::1]", "[64:ff9b::5db8:d70e]", "1572395790")


@pytest.mark.parametrize("host", PRIVATE)
def test_what_is_written_as_a_private_address_is_refused_when_it_is_given(
    host: str, settings: Settings
) -> None:
    for url in (f"http://{host}/", f"https://{host}:8443/x?y=1"):
        with pytest.raises(Fault, match="not on the public network"):
            events.check_url(url)
        settings.WEBHOOK_PRIVATE_ADDRESSES = True
        events.check_url(url)
        settings.WEBHOOK_PRIVATE_ADDRESSES = False


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "intranet", "nas.local", "db.internal"]
)
def test_names_of_machines_near_by_are_refused_when_they_are_given(host: str) -> None:
    with pytest.raises(Fault, match="not on the public network"):
        events.check_url(f"https://{host}/")


@pytest.mark.parametrize("host", [*PUBLIC, "example.org", "xn--9n2bp8q.xn--3e0b707e", "a_b.io."])
def test_the_public_network_may_be_called(host: str) -> None:
    events.check_url(f"https://{host}:8443/a/b?c=%20d#e")
    address = literal(host.strip("[]"))
    assert address is None or is_public(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "percent-encoded"),
        ("https://example.org/a b", "percent-encoded"),
        ("https://example.org/\r\nX: 1", "percent-encoded"),
        ("https://example.org\\@127.0.0.1/", "percent-encoded"),
        ("https://例え.jp/", "percent-encoded"),
        ("https://１２７.0.0.1/", "percent-encoded"),
        ("https://example.org/" + "a" * 481, "500 characters"),
        ("ftp://example.org/", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("gopher://example.org/", "must begin with"),
        ("example.org/hook", "must begin with"),
        ("//example.org/hook", "must begin with"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("https://./", "no host"),
        ("https://a..b/", "no host"),
        ("https://%31%32%37.0.0.1/", "no host"),
        ("https://[::1/", "no host"),
        ("https://[fe80::1%25eth0]/", "no host"),
        ("https://[zz]/", "no host"),
        ("https://1.2.3.4.5/", "no host"),
        ("https://" + "a" * 64 + ".org/", "no host"),
        ("https://anna:secret@example.org/", "user name"),
        ("https://example.org@127.0.0.1/", "user name"),
        ("https://example.org:0/", "port"),
        ("https://example.org:22/", "port"),
        ("https://example.org:65536/", "port"),
        ("https://example.org:http/", "port"),
        ("https://example.org:+443/", "port"),
    ],
)
def test_what_cannot_be_called_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(Fault, match="bad_webhook") as raised:
        events.check_url(url)
    assert reason in user_messages.sentence(raised.value)
    assert user_messages.status(raised.value) == 422
    with translation.override("ko"):
        assert reason not in user_messages.sentence(raised.value)


def test_where_webhooks_are_off_none_is_taken_and_none_sent(
    settings: Settings, ended: Callable[..., Delivery]
) -> None:
    delivery = ended()
    settings.WEBHOOKS = False
    with pytest.raises(Fault, match="calls no webhooks"):
        events.check_url("https://example.org/")
    idle = Dispatcher()
    idle.start()
    idle.stop()
    idle.join(1)
    assert state_of(delivery) == State.WAITING


def connected(host: str, port: int = 80) -> http_client.Answer:
    return http_client.post(Target("http", host, port, "/"), b"{}", {}, private=False)


@pytest.mark.parametrize("host", [*PRIVATE, "localhost"])
def test_no_private_address_is_ever_connected_to(
    host: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_arguments: object, **_named: object) -> None:
        raise AssertionError("it was connected to")

    monkeypatch.setattr(socket, "create_connection", never)
    with pytest.raises(CallFailed, match=r"not on the public network|no such host"):
        connected(host.strip("[]"), receiver.port)
    assert receiver.calls == []


def resolver(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Have host names stand for these addresses, look-up after look-up; says what was asked."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *more: Any, **named: Any) -> list[Any]:
        if literal(host) is not None:
            return real(host, port, *more, **named)
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(0, 0, 0, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.mark.parametrize(
    "found",
    [
        ["127.0.0.1"],
        ["93.184.215.14", "127.0.0.1"],
        ["2606:2800:21f:cb07::1", "::ffff:10.0.0.1"],
        ["fe80::1%lo"],
    ],
)
def test_a_public_name_of_a_private_address_is_not_called(
    found: list[str], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver(monkeypatch, found)
    with pytest.raises(CallFailed, match="not on the public network"):
        connected("127.0.0.1.nip.example.org", receiver.port)
    assert receiver.calls == []


def test_the_address_that_was_looked_at_is_the_one_that_is_called(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves to a public address at the check, and to this machine a moment later."""
    asked = resolver(monkeypatch, ["93.184.215.14"], ["127.0.0.1"])
    tried: list[object] = []

    def note(address: tuple[str, int], *_arguments: object, **_named: object) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", note)
    with pytest.raises(CallFailed, match="connection refused"):
        connected("rebinding.example.org", receiver.port)
    assert tried == ["93.184.215.14"]
    assert asked == ["rebinding.example.org"], "it is asked for once"
    with pytest.raises(CallFailed, match="not on the public network"):
        connected("rebinding.example.org", receiver.port)
    assert tried == ["93.184.215.14"]


def test_the_next_address_is_tried_when_one_does_not_answer(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver(monkeypatch, ["127.0.0.2", "127.0.0.1"])  # nobody listens at the first
    target = Target("http", "two.example.org", receiver.port, "/")
    assert http_client.post(target, b"{}", {}, private=True).status == 204
    assert receiver.calls[0].headers["Host"] == f"two.example.org:{receiver.port}"


def test_a_resolver_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "CALL_SECONDS", 0.2)
    asleep = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_n: [asleep.wait(5)][:0])
    with pytest.raises(CallFailed, match="not found in time"):
        connected("slow.example.org")
    asleep.set()


def test_no_proxy_of_the_environment_is_used(
    receiver: Receiver, ended: Callable[..., Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        work(settled(ended()))
        assert proxy.calls == []
    assert len(receiver.calls) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
def test_a_certificate_must_be_trusted_and_name_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj"
    more = ["/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", str(file)]
    subprocess.run([*command.split(), *more, "-keyout", str(file)], capture_output=True, check=True)
    with receiving(file) as receiver:

        def status(host: str) -> int:
            target = Target("https", host, receiver.port, "/")
            return http_client.post(target, b"{}", {}, private=True).status

        with pytest.raises(CallFailed, match="certificate is not valid"):
            status("localhost")
        trusting = ssl.create_default_context(cafile=str(file))
        monkeypatch.setattr(http_client, "_trusted", lambda: trusting)
        assert status("localhost") == 204
        with pytest.raises(CallFailed, match="certificate is not valid"):
            status("127.0.0.1")
        plain = Target("http", "localhost", receiver.port, "/")
        with pytest.raises(CallFailed):
            http_client.post(plain, b"{}", {}, private=True)
    with receiving() as receiver, pytest.raises(CallFailed, match="no TLS connection"):
        status("localhost")


# However the receivers behave


def test_a_receiver_that_stumbles_is_called_again_with_the_same_id(
    ended: Callable[..., Delivery], receiver: Receiver
) -> None:
    receiver.reactions = [receiver.says(500), receiver.says(502)]
    delivery = ended()
    work(settled(delivery))
    assert (delivery.state, delivery.attempts, delivery.outcome) == ("delivered", 3, "HTTP 204")
    assert {call.headers["webhook-id"] for call in receiver.calls} == {str(delivery.pk)}
    assert {call.body for call in receiver.calls} == {delivery.body.encode()}
    for call in receiver.calls:
        Webhook(events.signing_secret(delivery.job.owner)).verify(call.body, call.headers)


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("hangs", "timed out"),
        ("drips", "timed out"),
        ("resets", "connection lost"),
        ("closes", "the answer is no HTTP"),
        ("talks_nonsense", "the answer is no HTTP"),
    ],
)
def test_a_receiver_that_does_not_answer_is_given_up_in_the_end(
    ended: Callable[..., Delivery],
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    outcome: str,
) -> None:
    monkeypatch.setattr(http_client, "CALL_SECONDS", 0.3)
    monkeypatch.setattr(dispatcher, "DELAYS", (0.01,))
    receiver.reactions = [getattr(receiver, how)] * 3
    delivery = ended()
    work(settled(delivery))
    assert (delivery.state, delivery.attempts, delivery.outcome) == ("given_up", 2, outcome)
    assert len(receiver.calls) == 2


def test_each_step_has_a_time_of_its_own(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "STEP_SECONDS", 0.1)
    receiver.reactions = [receiver.hangs]
    target = Target("http", "127.0.0.1", receiver.port, "/")

    def call() -> None:
        with pytest.raises(CallFailed, match="timed out"):
            http_client.post(target, b"{}", {}, private=True)

    assert elapsed(call) < 2


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long delays, so that a test can check a failure before the next attempt."""
    monkeypatch.setattr(dispatcher, "DELAYS", (4.0,))


def test_nobody_listening_is_no_end(ended: Callable[..., Delivery], unhurried: None) -> None:
    with receiving() as gone:
        url = gone.url
    delivery = ended(url=url)
    work(lambda: state_of(delivery) == State.WAITING and delivery.outcome)
    assert delivery.outcome == "connection refused"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(
    ended: Callable[..., Delivery], receiver: Receiver, unhurried: None, status: int
) -> None:
    inner = f"http://127.0.0.1:{receiver.port}/internal"
    receiver.reactions = [receiver.says(status, Location=inner)]
    delivery = ended()
    work(lambda: state_of(delivery) == State.WAITING and delivery.outcome)
    assert delivery.outcome == f"HTTP {status}"
    assert [call.path for call in receiver.calls] == ["/hook?from=stemsite"]


def test_a_body_is_read_no_further_than_it_must(
    ended: Callable[..., Delivery], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.reactions = [receiver.floods]
    delivery = ended()
    work(settled(delivery))
    assert delivery.state == State.DELIVERED
    assert receiver.written < 20_000_000, "what the network itself takes in"
    monkeypatch.setattr(http_client, "BODY_SECONDS", 0.2)
    receiver.reactions = [receiver.drips_its_body]
    second = ended()
    assert elapsed(lambda: work(settled(second))) < 2
    assert second.outcome == "HTTP 200", "its status came in time"
    for row in (delivery, second):
        assert "x" not in row.outcome


def test_who_says_gone_is_not_called_again(
    ended: Callable[..., Delivery], receiver: Receiver
) -> None:
    receiver.reactions = [receiver.says(410)]
    delivery = ended()
    work(settled(delivery))
    assert (delivery.state, delivery.attempts, delivery.outcome) == ("given_up", 1, "HTTP 410")


def test_the_receivers_wish_to_wait_is_heard_within_reason(
    ended: Callable[..., Delivery], receiver: Receiver, unhurried: None
) -> None:
    in_an_hour = timezone.now() + timedelta(hours=1)
    date = in_an_hour.strftime("%a, %d %b %Y %H:%M:%S GMT")
    for wish, seconds in (
        ("7200", 7200.0),
        (date, 3600.0),
        ("99999999", 6 * 3600.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("9" * 400, 0.0),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999", 0.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ):
        receiver.reactions = [receiver.says(503, Retry_After=wish)]
        delivery = ended()
        work(lambda each=delivery: state_of(each) == State.WAITING and each.outcome)  # type: ignore[misc]
        wait = (delivery.next_at - timezone.now()).total_seconds()
        assert wait == pytest.approx(seconds, abs=6), wish
        assert delivery.outcome == "HTTP 503"
        delivery.delete()


def test_visitors_hold_up_nobody_who_has_an_account(
    ended: Callable[..., Delivery], receiver: Receiver
) -> None:
    """One person can be many visitors, with many host names for one receiver."""
    receiver.reactions = [receiver.hangs] * 8
    calls = [ended(Owner(f"{number:032}")) for number in range(6)]
    for number, delivery in enumerate(calls):
        Delivery.objects.filter(pk=delivery.pk).update(host=f"a{number}.example.org")
    last = ended(Owner("", User.objects.create_user("anna").pk))
    at_work = Dispatcher()
    at_work.run_once()
    called = {delivery.pk for delivery in Delivery.objects.filter(attempts=1)}
    assert len(called) == dispatcher.MAX_OF_VISITORS + 1
    assert last.pk in called
    at_work.stop()
    at_work.release()


def test_a_dot_at_its_end_makes_a_host_no_other() -> None:
    assert address_rules.parse("https://example.org./a").host == "example.org"


def test_the_attempts_lie_further_and_further_apart() -> None:
    delays = [dispatcher.delay(attempt, None) for attempt in range(1, len(dispatcher.DELAYS) + 1)]
    for found, usual in zip(delays, (5, 30, 120, 600, 3600, 21600), strict=True):
        assert usual <= found <= 1.2 * usual
    assert len({dispatcher.delay(1, None) for _ in range(20)}) > 1, "not all in one moment"


def test_what_was_given_up_can_be_sent_again(
    ended: Callable[..., Delivery], receiver: Receiver
) -> None:
    receiver.reactions = [receiver.says(500)] * 5
    delivery = ended()
    work(settled(delivery))
    assert delivery.state == State.GIVEN_UP
    assert events.resend(Delivery.objects.filter(state=State.DELIVERED)) == 0
    assert events.resend(Delivery.objects.filter(pk=delivery.pk)) == 1
    assert events.resend(Delivery.objects.filter(pk=delivery.pk)) == 0
    work(settled(delivery))
    assert (delivery.state, delivery.attempts) == ("delivered", 1)


# Several dispatchers, and those that die


def test_two_dispatchers_do_not_send_the_same_attempt(
    ended: Callable[..., Delivery], receiver: Receiver
) -> None:
    delivery = ended()
    seen_by_both = Delivery.objects.get(pk=delivery.pk), Delivery.objects.get(pk=delivery.pk)
    assert [dispatcher.claim(each) for each in seen_by_both] == [True, False]
    Delivery.objects.update(next_at=timezone.now() - timedelta(seconds=1))
    assert not dispatcher.claim(seen_by_both[1]), "what it saw is over, even if it is due once more"
    first, second = Dispatcher(), Dispatcher()
    for each in (first, second):
        each.run_once()
    work(settled(delivery), by=first)
    second.run_once()
    second.wait(0.05)
    assert len(receiver.calls) == 1


def test_what_a_dead_dispatcher_was_sending_is_sent_again(
    ended: Callable[..., Delivery], receiver: Receiver
) -> None:
    receiver.reactions = [receiver.hangs]
    delivery = ended()
    dead = Dispatcher()
    dead.run_once()
    until(lambda: receiver.calls, 5)
    work(lambda: True)
    assert len(receiver.calls) == 1, "the lease of the first one is not over"
    delivery.refresh_from_db()
    left = (delivery.next_at - timezone.now()).total_seconds()
    assert http_client.CALL_SECONDS < left <= 60
    Delivery.objects.update(next_at=timezone.now() - timedelta(seconds=1))
    work(settled(delivery))
    assert (delivery.state, delivery.attempts) == ("delivered", 2)
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1


NOBODYS = (("host", ""), ("job__visitor", ""))


def test_a_late_failure_changes_nothing_and_a_late_success_counts(
    ended: Callable[..., Delivery],
) -> None:
    delivery = ended()
    assert dispatcher.claim(delivery)
    late = dispatcher.Attempt(delivery.pk, 1, NOBODYS)
    Delivery.objects.update(next_at=timezone.now() - timedelta(seconds=1))
    assert dispatcher.claim(Delivery.objects.get())
    before = Delivery.objects.values().get()
    dispatcher.record(late, CallFailed("timed out"))
    dispatcher.record(late, http_client.Answer(410))
    assert Delivery.objects.values().get() == before
    dispatcher.record(late, http_client.Answer(200))
    assert state_of(delivery) == State.DELIVERED
    dispatcher.record(dispatcher.Attempt(delivery.pk, 2, NOBODYS), CallFailed("timed out"))
    assert state_of(delivery) == State.DELIVERED


def test_a_dispatcher_that_stops_releases_what_hangs(
    ended: Callable[..., Delivery], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "GRACE_SECONDS", 0.3)
    receiver.reactions = [receiver.hangs]
    hanging, quick = ended(), ended(BERT)
    Delivery.objects.filter(pk=hanging.pk).update(next_at=timezone.now() - timedelta(seconds=9))
    stopping = Dispatcher()
    stopping.run_once()
    until(lambda: len(receiver.calls) == 2, 5)
    assert elapsed(stopping.release) < 2
    assert {state_of(hanging), state_of(quick)} == {State.WAITING, State.DELIVERED}
    left = hanging if hanging.state == State.WAITING else quick
    assert left.attempts == 0
    assert Delivery.objects.due().get() == left


def test_a_slow_receiver_and_a_busy_owner_hold_nobody_up(
    ended: Callable[..., Delivery], receiver: Receiver
) -> None:
    receiver.reactions = [receiver.hangs] * 2
    slow = [ended(Owner(visitor=f"{n:032}")) for n in range(4)]
    at_work = Dispatcher()
    at_work.run_once()
    until(lambda: len(receiver.calls) == 2, 5)
    with receiving() as other:
        own_url = other.url.replace("127.0.0.1", "localhost")
        quick = ended(BERT, own_url)
        work(settled(quick), by=at_work)
    assert len(receiver.calls) == 2, "two at once to one host, whatever else is due"
    receiver.over.set()
    work(lambda: all(settled(each)() for each in slow), by=at_work)
    assert len(receiver.calls) >= 4
    busy = [ended(ANNA, f"http://127.0.0.{n}:1/") for n in range(1, 5)]
    again = Dispatcher()
    again.run_once()
    again.wait(0)
    assert sum(each.attempts for each in Delivery.objects.filter(pk__in=[b.pk for b in busy])) == 2


def test_hundreds_of_calls_that_are_due_stand_before_nobody_elses(
    ended: Callable[..., Delivery], receiver: Receiver
) -> None:
    receiver.reactions = [receiver.hangs] * 2
    first = ended()
    Delivery.objects.bulk_create(
        Delivery(job=first.job, url=first.url, host=first.host, body="{}", next_at=first.next_at)
        for _ in range(300)
    )
    at_work = Dispatcher()
    at_work.run_once()
    with receiving() as other:
        quick = ended(BERT, other.url.replace("127.0.0.1", "localhost"))
        work(settled(quick), by=at_work)
    receiver.over.set()
    assert Delivery.objects.filter(attempts__gt=0).count() == 3


def test_nothing_is_announced_where_no_webhooks_are_called(
    ended: Callable[..., Delivery], settings: Settings
) -> None:
    settings.WEBHOOKS = False
    with pytest.raises(Delivery.DoesNotExist):
        ended()


def test_a_failing_database_loses_no_outcome(
    ended: Callable[..., Delivery], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = ended()
    at_work = Dispatcher()
    at_work.run_once()
    until(lambda: receiver.calls, 5)
    at_work.wait(5)
    real = dispatcher.record
    monkeypatch.setattr(dispatcher, "record", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        at_work.run_once()
    monkeypatch.setattr(dispatcher, "record", real)
    at_work.run_once()
    assert state_of(delivery) == State.DELIVERED
    assert len(receiver.calls) == 1


# All of it together


def test_the_running_site_calls(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, small_store: Path
) -> None:
    settings = {
        "MODEL_DIR": str(small_store),
        "DEFAULT_MODEL": "tiny",
        "WEBHOOK_PRIVATE_ADDRESSES": "yes",
    }
    song = sounds.encode(tmp_path / "long.flac", sounds.music(60.0), "flac")
    with receiving() as receiver, running(tmp_path_factory.mktemp("site"), **settings) as site:
        receiver.reactions = [receiver.says(500)]
        visitor = Browser(site)
        job = visitor.upload(song)
        with sqlite3.connect(site.data_dir / "db.sqlite3", timeout=20) as database:
            database.execute("UPDATE separations_job SET webhook_url = ?", (receiver.url,))
        visitor.post(f"/songs/{job}/cancel")
        query = "SELECT state, attempts, outcome FROM separations_delivery"
        until(lambda: site.rows(query) == [("delivered", 2, "HTTP 204")], 30)
        ((owner,),) = site.rows("SELECT visitor FROM separations_job")
        key = (site.data_dir / "secret_key").read_text()
        log = site.log.read_text()
    secret = events._secret(f"visitor:{owner}", key)
    assert len(receiver.calls) == 2
    for call in receiver.calls:
        told = Webhook(secret).verify(call.body, call.headers)
        assert told["data"]["task_id"] == job
        assert told["data"]["status"] == "cancelled"
    assert receiver.url not in log
