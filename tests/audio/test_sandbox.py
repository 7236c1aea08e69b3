"""Songs are decoded where they can do no harm."""

import json
import logging
import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from separations.audio.decoding.decoder_protocol import COVER, HEAD, MOST_SAMPLES, SAMPLES, TEXT
from separations.audio.info import MOST_COVER
from separations.audio.sandbox import decoder_process, decoder_slots, lockdown, seccomp_filter
from separations.audio.sandbox.decoder_process import DecoderProcess, open_song, probe_isolated
from separations.audio.sandbox.decoder_slots import DecoderSlots
from separations.audio.song_reader import decode
from separations.checks import site_checks
from separations.errors.fault import Fault
from tests.support import sounds
from tests.support.liars import Busy
from tests.support.running_site import until

linux = pytest.mark.skipif(bool(lockdown.missing()), reason="WITHOUT SANDBOX: this kernel has none")
READING = {
    "read a file of the system",
    "read another's song",
    "open the own song again",
    "read the parent's environment",
    "list a folder",
}
WRITING = {
    "write a file",
    "overwrite a file",
    "make an empty file",
    "delete a file",
    "rename a file",
}
LOOKING = {
    "see whether a file exists",
    "see whether a path is missing",
    "look at a path by its folder's descriptor",
    "statx",
    "access",
    "access, the newer call",
    "read a link",
}
SECRETS = {"SECRET_KEY": "s" * 60, "DATABASE_URL": "postgresql://u:p@h/d", "HUEY_URL": "redis://h"}


class Escaping(DecoderProcess):
    module = "tests.support.escapes"


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return sounds.wav(tmp_path / "song.wav", sounds.music(3.0))


@pytest.fixture
def escapes(song: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a process could still do when some layers are left out; and its environment."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    other = song.with_name("folder") / "other"
    other.parent.mkdir()
    other.write_bytes(b"another's song")

    def escaped(*without: str) -> tuple[set[str], set[str], dict[str, str]]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.1)
            given = {"other": str(other), "port": server.getsockname()[1], "without": without}
            with Escaping(song, json.dumps(given), 1.0) as child:
                environment = child.read_message()["environment"]
                done, refused = set[str](), set[str]()
                while "name" in (found := child.read_message()):
                    (refused if found["error"] else done).add(found["name"])
            assert found == {"end": True}, "it tried everything"
            if "connect" in refused:
                with pytest.raises(TimeoutError):
                    server.accept()
        return done, refused, environment

    return escaped


@linux
def test_nothing_can_be_reached_from_the_sandbox(escapes: Any, song: Path) -> None:
    done, refused, environment = escapes()
    assert done == set()
    assert len(refused) == 34
    assert refused >= LOOKING
    assert [path.name for path in (song.parent / "folder").iterdir()] == ["other"]
    assert not set(environment) & set(SECRETS)


@linux
def test_landlock_alone_keeps_files_and_network_out_of_reach(escapes: Any) -> None:
    _done, refused, _environment = escapes("_enter_seccomp")
    assert refused >= READING | WRITING | {"connect", "run a program", "signal the parent"}


@linux
def test_seccomp_alone_keeps_everything_out_of_reach(escapes: Any) -> None:
    done, refused, _environment = escapes("_enter_landlock")
    assert done == set()
    assert refused >= LOOKING


def test_where_neither_is_to_be_had_limits_remain_and_it_is_said_once(
    escapes: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_process, "_reported", set())
    for _ in range(2):
        _done, refused, environment = escapes("_enter_landlock", "_enter_seccomp")
        assert refused >= {"write a file", "overwrite a file", "take much memory"}
        assert not set(environment) & set(SECRETS)
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(found) == 2
    assert "without 'Landlock'" in found[0]
    assert "without 'seccomp'" in found[1]


def test_the_operator_hears_of_a_missing_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockdown, "missing", lambda: ("Landlock", "seccomp"))
    (warning,) = site_checks.songs_are_read_in_a_sandbox(None)
    assert warning.id == "stemsite.W003"
    assert "Landlock and seccomp" in warning.msg
    monkeypatch.setattr(lockdown, "missing", tuple)
    assert site_checks.songs_are_read_in_a_sandbox(None) == []


