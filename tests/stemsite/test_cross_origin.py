"""Pages of other origins: those that are allowed use the API by tokens, and no others."""

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http.response import ResponseHeaders
from django.test import Client
from pytest_django import Settings

from separations.access import api_tokens
from separations.models import Bucket, Job
from separations.queue import queue_switch
from stemsite.environment import envorigins
from tests.support import sounds

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "site_settings")]
STUDIO = "https://studio.example.org"
FROM_STUDIO = {"Origin": STUDIO, "Sec-Fetch-Site": "cross-site"}
ALLOW_ORIGIN, CREDENTIALS = "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"


@pytest.fixture
def allowed(site_settings: Settings) -> Settings:
    site_settings.CORS_ALLOWED_ORIGINS = [STUDIO]
    return site_settings


def preflight(origin: str, path: str = "/api/separate", method: str = "POST") -> ResponseHeaders:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,idempotency-key",
    }
    return Client().options(path, headers=headers).headers


def test_other_origins_are_off_by_default() -> None:
    assert ALLOW_ORIGIN not in preflight(STUDIO)
    answer = Client().get("/api/models", headers=FROM_STUDIO)
    assert ALLOW_ORIGIN not in answer.headers
    assert "origin" not in answer.headers.get("Vary", "").lower()


def test_an_allowed_page_is_told_what_it_may_send(allowed: Settings) -> None:
    told = preflight(STUDIO)
    assert told[ALLOW_ORIGIN] == STUDIO
    headers = {"authorization", "content-type", "idempotency-key", "range", "last-event-id"}
    assert headers <= set(told["Access-Control-Allow-Headers"].split(", "))
    assert {"POST", "DELETE"} <= set(told["Access-Control-Allow-Methods"].split(", "))
    assert CREDENTIALS not in told
    for origin in ("https://evil.example.org", f"{STUDIO}.evil.org", "http://studio.example.org"):
        assert ALLOW_ORIGIN not in preflight(origin)
    assert ALLOW_ORIGIN not in preflight("null")


def test_preflight_requests_count_for_no_limit(allowed: Settings) -> None:
    allowed.RATE_LIMITS = {**allowed.RATE_LIMITS, "upload": (1, 3600), "api": (1, 3600)}
    for _ in range(3):
        assert preflight(STUDIO)[ALLOW_ORIGIN] == STUDIO
    assert not Bucket.objects.exists()


def test_an_allowed_page_sends_songs_and_reads_the_answers(allowed: Settings) -> None:
    queue_switch.Presence().beat([], 0)
    song = sounds.wav(allowed.DATA_DIR / "a.wav", sounds.music(1.0)).read_bytes()

    def send(**headers: str) -> "tuple[int, str | None]":
        file = SimpleUploadedFile("a.wav", song)
        answer = Client().post("/api/separate", {"file": file}, headers=FROM_STUDIO | headers)
        return answer.status_code, answer.headers.get(ALLOW_ORIGIN)

    assert send() == (202, STUDIO)
    assert send(Origin="https://evil.example.org") == (403, None)
    assert Job.objects.count() == 1
    refused = Client().get("/api/jobs", headers=FROM_STUDIO)
    assert (refused.status_code, refused.headers[ALLOW_ORIGIN]) == (401, STUDIO)
    exposed = set(refused.headers["Access-Control-Expose-Headers"].split(", "))
    assert {"Location", "Retry-After", "Content-Disposition", "ETag", "RateLimit"} <= exposed


def test_a_session_is_of_no_use_to_another_origin(allowed: Settings) -> None:
    anna = User.objects.create_user("anna")
    browser = Client()
    browser.force_login(anna)
    assert browser.get("/api/jobs").status_code == 200
    for fetch_site in ("cross-site", "same-site"):  # same-site: a neighbour's sub-domain
        answer = browser.get("/api/jobs", headers=FROM_STUDIO | {"Sec-Fetch-Site": fetch_site})
        assert answer.status_code == 401
        assert CREDENTIALS not in answer.headers
    _token, text = api_tokens.create(anna, "test", "30")
    answer = browser.get("/api/jobs", headers=FROM_STUDIO | {"Authorization": f"Bearer {text}"})
    assert (answer.status_code, answer.headers[ALLOW_ORIGIN]) == (200, STUDIO)
    # Who names the site's own origin changes nothing for its own pages.
    allowed.CORS_ALLOWED_ORIGINS = ["http://testserver"]
    own = {"Origin": "http://testserver", "Host": "testserver"}
    assert browser.get("/api/jobs", headers=own).status_code == 200


def test_another_origin_gets_no_cookies(allowed: Settings) -> None:
    assert "csrftoken" in Client().get("/api/docs").cookies
    assert not Client().get("/api/docs", headers=FROM_STUDIO).cookies


def test_pages_are_for_this_origin_alone(allowed: Settings) -> None:
    for path in ("/", "/about", "/apiary", "/account/login"):
        assert ALLOW_ORIGIN not in Client().get(path, headers=FROM_STUDIO).headers


def test_origins_are_read_as_browsers_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    given = "https://Studio.example.org/, http://localhost:5173,https://a.org:443,http://[::1]:80"
    monkeypatch.setenv("CORS_ALLOWED_ORIGINS", given)
    expected = [STUDIO, "http://localhost:5173", "https://a.org", "http://[::1]"]
    assert envorigins("CORS_ALLOWED_ORIGINS") == expected


@pytest.mark.parametrize(
    "bad",
    ["*", "null", "studio.example.org", "https://a.org/app", "ftp://a.org", "https://a.org:0"],
)
def test_an_origin_that_is_none_is_named(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ALLOWED_ORIGINS", f"https://fine.example.org,{bad}")
    with pytest.raises(ImproperlyConfigured) as caught:
        envorigins("CORS_ALLOWED_ORIGINS")
    assert repr(bad) in str(caught.value)
