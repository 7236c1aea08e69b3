"""The documents: their links lead somewhere, and what they name is there."""

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support.sounds import ROOT

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
APP = ROOT / "separations"
MODULES = ("stemsite", "separations", *(path.name for path in APP.iterdir() if path.is_dir()))
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)+/?|[\w-]+\.(?:py|md|js|toml|lock|json|po)|[a-z_]+/")
# What a site writes, serves or is sent, and what a set-up makes: none of it is in the repository.
ELSEWHERE = re.compile(
    r"checksums\.json|demucs/.*|application/.*|multipart/.*|test-output/.*|data/|namespace/name"
    r"|separations/locale/ja/.*|task\.json|DATA_DIR/.*|\d+/\d*[smhd]"
)
each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


@cache
def tokens(document: Path) -> list[Token]:
    """All tokens of a document, those within paragraphs and table cells too."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(document.read_text()):
        found += [token, *(token.children or ())]
    return found


def links(document: Path) -> list[str]:
    found = [str(t.attrs["href"]) for t in tokens(document) if t.type == "link_open"]
    found += [str(t.attrs["src"]) for t in tokens(document) if t.type == "image"]
    return found


@cache
def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as code hosts make them."""
    headings = [
        after.content
        for token, after in zip(tokens(document), tokens(document)[1:], strict=False)
        if token.type == "heading_open"
    ]
    slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert [slug for slug, count in Counter(slugs).items() if count > 1 and slug not in SAME] == []
    return set(slugs)


SAME = {"added", "changed", "security", "fixed", "removed", "deprecated"}  # of each version


def codes(document: Path) -> list[str]:
    """What stands as code within the text."""
    return [token.content for token in tokens(document) if token.type == "code_inline"]


def test_there_is_a_document_for_each_reader() -> None:
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    docs = ("user-guide", "deployment", "configuration", "monitoring", "api", "webhooks")
    assert {f"docs/{name}.md" for name in docs} <= names
    assert {f"docs/{name}.md" for name in ("architecture", "performance", "glossary")} <= names
    assert {"CONTRIBUTING.md", "CHANGELOG.md", "UPGRADING.md", "SECURITY.md"} <= names
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= 180
    assert {name for name in names if name != "README.md"} <= set(links(readme))


@each_document
def test_relative_links_lead_to_files_and_headings(document: Path) -> None:
    for link in links(document):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@each_document
def test_files_that_are_named_exist(document: Path) -> None:
    for code in codes(document):
        if not PATH.fullmatch(code) or ELSEWHERE.fullmatch(code):
            continue
        places = (ROOT, APP, document.parent)
        assert any((place / code).exists() for place in places), code


@each_document
def test_modules_tests_and_targets_that_are_named_exist(document: Path) -> None:
    files = list((ROOT / "tests").rglob("test_*.py"))
    tests = {path.stem for path in files}
    tests |= set(re.findall(r"def (test_\w+)", "".join(path.read_text() for path in files)))
    targets = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    for code in codes(document):
        if re.fullmatch(r"test_\w+", code):
            assert code in tests, code
        if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", code) and code.partition(".")[0] in MODULES:
            place = ROOT if code.startswith(("stemsite", "separations")) else APP
            module = place.joinpath(*code.split("."))
            assert module.is_dir() or module.with_suffix(".py").exists(), code
        if make := re.match(r"make ([a-z]+)", code):
            assert make[1] in targets[1].split(), code


def test_the_table_of_modules_names_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("## Which module does what")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w/]+)/` \| (.+) \|$", table, re.MULTILINE)
    assert len(rows) > 20
    for name, modules in rows:
        folder = ROOT / name if name.startswith("stemsite") else APP / name
        there = {path.stem for path in folder.iterdir()}
        assert set(re.findall(r"`([a-z_]+)`", modules)) - there == set(), name
    rooms = {path.name for path in APP.iterdir() if (path / "__init__.py").exists()}
    named = {name.partition("/")[0] for name, _modules in rows}
    assert rooms - named == {"migrations", "templatetags"}