def test_both_processors_have_the_same_calls() -> None:
    (*_, first), (*_, second) = seccomp_filter.CALLS.values()
    assert first.keys() == second.keys()


def test_no_call_that_is_allowed_takes_a_path() -> None:
    """Of these Landlock refuses none, or with errors that tell what exists."""
    by_path = {"open", "openat", "stat", "lstat", "newfstatat", "statx", "access", "faccessat"}
    by_path |= {"faccessat2", "readlink", "readlinkat", "getxattr", "statfs", "chdir"}
    for *_, free in seccomp_filter.CALLS.values():
        assert not by_path & free.keys()


# Its end


def test_a_song_that_is_left_early_leaves_no_process(song: Path) -> None:
    before = set(psutil.Process().children())  # what other tests keep warm
    blocks = decode(song)
    next(blocks)
    (child,) = set(psutil.Process().children()) - before
    blocks.close()
    assert not child.is_running()


def test_the_decoder_dies_with_its_parent(song: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.support.liars import Busy\n"
        f"Busy(Path({str(song)!r}), 'busy').__enter__(); print('!', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    parent = psutil.Popen(command, cwd=sounds.ROOT, stdin=-1, stdout=-1)
    assert parent.stdout.readline()
    (child,) = parent.children()
    parent.kill()
    parent.communicate()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10)


def test_a_file_that_takes_all_its_time_is_too_slow(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_process, "CPU_SECONDS", 1)
    monkeypatch.setattr(decoder_process, "WALL_FACTOR", 30)
    with pytest.raises(Fault) as caught, Busy(song, "busy", 1.0) as child:
        child.read_message()
    assert caught.value.code == "too_slow"


def test_endless_error_output_is_too_slow(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading that takes the site's time as well."""
    read, clock = os.read, [0.0]

    def slow(file: int, size: int) -> bytes:
        clock[0] += 0.01
        return read(file, size)

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "read", slow)
    child = Busy(song, "loud", 1.0)
    child._left = 1.0
    with pytest.raises(Fault) as caught, child:
        child.read_message()
    assert caught.value.code == "too_slow"
    assert clock[0] < 1.1


# Its answers are checked


def text(**what: Any) -> bytes:
    content = json.dumps(what).encode()
    return HEAD.pack(TEXT, len(content)) + content


GOOD: dict[str, Any] = {
    "container": "wav",
    "codec": "pcm_s16le",
    "sample_rate": 44_100,
    "channels": 2,
    "frames": 44_100,
    "tags": {
        "title": "",
        "artist": "b",
        "album": "",
        "track": 3,
        "track_total": None,
        "year": 1999,
        "genre": "",
        "bpm": 120.5,
        "key": "Am",
    },
    "samples_sha256": "0" * 64,
}
PICTURE = b"\xff\xd8\xff" + bytes(100)


def facts(cover: object = 0, tags: Any = (), about: Any = ()) -> bytes:
    """A greeting, and facts about a song, which can be changed."""
    told = {**GOOD, "tags": {**GOOD["tags"], **dict(tags)}, **dict(about)}
    return text(missing=[]) + text(info=told, cover=cover)


def picture(data: bytes, kind: bytes = COVER) -> bytes:
    return HEAD.pack(kind, len(data)) + data


