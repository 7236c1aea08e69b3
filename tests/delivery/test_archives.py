"""ZIPs of all stems: the same bytes each time, any range of them, and no length too large."""

import io
import random
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from separations.audio.encoding.render import WavBytes
from separations.delivery import downloads, encoding_cache, zip_archive
from separations.delivery.byte_sources import InMemory
from separations.delivery.zip_archive import Member, Sum, ZipArchive
from separations.jobs import lifecycle
from separations.models import Bucket, Job
from tests.support.accounts import browser
from tests.support.jobs import VISITOR, done

WHEN = datetime(2026, 11, 28, 12, 30, 58, tzinfo=UTC)
DATA = {"노래 - drums.wav": b"d" * 1000, "song - bass.wav": b"b" * 999, "empty.wav": b""}
HUGE = 5 << 30


class Known(dict[str, Sum]):
    """Checksums in memory."""

    def put(self, name: str, found: Sum) -> None:
        self[name] = found


@dataclass
class Growing:
    """Bytes whose number is known when all of them were read."""

    data: bytes
    size: int | None = None

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        for at in range(start, len(self.data), 100):
            yield self.data[at : at + 100]
        self.size = len(self.data)


def archive(checksums: Known, most: int = 5000, kind: Any = InMemory) -> ZipArchive:
    members = [Member(name, kind(data), most, checksums) for name, data in DATA.items()]
    return ZipArchive(members, WHEN)


@pytest.mark.parametrize("most", [5000, HUGE], ids=["plain", "ZIP64"])
def test_any_range_of_an_archive_is_that_part_of_it(most: int) -> None:
    whole = b"".join(archive(Known(), most).read(0, None))
    assert archive(Known(), most).size == len(whole)
    assert b"".join(archive(Known(), most, Growing).read(0, None)) == whole
    with zipfile.ZipFile(io.BytesIO(whole)) as found:
        assert found.testzip() is None
        assert {name: found.read(name) for name in found.namelist()} == DATA
        assert {each.date_time for each in found.infolist()} == {(2026, 11, 28, 12, 30, 58)}
    dice = random.Random(1)
    for _ in range(300):
        start, stop = sorted(dice.sample(range(len(whole) + 1), 2))
        assert b"".join(archive(Known(), most).read(start, stop)) == whole[start:stop]
    for start in range(len(whole)):  # wherever a download broke off
        assert b"".join(archive(Known(), most).read(start, None)) == whole[start:]


@dataclass
class Counted:
    """Bytes in pieces, and how many of them were read."""

    data: bytes
    read_bytes: int = 0

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        for at in range(start, stop or len(self.data), 7):
            piece = self.data[at : min(at + 7, stop or len(self.data))]
            self.read_bytes += len(piece)
            yield piece


def test_who_comes_back_for_the_rest_has_nothing_read_again() -> None:
    data = random.Random(2).randbytes(1000)

    def of(source: Any, sums: Known) -> ZipArchive:
        return ZipArchive([Member("a.wav", source, 5000, sums)], WHEN)

    whole = b"".join(of(InMemory(data), Known()).read(0, None))
    for sent, received in ((500, 480), (500, 500), (500, 300), (700, 100), (40, 40)):
        sums = Known()
        stream = of(Counted(data), sums).read(0, None)
        got = b""
        while len(got) < sent:
            got += next(stream)
        stream.close()  # type: ignore[attr-defined]
        rest = Counted(data)
        assert got[:received] + b"".join(of(rest, sums).read(received, None)) == whole
        assert rest.read_bytes <= len(whole) - received
    late = Counted(data)  # more of it than was ever sent: what lies between is read
    sums = Known({"a.wav": Sum(zlib.crc32(data[:900]), 900)})
    assert b"".join(of(late, sums).read(990, None)) == whole[990:]
    assert late.read_bytes < 200


@pytest.mark.parametrize("length", [100, 120, 50])
def test_checksums_of_other_bytes_spoil_no_archive(length: int) -> None:
    """Such as those of an encoder of another version."""
    earlier, data = b"y" * length, b"x" * 100
    sums = Known({"a.mp3": Sum(zlib.crc32(earlier), len(earlier), is_whole=True)})
    if len(earlier) != len(data):
        whole = b"".join(of("a.mp3", data, Known()).read(0, None))
        assert b"".join(of("a.mp3", data, sums).read(len(whole) - 30, None)) == whole[-30:]
        sums["a.mp3"] = Sum(zlib.crc32(earlier), len(earlier))
    with zipfile.ZipFile(io.BytesIO(b"".join(of("a.mp3", data, sums).read(0, None)))) as found:
        assert found.testzip() is None
    assert sums == {"a.mp3": Sum(zlib.crc32(data), len(data), is_whole=True)}


def of(name: str, data: bytes, sums: Known) -> ZipArchive:
    return ZipArchive([Member(name, InMemory(data), 5000, sums)], WHEN)


def test_what_is_read_for_checksums_alone_is_kept_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zip_archive, "KEPT_EVERY", 100)

    class Gone(Counted):
        def read(self, start: int, stop: int | None) -> Iterator[bytes]:
            for piece in super().read(start, stop):
                if self.read_bytes > 500:
                    raise OSError("the reader went away")
                yield piece

    data, sums = random.Random(3).randbytes(1000), Known()
    whole = b"".join(of("a", data, Known()).read(0, None))
    with pytest.raises(OSError, match="went away"):
        list(ZipArchive([Member("a", Gone(data), 5000, sums)], WHEN).read(len(whole) - 22, None))
    assert 400 <= sums["a"].length <= 500
    assert sums["a"].checksum == zlib.crc32(data[: sums["a"].length])


