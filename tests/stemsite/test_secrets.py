"""Secrets: from variables and files, weak keys refused, files that others can read."""

import secrets
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from separations.checks.file_checks import secrets_are_kept
from separations.checks.host_names import mail_domain
from separations.checks.site_checks import debug_is_private, https_can_be_seen
from stemsite.environment import envsecret
from stemsite.secret_key import strong
from tests.support.commands import PUBLIC, python
from tests.support.sounds import ROOT

KEY = secrets.token_urlsafe(64)


def test_a_secret_can_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "database_url"
    file.write_text("postgresql://me:pass@db/songs\n")
    monkeypatch.setenv("A_SECRET_FILE", str(file))
    assert envsecret("A_SECRET", "") == "postgresql://me:pass@db/songs"
    monkeypatch.setenv("A_SECRET", "another")
    with pytest.raises(ImproperlyConfigured, match="A_SECRET or A_SECRET_FILE, not both"):
        envsecret("A_SECRET", "")
    monkeypatch.delenv("A_SECRET")
    file.write_text(" \n")
    with pytest.raises(ImproperlyConfigured, match="is empty"):
        envsecret("A_SECRET", "")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImproperlyConfigured, match="could not be read: it is no text"):
        envsecret("A_SECRET", "")
    file.unlink()
    with pytest.raises(ImproperlyConfigured, match="could not be read: No such file"):
        envsecret("A_SECRET", "")
    monkeypatch.delenv("A_SECRET_FILE")
    assert envsecret("A_SECRET", "default") == "default"


def test_mails_come_from_the_sites_name() -> None:
    assert mail_domain(["127.0.0.1", "[::1]", "localhost", ".a.example", "b.example"], "::1") == (
        "a.example"
    )
    assert mail_domain(["localhost", "127.0.0.1", "*"], "127.0.0.1") == "127.0.0.1"


def test_every_setting_that_holds_a_secret_takes_a_file(tmp_path: Path) -> None:
    values = {
        "SECRET_KEY": KEY,
        "SECRET_KEY_FALLBACKS": f"{KEY[::-1]}\n{secrets.token_hex(32)}",
        "DATABASE_URL": "sqlite:////tmp/from-a-file.sqlite3",
        "HUEY_URL": "redis://from-a-file/1",
        "METRICS_TOKEN": "token-from-a-file",
        "SENTRY_DSN": "https://key@from-a-file/1",
    }
    environment = {"DATA_DIR": str(tmp_path / "data")}
    for name, value in values.items():
        (tmp_path / name).write_text(value)
        environment[f"{name}_FILE"] = str(tmp_path / name)
    code = (
        "import stemsite.settings as s; "
        "print(s.SECRET_KEY, *s.SECRET_KEY_FALLBACKS, s.DATABASES['default']['NAME'], "
        "s.HUEY.storage.pool.connection_kwargs['host'], s.METRICS_TOKEN, s.SENTRY_DSN)"
    )
    answer = python("-c", code, **environment)
    wanted = f"{KEY} {values['SECRET_KEY_FALLBACKS']} /tmp/from-a-file.sqlite3 from-a-file"
    wanted += f" {values['METRICS_TOKEN']} {values['SENTRY_DSN']}"
    assert answer.stdout.split() == wanted.split(), answer.stderr
    assert not (tmp_path / "data" / "secret_key").exists()


@pytest.mark.parametrize(
    "key",
    [
        KEY[:49],
        "ab" * 40,
        "0123456789abcdef" * 4,  # many characters, and the same ones again and again
        "django-insecure-" + KEY,
        "please-change-me-" + KEY,
        "your_SECRET_key_" + KEY,
    ],
    ids=["short", "two", "again", "django", "placeholder", "named"],
)
def test_a_weak_key_is_refused(key: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="SECRET_KEY is weak"):
        strong(key, "SECRET_KEY")


def test_keys_that_tools_make_are_taken(tmp_path: Path) -> None:
    for key in (KEY, secrets.token_hex(32), secrets.token_urlsafe(48)):
        assert strong(key, "SECRET_KEY") == key
    answer = python("manage.py", "check", SECRET_KEY="weak")
    assert answer.returncode == 1
    assert "SECRET_KEY is weak: it must be at least 50 random characters" in answer.stderr
    answer = python("manage.py", "check", SECRET_KEY_FALLBACKS=f"{KEY},weak")
    assert "SECRET_KEY_FALLBACKS is weak" in answer.stderr


def test_a_key_that_others_can_read_is_warned_of(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    settings.SECRET_FILES = [file, tmp_path / "gone"]
    file.chmod(0o640)
    assert secrets_are_kept(None) == []
    file.chmod(0o644)
    assert [warning.id for warning in secrets_are_kept(None)] == ["stemsite.W020"]


def test_what_does_not_fit_is_warned_of(settings: Settings) -> None:
    assert https_can_be_seen(None) == debug_is_private(None) == []
    settings.HTTPS, settings.DEBUG, settings.HOST = True, True, "0.0.0.0"
    assert [warning.id for warning in https_can_be_seen(None)] == ["stemsite.W021"]
    assert [warning.id for warning in debug_is_private(None)] == ["stemsite.W023"]
    settings.TRUSTED_PROXIES = 1
    assert https_can_be_seen(None) == []


def test_the_public_settings_pass_every_check(small_store: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    section = text.split("\n## On a public address\n")[1].split("\n## ")[0]
    assert " ".join(f"{name}={value}" for name, value in PUBLIC.items()) in section
    models = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny", "DATA_DIR": str(tmp_path)}
    check = ("manage.py", "check", "--deploy", "--fail-level", "WARNING", "--tag", "security")
    answer = python(*check, **models, **PUBLIC)
    assert answer.returncode == 0, answer.stderr
    # Without them the site says which of its own settings are missing.
    answer = python(*check, **models)
    assert answer.returncode == 1
    assert "HTTPS=yes and TRUSTED_PROXIES=1" in answer.stderr
