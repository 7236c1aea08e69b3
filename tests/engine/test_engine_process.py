"""The engine runs apart, reports truly, and can be killed at any moment."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from separations.audio.store.stem_file import files_of, read_stem, readable_cells
from separations.engine.process.engine_process import EngineProcess
from separations.engine.process.engine_protocol import Done, Progress
from separations.errors.fault import Fault
from tests.support import sounds
from tests.support.engines import request_for


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_engine_lets_the_web_server_go_first(
    tmp_path: Path, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sounds.wav(tmp_path / "song.wav", sounds.music(3.0), subtype="FLOAT")
    monkeypatch.setenv("ENGINE_NICE", "7")
    nice = max(os.getpriority(os.PRIO_PROCESS, 0), 7)
    with EngineProcess() as engine:
        for _message in engine.run(request_for(source, tmp_path / "staging", small_store), 60.0):
            pass
        assert engine.pid is not None
        assert os.getpriority(os.PRIO_PROCESS, engine.pid) == nice
        group = Path(f"/proc/{engine.pid}/autogroup")
        if group.exists() and group.read_text():
            assert group.read_text().split()[-1] == str(nice), "its session gives way as well"


def test_a_song_becomes_stems_with_true_progress(
    engine: EngineProcess, tmp_path: Path, small_store: Path
) -> None:
    song = sounds.music(3.0)
    source = sounds.wav(tmp_path / "song.wav", song, subtype="FLOAT")
    staging = tmp_path / "staging"
    messages = [m for m in engine.run(request_for(source, staging, small_store), 60.0) if m]
    done = messages[-1]
    assert isinstance(done, Done)
    assert done.frames == song.shape[1]
    assert [stem.name for stem in done.stems] == ["drums", "bass", "other", "vocals"]
    reports = [message for message in messages if isinstance(message, Progress)]
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] < 1.0  # the stems are not published yet
    assert list(dict.fromkeys(report.stage for report in reports)) == [
        "start",
        "decode",
        "separate",
        "encode",
    ]
    assert sum(report.remaining is not None for report in reports) >= 4
    tracks = [*done.stems, done.mixture]
    assert set(staging.iterdir()) == {
        file for track in tracks for file in files_of(staging / f"{track.name}.flac")
    }
    for stem in tracks:
        stored = np.concatenate(list(read_stem(staging / f"{stem.name}.flac")))
        assert stored.shape == (done.frames, 2)
        assert np.abs(stored).max() == pytest.approx(stem.peak, abs=1e-5)


def test_stems_can_be_heard_while_the_song_is_still_separated(
    engine: EngineProcess, tmp_path: Path, small_store: Path
) -> None:
    source = sounds.wav(tmp_path / "song.wav", sounds.music(30.0))
    staging = tmp_path / "staging"
    heard: dict[str, sounds.Samples] = {}
    for message in engine.run(request_for(source, staging, small_store), 60.0):
        tracks = sorted(staging.glob("*.flac"))
        if not heard and len(tracks) == 5 and min(map(readable_cells, tracks)) >= 2:
            assert isinstance(message, Progress)
            assert message.fraction < 0.5
            heard = {track.stem: sounds.chunk(track, 1) for track in tracks}
    assert set(heard) == {"drums", "bass", "other", "vocals", "mixture"}
    for name, samples in heard.items():
        part = read_stem(staging / f"{name}.flac", 65_536, 131_072)
        np.testing.assert_allclose(samples, np.concatenate(list(part)).T, atol=2**-15)
    played = sounds.chunk(staging / "mixture.flac", 1)
    np.testing.assert_allclose(played, sounds.music(30.0)[:, 65_536:131_072], atol=2**-14)


def test_the_model_stays_warm_and_the_bytes_the_same(
    engine: EngineProcess, tmp_path: Path, small_store: Path
) -> None:
    source = sounds.wav(tmp_path / "song.wav", sounds.music(2.0))
    pids, stored = set(), []
    for number in range(2):
        staging = tmp_path / str(number)
        list(engine.run(request_for(source, staging, small_store), 60.0))
        pids.add(engine.pid)
        stored.append([path.read_bytes() for path in sorted(staging.iterdir())])
    assert len(pids) == 1
    assert stored[0] == stored[1]


def test_a_fault_is_reported_and_the_engine_goes_on(
    engine: EngineProcess, tmp_path: Path, small_store: Path
) -> None:
    bad = tmp_path / "words.mp3"
    bad.write_text("no music " * 500)
    with pytest.raises(Fault, match="not_audio"):
        list(engine.run(request_for(bad, tmp_path / "a", small_store), 60.0))
    pid = engine.pid
    with pytest.raises(Fault, match="model_missing"):
        list(engine.run(request_for(bad, tmp_path / "b", small_store, model="gone"), 60.0))
    assert engine.pid == pid


def test_cuda_that_is_not_there_is_a_fault(
    engine: EngineProcess, tmp_path: Path, small_store: Path
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    source = sounds.wav(tmp_path / "song.wav", sounds.music(1.0))
    with pytest.raises(Fault, match="no_cuda"):
        list(engine.run(request_for(source, tmp_path / "s", small_store, device="cuda"), 60.0))


def test_to_stop_listening_is_to_kill(tmp_path: Path, small_store: Path) -> None:
    source = sounds.wav(tmp_path / "song.wav", sounds.music(60.0))
    with EngineProcess() as engine:
        running = engine.run(request_for(source, tmp_path / "s", small_store), 60.0)
        while (message := next(running)) is None or message.stage != "separate":  # type: ignore[union-attr]
            pass
        pid = engine.pid
        assert pid is not None
        cast(Generator[object, None, None], running).close()
        assert not alive(pid)
        # The next song gets a new process.
        short = sounds.wav(tmp_path / "short.wav", sounds.music(1.0))
        last = list(engine.run(request_for(short, tmp_path / "t", small_store), 60.0))[-1]
        assert isinstance(last, Done)


def test_a_killed_engine_is_noticed(tmp_path: Path, small_store: Path) -> None:
    source = sounds.wav(tmp_path / "song.wav", sounds.music(60.0))
    with EngineProcess() as engine:
        running = engine.run(request_for(source, tmp_path / "s", small_store), 60.0)
        while not isinstance(message := next(running), Progress) or message.stage == "start":
            pass  # before torch is loaded, it would be no fault of a song
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        assert engine.rest == 0
        with pytest.raises(Fault, match="engine_died"):
            list(running)
        assert 0 < engine.rest <= 1, "the next one does not start at once"
        short = sounds.wav(tmp_path / "short.wav", sounds.music(1.0))
        *_, done = engine.run(request_for(short, tmp_path / "t", small_store), 60.0)
        assert isinstance(done, Done)


def test_an_engine_that_is_ended_while_it_loads_is_given_up_without_a_fault(
    tmp_path: Path, small_store: Path
) -> None:
    """A song that needs the memory ends it: nothing is broken."""
    with EngineProcess() as engine:

        def kill() -> bool:
            engine.kill()
            return True

        request = request_for(tmp_path / "song.wav", tmp_path / "s", small_store)
        assert engine.load(request, 0.01, kill) == ""
        assert not engine.check(kill)
        assert engine.rest == 0


def test_engines_that_cannot_start_rest_longer_each_time(
    tmp_path: Path, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for(tmp_path / "song.wav", tmp_path / "s", small_store)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with EngineProcess() as engine:
        for most in (1, 2, 4):
            with pytest.raises(Fault, match="engine_unavailable"):
                list(engine.run(request, 60.0))
            assert most - 0.5 < engine.rest <= most


def test_a_signal_to_the_whole_service_does_not_end_the_engine(
    tmp_path: Path, small_store: Path
) -> None:
    """systemd sends SIGTERM to every process; the engine is its parent's to end."""
    source = sounds.wav(tmp_path / "song.wav", sounds.music(20.0))
    with EngineProcess() as engine:
        for message in engine.run(request_for(source, tmp_path / "s", small_store), 60.0):
            if isinstance(message, Progress) and message.fraction < 0.3:
                assert engine.pid is not None
                os.kill(engine.pid, signal.SIGTERM)
                os.kill(engine.pid, signal.SIGINT)
        assert isinstance(message, Done)


def test_the_engine_does_not_outlive_its_parent() -> None:
    code = (
        "import sys, os, signal, time; "
        "from separations.engine.process.engine_process import EngineProcess; "
        "e = EngineProcess(); e._start(); print(e.pid, flush=True); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    parent = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=sounds.ROOT
    )
    pid = int(parent.stdout)
    waiter = subprocess.run(
        ["timeout", "60", "tail", f"--pid={pid}", "-f", "/dev/null"], check=False
    )
    assert waiter.returncode == 0, "the engine still runs"


def test_web_and_consumer_never_import_torch() -> None:
    code = (
        "import os, sys, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'stemsite.settings'; "
        "django.setup(); "
        "import separations.urls, separations.worker.tasks, separations.admin; "
        "from separations.management.commands import run_consumer, separate; "
        "heavy = 'torch', 'demucs', 'torchaudio', 'openvino'; "
        "print([name for name in heavy if name in sys.modules])"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=sounds.ROOT, check=True
    )
    assert child.stdout.strip() == "[]"
