"""What decoders take of the machine: memory each, and how many there are at once."""

import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from django.test import Client
from pytest_django import Settings

from separations.audio.decoding.mp4_index import MOST_ENTRIES, check_index
from separations.audio.info import AudioInfo
from separations.audio.sandbox import decoder_process, decoder_slots, lockdown
from separations.audio.sandbox.decoder_process import DecoderProcess, probe_isolated
from separations.audio.sandbox.decoder_slots import DecoderSlots
from separations.checks import site_checks
from separations.errors.fault import Fault
from separations.errors.user_messages import sentence
from separations.uploads import song_files
from separations.worker import resources
from tests.support import sounds
from tests.support.bombs import (
    box,
    file,
    film,
    fragment,
    one_byte_sizes,
    sizes,
    steady,
    table,
    track,
)
from tests.support.containers import film as film_file
from tests.support.running_site import until

MANY = 20_000_000
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")


# Memory: the index of an MP4


def packed(moov: bytes) -> bytes:
    inside = moov[8:]
    method = box(b"dcom", b"zlib")
    data = struct.pack(">I", len(inside)) + zlib.compress(inside)
    return box(b"moov", box(b"cmov", method, box(b"cmvd", data)))


BOMBS = {
    "a byte a sample": file(film(track(MANY, steady(MANY), one_byte_sizes(MANY)))),
    "no byte a sample": file(film(track(MANY, steady(MANY), sizes(MANY, 1)))),
    "sizes before their times": file(film(track(MANY, sizes(MANY, 1), steady(MANY)))),
    "shared out to tracks": file(film(*[track(MANY // 20, steady(9), sizes(MANY // 20, 1))] * 20)),
    "times": file(film(track(9, table(b"stts", count=MANY), sizes(9, 1)))),
    "offsets of times": file(film(track(9, steady(9), table(b"ctts", count=MANY)))),
    "places": file(film(track(9, steady(9), table(b"co64", count=MANY)))),
    "a fragment": file(film(), fragment(MANY)),
    "many runs": file(film(), fragment(MANY // 100, 100)),
    "compressed": file(packed(film(track(MANY, steady(MANY), sizes(MANY, 1))))),
    "compressed without end": file(packed(film(bytes(20 << 20)))),
    "many boxes": file(box(b"free") * 400_000, film()),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_an_index_that_no_song_has_is_refused_before_it_is_built(kind: str, tmp_path: Path) -> None:
    song = tmp_path / "bomb.m4a"
    song.write_bytes(BOMBS[kind])
    with pytest.raises(Fault) as caught:
        probe_isolated(song, 600)
    assert caught.value.code == "absurd_index"
    assert caught.value.params["entries"] >= caught.value.params["most"]


def pcm(count: int, *, first: bytes = b"", then: bytes = b"") -> bytes:
    return file(film(track(count, first, sizes(count, 4), then)))


FINE = {
    "ten minutes at 192 kHz, uncompressed": pcm(115_200_000, first=steady(115_200_000, 1)),
    "the same with its tables in another order": pcm(115_200_000, then=steady(115_200_000, 1)),
    "eight hours of AAC": file(
        film(track(MOST_ENTRIES - 1, steady(9), sizes(MOST_ENTRIES - 1, 9)))
    ),
    "an hour in fragments": file(film(), fragment(43) * 3600),
    "no boxes": b"RIFF" + bytes(100),
    "a box without an end": struct.pack(">I4s", 0, b"moov"),
    "a box that is smaller than its head": struct.pack(">I4s", 3, b"moov"),
    "a table that is cut": box(b"moov", box(b"trak", box(b"stbl", bytes(4) + b"stsz"))),
    "what is not zlib's": box(b"moov", box(b"cmov", box(b"cmvd", bytes(99)))),
}


@pytest.mark.parametrize("kind", FINE)
def test_what_songs_have_passes(kind: str, tmp_path: Path) -> None:
    (tmp_path / "song").write_bytes(FINE[kind])
    with (tmp_path / "song").open("rb") as song:
        check_index(song.fileno())


def test_boxes_that_nest_without_end_take_no_stack(tmp_path: Path) -> None:
    head = b"".join(struct.pack(">I4s", 80_008 - 8 * n, b"moov") for n in range(10_000))
    (tmp_path / "song").write_bytes(head)
    with (tmp_path / "song").open("rb") as song:
        check_index(song.fileno())


def test_uncompressed_sound_in_quicktime_is_read_whole(tmp_path: Path) -> None:
    """Its index names each sample, 1.8 million of them."""
    song = tmp_path / "song.mov"
    with av.open(str(song), "w", format="mov") as container:
        stream = container.add_stream("pcm_s16le", rate=96_000, layout="stereo")
        second = np.zeros((1, 2 * 96_000), np.int16)
        for number in range(19):
            frame = av.AudioFrame.from_ndarray(second, format="s16", layout="stereo")
            frame.sample_rate, frame.pts = 96_000, 96_000 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    renamed = song.rename(tmp_path / "song.m4a")
    assert probe_isolated(renamed, 60).frames == 19 * 96_000


# Memory: everything else


def mp3_with_covers(size: int) -> bytes:
    picture = b"\0image/jpeg\0\3\0\xff\xd8\xff\xe0" + os.urandom(size)
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    length = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + length + frame


@linux
def test_a_large_cover_fits_and_an_absurd_one_is_left_out(tmp_path: Path) -> None:
    sound = sounds.encode(tmp_path / "s.mp3", sounds.music(2.0), "libmp3lame").read_bytes()
    song = tmp_path / "song.mp3"
    song.write_bytes(mp3_with_covers(10_000_000) + sound)
    assert probe_isolated(song, 60).seconds == pytest.approx(2.0, abs=0.1)
    song.write_bytes(mp3_with_covers(150_000_000) + sound)
    assert probe_isolated(song, 60).seconds == pytest.approx(2.0, abs=0.1), "without its cover"


@linux
def test_an_index_of_packets_that_takes_too_much_memory_is_told_so(tmp_path: Path) -> None:
    """A byte in a CAF's table of packets takes FFmpeg twenty."""
    song = film_file(tmp_path / "s", [("alac", sounds.music(0.5))], container="caf")
    whole = song.read_bytes()
    pakt = struct.pack(">QQII", 2_000_000, 2_000_000, 0, 0) + b"\1" * 2_000_000
    place = whole.index(b"data")
    song.write_bytes(whole[:place] + b"pakt" + struct.pack(">Q", len(pakt)) + pakt + whole[place:])
    with pytest.raises(Fault, match="too_much_memory"):
        probe_isolated(song, 60)


class Cramped(DecoderProcess):
    module = "tests.support.cramped"


@linux
def test_what_takes_more_than_there_is_is_told_so(tmp_path: Path) -> None:
    song = sounds.encode(tmp_path / "s.flac", sounds.music(30.0), "flac")
    with pytest.raises(Fault) as caught, Cramped(song, "probe", 60) as child:
        child.read_message()
    assert caught.value.code == "too_much_memory"
    assert "more memory to read" in sentence(caught.value)


class Hoarding(DecoderProcess):
    module = "tests.support.hoarder"


@linux
@pytest.mark.parametrize("how", ["private", "shared"])
def test_no_decoder_holds_more_memory_than_is_reckoned_with(tmp_path: Path, how: str) -> None:
    """However it comes by it: anonymous memory that is shared is no "data" to the kernel."""
    song = sounds.wav(tmp_path / "s.wav", sounds.music(0.2))
    with Hoarding(song, how) as child:
        held = child.read_message()["held"]
        found = psutil.Process(child._process.pid).memory_full_info()
    room = lockdown.ROOM_BYTES
    assert room // 2 < held <= room
    assert found.uss < lockdown.PROCESS_BYTES


def test_a_decoder_that_the_kernel_kills_is_not_the_songs_fault(tmp_path: Path) -> None:
    song = sounds.wav(tmp_path / "s.wav", sounds.music(1.0))
    with DecoderProcess(song, "decode") as child:
        os.kill(child._process.pid, signal.SIGKILL)
        with pytest.raises(Fault) as caught:
            _hear_all(child)
    assert caught.value.code == "decoder_died"


def _hear_all(child: DecoderProcess) -> None:
    child.read_message()
    while child.read_samples() is not None:
        pass


# How many


HOLD = """
import sys, time
from pathlib import Path
from separations.audio.sandbox.decoder_slots import DecoderSlots
site = DecoderSlots()
site.set_up(int(sys.argv[2]), 1, Path(sys.argv[1]))
with site.for_engine() if sys.argv[3] == "engine" else site.for_upload(sys.argv[3]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holders(tmp_path: Path) -> Iterator["Holders"]:
    found = Holders(tmp_path / "places")
    yield found
    found.end()


class Holders:
    """Other processes of the site that hold a decoder each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._all: list[subprocess.Popen[str]] = []

    def add(self, who: str, most: int = 2) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD, str(self.folder), str(most), who]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._all.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    def here(self, most: int = 2) -> DecoderSlots:
        site = DecoderSlots()
        site.set_up(most, 1, self.folder)
        return site

    def end(self) -> None:
        for process in self._all:
            process.kill()
            process.wait()


def test_all_processes_of_a_machine_count_together(
    holders: Holders, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PATIENCE_SECONDS", "OWN_PATIENCE_SECONDS"):
        monkeypatch.setattr(decoder_slots, name, 0.01)
    site = holders.here()
    anna = holders.add("anna")
    with pytest.raises(Fault, match="too_many_at_once"), site.for_upload("anna"):
        pass
    with site.for_upload("ben"):
        pass
    holders.add("ben")
    with pytest.raises(Fault, match="busy"), site.for_upload("carl"):
        pass
    with site.for_engine():
        pass  # no upload stands in an engine's way
    monkeypatch.setattr(decoder_slots, "PATIENCE_SECONDS", 60.0)
    with ThreadPoolExecutor(1) as pool:
        came = pool.submit(_enter, site, "carl")
        anna.send_signal(signal.SIGKILL)
        assert came.result(30), "a process that dies gives its decoder back"


def _enter(site: DecoderSlots, who: str) -> bool:
    with site.for_upload(who):
        return True


def test_engines_have_their_own_and_uploads_take_none_of_them(holders: Holders) -> None:
    engine = holders.add("engine")
    site = holders.here()
    with site.for_upload("anna"), site.for_upload("ben"), ThreadPoolExecutor(1) as pool:
        waits = pool.submit(_own, site)
        time.sleep(3 * decoder_slots.POLL_SECONDS)
        assert not waits.done()
        engine.kill()
        assert waits.result(30)


def _own(site: DecoderSlots) -> bool:
    with site.for_engine():
        return True


def test_who_came_first_has_the_next_decoder(tmp_path: Path) -> None:
    site = DecoderSlots()
    site.set_up(1, 1, tmp_path)
    came: list[int] = []

    def come(number: int) -> None:
        with site.for_upload(f"client {number}"):
            came.append(number)

    with ExitStack() as held:
        held.enter_context(site.for_upload(""))
        threads = [threading.Thread(target=come, args=(number,)) for number in range(5)]
        for number, thread in enumerate(threads):
            thread.start()
            until(lambda number=number: len(site._waiting) == number + 1)  # type: ignore[misc]
        time.sleep(2 * decoder_slots.POLL_SECONDS)
    for thread in threads:
        thread.join(30)
    assert came == [0, 1, 2, 3, 4]


def test_a_client_with_its_share_does_not_hold_up_later_ones(tmp_path: Path) -> None:
    site = DecoderSlots()
    site.set_up(3, 1, tmp_path)
    with ThreadPoolExecutor(1) as pool:
        with site.for_upload("greedy"):
            waits = pool.submit(_enter, site, "greedy")
            until(lambda: len(site._waiting) == 1)
            assert _enter(site, "other")
        assert waits.result(30)


def test_a_full_disk_stops_no_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoder_slots, "_write_name", full)
    site = DecoderSlots()
    site.set_up(2, 1, tmp_path)
    assert _enter(site, "anna")


def test_uploads_of_this_site_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holders: Holders
) -> None:
    monkeypatch.setattr(decoder_slots, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(decoder_process, "decoder_slots", holders.here(1))
    song = sounds.wav(tmp_path / "s.wav", sounds.music(1.0))
    assert probe_isolated(song, 60)
    holders.add("somebody", most=1)
    with pytest.raises(Fault, match="busy"):
        probe_isolated(song, 60)


@pytest.mark.django_db
@pytest.mark.usefixtures("site_settings", "no_queue")
def test_a_range_of_ipv6_holds_decoders_as_one_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has a /48 has 65,536 clients by their /64."""
    asked: list[str] = []

    def asking(path: Path, seconds: float, client: str, _spent: object) -> AudioInfo:
        asked.append(client)
        return probe_isolated(path, seconds, client)

    monkeypatch.setattr(song_files, "probe_isolated", asking)
    for address in ("2001:db8:1:2::9", "2001:db8:1:ff02::9", "2001:db8:2:2::9"):
        song = sounds.wav(tmp_path / "s.wav", sounds.music(0.5, seed=len(asked)))
        with song.open("rb") as file:
            assert Client(REMOTE_ADDR=address).post("/", {"file": file}).status_code == 302
    first, neighbour, other = asked
    assert first == neighbour
    assert first != other


# The machine's plan


@pytest.mark.parametrize(
    ("megabytes", "cpus", "asked", "count"),
    [(4_000, 2, 0, 2), (2_000, 2, 0, 1), (16_000, 4, 0, 4), (8_000, 64, 0, 4), (1_000, 1, 6, 6)],
)
def test_as_many_as_cpus_and_a_tenth_of_the_memory_hold(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    megabytes: int,
    cpus: int,
    asked: int,
    count: int,
) -> None:
    settings.MEMORY_MB, settings.DECODERS = megabytes, asked
    monkeypatch.setattr(resources, "cpu_count", lambda: cpus)
    assert resources.decoder_count() == count


def test_what_decoders_may_take_is_not_given_to_separations(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "cpu_count", lambda: 2)
    settings.MEMORY_MB, settings.MEMORY_MARGIN_MB = 4_000, 1_000
    assert resources.capacity() == 3_000_000_000 - 2 * lockdown.PROCESS_BYTES
    assert resources.capacity() > 1_952_000_000, "htdemucs on a small server, two chunks at a time"
    settings.DECODERS = 100
    assert resources.capacity() == 2_000_000_000


def test_the_operator_hears_of_more_decoders_than_fit(settings: Settings) -> None:
    settings.MEMORY_MB, settings.DECODERS = 4_000, 2
    assert site_checks.decoders_fit_in_memory(None) == []
    settings.DECODERS = 12
    (warning,) = site_checks.decoders_fit_in_memory(None)
    assert warning.id == "stemsite.W004"
    assert "12 decoders at once may take 2.0 GB" in warning.msg
