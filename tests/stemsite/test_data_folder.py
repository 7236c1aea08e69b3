"""DATA_DIR is closed to other users of the machine, and system checks warn where it is not."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pytest_django import Settings

from separations.checks import file_checks
from separations.checks.file_checks import (
    data_is_private,
    secrets_are_kept,
    services_ask_for_a_password,
    weights_are_kept,
)
from stemsite import data_folder
from stemsite.data_folder import DataFolderIsOpen
from stemsite.signed_queue import SqliteQueue
from tests.support.running_site import running, workers
from tests.support.sounds import ROOT

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with the modes of one that was made by hand."""
    made = tmp_path / "data"
    (made / "results").mkdir(parents=True)
    made.chmod(0o755)
    for name in ("db.sqlite3", "queue.sqlite3"):
        (made / name).touch(0o644)
    (made / "secret_key").touch(0o400)
    outside = tmp_path / "outside"
    outside.touch()
    outside.chmod(0o644)
    (made / "link").symlink_to(outside)
    return made


# At the start


def test_a_folder_that_others_can_reach_is_mended(folder: Path) -> None:
    for _ in range(2):
        data_folder.close(folder, group=False)
        assert mode(folder) == 0o700
        assert mode(folder / "db.sqlite3") == mode(folder / "queue.sqlite3") == 0o600
        assert mode(folder / "secret_key") == 0o400
        assert mode(folder.with_name("outside")) == 0o644, "what a link leads to is not ours"


def test_a_group_may_be_let_in_and_nobody_else(folder: Path) -> None:
    folder.chmod(0o2775)
    (folder / "db.sqlite3").chmod(0o664)
    data_folder.close(folder, group=True)
    assert mode(folder) == 0o2770
    assert mode(folder / "db.sqlite3") == 0o660


def test_a_file_that_goes_meanwhile_keeps_no_site_from_starting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "db.sqlite3-journal").touch()
    listed = list(os.scandir(folder))
    (folder / "db.sqlite3-journal").unlink()
    monkeypatch.setattr(os, "scandir", lambda _: listed)
    (folder / "secret_key").chmod(0o644)
    data_folder.close(folder, group=False)
    assert mode(folder / "secret_key") == 0o600


def test_a_file_system_without_modes_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    with pytest.raises(DataFolderIsOpen, match="keeps no modes"):
        data_folder.close(folder, group=False)


@pytest.fixture
def anothers() -> Iterator[Path]:
    """A data folder of root's that all may read, where this process is another user."""
    made = Path(tempfile.mkdtemp(prefix="stemsite-anothers-"))
    made.chmod(0o755)
    os.seteuid(65534)
    try:
        yield made
    finally:
        os.seteuid(0)
        made.rmdir()


@root
def test_anothers_folder_is_refused(anothers: Path) -> None:
    with pytest.raises(DataFolderIsOpen) as caught:
        data_folder.close(anothers, group=False)
    told = str(caught.value)
    assert told.startswith(f"other users of this machine can reach DATA_DIR, {anothers}")
    assert f"belongs to another user (uid 0), who has to mend that: chmod 700 {anothers}" in told


