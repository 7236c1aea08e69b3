"""The lock files, and what `make audit` makes of them."""

import importlib.metadata
import json
import re
from pathlib import Path

import pytest

from stemsite import dependencies
from stemsite.dependencies import LOCKS, locked, strays, without_hash
from tests.sounds import ROOT


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.name))
def test_every_file_of_every_package_is_known_by_its_hash(lock: Path) -> None:
    text = lock.read_text()
    assert len(locked(lock)) > 50
    assert without_hash(lock) == []
    # Nothing else stands in it: no address of an index, no option, no package without a version.
    allowed = r"[\w.-]+==[\w.!+]+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?|#.*|"
    strange = [line for line in text.splitlines() if not re.fullmatch(allowed, line)]
    assert strange == []
    assert "torch" not in locked(lock), "it is installed apart, see stemsite/bootstrap.py"


def test_what_the_tests_run_with_is_what_is_locked() -> None:
    assert list(strays(LOCKS[1])) == []
    everything = locked(LOCKS[1])
    assert everything == everything | locked(LOCKS[0])


def test_every_package_that_the_project_names_is_locked() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[<>=~]", each)[0] for each in project["dependencies"]}
    assert names - {"torch"} <= set(locked(LOCKS[0]))
    dev = {re.split(r"[\[<>=~]", each)[0] for each in project["optional-dependencies"]["dev"]}
    assert dev <= set(locked(LOCKS[1]))


def test_a_package_without_a_hash_or_of_another_version_is_found(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    sha = "0" * 64
    lock.write_text(
        f"django==0.1 \\\n    --hash=sha256:{sha}\nhuey==3.5.4\nno-such-package==1 \\\n"
        f"    --hash=sha256:{sha} \\\n    --hash=sha256:{sha}\n# torch\n"
    )
    assert locked(lock) == {"django": "0.1", "huey": "3.5.4", "no-such-package": "1"}
    assert without_hash(lock) == ["huey==3.5.4"]
    there = importlib.metadata.version("django")
    assert list(strays(lock)) == [
        f"django is {there}, not 0.1",
        "no-such-package 1 is not installed",
    ]


PACKAGES = [
    {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1", "2.0"]}]},
    {"name": "b", "version": "2", "vulns": []},
    {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited"},
]
HOLE = "a 1: CVE-1 (mended in 1.1, 2.0)"
NO_WAY = "ERROR:pip_audit._cli:requests.exceptions.ConnectionError: Connection refused"


@pytest.mark.parametrize(
    ("answer", "complaint", "found", "unknown"),
    [
        (json.dumps({"dependencies": PACKAGES}), "", [HOLE], ["c"]),
        (json.dumps({"dependencies": PACKAGES[1:2]}), "", [], []),
        ("", NO_WAY, [], ["a", "b", "c"]),
    ],
)
def test_holes_are_found_and_what_could_not_be_looked_up_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    complaint: str,
    found: list[str],
    unknown: list[str],
) -> None:
    """With a pip-audit that answers as the real one does: its database is not reachable here."""
    lock = tmp_path / "some.lock"
    lock.write_text("a==1\nb==2\nc==3\n")
    code = f"import sys; print({answer!r}); sys.stderr.write({complaint!r}); sys.exit(1)"
    (tmp_path / "pip_audit.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert dependencies.known_vulnerabilities(lock) == (found, unknown)


def test_an_audit_that_fails_otherwise_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip_audit.py").write_text("raise SystemExit('no such option')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SystemExit, match="pip-audit failed"):
        dependencies.known_vulnerabilities(LOCKS[0])
