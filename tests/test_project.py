"""What the project promises of itself: its structure, its texts, its documents."""

import ast
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po
from django.template import engines
from django.utils.translation import template as django_templates

from tests.sounds import ROOT

APP = ROOT / "separations"
LIGHT = ("torch", "torchaudio", "demucs", "openvino")
# Who may import whom, from ../shared/DESIGN.md: later rooms may use earlier ones.
ROOMS = (
    {"faults", "share_tokens", "stopping", "addresses", "outgoing"},
    {"audio"},
    {"engine"},
    {"metric_files"},
    {"meters"},
    {"models"},
    {"metrics"},
    {"sentences", "labels", "figures"},
    {"webhooks", "timeline", "control"},
    {"readiness", "scrape"},
    {
        "uploads",
        "results",
        "listening",
        "downloads",
        "renditions",
        "jobs",
        "limits",
        "leases",
        "retention",
        "runner",
        "courier",
        "sharing",
        "tokens",
        "accounts",
        "buckets",
        "quotas",
        "intake",
        "waiting",
    },
    {"tasks"},
    {
        *("clients", "rate_limits", "access", "forms", "account_forms", "pages", "http_files"),
        *("problems", "askers", "sending", "upload_limit"),
    },
    {"histories", "overview", "charts", "templatetags"},
    {
        *("api", "views", "account_views", "token_views", "account_urls", "admin", "urls"),
        *("checks", "apps", "management"),
    },
    {"control_views"},
    {"control_urls"},
)


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


def room(name: str) -> int:
    return next(level for level, rooms in enumerate(ROOMS) if name in rooms)


SOURCES = [
    path
    for path in sorted(APP.rglob("*.py"))
    if "migrations" not in path.parts and path.name != "__init__.py"
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(APP)))
def test_imports_go_one_way(path: Path) -> None:
    here = path.relative_to(APP).parts[0].removesuffix(".py")
    modules = imports(path)
    for module in modules:
        if module.startswith("separations."):
            there = module.split(".")[1]
            assert room(there) <= room(here), f"{here} imports {there}"
    if here in ("audio", "engine", "faults", "addresses", "outgoing"):
        assert not any(module.split(".")[0] in ("django", "huey") for module in modules)
    if here not in ("audio", "engine"):
        assert not any(module.split(".")[0] in LIGHT for module in modules)


def section(name: str) -> str:
    """A section of the README."""
    readme = (ROOT / "README.md").read_text()
    return readme.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_every_metric_is_in_the_readme() -> None:
    rows = re.findall(r"^\| (`[a-z].*?) \|", section("Watching it"), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    sources = (APP / "meters.py").read_text() + (APP / "scrape.py").read_text()
    assert told == set(re.findall(r'(?:_one\("|_family\("|"stemsite_)(\w+)"', sources))


def test_every_setting_is_in_the_readme() -> None:
    table = set(re.findall(r"^\| `(\w+)` ", section("Settings"), re.MULTILINE))
    settings = set()
    for name in ("settings.py", "web_server.py"):
        text = (ROOT / "stemsite" / name).read_text()
        helpers = r"env(?:str|int|bool|list|choice|rate|secret)"
        settings |= set(re.findall(helpers + r"""\(\s*["'](\w+)["']""", text))
    settings |= set(re.findall(r"\$\{?(\w+)", (ROOT / "Procfile").read_text()))
    bootstrap = (ROOT / "stemsite" / "bootstrap.py").read_text()
    settings |= set(re.findall(r'environ\.get\(\s*"(\w+)"', bootstrap))
    assert settings == table


def messages_in_the_sources() -> set[str]:
    found: set[str] = set()
    keywords = {"gettext": None, "gettext_lazy": None, "_": None, "ngettext": (1, 2)}
    python = [path.read_text() for path in (*SOURCES, ROOT / "stemsite" / "settings.py")]
    pages = [
        django_templates.templatize(path.read_text(), origin=str(path))
        for pattern in ("*.html", "*.txt")  # pages and mails
        for path in (ROOT / "templates").rglob(pattern)
    ]
    # What surrounds a template's texts is no Python, least of all its indentation.
    pages = ["\n".join(line.strip() for line in page.splitlines()) for page in pages]
    for text in [*python, *pages]:
        for _line, message, _comments, _context in extract(
            "python", io.BytesIO(text.encode()), keywords=keywords
        ):
            found.add(message[0] if isinstance(message, tuple) else message)
    return found


def test_every_text_is_translated() -> None:
    with (APP / "locale" / "ko" / "LC_MESSAGES" / "django.po").open("rb") as file:
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
    wanted = messages_in_the_sources()
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
    """It imports nothing that is not in the standard library."""
    for module in imports(ROOT / "stemsite" / "bootstrap.py"):
        assert module.split(".")[0] in sys.stdlib_module_names
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "stemsite/bootstrap.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "setup, run, dev, test, faults, fuzz, bench, load, lint, audit, sbom" in answer.stdout


def test_a_bad_setting_is_named() -> None:
    for name, value, words in (
        ("MAX_UPLOAD_MB", "lots", "MAX_UPLOAD_MB must be a whole number"),
        ("MAX_ATTEMPTS", "0", "MAX_ATTEMPTS must be at least 1"),
        ("DEBUG", "maybe", "DEBUG must be yes or no"),
        ("DEVICE", "tpu", "DEVICE must be cpu or cuda"),
        ("ENGINE", "onnx", "ENGINE must be auto or torch or openvino"),
        ("HUEY_URL", "amqp://x", "HUEY_URL must begin with"),
        ("EMAIL_URL", "ftp://x", "EMAIL_URL must begin with"),
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


def test_the_secret_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import stemsite.settings as s; print(s.SECRET_KEY)"]
    data_dir = tmp_path / "data"
    environment = {**_environment(), "DATA_DIR": str(data_dir)}
    keys = {
        subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(keys) == 1
    assert len(keys.pop()) > 60
    assert (data_dir / "secret_key").stat().st_mode & 0o077 == 0
    assert data_dir.stat().st_mode & 0o077 == 0


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)
