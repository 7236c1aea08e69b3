"""The site listens to strangers behind a proxy alone, or where DIRECT says so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_django import Settings

from separations.checks.listen_address import is_public, refusal
from separations.checks.site_checks import nothing_is_direct, strangers_come_by_a_proxy
from stemsite.setup import bootstrap, paths, steps
from tests.support.running_site import free_port
from tests.support.sounds import ROOT

OPEN = ("0.0.0.0", "0", "0x0", "::", "[::]", "::ffff:0.0.0.0", "0:0:0:0:0:0:0:0", "8.8.8.8")
CLOSED = (
    *("127.0.0.1", "localhost", "::1", "[::1]", "127.1", "::ffff:127.0.0.1"),
    *("192.168.1.5", "10.0.0.3", "172.17.0.2", "100.64.1.1", "fd00::1", "fe80::1", "169.254.0.9"),
    "no-such-name.invalid",
)


@pytest.mark.parametrize("host", [*OPEN, "2a00:1450::1", "[2a00:1450::1]", "::ffff:8.8.8.8"])
def test_a_public_address_or_all_need_a_proxy_or_a_word(host: str) -> None:
    assert f"HOST is {host}, which anybody may reach" in refusal(host, proxies=0, direct=False)
    assert refusal(host, proxies=1, direct=False) == refusal(host, proxies=0, direct=True) == ""


@pytest.mark.parametrize("host", CLOSED)
def test_a_private_address_needs_neither(host: str) -> None:
    assert not is_public(host)
    assert refusal(host, proxies=0, direct=False) == ""


def test_the_checks_name_it(settings: Settings) -> None:
    settings.HOST = "0.0.0.0"
    assert [error.id for error in strangers_come_by_a_proxy(None)] == ["stemsite.E004"]
    assert nothing_is_direct(None) == []
    settings.DIRECT = True
    assert strangers_come_by_a_proxy(None) == []
    assert [warning.id for warning in nothing_is_direct(None)] == ["stemsite.W029"]
    settings.TRUSTED_PROXIES = 1
    assert strangers_come_by_a_proxy(None) == nothing_is_direct(None) == []


def start(folder: Path, *command: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"DATA_DIR": str(folder), "HOST": "0.0.0.0"} | settings
    environment["PORT"] = str(free_port())
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_web_server_does_not_start_there(tmp_path: Path) -> None:
    words = re.search(r"^web: .*?(gunicorn .*)$", (ROOT / "Procfile").read_text(), re.MULTILINE)
    assert words
    answer = start(tmp_path, "-m", *words[1].split())
    assert answer.returncode == 1
    told = answer.stderr.strip().splitlines()
    assert len(told) == 1, "one sentence, no traceback"
    assert told[0].startswith("The site does not start: HOST is 0.0.0.0, which anybody may reach")
    for way_out in ("TRUSTED_PROXIES=1", "DIRECT=yes"):
        assert way_out in told[0]


def test_nor_does_the_one_for_developers(tmp_path: Path) -> None:
    answer = start(tmp_path, "manage.py", "runserver", "--noreload", "0.0.0.0:0", DEBUG="yes")
    assert answer.returncode == 1
    assert "HOST is 0.0.0.0, which anybody may reach" in answer.stderr


def test_make_asks_before_anything_takes_long(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(bootstrap, "setup", lambda **_: None)
    monkeypatch.setenv("HOST", "::")
    for begin in (bootstrap.run, bootstrap.dev):
        with pytest.raises(steps.StepFailed, match="not fit to start"):
            begin()
        assert "HOST is ::, which anybody may reach" in "".join(capfd.readouterr())
