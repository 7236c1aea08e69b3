"""Static files as they are served: collected, under hashed names."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.files.base import ContentFile
from django.core.management import call_command
from pytest_django import Settings

# What a module names relatively, in any of the ways of the language and either kind of quotes.
NAMED = re.compile(r"""(?:\bfrom|\bimport|\bimport\(|\bnew URL\()\s*["'](\.[^"']+)["']""")


@pytest.fixture
def collected(settings: Settings, tmp_path: Path) -> Path:
    settings.STATIC_ROOT = tmp_path
    call_command("collectstatic", "--noinput", "-v0")
    return tmp_path


def test_modules_name_each_other_by_hashed_names(collected: Path) -> None:
    names = {
        path: NAMED.findall(path.read_text())
        for path in (collected / "js").rglob("*.js")
        if "vendor" not in path.parts
    }
    assert any(names.values())
    for path, named in names.items():
        for name in named:
            assert re.search(r"\.[0-9a-f]{12}\.m?js$", name), f"{path.name} names {name}"
            assert (path.parent / name).is_file(), f"{path.name} names {name}"


def test_a_changed_module_changes_the_names_of_those_that_import_it(
    settings: Settings, tmp_path: Path
) -> None:
    """Else a browser that has the old importer cached for ever would ask for the old module."""
    source, urls = tmp_path / "source", []
    (source / "js").mkdir(parents=True)
    (source / "js" / "page.js").write_text('import { a } from "./part.js";\n')
    settings.STATICFILES_DIRS = [source]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATIC_ROOT = tmp_path / "collected"
    for number in range(2):
        (source / "js" / "part.js").write_text(f"export const a = {number};\n")
        call_command("collectstatic", "--noinput", "-v0")
        urls.append(staticfiles_storage.url("js/page.js"))
    assert urls[0] != urls[1]


def test_a_file_that_was_not_written_to_its_end_is_not_there(
    settings: Settings, tmp_path: Path
) -> None:
    """It would be newer than its source, so the next `collectstatic` would leave it as it is."""
    settings.STATIC_ROOT = tmp_path

    class Killed(ContentFile):  # type: ignore[type-arg]
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            yield b"half"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        staticfiles_storage.save("page.css", Killed(b""))
    assert not staticfiles_storage.exists("page.css")
    staticfiles_storage.save("page.css", ContentFile(b"whole"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"page.css": b"whole"}
