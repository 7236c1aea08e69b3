"""Bring the translators' catalogues up to date: `make messages`, with Babel instead of GNU gettext.

It reads every message in the Python files and templates and writes each catalogue anew: new
messages come in without a translation, unused ones go, and all are sorted by their English text.
"""

import io
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from babel.core import Locale, UnknownLocaleError
from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

from stemsite.setup.paths import ROOT

LOCALE = ROOT / "separations" / "locale"
KEYWORDS = {
    **DEFAULT_KEYWORDS,
    "gettext_lazy": None,
    "ngettext_lazy": (1, 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext_lazy": ((1, "c"), 2, 3),
}


def python_files() -> Iterator[Path]:
    for folder in ("separations", "stemsite"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path


def template_files() -> Iterator[Path]:
    for pattern in ("*.html", "*.txt"):  # pages and mails
        yield from sorted((ROOT / "templates").rglob(pattern))


def as_python(template: Path) -> str:
    """A template's messages as calls of gettext, which is how Django itself extracts them."""
    page = templatize(template.read_text(), origin=str(template))
    # The text around the messages is not Python; its indentation would stop the tokenizer.
    return "\n".join(line.strip() for line in page.splitlines())


@cache
def messages_in_the_sources() -> Catalog:
    """Every message of the site, without translations."""
    found = Catalog()
    texts = [path.read_text() for path in python_files()]
    texts += [as_python(path) for path in template_files()]
    for text in texts:
        source = io.BytesIO(text.encode())
        for _line, message, _comments, context in extract("python", source, keywords=KEYWORDS):
            found.add(message, context=context)
    return found


def updated(catalogue: Catalog) -> bytes:
    """The text of a catalogue with exactly the messages of the sources, sorted by them.

    No guesses at translations ("fuzzy"), no line numbers and no wrapped lines: a change of the
    sources shows in as few lines as it concerns.
    """
    catalogue.update(messages_in_the_sources(), no_fuzzy_matching=True, update_creation_date=False)
    file = io.BytesIO()
    write_po(file, catalogue, width=0, no_location=True, sort_output=True, ignore_obsolete=True)
    return file.getvalue()


def path_of(language: str) -> Path:
    return LOCALE / language / "LC_MESSAGES" / "django.po"


def read(language: str) -> Catalog:
    with path_of(language).open("rb") as file:
        return read_po(file)


def begin(language: str) -> Catalog:
    """An empty catalogue for a language that has none.

    Raises:
        ValueError: no language has this code.
    """
    try:
        locale = Locale.parse(language)
    except (UnknownLocaleError, ValueError) as error:
        raise ValueError(f"{language!r} is not the code of a language: {error}") from None
    return Catalog(
        locale,
        project="Stemsite",
        version="0.1",
        header_comment=f"# {locale.english_name} texts of Stemsite.",
        fuzzy=False,
    )


def missing(catalogue: Catalog) -> int:
    """How many messages have no translation yet."""

    def is_translated(text: object) -> bool:
        return all(text) if isinstance(text, tuple | list) else bool(text)

    return sum(1 for message in catalogue if message.id and not is_translated(message.string))


def main(wanted: list[str]) -> int:
    known = sorted(path.parts[-3] for path in LOCALE.glob("*/LC_MESSAGES/django.po"))
    for language in dict.fromkeys([*known, *wanted]):
        try:
            catalogue = read(language) if language in known else begin(language)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 1
        path = path_of(language)
        text = updated(catalogue)
        if not path.exists() or path.read_bytes() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
        print(f"{language}: {missing(catalogue)} of {len(catalogue)} messages to translate")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
