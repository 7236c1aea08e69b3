"""Songs are decoded where they can do no harm."""

import json
import logging
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from separations import checks
from separations.audio import isolated, sandbox
from separations.audio.decode import decode
from separations.audio.isolated import Child, open_song, probe_isolated
from separations.audio.wire import HEAD, MOST_SAMPLES, SAMPLES, TEXT
from separations.faults import Fault
from tests import sounds
from tests.liars import Busy
from tests.running_site import until

linux = pytest.mark.skipif(bool(sandbox.missing()), reason="WITHOUT SANDBOX: this kernel has none")
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
SECRETS = {"SECRET_KEY": "s" * 60, "DATABASE_URL": "postgresql://u:p@h/d", "HUEY_URL": "redis://h"}


class Escaping(Child):
    module = "tests.escapes"


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
                environment = child.hear()["environment"]
                done, refused = set[str](), set[str]()
                while "name" in (said := child.hear()):
                    (refused if said["error"] else done).add(said["name"])
            assert said == {"end": True}, "it tried everything"
            if "connect" in refused:
                with pytest.raises(TimeoutError):
                    server.accept()
        return done, refused, environment

    return escaped


@linux
def test_nothing_can_be_reached_from_the_sandbox(escapes: Any, song: Path) -> None:
    done, refused, environment = escapes()
    assert done == set()
    assert len(refused) == 21
    assert [path.name for path in (song.parent / "folder").iterdir()] == ["other"]
    assert not set(environment) & set(SECRETS)


@linux
def test_landlock_alone_keeps_files_and_network_out_of_reach(escapes: Any) -> None:
    _done, refused, _environment = escapes("_enter_seccomp")
    assert refused >= READING | WRITING | {"connect", "run a program", "signal the parent"}


@linux
def test_seccomp_alone_keeps_everything_out_of_reach(escapes: Any) -> None:
    done, _refused, _environment = escapes("_enter_landlock")
    assert done == set()


def test_where_neither_is_to_be_had_limits_remain_and_it_is_said_once(
    escapes: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "_told", set())
    for _ in range(2):
        _done, refused, environment = escapes("_enter_landlock", "_enter_seccomp")
        assert refused >= {"write a file", "overwrite a file", "take much memory"}
        assert not set(environment) & set(SECRETS)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2
    assert "without 'Landlock'" in said[0]
    assert "without 'seccomp'" in said[1]


def test_the_operator_hears_of_a_missing_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "missing", lambda: ("Landlock", "seccomp"))
    (warning,) = checks.songs_are_read_in_a_sandbox(None)
    assert warning.id == "stemsite.W003"
    assert "Landlock and seccomp" in warning.msg
    monkeypatch.setattr(sandbox, "missing", tuple)
    assert checks.songs_are_read_in_a_sandbox(None) == []


def test_both_processors_have_the_same_calls() -> None:
    (*_, first), (*_, second) = sandbox.CALLS.values()
    assert first.keys() == second.keys()


# Its end


def test_a_song_that_is_left_early_leaves_no_process(song: Path) -> None:
    before = set(psutil.Process().children())  # what other tests keep warm
    blocks = decode(song)
    next(blocks)
    (child,) = set(psutil.Process().children()) - before
    blocks.close()
    assert not child.is_running()


