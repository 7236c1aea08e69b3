"""When a decoder dies: whose fault it is, and that a broken installation is found out."""

import errno
import json
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from separations.audio import child_process
from separations.audio.decoding.decoder_protocol import HEAD, TEXT
from separations.audio.sandbox import decoder_process
from separations.audio.sandbox.decoder_check import DecoderCheck, unavailable
from separations.audio.sandbox.decoder_process import decoder_check, open_song, probe_isolated
from separations.errors import user_messages
from separations.errors.fault import Fault
from tests.support import sounds

GREETING = b'{"missing": []}'
INFO = {
    "container": "wav",
    "codec": "pcm_s16le",
    "sample_rate": 44_100,
    "channels": 2,
    "frames": 44_100,
    "tags": {},
    "samples_sha256": "0" * 64,
}
Scripts = Callable[..., None]


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return sounds.wav(tmp_path / "song.wav", sounds.music(0.2))


@pytest.fixture
def decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripts:
    """Replace the decoders to come by shell scripts that greet and do as they are told."""

    def message(content: bytes, name: str) -> str:
        (tmp_path / name).write_bytes(HEAD.pack(TEXT, len(content)) + content)
        return f"cat '{tmp_path / name}'"

    following: list[str] = []
    start = child_process.start

    def start_next(*args: object, **given: object) -> object:
        monkeypatch.setattr(sys, "executable", following.pop(0))
        return start(*args, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(child_process, "start", start_next)

    def do(*acts: str) -> None:
        answer = message(json.dumps({"info": INFO, "cover": 0}).encode(), "answer")
        for number, act in enumerate(acts):
            script = tmp_path / f"decoder{number}"
            shown = answer if act == "answer" else act
            script.write_text(f"#!/bin/sh\n{message(GREETING, 'greeting')}\n{shown}\n")
            script.chmod(0o755)
            following.append(str(script))

    return do


@pytest.fixture
def deaths() -> Iterator[list[int]]:
    """The exit statuses of the decoders of uploads that died."""
    heard: list[int] = []

    def listen(fault: Fault) -> None:
        heard.append(fault.params["status"])

    decoder_process.death_listeners.append(listen)
    yield heard
    decoder_process.death_listeners.remove(listen)


def refused(song: Path) -> Fault:
    with pytest.raises(Fault) as caught:
        probe_isolated(song, 60)
    return caught.value


def test_a_song_that_crashes_its_decoder_is_unreadable(
    song: Path, decoders: Scripts, deaths: list[int]
) -> None:
    decoders("echo at the mill >&2; kill -SEGV $$")
    fault = refused(song)
    assert fault.code == "unreadable"
    assert "signal SIGSEGV: 'at the mill" in fault.trace
    assert deaths == [-11]


def test_an_error_in_the_decoders_python_is_told_with_its_traceback(
    song: Path, decoders: Scripts, deaths: list[int], tmp_path: Path
) -> None:
    """The same song would cause it again: not a reason to try for ever."""
    broken = (
        "from separations.audio.sandbox import worker\n"
        "worker.lockdown.enter = lambda cpu: []\n"
        "worker.open_source = worker.probe = lambda *given: {}['at the mill']\n"
        "worker.main()\n"
    )
    (tmp_path / "answers").mkdir()
    python = [sys.executable, "-c", broken]
    for task in ("probe", "decode"):
        with song.open("rb") as file:
            ended = subprocess.run(
                [*python, task, "60", "30"], stdin=file, capture_output=True, check=False
            )
        assert b"KeyError: 'at the mill'" in ended.stderr
        first = HEAD.size + HEAD.unpack(ended.stdout[: HEAD.size])[1]
        (tmp_path / "answers" / task).write_bytes(ended.stdout[first:])
    act = f"echo at the mill >&2; cat '{tmp_path}/answers/"
    decoders(act + "probe'")
    fault = refused(song)
    assert fault.code == "unreadable"
    assert "at the mill" in fault.trace
    assert deaths == [1]
    decoders(act + "decode'")
    with pytest.raises(Fault, match="unreadable"), open_song(song, 60):
        pass


def test_a_decoder_that_crashes_with_the_tiny_song_too_is_broken(
    song: Path, decoders: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_process, "TRUSTED_SECONDS", 0.0)
    decoders("kill -SEGV $$", "echo no codec >&2; exit 3")
    fault = refused(song)
    assert fault.code == "decoder_unavailable"
    assert "status 3: 'no codec" in fault.trace
    assert decoder_check.cause == fault.trace


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_a_decoder_that_is_killed_is_tried_once_more(
    song: Path, decoders: Scripts, deaths: list[int], signal: str
) -> None:
    decoders(f"kill -{signal} $$", "answer")
    assert probe_isolated(song, 60).frames == 44_100
    assert len(deaths) == 1, "the operator hears of it all the same"
    decoders(f"kill -{signal} $$", f"kill -{signal} $$")
    fault = refused(song)
    assert (fault.code, user_messages.status(fault)) == ("decoder_died", 503)
    assert "your file is not at fault" in user_messages.sentence(fault)


def test_what_used_much_time_is_not_tried_again(
    song: Path, decoders: Scripts, deaths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A song may have made it use all its time, and ignore the signal that says so."""
    monkeypatch.setattr(decoder_process, "AGAIN_WITHIN", 0.0)
    decoders("kill -KILL $$")
    assert refused(song).code == "decoder_died"
    assert len(deaths) == 1


@pytest.mark.parametrize("end", ["kill -SEGV $$", "exit 1", "kill -KILL $$"])
def test_a_song_that_was_readable_does_not_become_unreadable(
    song: Path, decoders: Scripts, end: str
) -> None:
    decoders(end, end)
    with pytest.raises(Fault) as caught, open_song(song, 60):
        pass
    assert caught.value.code == "decoder_died"
    decoders(end, "answer")  # which gives no rate, but begins
    with pytest.raises(Fault, match="unreadable"), open_song(song, 60):
        pass


def test_a_process_that_cannot_be_started_is_the_sites_fault(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    fault = refused(song)
    assert fault.code == "decoder_unavailable"
    assert "No such file" in fault.trace
    with pytest.raises(Fault, match="decoder_unavailable"), open_song(song, 60):
        pass


def test_a_decoder_that_takes_too_long_to_begin_is_the_sites_fault(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_process, "BEGIN_SECONDS", 0.0)
    assert refused(song).code == "decoder_unavailable"


def test_the_tiny_song_is_really_read() -> None:
    checked = DecoderCheck(decoder_process._read_tiny_song)
    assert checked.is_due(), "nothing is known at the start"
    assert checked.check() == ""
    assert not checked.is_due()


def test_a_broken_decoder_is_tested_again_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, tests = [0.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    works = [False]

    def read() -> None:
        tests.append(clock[0])
        if not works[0]:
            raise unavailable("libav is gone")

    checked = DecoderCheck(read)
    checked.require()  # nothing is known: a song is the test
    checked.check()
    for clock[0] in (1.0, 9.0, 10.5, 11.0):
        with pytest.raises(Fault, match="decoder_unavailable"):
            checked.require()
    assert tests == [0.0, 10.5], "each refused song would start a process"
    clock[0], works[0] = 21.0, True
    checked.require()
    told = [each.getMessage() for each in caplog.records]
    assert told == ["Songs cannot be read: libav is gone", "Songs can be read again"]


def test_a_lack_of_open_files_leaves_no_decoder_behind(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_args: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    started: list[child_process.PythonProcess] = []
    start = child_process.start

    def note(*args: object, **given: object) -> child_process.PythonProcess:
        started.append(start(*args, **given))  # type: ignore[arg-type]
        return started[-1]

    monkeypatch.setattr(child_process, "start", note)
    with monkeypatch.context() as patch:
        patch.setattr(selectors, "DefaultSelector", no_more)
        with pytest.raises(Fault, match="decoder_unavailable"):
            probe_isolated(song, 60.0)
    assert not started
    monkeypatch.setattr(selectors.DefaultSelector, "register", no_more)
    with pytest.raises(OSError, match="Too many open files"):
        probe_isolated(song, 60.0)
    assert all(child.poll() is not None for child in started)
    assert started
