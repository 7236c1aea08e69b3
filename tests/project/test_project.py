"""Import order, settings and documents, translations, migrations."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from django.conf import settings
from django.template import engines
from django.utils.translation import to_locale

from stemsite.setup.messages import messages_in_the_sources
from tests.support.sounds import ROOT

APP = ROOT / "separations"
LIGHT = ("torch", "torchaudio", "demucs", "openvino")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def order(package: str) -> dict[str, int]:
    """The level of each room of a package from the ground up, as docs/architecture.md states it."""
    block = re.search(rf"^```rooms {re.escape(package)}\n(.*?)^```", ARCHITECTURE, re.M | re.S)
    assert block is not None, package
    levels = [line.partition(" | ")[0].split(", ") for line in block[1].splitlines()]
    return {room: level for level, rooms in enumerate(levels) for room in rooms}


ROOMS = order("separations")
# These are no rooms: they connect the rooms to Django.
ROOMS |= {"apps": ROOMS["management"], "urls": ROOMS["management"]}
INNER_ROOMS = {name: order(f"separations.{name}") for name in ("audio", "engine")}


def imports(path: Path) -> set[str]:
    """Every module that the file imports, at the top or further in."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str:
    """The room of a module: a folder of `separations`, or all of `stemsite`."""
    top, *parts = module.split(".")
    return parts[0] if top == "separations" and parts else top


SOURCES = [path for path in sorted(APP.rglob("*.py")) if "migrations" not in path.parts]
SITE = sorted((ROOT / "stemsite").rglob("*.py"))


