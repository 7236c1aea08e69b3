"""The admin's lists, pages and actions: what they show, hide and do."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from separations.admin import job_history
from separations.admin.job_history import visitor_tag
from separations.errors.fault import Fault
from separations.jobs import lifecycle
from separations.models import ApiToken, Delivery, Job, Owner, ShareLink
from separations.worker import leases
from tests.support.jobs import ANNA, BERT, Submit, claimed, finished, rested

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
LIST = "/admin/separations/job/"


def act(client: Client, action: str, *chosen: Any, **more: str) -> Any:
    place = f"/admin/separations/{chosen[0]._meta.model_name}/"
    asked = {"action": action, "_selected_action": [str(row.pk) for row in chosen], **more}
    return client.post(place, asked, follow=True)


def failed(job: Job) -> Job:
    running = claimed()
    leases.fail(running, Fault("timed_out", minutes=10))
    job.refresh_from_db()
    return job


def test_the_list_tells_who_and_how_but_not_the_visitors_secret(
    submit: Submit, admin_client: Client
) -> None:
    job = failed(submit())
    assert job.finished_at is not None
    Job.objects.filter(pk=job.pk).update(
        queued_at=job.finished_at - timedelta(seconds=130),
        started_at=job.finished_at - timedelta(seconds=65),
    )
    page = admin_client.get(LIST).text
    for told in ("failed", "1:05", "after 10 minutes", f"visitor {visitor_tag(ANNA.visitor)}"):
        assert told in page, told
    assert page.count("1:05") == 2, "waited, took"
    for text in (page, admin_client.get(f"{LIST}{job.pk}/change/").text):
        assert ANNA.visitor not in text
    Job.objects.update(user=User.objects.create_user("cleo"))
    assert ">cleo</a>" in admin_client.get(LIST).text


def test_times_are_those_of_the_run_that_counts(submit: Submit) -> None:
    job = finished(submit())
    now = timezone.now()
    job.queued_at, job.started_at = now - timedelta(seconds=9), now - timedelta(seconds=4)
    job.finished_at = now - timedelta(seconds=2)
    assert (job_history.waited(job), job_history.took(job), job_history.speed(job)) == (5, 2, 2)
    job.state, job.finished_at = Job.State.RUNNING, None
    assert (job_history.took(job, now), job_history.speed(job)) == (4, None)
    job.state, job.cached, job.started_at = Job.State.DONE, True, now
    assert job_history.took(job) is None, "nothing was run for it"


def test_a_run_that_is_over_tells_no_times_of_the_next(submit: Submit) -> None:
    job = submit()
    assert leases.hand_back(claimed())
    job.refresh_from_db()
    later = job.queued_at + timedelta(seconds=9)
    assert (job_history.waited(job, later), job_history.took(job, later)) == (9, None)
    job = failed(job)
    lifecycle.retry(job)
    lifecycle.cancel(job)
    job.refresh_from_db()
    assert job_history.took(job) is None
    assert job.started_at is None


def test_who_comes_into_a_run_has_its_times(submit: Submit) -> None:
    submit()
    run = claimed()
    began = timezone.now() - timedelta(seconds=30)
    Job.objects.filter(pk=run.pk).update(started_at=began)
    heir = submit(BERT)
    lifecycle.cancel(run)
    heir.refresh_from_db()
    assert heir.state == Job.State.RUNNING
    now = began + timedelta(seconds=50)
    assert (job_history.waited(heir, now), job_history.took(heir, now)) == (0, 50)


def test_what_staff_do_on_a_songs_page_is_theirs(
    submit: Submit, admin_client: Client, settings: Settings
) -> None:
    job = submit()
    settings.MAX_QUEUED_JOBS = 1
    staff = Owner("", User.objects.get(username="admin").pk)
    submit(staff, shifts=1)
    assert admin_client.post(f"/songs/{job.pk}/cancel").status_code == 302
    assert admin_client.post(f"/songs/{job.pk}/retry").status_code == 302, "theirs are not counted"
    causes = [(each.cause, each.detail.get("by")) for each in job.timeline.all()][1:]
    assert causes == [("cancelled", lifecycle.STAFF), ("retried", lifecycle.STAFF)]


def test_a_jobs_page_tells_its_story_in_words(submit: Submit, admin_client: Client) -> None:
    job = submit()
    leases.end_with(claimed(), Fault("engine_died"))
    rested(job)
    claimed()
    lifecycle.cancel(job, lifecycle.STAFF)
    Delivery.objects.create(
        job=job, url="https://example.org/x", body="{}", state="given_up", outcome="HTTP 500"
    )
    page = admin_client.get(f"{LIST}{job.pk}/change/").text
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    for told in (
        "sent in",
        "taken by a runner attempt 1, host: ",
        "met a fault The separation stopped unexpectedly and was given up. Try again in a while., "
        "attempt 1",
        "cancelled by the staff",
        "+0.",
        "https://example.org/x given up",
        "HTTP 500",
        "model tiny",
        "shifts 0",
    ):
        assert told in words, told
    assert 'value="retry_jobs"' in page
    assert 'value="cancel_jobs"' not in page
    assert f'href="/songs/{job.pk}"' in page
    done = finished(submit(BERT))
    page = admin_client.get(f"{LIST}{done.pk}/change/").text
    assert "vocals" in page
    assert "-20.0 LUFS" in page


def test_the_true_cause_of_each_attempt_is_for_the_operator_alone(
    submit: Submit, admin_client: Client
) -> None:
    job = submit()
    for number in range(2):
        fault = Fault("engine_died", status=-11)
        line = f"at anna@example.org from 203.0.113.9 in <b>{number}\x1b[2J</b>\n"
        fault.trace = "beginning" + line * 400 + "signal SIGSEGV"
        leases.end_with(claimed(), fault)
        rested(job)
    page = admin_client.get(f"{LIST}{job.pk}/change/").text
    assert page.count("signal SIGSEGV</pre>") == 2
    assert "&lt;b&gt;1\\x1b[2J" in page
    assert "SIGSEGV" in act(admin_client, "download_log", job).text
    for trace in job.timeline.exclude(trace="").values_list("trace", flat=True):
        assert len(trace) <= 4096
        assert "beginning" not in trace
        assert "anna" not in trace
        assert "203" not in trace
    visitor = Client()
    visitor.cookies = admin_client.cookies
    for address in (f"/songs/{job.pk}", f"/songs/{job.pk}/card"):
        assert "SIGSEGV" not in admin_client.get(address).text


def test_what_the_staff_does_is_in_the_timeline(submit: Submit, admin_client: Client) -> None:
    job = submit()
    assert "1 job was cancelled" in act(admin_client, "cancel_jobs", job).text
    assert "0 jobs were cancelled" in act(admin_client, "cancel_jobs", job).text
    act(admin_client, "retry_jobs", job)
    told = [(line.cause, line.detail) for line in job.timeline.all()]
    assert told[1:] == [("cancelled", {"by": "staff"}), ("retried", {"by": "staff"})]


def test_the_log_holds_the_chosen_jobs_and_no_secret(submit: Submit, admin_client: Client) -> None:
    job, other = submit(), submit(BERT, shifts=1)
    failed(job)
    Job.objects.filter(pk=job.pk).update(webhook_url="https://example.org/secret")
    job.upload.title = "two\nlines"
    job.upload.save()
    answer = act(admin_client, "download_log", job)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert re.match(
        r'attachment; filename="jobs-\d+-\d+\.txt"', answer.headers["Content-Disposition"]
    )
    text = answer.text
    for told in (
        f"job {job.pk}\n",
        '  state: "failed"\n',
        '  error_params: {"minutes": 10}\n',
        '  song: "two\\nlines"\n',
        f'  owner: "visitor {visitor_tag(ANNA.visitor)}"\n',
        '"shifts": 0',
        ' failed fault {"error": "timed_out", "attempt": 1}\n',
    ):
        assert told in text, told
    for secret in (ANNA.visitor, "secret", str(other.pk)):
        assert secret not in text
    assert str(other.pk) in act(admin_client, "download_log", job, other).text


def test_who_may_only_look_can_only_look(submit: Submit, client: Client) -> None:
    job = submit()
    clerk = User.objects.create_user("clerk", is_staff=True)
    client.force_login(clerk)
    assert client.get(LIST).status_code == 403
    clerk.user_permissions.add(Permission.objects.get(codename="view_job"))
    page = client.get(LIST).text
    assert 'value="download_log"' in page
    for action in ("cancel_jobs", "retry_jobs", "run_first", "delete_jobs"):
        assert f'value="{action}"' not in page
        act(client, action, job, post="yes")
    assert 'value="cancel_jobs"' not in client.get(f"{LIST}{job.pk}/change/").text
    job.refresh_from_db()
    assert (job.state, job.priority) == ("queued", 0)


def test_looking_changes_nothing(submit: Submit, admin_client: Client) -> None:
    job = submit()
    for action in ("cancel_jobs", "run_first", "delete_jobs"):
        admin_client.get(LIST, {"action": action, "_selected_action": str(job.pk), "post": "yes"})
    job.refresh_from_db()
    assert (job.state, job.priority) == ("queued", 0)


def test_tokens_are_revoked_and_their_hashes_not_shown(
    admin_client: Client, site_settings: object
) -> None:
    cleo = User.objects.create_user("cleo")
    token = ApiToken.objects.create(user=cleo, name="robot", hint="st_abc", token_hash="f" * 64)
    page = admin_client.get("/admin/separations/apitoken/").text
    for told in ("robot", "cleo", "st_abc…"):
        assert told in page, told
    page += admin_client.get(f"/admin/separations/apitoken/{token.pk}/change/").text
    assert "f" * 64 not in page
    assert "1 token was revoked" in act(admin_client, "revoke", token).text
    assert "0 tokens were revoked" in act(admin_client, "revoke", token).text
    assert not ApiToken.objects.valid().exists()
    page = admin_client.get(f"/admin/auth/user/{cleo.pk}/delete/").text
    assert "permission" not in page, "tokens go with their account"
    assert admin_client.get("/admin/auth/user/").status_code == 200


def test_calls_that_were_given_up_are_sent_again(submit: Submit, admin_client: Client) -> None:
    job, then = submit(), timezone.now() - timedelta(days=1)
    values: dict[str, Any] = {"job": job, "url": "https://example.org/x", "body": "{}"}
    lost = Delivery.objects.create(**values, state="given_up", next_at=then, ended_at=then)
    there = Delivery.objects.create(**values, state="delivered", next_at=then, ended_at=then)
    page = admin_client.get("/admin/separations/delivery/").text
    assert "https://example.org/x" in page
    assert "1 delivery is sent again" in act(admin_client, "send_again", lost, there).text
    lost.refresh_from_db()
    there.refresh_from_db()
    assert (lost.state, lost.ended_at) == ("waiting", None)
    assert lost.next_at > then
    assert there.state == "delivered"


def test_calls_are_not_said_to_be_sent_where_none_are(
    submit: Submit, admin_client: Client, settings: Settings
) -> None:
    settings.WEBHOOKS = False
    then = timezone.now() - timedelta(days=1)
    lost = Delivery.objects.create(
        job=submit(), url="https://example.org/x", body="{}", state="given_up", next_at=then
    )
    assert "switched off" in act(admin_client, "send_again", lost).text
    lost.refresh_from_db()
    assert lost.state == "given_up"


def test_links_do_not_lead_to_hashes(submit: Submit, admin_client: Client) -> None:
    ShareLink.objects.create(job=submit(), token_hash="e" * 64)
    assert "e" * 64 not in admin_client.get("/admin/separations/sharelink/").text


def test_nobody_writes_rows_by_hand(submit: Submit, admin_client: Client) -> None:
    job = submit()
    for name in ("job", "upload", "stem", "apitoken", "delivery", "consumer"):
        assert admin_client.get(f"/admin/separations/{name}/add/").status_code == 403, name
    assert admin_client.post(f"{LIST}{job.pk}/change/", {"state": "done"}).status_code == 403