def test_the_decoder_dies_with_whoever_started_it(song: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.liars import Busy\n"
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
    monkeypatch.setattr(isolated, "CPU_SECONDS", 1)
    monkeypatch.setattr(isolated, "WALL_FACTOR", 30)
    with pytest.raises(Fault) as caught, Busy(song, "busy", 1.0) as child:
        child.hear()
    assert caught.value.code == "too_slow"


# What it says is not believed


def text(**what: Any) -> bytes:
    content = json.dumps(what).encode()
    return HEAD.pack(TEXT, len(content)) + content


GOOD = {
    "container": "wav",
    "codec": "pcm_s16le",
    "sample_rate": 44_100,
    "channels": 2,
    "frames": 44_100,
    "title": "",
    "artist": "",
    "samples_sha256": "0" * 64,
}
SECOND = HEAD.pack(SAMPLES, 8 * 44_100) + bytes(8 * 44_100)
LIES = {
    "silence": b"",
    "noise": b"\xff" * 100,
    "no greeting": text(info=GOOD),
    "a text of 4 GB": text(missing=[]) + HEAD.pack(TEXT, 2**32 - 1),
    "no JSON": text(missing=[]) + HEAD.pack(TEXT, 2) + b"{[",
    "deep JSON": text(missing=[]) + HEAD.pack(TEXT, 60_000) + b"[" * 60_000,
    "no object": text(missing=[]) + HEAD.pack(TEXT, 2) + b"[]",
    "unknown fault": text(missing=[]) + text(fault="engine_died", params={}),
    "a fault's wrong values": text(missing=[]) + text(fault="too_long", params={"x": 1}),
    "a fault with a text": text(missing=[]) + text(fault="truncated", params={"read": "<b>"}),
    "nothing known": text(missing=[]) + text(info=None),
    "samples": text(missing=[]) + HEAD.pack(SAMPLES, 8) + bytes(8),
    **{
        f"{name}={value!r:.20}": text(missing=[]) + text(info={**GOOD, name: value})
        for name, value in (
            ("container", "hls"),
            ("codec", "h264"),
            ("sample_rate", 10**9),
            ("sample_rate", "44100"),
            ("channels", 0),
            ("channels", True),
            ("frames", 10**18),
            ("frames", 1.5),
            ("title", "a\nb"),
            ("title", "x" * 201),
            ("artist", ["a"]),
            ("samples_sha256", "0" * 63 + "g"),
            ("samples_sha256", None),
            ("surplus", 1),
        )
    },
}


@pytest.fixture
def says(song: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has the child say what it is told to; cheap, for there are many lies."""
    answer = song.with_name("answer")

    def say(content: bytes) -> None:
        answer.write_bytes(content)
        shell = song.with_name("liar")
        shell.write_text(f"#!/bin/sh\nexec cat '{answer}'\n")
        shell.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(shell))

    return say


def test_what_could_be_true_is_taken(says: Any, song: Path) -> None:
    says(text(missing=[]) + text(info=GOOD))
    assert probe_isolated(song, 60).seconds == 1.0


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_only_an_unreadable_file(says: Any, song: Path, lie: str) -> None:
    says(LIES[lie])
    with pytest.raises(Fault) as caught:
        probe_isolated(song, 60)
    assert caught.value.code == "unreadable"


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
    says: Any, song: Path, answer: bytes
) -> None:
    says(text(missing=[]) + answer)
    with pytest.raises(Fault) as caught, open_song(song, 1.5) as opened:
        list(opened.blocks())
    assert caught.value.code == "unreadable"


def test_no_client_has_all_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATIENCE_SECONDS", "OWN_PATIENCE_SECONDS"):
        monkeypatch.setattr(isolated, name, 0.01)
    decoders = isolated.Decoders(4)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(decoders.one("greedy"))
        with pytest.raises(Fault, match="too_many_at_once"):
            held.enter_context(decoders.one("greedy"))
        held.enter_context(decoders.one("other"))
        held.enter_context(decoders.one(""))
        with pytest.raises(Fault, match="busy"):
            held.enter_context(decoders.one("third"))
    monkeypatch.setattr(isolated, "OWN_PATIENCE_SECONDS", 60.0)
    waiting = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with decoders.one("greedy"), decoders.one("greedy"):
            told = pool.submit(_waited_for, decoders, waiting)
            assert waiting.wait(10)
        assert told.result(10)
    with isolated.Decoders(1).one("alone"):
        pass  # where there is one, anybody has it


def _waited_for(decoders: isolated.Decoders, waiting: threading.Event) -> bool:
    waiting.set()
    with decoders.one("greedy"):
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


def test_what_a_decoder_complains_of_is_logged_on_one_line(
    song: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shell = song.with_name("liar")
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
from separations.audio import child, sandbox
before = set()
def enter(_cpu): before.update(sys.modules); return ()
sandbox.enter = enter
def end(_status): sys.stderr.write(",".join(sorted(set(sys.modules) - before))); sys.exit(0)
os._exit = end
sys.argv = ["child", "{task}", "60", "60"]
child.main()
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
