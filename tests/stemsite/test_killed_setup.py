"""The set-up survives being killed at any moment: the next one completes what it began.

`make faults` kills the real one, again and again (tests/faults/killed_setup.py).
"""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stemsite.setup import half_installed, lock, paths, steps, virtual_environment
from tests.support.setup_in_small import Project, make_project
from tests.support.sounds import ROOT

WHOLE = "import large, small, sys, torch, torchaudio; print(large.WHOLE, sys.prefix)"


def kill_pip_halfway(project: Project) -> None:
    """Kill a set-up while pip writes the files of the large package; a quick pip is done before."""
    about = project.packages / "large-1.0.dist-info"
    for _ in range(10):
        process = project.start()
        while not (about / "METADATA").exists():
            assert process.poll() is None
            time.sleep(0.0005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if not (about / "INSTALLER").exists():
            return
        shutil.rmtree(about)
    pytest.fail("pip was done each time: make FILES more")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that is set up after three kills, while its environment was made and filled."""
    project = make_project(tmp_path_factory.mktemp("project"))
    for point in (
        "after venv.create",
        "before stemsite.setup.virtual_environment._move_into_place",
    ):
        assert project.start(point).wait(60) == -signal.SIGKILL
        assert not project.venv.exists(), "it is there as a whole, or not at all"
    kill_pip_halfway(project)
    # As an earlier version with pip's own name for what it removes would leave it.
    (project.packages / "~mall").mkdir()
    assert "anew: large" in project.set_up()
    return project


def test_the_next_setup_completes_a_killed_one(project: Project) -> None:
    assert project.answer(WHOLE) == f"True {project.venv}"
    assert len(list((project.packages / "large").glob("part*.py"))) == 400
    assert not list(project.packages.glob("~*"))
    left = [path.name for path in project.root.glob(".venv*")]
    assert left == [".venv"]
    assert str(project.root / ".venv.part-") not in (project.venv / "bin/activate").read_text()
    assert str(project.venv) in (project.venv / "bin/activate").read_text()


def test_a_kill_after_any_step_leaves_no_stamp(project: Project) -> None:
    """What was installed before the kill may be of two states of the lock file."""
    for point in ("after stemsite.setup.half_installed.forget", "before pathlib.Path.rename"):
        (project.venv / "installed-requirements").write_text("another state")
        # The compiled part of torchaudio is back, as after its installation: moved file by file.
        for library in project.packages.glob("torchaudio/lib/*.aside"):
            library.rename(library.with_suffix(""))
        assert project.start(point).wait(60) == -signal.SIGKILL
        assert not list(project.venv.glob("installed-*"))
    project.set_up()
    assert project.answer(WHOLE) == f"True {project.venv}"
    assert "Installing" not in project.set_up(), "once for each state of the lock file"


def test_a_half_made_environment_of_an_earlier_version_is_replaced(
    project: Project, tmp_path: Path
) -> None:
    """Its Python works, but takes itself for the system's, into which pip would install."""
    shutil.copytree(project.root, tmp_path / "copy", symlinks=True)
    broken = Project(tmp_path / "copy")
    (broken.venv / "pyvenv.cfg").unlink()
    system = broken.answer("import sys; print(sys.prefix)")
    assert system == sys.base_prefix
    pip = [str(broken.python), "-m", "pip", "install", "--no-index", "small"]
    refused = steps.run(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert "virtualenv" in refused.stdout, "no pip that we start installs there"
    with subprocess.Popen([broken.python, "-c", "input()"], stdin=subprocess.PIPE) as site:
        process = broken.start()
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 1
        assert f"{site.pid} (python)" in output
        assert "Stop the site" in output
        assert broken.python.exists()
    process = broken.start("before stemsite.setup.bootstrap.install_packages")
    assert "Making a virtual environment" in process.communicate(timeout=60)[0]
    assert broken.answer("import sys; print(sys.prefix)") == str(broken.venv)
    assert not list(broken.root.glob(".venv.*"))


@pytest.fixture
def environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", project.root)
    monkeypatch.setattr(paths, "VENV", project.venv)
    monkeypatch.setattr(paths, "PYTHON", project.python)
    return project.venv


def test_an_environment_whose_pip_is_killed_over_the_question_is_kept(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert virtual_environment.is_whole()
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(paths, "PYTHON", python)
    with pytest.raises(steps.StepFailed, match="Nothing was changed"):
        virtual_environment.make_environment()
    # No answer for another reason, and the next time there is one: kept, too.
    python.write_text(
        f"#!/bin/sh\n[ -e {tmp_path}/asked ] || {{ touch {tmp_path}/asked; exit 1; }}\n"
        f'exec {environment}/bin/python "$@"\n'
    )
    before = environment.stat().st_ino
    virtual_environment.make_environment()
    assert environment.stat().st_ino == before


def test_an_environment_of_an_earlier_version_is_kept(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `python -m venv` made it; also where .venv is a link to a folder elsewhere."""
    link = tmp_path / ".venv"
    link.symlink_to(environment)
    monkeypatch.setattr(paths, "VENV", link)
    monkeypatch.setattr(paths, "PYTHON", link / "bin/python")
    assert virtual_environment.is_whole()
    assert not virtual_environment.processes_in(tmp_path)


@pytest.mark.parametrize("gone", ["INSTALLER", "RECORD", "METADATA", "../small.py"])
def test_what_is_half_installed_is_forgotten(
    environment: Path, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    packages = tmp_path / project.packages.relative_to(project.venv)
    packages.mkdir(parents=True)
    for name in ("small.py", "small-1.0.dist-info", "torchaudio", "torchaudio-1.0.dist-info"):
        source = project.packages / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, packages / name)
    monkeypatch.setattr(paths, "VENV", tmp_path)
    assert half_installed.forget() == [], "the compiled part of torchaudio was moved, not lost"
    file = packages / "small-1.0.dist-info" / gone
    if gone == "../small.py":
        file.write_text("cut")
    else:
        file.unlink()
    assert half_installed.forget() == ["small"]


def test_two_at_a_time_wait_for_each_other(
    environment: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for what a killed one started: it holds the lock until it ends."""
    code = (
        "import os, sys; from pathlib import Path; from stemsite.setup import lock, paths, steps\n"
        "paths.ROOT = Path(sys.argv[1])\n"
        "with lock.one_at_a_time(): steps.run(['sh', '-c', 'echo begun; read line'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(paths.ROOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.kill()
    process.wait()
    waiting = subprocess.Popen(
        [sys.executable, "-c", code.replace("echo begun; read line", "echo mine"), str(paths.ROOT)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert waiting.stdout is not None
    assert b"Waiting for another set-up" in waiting.stdout.readline()
    process.stdin.close()  # ends what the killed one left
    assert waiting.stdout.readline() == b"mine\n"
    assert waiting.wait(30) == 0
    with lock.one_at_a_time():
        pass

    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock.one_at_a_time():
        assert "cannot be locked (No locks available)" in capfd.readouterr().out
