"""Arriving uploads: those of one client take no more than a share of the disk together."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from separations.audio.free_space import Room
from separations.errors.fault import Fault
from separations.fair_use import incoming_uploads
from separations.fair_use.address_ranges import client_range

pytestmark = pytest.mark.usefixtures("no_queue")
MEGABYTE = 1_000_000
HERE = "127.0.0.1"
Unfinished = Callable[..., Path]


@pytest.fixture
def unfinished(site_settings: Settings) -> Iterator[Unfinished]:
    """An upload that is arriving in another web process: creates a file of so many bytes."""
    held = []

    def make(address: str, bytes: int) -> Path:
        file = incoming_uploads.IncomingFile(client_range(address), "a.wav", "audio/wav", None, {})
        file.write(b"x" * bytes)
        file.flush()
        held.append(file)
        return Path(file.temporary_file_path())

    yield make
    for file in held:
        file.close()


@pytest.fixture
def share(site_settings: Settings) -> int:
    """What one owner may store, and one client may have arriving."""
    site_settings.MAX_OWNER_STORAGE_GB = 3 * MEGABYTE / 1e9
    return 3 * MEGABYTE


def send(visitor: Client, *sizes: int, address: str = HERE) -> tuple[int, str]:
    files = [SimpleUploadedFile(f"{n}.wav", bytes(size)) for n, size in enumerate(sizes)]
    answer = visitor.post("/", {"file": files, "model": "tiny"}, REMOTE_ADDR=address)
    return answer.status_code, answer.content.decode()


def test_what_is_on_its_way_in_counts_for_who_sends_it(
    visitor: Client, share: int, unfinished: Unfinished, kept_files: Callable[[], list[Path]]
) -> None:
    others = [unfinished(HERE, MEGABYTE), unfinished(HERE, MEGABYTE)]
    code, page = send(visitor, MEGABYTE + 1)
    assert code == 429
    assert "Songs of 0.003 GB are on their way from your network already" in page
    assert kept_files() == sorted(others), "nothing of it stays"
    assert send(visitor, MEGABYTE - 1)[0] == 415, "it fits, but is no song"
    assert send(visitor, 2 * MEGABYTE, address="192.0.2.1")[0] == 415


def test_songs_of_one_form_are_counted_together(
    visitor: Client, share: int, kept_files: Callable[[], list[Path]]
) -> None:
    code, page = send(visitor, MEGABYTE, MEGABYTE, MEGABYTE - 100, 200, 200)
    assert code == 429
    assert page.count("on their way from your network already") == 2
    assert page.count("not an audio file") == 3
    assert kept_files() == []


def test_a_song_is_refused_before_it_is_written_where_the_share_is_used_up(
    visitor: Client, share: int, unfinished: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(HERE, share)
    made: list[object] = []
    monkeypatch.setattr(incoming_uploads, "IncomingFile", lambda *arguments: made.append(arguments))
    answer = visitor.post("/api/separate", {"file": SimpleUploadedFile("a.wav", b"x")})
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_incoming")
    assert answer.headers["Retry-After"] == str(incoming_uploads.WAIT_SECONDS)
    assert made == []


def test_what_is_whole_or_given_up_counts_no_more(
    share: int, unfinished: Unfinished, tmp_path: Path
) -> None:
    paths = [unfinished(HERE, MEGABYTE) for _ in range(3)]
    with pytest.raises(Fault, match="quota_incoming"):
        incoming_uploads.reserve(HERE, 1)
    paths[0].rename(tmp_path / "kept")
    paths[1].unlink()
    incoming_uploads.reserve(HERE, 1)
    incoming_uploads.reserve(HERE, 2 * MEGABYTE)


def test_neighbours_in_ipv6_share_what_their_ranges_may_have_at_once(
    share: int, unfinished: Unfinished
) -> None:
    unfinished("2001:db8:1:1::1", share)
    incoming_uploads.reserve(client_range("2001:db8:1:2::1"), share // 2)
    with pytest.raises(Fault, match="quota_incoming"):  # the /56 has one and a half times as much
        incoming_uploads.reserve(client_range("2001:db8:1:2::1"), share // 2 + 1)
    incoming_uploads.reserve(client_range("2001:db8:1:102::1"), share // 2)
    with pytest.raises(Fault, match="quota_incoming"):
        incoming_uploads.reserve(client_range("2001:db8:1:1::2"), 1)


def test_a_piece_looks_at_no_folder(share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    incoming_uploads.reserve(HERE)
    looks: list[Path] = []
    monkeypatch.setattr(incoming_uploads, "LOOK_SECONDS", 60.0)
    monkeypatch.setattr(incoming_uploads, "_bytes_in", looks.append)
    for _ in range(4):
        incoming_uploads.reserve(HERE, 65_536)
    assert looks == []


def test_processes_see_soon_what_the_others_take(
    share: int, unfinished: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast it arrives: before they add a tenth of the share."""
    monkeypatch.setattr(incoming_uploads, "LOOK_SECONDS", 60.0)
    incoming_uploads.reserve(HERE)
    unfinished(HERE, share)
    for _ in range(4):
        incoming_uploads.reserve(HERE, 65_536)
    with pytest.raises(Fault, match="quota_incoming"):
        incoming_uploads.reserve(HERE, 65_536)


def test_names_of_files_tell_no_address(share: int, unfinished: Unfinished) -> None:
    name = unfinished("2001:db8:1:1::1", 1).name
    assert "2001" not in name
    assert len(name.partition(incoming_uploads.END)[0].split(".")) == 3


def test_where_owners_have_no_limit_nothing_is_refused(
    site_settings: Settings, unfinished: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(HERE, MEGABYTE)
    site_settings.MAX_OWNER_STORAGE_GB = None
    monkeypatch.setattr(Room, "most", lambda _room: 5 * MEGABYTE - 5)
    with pytest.raises(Fault, match="quota_incoming"):
        incoming_uploads.reserve(HERE, 1)
    incoming_uploads.reserve("", 1)
    site_settings.MAX_OWNER_STORAGE_GB = 0
    incoming_uploads.reserve(HERE, 10 * MEGABYTE)