@pytest.mark.parametrize("path", [*SOURCES, *SITE], ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    here = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    modules = imports(path)
    for module in modules:
        if module.startswith(("separations.", "stemsite.")):
            there = room(module)
            assert ROOMS[there] <= ROOMS[here], f"{here} imports {module}"
    if here in ("audio", "engine"):
        assert not any(module.split(".")[0] in ("django", "huey") for module in modules)
    else:
        assert not any(module.split(".")[0] in LIGHT for module in modules)


@pytest.mark.parametrize("name", INNER_ROOMS)
def test_imports_go_one_way_within_a_room(name: str) -> None:
    levels = INNER_ROOMS[name]
    inner = {path.stem for path in (APP / name).iterdir()} - {"__init__", "__main__", "__pycache__"}
    assert inner == set(levels)
    for path in (APP / name).rglob("*.py"):
        here = path.relative_to(APP / name).parts[0].removesuffix(".py")
        for module in imports(path):
            parts = module.removeprefix(f"separations.{name}.").split(".")
            if module.startswith(f"separations.{name}.") and here in levels:
                assert levels[parts[0]] <= levels[here], f"{name}.{here} imports {module}"


def test_every_room_has_its_level() -> None:
    rooms = {path.name for path in APP.iterdir() if (path / "__init__.py").exists()}
    assert set(ROOMS) == (rooms | {"stemsite", "apps", "urls"}) - {"migrations"}


def document(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def test_every_metric_is_in_the_documents() -> None:
    table = document("monitoring").partition("\n## Metrics\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[a-z].*?) \|", table, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    files = (APP / "monitoring" / name for name in ("registry.py", "prometheus.py"))
    sources = "".join(file.read_text() for file in files)
    assert told == set(re.findall(r'(?:_one\("|_family\("|"stemsite_)(\w+)"', sources))


def test_every_setting_is_in_the_documents() -> None:
    text = document("configuration").partition("\n## Settings\n")[2].partition("\n## ")[0]
    table = set(re.findall(r"^\| `(\w+)` ", text, re.MULTILINE))
    read = set()
    for name in ("settings.py", "web_server.py"):
        text = (ROOT / "stemsite" / name).read_text()
        helpers = r"env(?:str|int|auto|bool|list|choice|rate|secret|site|origins)"
        read |= set(re.findall(helpers + r"""\(\s*["'](\w+)["']""", text))
    read |= set(re.findall(r"\$\{?(\w+)", (ROOT / "Procfile").read_text()))
    for path in (ROOT / "stemsite" / "setup").glob("*.py"):
        read |= set(re.findall(r'environ\.get\(\s*"(\w+)"', path.read_text()))
    assert read == table


def test_every_promise_of_security_has_its_tests() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    rows = re.findall(
        r"^\| (?!\*\*)(.+) \| (.+) \| (.+) \|$", text.split("## What protects it")[1], re.M
    )
    there = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    for promise, _holds, tests in rows[2:]:
        names = re.findall(r"`(test_\w+)`", tests)
        assert names, promise
        assert [name for name in names if name not in there] == [], promise
    assert len(rows) > 40


CATALOGUES = sorted((APP / "locale").glob("*/LC_MESSAGES/django.po"))


def test_every_language_on_offer_has_its_catalogue() -> None:
    offered = {to_locale(code) for code, _name in settings.LANGUAGES}
    assert offered == {"en", *(path.parts[-3] for path in CATALOGUES)}


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
def test_every_text_is_translated(path: Path) -> None:
    with path.open("rb") as file:
        catalogue: Catalog = read_po(file)
    known = set()
    for message in catalogue:
        if not message.id:
            continue
        key = str(message.id[0] if isinstance(message.id, tuple) else message.id)
        known.add(key)
        texts = message.string if isinstance(message.string, tuple) else (message.string,)
        assert all(texts), f"not translated: {key}"
        assert not message.fuzzy, key
        for text in map(str, texts):
            assert set(re.findall(r"%\(\w+\)", text)) == set(re.findall(r"%\(\w+\)", key)), key
    wanted = {
        message.id[0] if isinstance(message.id, tuple | list) else message.id
        for message in messages_in_the_sources()
        if message.id
    }
    assert len(wanted) > 100
    assert wanted - known == set(), "missing in the catalogue"
    assert known - wanted == set(), "no longer used"


def test_every_template_compiles() -> None:
    for path in (ROOT / "templates").rglob("*.html"):
        engines["django"].from_string(path.read_text())


def test_no_migration_is_missing(db: None) -> None:
    from django.core.management import call_command

    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_the_bootstrap_runs_on_bare_python() -> None:
    """Its parts import the standard library and each other."""
    later = ("dependencies.py", "messages.py")  # run with the environment's Python
    for path in (ROOT / "stemsite" / "setup").glob("*.py"):
        if path.name in later:
            continue
        for module in imports(path):
            known = module.startswith("stemsite.setup")
            assert known or module.split(".")[0] in sys.stdlib_module_names, path
    answer = subprocess.run(
        [sys.executable, "-E", "-s", "-S", "-m", "stemsite.setup.bootstrap"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert (
        "setup, run, dev, test, faults, fuzz, bench, load, lint, messages, audit, sbom"
        in answer.stdout
    )


def test_a_bad_setting_is_named() -> None:
    for name, value, words in (
        ("MAX_UPLOAD_MB", "lots", "MAX_UPLOAD_MB must be a whole number"),
        ("MAX_ATTEMPTS", "0", "MAX_ATTEMPTS must be at least 1"),
        ("DEBUG", "maybe", "DEBUG must be yes or no"),
        ("DEVICE", "tpu", "DEVICE must be cpu or cuda"),
        ("ENGINE", "onnx", "ENGINE must be auto or torch or openvino"),
        ("HUEY_URL", "amqp://x", "HUEY_URL must begin with"),
        ("EMAIL_URL", "ftp://x", "EMAIL_URL must begin with"),
        ("SITE_URL", "stems.example.org", "SITE_URL must be like https://"),
        ("SITE_URL", "https://stems.example.org/songs", "without a path"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT must be text or json"),
        ("ACCOUNTS", "maybe", "ACCOUNTS must be optional or off or required"),
    ):
        answer = subprocess.run(
            [sys.executable, "-c", "import stemsite.settings"],
            cwd=ROOT,
            env={**_environment(), name: value},
            capture_output=True,
            text=True,
            check=False,
        )
        assert words in answer.stderr


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)
