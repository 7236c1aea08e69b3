"""Audit and list the packages: `make audit` and `make sbom`. Runs in the virtual environment.

torch is not in the lock files: the right build depends on the machine (see torch_build.py), and
each comes from an index of its own. It is pinned, and checked here, by version.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from stemsite.setup.paths import DEV_LOCK, ROOT, RUN_LOCK, TORCH

LOCKS = (RUN_LOCK, DEV_LOCK)
SBOM = ROOT / "test-output" / "sbom.json"
PINNED = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.MULTILINE)
TIME_LIMIT = 600


def locked(lock: Path) -> dict[str, str]:
    """Names and versions of a lock file."""
    return dict(PINNED.findall(lock.read_text()))


def without_hash(lock: Path) -> list[str]:
    """Packages of a lock file without a hash, for which any file of that version would do."""
    requirements = re.split(r"(?<!\\)\n", lock.read_text())
    return [line for line in requirements if PINNED.match(line) and "--hash=sha256:" not in line]


def strays(lock: Path) -> Iterator[str]:
    """Differences between the environment and a lock file."""
    for name, version in {**locked(lock), "torch": TORCH}.items():
        try:
            there = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield f"{name} {version} is not installed"
            continue
        if there.split("+")[0] != version:
            yield f"{name} is {there}, not {version}"


def licences() -> list[str]:
    """A line for each installed package, from its own metadata."""
    lines = set()
    for package in importlib.metadata.distributions():
        about = package.metadata
        licence = about["License-Expression"] or _classified(about.get_all("Classifier") or [])
        licence = licence or (about["License"] or "not said").strip().split("\n")[0][:60]
        lines.add(f"{about['Name']} {package.version}: {licence}")
    return sorted(lines, key=str.lower)


def _classified(classifiers: list[str]) -> str:
    found = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License ::")]
    return ", ".join(found)


def known_vulnerabilities(lock: Path) -> tuple[list[str], list[str]]:
    """Look up a lock file's packages in PyPI's database of vulnerabilities.

    Returns:
        A line for each finding, and the packages that could not be looked up: all of them if the
        database cannot be reached, as on mirrors that serve packages only.
    """
    command = ["pip_audit", "--requirement", str(lock), "--disable-pip", "--require-hashes"]
    options = ["--format", "json", "--progress-spinner", "off"]
    audit = subprocess.run(
        [sys.executable, "-m", *command, *options],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    try:
        packages = json.loads(audit.stdout)["dependencies"]
    except (ValueError, KeyError):
        # No connection at all ends it without an answer; so would a lock file it cannot read.
        if "onnection" in audit.stderr or "imed out" in audit.stderr:
            return [], list(locked(lock))
        raise SystemExit(f"pip-audit failed:\n{audit.stderr[-2000:]}") from None
    found = [
        f"{package['name']} {package['version']}: {hole['id']} "
        f"(mended in {', '.join(hole['fix_versions']) or 'no version yet'})"
        for package in packages
        for hole in package.get("vulns", [])
    ]
    return found, [package["name"] for package in packages if "skip_reason" in package]


def audit() -> int:
    """Print licences and problems of the packages; returns 1 if there is a problem."""
    lock = LOCKS[1]  # holds all of the other
    problems = [f"no hash: {line}" for each in LOCKS for line in without_hash(each)]
    problems += strays(lock)
    check = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    problems += check.stdout.splitlines() if check.returncode else []
    found, unknown = known_vulnerabilities(lock)
    problems += found
    print("\n".join(licences()))
    print()
    count = len(locked(lock))
    if len(unknown) == count:
        print(
            "NOT AUDITED: the database of vulnerabilities cannot be reached from here (PyPI's JSON "
            "interface, which mirrors often lack). Run this again where it can."
        )
    elif unknown:
        print(f"Nothing is known of: {', '.join(unknown)}")
    print(f"{count} packages are locked; {count - len(unknown)} were looked up.")
    for problem in problems:
        print(f"PROBLEM: {problem}")
    return 1 if problems else 0


def sbom() -> int:
    """Write the packages that the site runs with, torch included, as a CycloneDX document."""
    SBOM.parent.mkdir(exist_ok=True)
    command = ["cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml")]
    options = ["--output-reproducible", "--output-format", "JSON", "--output-file", str(SBOM)]
    made = subprocess.run([sys.executable, "-m", *command, *options], check=False)
    if made.returncode != 0:
        return made.returncode
    document = json.loads(SBOM.read_text())
    # The environment holds the tools of the tests too.
    wanted = {_normal(name) for name in (*locked(LOCKS[0]), "torch")}
    parts = [part for part in document["components"] if _normal(part["name"]) in wanted]
    kept = {part["bom-ref"] for part in (*parts, document["metadata"]["component"])}
    missing = wanted - {_normal(part["name"]) for part in parts}
    document["components"] = parts
    document["dependencies"] = [
        {**each, "dependsOn": sorted(kept & set(each.get("dependsOn", ())))}
        for each in document["dependencies"]
        if each["ref"] in kept
    ]
    SBOM.write_text(json.dumps(document, indent=2) + "\n")
    print(f"{SBOM.relative_to(ROOT)}: {len(parts)} packages")
    if missing:
        print(f"Not installed, so not listed: {', '.join(sorted(missing))}")
    return 1 if missing else 0


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit({"audit": audit, "sbom": sbom}[sys.argv[1]]())