def manage(folder: Path, *command: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env=os.environ | {"DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


def test_a_command_mends_it_and_writes_for_its_user_alone(folder: Path) -> None:
    (folder / "secret_key").unlink()
    answer = manage(folder, "shell", "-v0", "-c", "pass", umask=0o022)
    assert answer.returncode == 0, answer.stderr
    assert mode(folder) == 0o700
    made = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.name for path in made} > {"secret_key", "db.sqlite3"}
    assert [path for path in made if mode(path) & 0o077] == []


def test_the_site_does_not_start_where_it_cannot_be_mended(folder: Path) -> None:
    (folder / "secret_key").unlink()
    code = (
        "from pathlib import Path; Path.chmod = lambda *_: None\n"
        "from stemsite import web_server\n"
        "web_server.on_starting(None)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=_without_settings() | {"DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith("The site does not start: other users of this machine can")
    assert "Traceback" not in answer.stderr


def _without_settings() -> dict[str, str]:
    """The environment as the web server's master process has it: it does not set up Django."""
    return {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_running_site_is_closed(folder: Path) -> None:
    (folder / "db.sqlite3").unlink()
    with running(folder) as site:
        site.consumer()
        family = psutil.Process(site.process.pid).children(recursive=True)
        ours = [each for each in family if {"gunicorn", "run_consumer"} & set(each.cmdline())]
        assert {each.pid for each in workers(site)} < {each.pid for each in ours}
        assert {_umask(each.pid) for each in ours} == {"0077"}
        assert mode(folder) == 0o700
        fresh = [
            *folder.glob("*.sqlite3*"),
            *(path for path in (folder / "metrics").rglob("*") if path.is_file()),
        ]
        assert len(fresh) > 5
        assert [path for path in fresh if mode(path) & 0o077] == []


def _umask(process: int) -> str:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("Umask"))


# What `manage.py check` says


@pytest.fixture
def kept(folder: Path, settings: Settings) -> Path:
    """`folder` as the site's, closed."""
    settings.DATA_DIR = folder
    settings.DATABASES["default"]["NAME"] = folder / "db.sqlite3"
    settings.HUEY = SqliteQueue("stemsite", filename=str(folder / "queue.sqlite3"))
    data_folder.close(folder, group=False)
    return folder


@pytest.fixture
def shared_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where every group has another member."""
    monkeypatch.setattr(file_checks, "_others_in", lambda _gid: "the group audio (bob)")


def test_an_open_data_folder_is_warned_of(
    kept: Path, tmp_path: Path, settings: Settings, shared_group: None
) -> None:
    assert data_is_private(None) == []
    (kept / "db.sqlite3").chmod(0o644)
    assert data_is_private(None) == [], "the folder keeps others out"
    kept.chmod(0o711)
    folder, database = data_is_private(None)
    assert folder.id == database.id == "stemsite.W025"
    assert f"Everybody on this machine can reach {kept}, with songs" in folder.msg
    assert f"can reach {kept / 'db.sqlite3'}" in database.msg
    (kept / "db.sqlite3").chmod(0o600)
    kept.chmod(0o750)
    (folder,) = data_is_private(None)
    assert folder.msg.startswith("The group audio (bob) can reach")
    settings.GROUP_ACCESS = True
    assert data_is_private(None) == []
    # A database that lies elsewhere.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    elsewhere.chmod(0o755)
    (elsewhere / "songs.sqlite3").touch()
    (elsewhere / "songs.sqlite3-wal").touch()
    (elsewhere / "songs.sqlite3").chmod(0o600)
    (elsewhere / "songs.sqlite3-wal").chmod(0o644)
    settings.DATABASES["default"]["NAME"] = elsewhere / "songs.sqlite3"
    (log,) = data_is_private(None)
    assert "songs.sqlite3-wal" in log.msg


@root
def test_a_folder_of_another_user_is_warned_of(kept: Path) -> None:
    os.chown(kept, 65534, -1)
    assert [each.id for each in data_is_private(None)] == ["stemsite.W026"]


def test_a_secret_that_a_group_can_read_is_warned_of(
    tmp_path: Path, settings: Settings, shared_group: None
) -> None:
    key = tmp_path / "key"
    key.touch()
    settings.SECRET_FILES = [key]
    key.chmod(0o640)
    (warning,) = secrets_are_kept(None)
    assert warning.msg == f"The group audio (bob) can read {key}."
    settings.GROUP_ACCESS = True
    assert secrets_are_kept(None) == []
    key.chmod(0o644)
    assert len(secrets_are_kept(None)) == 1


def test_a_group_of_nobody_else_counts_as_the_user() -> None:
    own = os.getegid() if os.geteuid() else 0
    assert file_checks._others_in(own) in ("", file_checks._others_in(own))
    assert file_checks._others_in(2**31 - 5) == "", "a group that has no name"


def test_weights_that_others_can_change_are_warned_of(tmp_path: Path, settings: Settings) -> None:
    settings.MODEL_DIR = tmp_path / "models"
    assert weights_are_kept(None) == []
    model = tmp_path / "models" / "htdemucs"
    model.mkdir(parents=True)
    for path in (model.parent, model):
        path.chmod(0o755)
    (model / "part.safetensors").touch()
    (model / "part.safetensors").chmod(0o644)
    assert weights_are_kept(None) == []
    (model / "part.safetensors").chmod(0o666)
    model.chmod(0o777)
    folder, part = weights_are_kept(None)
    assert folder.id == part.id == "stemsite.W027"
    assert f"Everybody on this machine can change {model}," in folder.msg
    assert "part.safetensors" in part.msg


@pytest.mark.parametrize(
    ("url", "warns"),
    [
        ("", False),
        ("redis://127.0.0.1:6379/0", True),
        ("redis://stemsite@queue/0", True),
        ("rediss://queue/0", True),
        ("redis://:pass@queue/0", False),
        ("redis://queue/0?password=pass", False),
        ("rediss://queue/0?ssl_certfile=/etc/cert", False),
        ("postgresql://stemsite@db/songs", True),
        ("postgresql://stemsite:pass@db/songs", False),
        ("postgresql://stemsite@db/songs?sslcert=/etc/cert", False),
        ("postgresql:///songs", False),
        ("postgresql://stemsite@localhost/songs", False),
        ("postgresql://stemsite@%2Frun%2Fpostgresql/songs", False),
        ("sqlite:////tmp/songs.sqlite3", False),
    ],
)
@pytest.mark.parametrize("name", ["HUEY_URL", "DATABASE_URL"])
def test_a_service_without_a_password_is_warned_of(
    settings: Settings, url: str, warns: bool, name: str
) -> None:
    setattr(settings, name, url)
    found = services_ask_for_a_password(None)
    assert [each.id for each in found] == (["stemsite.W028"] if warns else [])
    assert all(each.msg.startswith(name) for each in found)
