"""Importing the settings, and commands that only explain, leave nothing behind; a start of the site
makes its folders and its key once."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from filelock import FileLock

from manage import is_working
from stemsite import data_folder, secret_key
from tests.support.sounds import ROOT

IMPORT = """
import os
before = dict(os.environ)
import stemsite.settings
import stemsite.web_server
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
"""
SET_UP = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "stemsite.settings"
before = dict(os.environ)
import django
django.setup()
from django.urls import get_resolver
get_resolver().url_patterns
from separations.worker import tasks
os.environ.pop("TZ")  # which Django sets from TIME_ZONE
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose home, data and temporary folders lie in `tmp_path`, and are not there
    or empty."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    kept = ("PATH", "LANG", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "DATA_DIR": str(tmp_path / "data"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def python(environment: dict[str, str], *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("-c", IMPORT), id="import"),
        pytest.param(("-c", SET_UP), id="django.setup"),
        ("manage.py", "help"),
        ("manage.py", "help", "run_consumer"),
        ("manage.py", "migrate", "--help"),
        ("manage.py", "check"),
        ("manage.py", "diffsettings"),
        ("manage.py", "models"),
    ],
    ids=" ".join,
)
def test_nothing_is_left_behind(
    tmp_path: Path, home: dict[str, str], command: tuple[str, ...]
) -> None:
    before = files(tmp_path), files(ROOT / "data")
    process = python(home, *command)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 0, told
    assert (files(tmp_path), files(ROOT / "data")) == before


def test_only_commands_that_work_on_data_make_it() -> None:
    assert is_working(["migrate"])
    assert is_working(["run_consumer"])
    for line in ([], ["help"], ["migrate", "--help"], ["separate", "-h"], ["check"], ["nonsense"]):
        assert not is_working(line)


# The key


def test_a_start_makes_the_folders_and_a_private_key(tmp_path: Path, home: dict[str, str]) -> None:
    process = python(home, "manage.py", "shell", "-v0", "-c", "pass")
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 0, told
    data = tmp_path / "data"
    folders = {"incoming", "renditions", "results", "staging", "uploads"}
    assert folders | {"secret_key", "queue.sqlite3"} <= files(data)
    assert data.stat().st_mode & 0o077 == 0
    assert (data / "secret_key").stat().st_mode & 0o077 == 0
    assert len((data / "secret_key").read_text()) > 60
    assert not [name for name in files(data) if name.startswith(".secret_key")]


def test_processes_that_start_at_once_agree_on_the_key(home: dict[str, str]) -> None:
    code = (
        "import django.conf, sys; from stemsite import data_folder, settings; "
        "print('ready', flush=True); sys.stdin.readline(); "
        "data_folder.prepare(); print(settings.SECRET_KEY)"
    )
    starting = [python(home, "-c", code) for _ in range(3)]
    for each in starting:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in starting:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    keys = {each.communicate(timeout=60)[0] for each in starting}
    assert len(keys) == 1, keys
    assert len(keys.pop()) > 60


def test_who_comes_second_reads_the_key_of_the_first(tmp_path: Path) -> None:
    path, found = tmp_path / "secret_key", list[str]()
    with FileLock(tmp_path / "secret_key.lock"):  # as the first holds it while it writes
        second = threading.Thread(target=lambda: found.append(secret_key.read_or_make(path)))
        second.start()
        second.join(0.3)
        assert not found, "it waits"
        path.write_text("k" * 86)
    second.join(10)
    assert found == ["k" * 86]


def test_a_key_is_made_only_when_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret_key"
    key = secret_key.stored_key(path)
    assert not path.parent.exists()
    assert bool(key)
    assert str(key) == path.read_text() == str(secret_key.stored_key(path))
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_key_that_cannot_be_kept_is_an_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "data").touch()  # no folder
    key = secret_key.stored_key(tmp_path / "data" / "secret_key")
    with pytest.raises(ImproperlyConfigured, match=r"cannot be kept in .* or set SECRET_KEY"):
        str(key)
    (tmp_path / "secret_key").write_text("short")
    with pytest.raises(ImproperlyConfigured, match="holds no usable key"):
        str(secret_key.stored_key(tmp_path / "secret_key"))


def test_a_data_folder_that_cannot_be_made_is_named(home: dict[str, str]) -> None:
    Path(home["DATA_DIR"]).touch()
    process = python(home, "manage.py", "migrate")
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert told.startswith(f"The site does not start: {home['DATA_DIR']} cannot be made: ")
    assert "Traceback" not in told
    with pytest.raises(ImproperlyConfigured, match="Set DATA_DIR to a folder"):
        data_folder.make(Path(home["DATA_DIR"]), [])


@pytest.mark.parametrize(
    ("group", "umask"), [("no", 0o077), ("yes", 0o007), ("a wrong setting", 0o077)]
)
def test_every_command_writes_for_the_sites_user_and_group(
    home: dict[str, str], group: str, umask: int
) -> None:
    code = (
        "import os; from stemsite import data_folder; data_folder.set_umask(); print(os.umask(0))"
    )
    process = python(home | {"GROUP_ACCESS": group}, "-c", code)
    assert process.communicate(timeout=60)[0] == f"{umask}\n"
