"""The lock files, and `make audit`."""

import importlib.metadata
import json
import re
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stemsite.setup import dependencies
from stemsite.setup.dependencies import LOCKS, locked, strays, without_hash
from stemsite.setup.paths import PLATFORMS_LOCK
from tests.support.sounds import ROOT


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.name))
def test_every_file_of_every_package_is_known_by_its_hash(lock: Path) -> None:
    text = lock.read_text()
    assert len(locked(lock)) > 50
    assert without_hash(lock) == []
    # Nothing else stands in it: no address of an index, no option, no package without a version.
    allowed = r"[\w.-]+==[\w.!+]+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?|#.*|"
    strange = [line for line in text.splitlines() if not re.fullmatch(allowed, line)]
    assert strange == []
    assert "torch" not in locked(lock), "it is installed apart, see stemsite/setup/torch_build.py"


PLATFORMS = {
    "Linux": ("linux", "posix", ("x86_64", "aarch64")),
    "Darwin": ("darwin", "posix", ("x86_64", "arm64")),
    "Windows": ("win32", "nt", ("AMD64", "ARM64")),
}
PYTHONS = ("3.11.0", "3.11.9", "3.12.0", "3.13.0", "3.14.0")


def places() -> list[dict[str, str]]:
    """Where the site may be installed, as conditions of requirements see it."""
    return [
        {
            "platform_system": system,
            "sys_platform": name,
            "os_name": kind,
            "platform_machine": machine,
            "python_version": python.rpartition(".")[0],
            "python_full_version": python,
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        for system, (name, kind, machines) in PLATFORMS.items()
        for machine, python in product(machines, PYTHONS)
    ]


def wanted(name: str, place: dict[str, str], extras: frozenset[str]) -> list[Requirement]:
    """The requirements of an installed package in a place."""
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [
        each
        for each in map(Requirement, lines)
        if not each.marker
        or any(each.marker.evaluate({**place, "extra": extra}) for extra in extras or {""})
    ]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.name))
def test_every_platform_finds_all_it_needs_by_its_hash(lock: Path) -> None:
    """pip chooses no version or file, except for torch's own dependencies."""
    assert without_hash(PLATFORMS_LOCK) == []
    further = [line.rstrip("\\ ") for line in PLATFORMS_LOCK.read_text().split("\n")]
    conditional = [Requirement(line) for line in further if re.match(r"\w", line)]
    assert len(conditional) == len(locked(PLATFORMS_LOCK)) > 0
    assert all(each.marker for each in conditional)
    everywhere = {canonicalize_name(name) for name in locked(lock)} | {"torch", "pip"}
    missing = set()
    for place in places():
        there = [each for each in conditional if each.marker and each.marker.evaluate(place)]
        known = everywhere | {canonicalize_name(each.name) for each in there}
        todo = [(str(name), frozenset[str]()) for name in known]
        for name, extras in todo:
            for each in wanted(name, place, extras):
                if canonicalize_name(each.name) not in known:
                    missing.add(f"{name} wants {each}")
                if each.extras and (each.name, frozenset(each.extras)) not in todo:
                    todo.append((each.name, frozenset(each.extras)))
    assert missing == set()


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
