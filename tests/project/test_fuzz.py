"""A short round of what `make fuzz` does at length: hostile files through the whole upload path."""

import subprocess
import sys

from tests.support.sounds import ROOT


def test_hostile_files_do_no_harm() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", "15", "--http", "6", "--forms", "10"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "answers of 500 0, hangs 0, files left 0, outside access 0, wrong 0" in answer.stdout