SECOND = HEAD.pack(SAMPLES, 8 * 44_100) + bytes(8 * 44_100)
# Before a decoder says that it begins, it has not touched the song.
NO_BEGINNING = {"silence": b"", "noise": b"\xff" * 100, "no greeting": text(info=GOOD, cover=0)}
IMPLAUSIBLE = {
    "silence after the greeting": text(missing=[]),
    "a text of 4 GB": text(missing=[]) + HEAD.pack(TEXT, 2**32 - 1),
    "no JSON": text(missing=[]) + HEAD.pack(TEXT, 2) + b"{[",
    "deep JSON": text(missing=[]) + HEAD.pack(TEXT, 60_000) + b"[" * 60_000,
    "no object": text(missing=[]) + HEAD.pack(TEXT, 2) + b"[]",
    "unknown fault": text(missing=[]) + text(fault="engine_died", params={}),
    "a fault's wrong values": text(missing=[]) + text(fault="too_long", params={"x": 1}),
    "a fault with a text": text(missing=[]) + text(fault="truncated", params={"read": "<b>"}),
    "nothing known": text(missing=[]) + text(info=None, cover=0),
    "no word of a cover": text(missing=[]) + text(info=GOOD),
    "no tags": text(missing=[]) + text(info={**GOOD, "tags": None}, cover=0),
    "a cover that does not come": facts(cover=103),
    "a cover of another length": facts(cover=103) + picture(PICTURE[:-1]),
    "samples for a cover": facts(cover=103) + picture(PICTURE, SAMPLES),
    "a cover of a negative length": facts(cover=-1),
    "a cover that is too large": facts(cover=MOST_COVER + 1)
    + picture(PICTURE.ljust(MOST_COVER + 1)),
    "a cover that is a page": facts(cover=103) + picture(b"<html>".ljust(103)),
    "samples": text(missing=[]) + HEAD.pack(SAMPLES, 8) + bytes(8),
    **{
        f"{name}={value!r:.20}": facts(about={name: value})
        for name, value in (
            ("container", "hls"),
            ("codec", "h264"),
            ("sample_rate", 10**9),
            ("sample_rate", "44100"),
            ("channels", 0),
            ("channels", True),
            ("frames", 10**18),
            ("frames", 1.5),
            ("samples_sha256", "0" * 63 + "g"),
            ("samples_sha256", None),
            ("surplus", 1),
        )
    },
    **{
        f"{name}={value!r:.20}": facts(tags={name: value})
        for name, value in (
            ("title", "a\nb"),
            ("title", "x" * 201),
            ("title", "Caf\ufffd"),
            ("artist", ["a"]),
            ("album", None),
            ("genre", "\0"),
            ("key", "x" * 21),
            ("track", 0),
            ("track_total", 10_000),
            ("year", "1999"),
            ("year", True),
            ("bpm", 120),
            ("bpm", -1.0),
            ("bpm", 1e300),
            ("surplus", 1),
        )
    },
}


