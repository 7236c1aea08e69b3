"""Which parts of an upload reach the disk, and which stay there."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from separations.audio.free_space import MARGIN
from separations.checks import site_checks
from separations.errors.fault import Fault
from separations.models import Upload
from separations.uploads import handlers, song_files
from tests.support import sounds

pytestmark = pytest.mark.usefixtures("no_queue")
CHOICE = {"model": "tiny", "stems": "all"}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The temporary files that are made."""
    made: list[str] = []
    make = tempfile.NamedTemporaryFile

    def note(*args: Any, **kwargs: Any) -> Any:
        file = make(*args, **kwargs)
        made.append(file.name)
        return file

    monkeypatch.setattr("django.core.files.uploadedfile.tempfile.NamedTemporaryFile", note)
    return made


def files(*names: str, content: bytes = b"words") -> list[SimpleUploadedFile]:
    return [SimpleUploadedFile(name, content) for name in names]


@pytest.mark.parametrize("name", ["a.exe", "a.wav.exe", "a.PDF", "a.mid", "a.ape"])
def test_other_kinds_of_files_never_see_the_disk(
    visitor: Client, written: list[str], name: str
) -> None:
    answer = visitor.post("/", {"file": files(name), **CHOICE})
    assert answer.status_code == 415
    assert "Files of this kind are not taken" in answer.content.decode()
    assert written == []


NAMES = ("blob", "noextension", ".mp3", "a.mp3.", "a.\u202emp3x", "x.bin", "song.2024 mix", "1. A")


def test_names_that_say_nothing_are_judged_by_their_content(
    visitor: Client, tmp_path: Path, settings: Settings
) -> None:
    songs = {
        "wav": sounds.wav(tmp_path / "s.wav", sounds.music(0.2)).read_bytes(),
        "aiff": sounds.wav(tmp_path / "s.aiff", sounds.music(0.2)).read_bytes(),
    }
    settings.ALLOWED_EXTENSIONS = [".wav", ".mp3"]
    for name in NAMES:
        answer = visitor.post("/", {"file": files(name, content=songs["wav"]), **CHOICE})
        assert answer.status_code == 302, name
    assert {each.title for each in Upload.objects.all()} >= {"song.2024 mix", "1. A", "blob"}
    for content, told in (
        (songs["aiff"], "Files of this kind are not taken. Send one of these: WAV, MP3."),
        (b"words", "This is not an audio file"),
    ):
        answer = visitor.post("/", {"file": files("blob", content=content), **CHOICE})
        assert answer.status_code == 415
        assert told in answer.content.decode()
    answer = visitor.post("/", {"file": files("a.aiff", content=songs["aiff"]), **CHOICE})
    assert "Files of this kind are not taken" in answer.content.decode()
    settings.ALLOWED_EXTENSIONS = [".wav", ".mp3", ".aif"]
    answer = visitor.post("/", {"file": files("blob", content=songs["aiff"]), **CHOICE})
    assert answer.status_code == 302


def test_other_fields_never_see_the_disk(visitor: Client, written: list[str]) -> None:
    answer = visitor.post("/", {"other": files("a.wav"), **CHOICE})
    assert answer.status_code == 400
    assert "Choose an audio file first" in answer.content.decode()
    assert written == []


def test_only_so_many_files_are_taken_at_once(
    visitor: Client, written: list[str], kept_files: Callable[[], list[Path]]
) -> None:
    many = files(*(f"{number}.wav" for number in range(handlers.MAX_FILES + 5)), content=b"x")
    answer = visitor.post("/", {"file": many, **CHOICE})
    assert answer.status_code == 413
    assert answer.content.decode().count("At most 20 songs are taken at once") == 1
    assert len(written) == handlers.MAX_FILES
    assert kept_files() == []


def test_a_body_that_no_form_can_have_is_not_read(
    visitor: Client, site_settings: Settings, written: list[str]
) -> None:
    site_settings.MAX_UPLOAD_MB = 1
    sent = files("a.wav", content=bytes(30_000_000))
    answer = visitor.post("/", {"file": [*sent, *files("b.wav")], **CHOICE})
    assert answer.status_code == 413
    assert "b.wav" not in answer.content.decode(), "it was not looked at"
    assert written == []


