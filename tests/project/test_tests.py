"""How the tests lie: a folder for each room, shared helpers in `support`, nothing between tests."""

import ast
from pathlib import Path

import pytest

from tests.support.sounds import ROOT

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))
APART = ("e2e", "project", "stemsite")  # the whole site, the project itself, the other package


def imported(path: Path) -> set[str]:
    """The modules of `tests` that a file imports, by their full names."""
    found: set[str] = set()
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {module for module in found if module.startswith("tests.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_module_is_imported(path: Path) -> None:
    for module in imported(path):
        last = [part for part in module.split(".") if part == "conftest" or part[:5] == "test_"]
        assert not last, f"{module}: what several tests need belongs in tests/support"


def test_tests_lie_where_the_code_does() -> None:
    rooms = {path.name for path in (ROOT / "separations").iterdir() if path.is_dir()}
    for path in FILES:
        if path.name.startswith("test_"):
            room = path.relative_to(TESTS).parts[0]
            assert room in rooms or room in APART, path