@pytest.fixture
def answering(song: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the decoder by a script that answers given bytes, which is quick."""
    answer = song.with_name("answer")

    def answer_with(content: bytes) -> None:
        answer.write_bytes(content)
        shell = song.with_name("script")
        shell.write_text(f"#!/bin/sh\nexec cat '{answer}'\n")
        shell.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(shell))

    return answer_with


def test_what_could_be_true_is_taken(answering: Any, song: Path) -> None:
    answering(facts(cover=103) + picture(PICTURE))
    info = probe_isolated(song, 60)
    assert (info.seconds, info.tags.artist, info.tags.cover) == (1.0, "b", PICTURE)
    answering(facts())
    assert probe_isolated(song, 60).tags.cover == b""


@pytest.mark.parametrize("answer", IMPLAUSIBLE)
def test_an_implausible_answer_is_an_unreadable_file(
    answering: Any, song: Path, answer: str
) -> None:
    answering(IMPLAUSIBLE[answer])
    with pytest.raises(Fault) as caught:
        probe_isolated(song, 60)
    assert caught.value.code == "unreadable"


@pytest.mark.parametrize("answer", NO_BEGINNING)
def test_a_decoder_that_does_not_begin_is_the_sites_fault(
    answering: Any, song: Path, answer: str
) -> None:
    answering(NO_BEGINNING[answer])
    with pytest.raises(Fault) as caught:
        probe_isolated(song, 60)
    assert caught.value.code == "decoder_unavailable"


@pytest.mark.parametrize(
    "answer",
    [
        text(rate=1),
        text(rate=44_100),
        text(rate=44_100) + HEAD.pack(SAMPLES, 12) + bytes(12),
        text(rate=44_100) + HEAD.pack(SAMPLES, 0),
        text(rate=44_100) + HEAD.pack(SAMPLES, 8 * MOST_SAMPLES + 8),
        text(rate=44_100) + HEAD.pack(SAMPLES, 16) + bytes(8),
        text(rate=44_100)
        + (HEAD.pack(SAMPLES, 8 * 44_100) + bytes(8 * 44_100)) * 3
        + text(end=True),
        text(rate=44_100) + text(end=False),
    ],
    ids=["rate", "no end", "odd", "none", "too many", "cut", "no end of it", "another end"],
)
def test_samples_that_cannot_be_are_an_unreadable_file(
    answering: Any, song: Path, answer: bytes
) -> None:
    answering(text(missing=[]) + answer)
    with pytest.raises(Fault) as caught, open_song(song, 1.5) as opened:
        list(opened.blocks())
    assert caught.value.code == "unreadable"


def test_no_client_has_all_decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATIENCE_SECONDS", "OWN_PATIENCE_SECONDS"):
        monkeypatch.setattr(decoder_slots, name, 0.01)
    site = DecoderSlots()
    site.set_up(4, 1, tmp_path)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(site.for_upload("greedy"))
        with pytest.raises(Fault, match="too_many_at_once"):
            held.enter_context(site.for_upload("greedy"))
        held.enter_context(site.for_upload("other"))
        held.enter_context(site.for_upload(""))
        with pytest.raises(Fault, match="busy"):
            held.enter_context(site.for_upload("third"))
    monkeypatch.setattr(decoder_slots, "OWN_PATIENCE_SECONDS", 60.0)
    waiting = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with site.for_upload("greedy"), site.for_upload("greedy"):
            told = pool.submit(_waited_for, site, waiting)
            assert waiting.wait(10)
        assert told.result(10)
    site.set_up(1, 1, tmp_path / "another")
    with site.for_upload("alone"):
        pass  # where there is one, anybody has it


def _waited_for(site: DecoderSlots, waiting: threading.Event) -> bool:
    waiting.set()
    with site.for_upload("greedy"):
        return True


def test_it_is_told_how_long_a_decoder_was_held(tmp_path: Path) -> None:
    held: list[float] = []
    song = sounds.wav(tmp_path / "s.wav", sounds.music(1.0))
    probe_isolated(song, 60, spent=held.append)
    song.write_bytes(b"no music" * 99)
    with pytest.raises(Fault):
        probe_isolated(song, 60, spent=held.append)
    assert len(held) == 2
    assert min(held) > 0


def test_the_error_output_of_a_decoder_is_logged_on_one_line(
    song: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shell = song.with_name("script")
    shell.write_text("#!/bin/sh\nhead -c 300000 /dev/zero >&2\nprintf 'a\\nERROR b\\033[2J' >&2\n")
    shell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shell))
    with pytest.raises(Fault):
        probe_isolated(song, 60)
    (record,) = caplog.records
    assert "a\\nERROR b\\x1b[2J" in record.getMessage()
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) < 10_000


# Nothing is imported late


LATE = """
import os, sys
from separations.audio.sandbox import lockdown, worker
before = set()
def enter(_cpu): before.update(sys.modules); return ()
lockdown.enter = enter
def end(_status): sys.stderr.write(",".join(sorted(set(sys.modules) - before))); sys.exit(0)
os._exit = end
sys.argv = ["worker", "{task}", "60", "60"]
worker.main()
"""


@pytest.mark.parametrize("task", ["probe", "decode"])
@pytest.mark.parametrize("kind", ["m4a", "flac, 5.1", "noise"])
def test_everything_is_imported_before_the_sandbox_closes(
    tmp_path: Path, task: str, kind: str
) -> None:
    import subprocess

    path = tmp_path / "song"
    if kind == "m4a":
        path = sounds.encode(tmp_path / "a.m4a", sounds.music(1.0), "aac", title="봄날")
    elif kind == "noise":
        path.write_bytes(os.urandom(5000))
    else:
        path = tmp_path / "song.wav"
        sounds.wav(path, sounds.music(1.0, channels=6))
    with path.open("rb") as file:
        child = subprocess.run(
            [sys.executable, "-c", LATE.format(task=task)],
            cwd=sounds.ROOT,
            stdin=file,
            capture_output=True,
            check=True,
        )
    assert child.stderr == b""