def test_it_is_known_how_many_members_are_read_for_checksums_alone() -> None:
    sums = Known()
    size = archive(sums).size or 0
    ends = ((0, size), (size - 22, size), (1000, size), (1500, size), (10, 20), (1020, 1080))
    assert [archive(sums).members_to_read(*each) for each in ends] == [0, 2, 1, 2, 0, 1]
    list(archive(sums).read(0, None))
    assert archive(sums).members_to_read(size - 22, size) == 0


@dataclass
class Zeros:
    size: int | None = HUGE

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        yield bytes((stop or HUGE) - start)


def test_an_archive_may_be_larger_than_four_gigabytes(tmp_path: Path) -> None:
    checksums = Known(long=Sum(0x12345678, HUGE, True))  # known: it is not read for its checksum
    long = Member("long", Zeros(), HUGE, checksums)
    short = Member("short", InMemory(b"at the end"), 100, checksums)
    large = ZipArchive([long, short], WHEN)
    size = large.size
    assert size is not None
    with (tmp_path / "sparse.zip").open("wb+") as file:
        for start, stop in ((0, 1000), (HUGE, size)):
            file.seek(start)
            file.writelines(large.read(start, stop))
        with zipfile.ZipFile(file) as found:
            assert found.read("short") == b"at the end"
            assert found.getinfo("long").file_size == HUGE
            assert found.getinfo("long").CRC == 0x12345678
            with found.open("long") as begun:
                assert begun.read(100) == bytes(100)


def test_a_member_that_ends_too_early_ends_the_archive() -> None:
    class Short(InMemory):
        @property
        def size(self) -> int:
            return len(self.data) + 1

    with pytest.raises(OSError, match="1000 bytes instead of 1001"):
        list(archive(Known(), kind=Short).read(0, None))


@pytest.fixture
def job(db: None, no_queue: None, site_settings: Settings) -> Job:
    return done("Ours", VISITOR)


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content


@pytest.mark.parametrize("asked", ["wav", "flac", "m4a-128", "opus-96"])
def test_a_broken_download_of_all_stems_is_resumed(
    job: Job, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor: Client = browser(VISITOR)
    at = f"/songs/{job.pk}/archive?format={asked}"
    if asked != "wav":
        assert "Content-Length" not in visitor.head(at).headers
        assert not job.rendition_folder.exists(), "nothing is encoded for a question"
    first = visitor.get(at)
    whole, etag = body(first), first.headers["ETag"]
    assert first.headers["Accept-Ranges"] == "bytes"
    assert visitor.head(at).headers["Content-Length"] == str(len(whole))
    for file in encoding_cache.of_job(job.rendition_folder):
        file.path.unlink()  # it is made again, and is the same
    half = len(whole) // 2
    wanted = f"bytes={half}-"
    rest = visitor.get(at, headers={"Range": wanted, "If-Range": etag})
    assert (rest.status_code, rest.headers["ETag"]) == (206, etag)
    assert rest.headers["Content-Range"] == f"bytes {half}-{len(whole) - 1}/{len(whole)}"
    assert body(rest) == whole[half:]
    assert visitor.get(at, headers={"If-None-Match": etag}).status_code == 304
    assert visitor.get(at, headers={"If-None-Match": "*"}).status_code == 304
    other = visitor.get(at, headers={"Range": wanted, "If-Range": '"other"'})
    assert (other.status_code, len(body(other))) == (200, len(whole))
    beyond = visitor.get(at, headers={"Range": f"bytes={len(whole)}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "ENCODER_VERSIONS", "av 99")
        upgraded = visitor.get(at, headers={"Range": wanted, "If-Range": etag})
        assert (upgraded.status_code, upgraded.headers["ETag"] != etag) == (200, True)
        upgraded.close()
    part = visitor.get(f"{at}&to=0.5")
    assert part.headers["ETag"] != etag
    part.close()


def test_the_end_of_an_archive_is_sent_without_reading_its_beginning(
    job: Job, monkeypatch: pytest.MonkeyPatch, site_settings: Settings
) -> None:
    visitor: Client = browser(VISITOR)
    at = f"/songs/{job.pk}/archive"
    whole = body(visitor.get(at))
    reads: list[tuple[int, int | None]] = []
    really = WavBytes.read

    def counted(self: WavBytes, start: int, stop: int | None) -> Iterator[bytes]:
        reads.append((start, stop))
        return really(self, start, stop)

    monkeypatch.setattr(WavBytes, "read", counted)
    end = visitor.get(at, headers={"Range": "bytes=-2000"})
    assert body(end) == whole[-2000:]
    assert len(reads) == 1, "of the last stem alone"
    (kept,) = job.rendition_folder.iterdir()
    kept.write_text('{"x": 1}')  # damaged: it is made anew, which counts as encodings do
    site_settings.RATE_LIMITS = {**site_settings.RATE_LIMITS, "encode": (1, 3600)}
    Bucket.objects.all().delete()
    assert visitor.get(at, headers={"Range": "bytes=0-2000"}).status_code == 206
    end = visitor.get(at, headers={"Range": "bytes=-2000"})
    assert end.status_code == 206
    end.close()
    assert visitor.get(at, headers={"Range": "bytes=-2000"}).status_code == 429
    Bucket.objects.all().delete()
    assert body(visitor.get(at, headers={"Range": "bytes=-2000"})) == whole[-2000:]
    lifecycle.remove(job)
    assert not job.rendition_folder.exists()
