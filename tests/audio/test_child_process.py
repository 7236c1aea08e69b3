"""Processes of the site's own are started apart and ended whole, in one place; CPUs are counted so
that a container's share is what counts."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from separations.audio import child_process
from tests.support.sounds import ROOT

SOURCES = [
    *(ROOT / "separations").rglob("*.py"),
    *(ROOT / "stemsite").rglob("*.py"),
    *(ROOT / "tests").rglob("*.py"),
    ROOT / "manage.py",
]
# A child that starts another and says its number; both sleep.
PARENT = """
import subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(other.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that children can run."""
    (tmp_path / "sleeper.py").write_text(PARENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "sleeper"


def test_a_child_has_its_own_session_and_is_killed_with_all_it_started(module: str) -> None:
    child = child_process.start(module)
    assert child.stdout is not None
    other = psutil.Process(int(child.stdout.readline()))
    assert os.getsid(child.pid) == child.pid == os.getsid(other.pid)
    assert child_process.wait(child, 0.01) is None
    child_process.kill(child)
    assert child.returncode == -signal.SIGKILL
    gone, _alive = psutil.wait_procs([other], timeout=10)
    assert gone or other.status() == psutil.STATUS_ZOMBIE
    assert child.stdin is not None
    assert child.stdin.closed
    assert child.stdout.closed
    child_process.kill(child)  # again: nothing happens


def test_a_child_knows_no_more_than_it_is_given(module: str, tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import os; print(sorted(os.environ))")
    given = {"PYTHONPATH": str(tmp_path), "LC_ALL": "C.UTF-8"}
    child = child_process.start(module, environment=given)
    try:
        assert child.stdout is not None
        assert child.stdout.read().decode().strip() == str(sorted(given))
        assert child_process.wait(child) == 0
    finally:
        child_process.kill(child)


def test_what_libraries_print_is_no_answer() -> None:
    code = (
        "from separations.audio.child_process import claim_stdout\n"
        "answers = claim_stdout()\n"
        "print('chatter', flush=True)\n"
        "print('answer', file=answers)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (found.stdout, found.stderr) == ("answer\n", "chatter\n")


def test_one_place_starts_processes_that_go_on() -> None:
    found = set()
    for path in (ROOT / "separations").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "Popen":
                found.add(path.relative_to(ROOT / "separations").as_posix())
    assert found == {"audio/child_process.py"}


def test_cpus_are_counted_as_a_container_has_them() -> None:
    """By loky: as affinity and cgroups allow. Python's own counts are of the whole machine."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("cpu_count", "process_cpu_count"):
                found.append(f"{path.relative_to(ROOT)}: {ast.unparse(node)}")
            if isinstance(node, ast.ImportFrom) and node.module != "loky":
                names = {each.name for each in node.names}
                if names & {"cpu_count", "process_cpu_count"}:
                    found.append(f"{path.relative_to(ROOT)}: from {node.module}")
    assert found == []