def test_what_running_jobs_need_of_the_disk_is_left_to_them(
    visitor: Client,
    site_settings: Settings,
    written: list[str],
    kept_files: Callable[[], list[Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site_settings.MIN_FREE_DISK_MB = 1000
    free = [10**9 - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Mock(free=free.pop() if free else 0))
    answer = visitor.post("/", {"file": files("a.wav"), **CHOICE})
    assert answer.status_code == 507
    assert written == []
    free += [10**9 + MARGIN - 1, 10**9 + MARGIN, 10**9]  # the last is for the beginning
    answer = visitor.post("/", {"file": files("a.wav", content=bytes(3_000_000)), **CHOICE})
    assert answer.status_code == 507
    assert len(written) == 1
    assert kept_files() == []


def test_each_file_of_a_form_is_counted_as_it_begins(
    visitor: Client, site_settings: Settings, written: list[str]
) -> None:
    site_settings.RATE_LIMITS = {**site_settings.RATE_LIMITS, "upload": (2, 3600)}
    answer = visitor.post("/", {"file": files(*(f"{n}.wav" for n in range(5))), **CHOICE})
    assert answer.status_code == 429
    assert "Too much came from you" in answer.content.decode()
    assert len(written) == 2


def test_of_a_program_one_file_sees_the_disk(visitor: Client, written: list[str]) -> None:
    answer = visitor.post("/api/separate", {"file": files("a.wav", "b.wav", "c.wav")})
    assert (answer.status_code, answer.json()["code"]) == (422, "one_file")
    assert len(written) == 1


def test_it_is_known_whose_song_is_read(visitor: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no client occupies all decoders."""
    heard: list[str] = []

    def probe(_path: Path, _seconds: float, client: str, _spent: object) -> None:
        heard.append(client)
        raise Fault("not_audio")

    monkeypatch.setattr(song_files, "probe_isolated", probe)
    for place in ("/", "/api/separate"):
        visitor.post(place, {"file": files("a.wav")}, REMOTE_ADDR="192.0.2.7")
    assert len(heard) == 2
    assert heard[0] == heard[1] != ""


def test_what_holds_a_decoder_for_long_counts_as_several_uploads(
    visitor: Client, site_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(_path: Path, _seconds: float, _client: str, spent: Callable[[float], None]) -> None:
        spent(held)
        raise Fault("too_slow")

    def send() -> int:
        return visitor.post("/", {"file": files("a.wav"), **CHOICE}).status_code

    monkeypatch.setattr(song_files, "probe_isolated", probe)
    site_settings.RATE_LIMITS = {**site_settings.RATE_LIMITS, "upload": (6, 3600)}
    held = 9.0
    assert send() == 422
    held = 35.0
    assert send() == 422
    assert send() == 422
    refused = visitor.post("/api/separate", {"file": files("a.wav")})
    assert refused.status_code == 429
    wait = int(refused.headers["Retry-After"])
    assert 3.9 * 600 < wait <= 4 * 600, "three more uploads than there were, and this one"


def test_the_hash_is_taken_as_the_file_comes(
    visitor: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(song_files, "_digest_of", lambda _path: pytest.fail("read once more"))
    song = sounds.wav(tmp_path / "a.wav", sounds.music(9.0)).read_bytes()  # in several chunks
    assert visitor.post("/", {"file": files("a.wav", content=song), **CHOICE}).status_code == 302
    assert Upload.objects.get().file_sha256 == hashlib.sha256(song).hexdigest()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd.wav", "passwd.wav"),
        ("C:\\songs\\a.wav", "a.wav"),
        ("a\0b.wav", "ab.wav"),
        ("\u202evaw.3pm.wav", "vaw.3pm.wav"),
        ("x" * 5000 + ".wav", "x" * 251 + ".wav"),
        ("<b>.wav", "<b>.wav"),
        ("-rf.wav", "-rf.wav"),
    ],
)
def test_a_name_is_shown_and_is_no_path(
    visitor: Client, site_settings: Settings, tmp_path: Path, name: str, kept: str
) -> None:
    song = sounds.wav(tmp_path / "a.wav", sounds.music(0.3)).read_bytes()
    assert visitor.post("/", {"file": files(name, content=song), **CHOICE}).status_code == 302
    upload = Upload.objects.get()
    assert upload.file_name == kept
    assert [path.name for path in site_settings.UPLOAD_DIR.iterdir()] == [upload.pk.hex]


@pytest.mark.parametrize("second", ["words.txt", "song.mp3"])
def test_a_good_song_is_kept_beside_one_that_is_refused(
    visitor: Client, tmp_path: Path, second: str
) -> None:
    song = sounds.wav(tmp_path / "good.wav", sounds.music(1.0)).read_bytes()
    sent = [SimpleUploadedFile("good.wav", song), *files(second)]
    visitor.post("/", {**CHOICE, "file": sent})
    assert [upload.file_name for upload in Upload.objects.all()] == ["good.wav"]


def test_the_size_limit_holds_the_length_limit(settings: Settings) -> None:
    """Ten minutes of 24-bit stereo WAV at 96 kHz, with tags and a cover."""
    assert (settings.MAX_DURATION_SECONDS, settings.MAX_UPLOAD_MB) == (600, 360)
    assert settings.MAX_UPLOAD_MB * 1e6 > 600 * 96_000 * 2 * 3 + 10e6
    assert site_checks.the_size_limit_holds_the_length_limit(None) == []
    settings.MAX_DURATION_SECONDS = 7300
    (warning,) = site_checks.the_size_limit_holds_the_length_limit(None)
    assert warning.id == "stemsite.W005"
    assert "set it to 4219" in str(warning.hint)
