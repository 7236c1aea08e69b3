"""A short round of what `make faults` does at length: real processes, killed at random points."""

import subprocess
import sys

from tests.support.sounds import ROOT


def test_a_few_kills_lose_nothing() -> None:
    command = [sys.executable, "-m", "tests.faults", "--only", "sqlite-1", "--kills", "4"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "lost 0, doubled 0, wrong 0, leftovers 0" in answer.stdout
