"""The translators' catalogues: `make messages`."""

import shutil
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

from stemsite.setup import messages

KOREAN = messages.path_of("ko")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Catalogues of the test's own, with the Korean one."""
    monkeypatch.setattr(messages, "LOCALE", tmp_path)
    messages.path_of("ko").parent.mkdir(parents=True)
    shutil.copy(KOREAN, messages.path_of("ko"))
    return tmp_path


def test_on_a_clean_tree_it_changes_nothing(folder: Path) -> None:
    assert messages.main([]) == 0
    assert messages.path_of("ko").read_bytes() == KOREAN.read_bytes()


def test_new_messages_come_in_at_their_place_and_unused_ones_go(folder: Path) -> None:
    path = messages.path_of("ko")
    entries = path.read_text().split("\n\n")
    gone = next(entry for entry in entries if entry.startswith('msgid "English"'))
    unused = 'msgid "Nothing says this"\nmsgstr "아무도 쓰지 않습니다"'
    path.write_text("\n\n".join([*(each for each in entries if each != gone), unused]) + "\n")
    assert messages.main([]) == 0
    untranslated = gone.splitlines()[0] + '\nmsgstr ""'
    assert path.read_text() == KOREAN.read_text().replace(gone, untranslated)


def test_a_new_language_begins_with_every_message(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert messages.main(["pl"]) == 0
    count = len(messages.messages_in_the_sources())
    assert count > 500
    assert f"pl: {count} of {count} messages to translate" in capsys.readouterr().out
    with messages.path_of("pl").open("rb") as file:
        catalogue = read_po(file)
    assert catalogue.num_plurals == 3
    assert messages.path_of("pl").read_text().startswith("# Polish texts of Stemsite.\n")
    # A second run finds it as it is.
    before = messages.path_of("pl").read_bytes()
    assert messages.main([]) == 0
    assert messages.path_of("pl").read_bytes() == before


def test_no_language_begins_under_a_wrong_code(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for code in ("klingon", "../ko", ""):
        assert messages.main([code]) == 1
        assert "is not the code of a language" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["ko"]
