"""The engine is chosen by measurement, once, and never at the cost of a job."""

import io
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from separations.audio.store.stem_file import read_stem
from separations.engine import engine_choice
from separations.engine.engine_choice import BFLOAT16, FLOAT32, OPENVINO, TORCH, Plan, Trial
from separations.engine.inference.openvino_network import OpenVinoNetwork
from separations.engine.options import Options
from separations.engine.process import worker
from separations.engine.process.engine_process import EngineProcess
from separations.engine.process.engine_protocol import Done, Request
from separations.engine.tuning import benchmark, progress, tuner
from separations.engine.tuning.trial_process import Task, Wait
from separations.engine.weights import checksums
from separations.engine.weights.store import read_model
from tests.support import sounds

AUTO = Options(model="tiny", threads=1)
AUTO_TORCH = replace(AUTO, engine="torch", precision="float32")
# In float32 alone, so that every CPU makes the same choice.
WITH_OPENVINO = replace(AUTO, engine="openvino", precision="float32")
IN_TORCH = Plan(TORCH, FLOAT32)
IN_OPENVINO = Plan(OPENVINO, FLOAT32, 1)


def no_wait() -> None:
    pass


def run(
    engine: EngineProcess, store: Path, folder: Path, options: Options
) -> tuple[Done, dict[str, sounds.Samples]]:
    """Separate a little music; the stems as they were stored."""
    source = sounds.wav(folder / "song.wav", sounds.music(3.0))
    staging = folder / "staging"
    staging.mkdir()
    request = Request(
        str(source), str(staging), str(store), str(folder / "engines"), options, 3 * sounds.RATE
    )
    *_, done = engine.run(request, 60.0)
    assert isinstance(done, Done)
    stems = {
        stem.name: np.concatenate(list(read_stem(staging / f"{stem.name}.flac")))
        for stem in done.stems
    }
    for path in staging.iterdir():
        path.unlink()
    staging.rmdir()
    return done, stems


@pytest.fixture(scope="module")
def measured(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of engines where this machine was measured for OpenVINO."""
    folder = tmp_path_factory.mktemp("engines")
    tuner.choose(small_store, folder, WITH_OPENVINO, no_wait)
    return folder


def test_this_machine_is_measured_once(
    tmp_path: Path, small_store: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = measured.glob("tiny-*")
    chosen = engine_choice.read_choice(folder)
    assert chosen is not None
    tried = {trial.plan: trial for trial in chosen.trials}
    assert {IN_TORCH, IN_OPENVINO} <= set(tried)
    assert (tried[IN_OPENVINO].snr or 0) > 60
    assert tried[IN_TORCH].seconds > 0
    assert chosen.plan.engine == OPENVINO
    assert chosen.cpu == engine_choice.cpu_name() != ""
    # What was only needed to measure is gone.
    kinds = {path.suffix for path in folder.iterdir()}
    assert kinds == {".json", ".compiled"}
    monkeypatch.setattr(tuner, "_measure", None)
    assert tuner.choose(small_store, measured, WITH_OPENVINO, no_wait) == chosen


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (AUTO, Plan(OPENVINO, BFLOAT16)),
        (replace(AUTO, precision="float32"), IN_OPENVINO),
        (replace(AUTO, engine="torch"), Plan(TORCH, BFLOAT16)),
        (replace(AUTO, engine="torch", precision="float32"), IN_TORCH),
    ],
)
def test_a_setting_limits_what_is_chosen_from(
    tmp_path: Path, options: Options, wanted: Plan
) -> None:
    trials = [
        Trial(IN_TORCH, 4.0),
        Trial(Plan(TORCH, BFLOAT16), 3.0, 40.0),
        Trial(IN_OPENVINO, 3.5, 90.0),
        Trial(Plan(OPENVINO, BFLOAT16), 2.0, 38.0),
        Trial(Plan(OPENVINO, BFLOAT16, 2), 1.0, 12.0, problem="too far off"),
    ]
    assert engine_choice.write_choice(tmp_path, trials, options).plan == wanted
    kept = engine_choice.read_choice(tmp_path)
    assert kept is not None
    assert kept.plan == wanted
    assert kept.trials == tuple(trials)


def test_what_is_too_far_from_float32_is_refused() -> None:
    reference = np.random.default_rng(1).normal(size=(4, 2, 1000)).astype(np.float32)
    reference[3] *= 1e-4  # silent: of no account
    noise = np.random.default_rng(2).normal(size=(4, 2, 1000)).astype(np.float32)
    good = benchmark._judge(Trial(IN_OPENVINO, 1.0), reference + 0.01 * noise, reference)
    assert good.snr == pytest.approx(40, abs=1)
    assert not good.problem
    bad = reference.copy()
    bad[1] += 0.1 * noise[1]
    assert "20 dB" in benchmark._judge(Trial(IN_OPENVINO, 1.0), bad, reference).problem
    bad[1, 0, 0] = np.nan
    assert benchmark._judge(Trial(IN_OPENVINO, 1.0), bad, reference).problem


def test_another_version_or_setting_is_measured_anew(
    tmp_path: Path, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read_model(small_store, "tiny")
    folders = {
        engine_choice.folder_of(tmp_path, read_model(small_store, name), options)
        for name in ("tiny", "tiny_6s")
        for options in (AUTO, replace(AUTO, threads=2), replace(AUTO, precision="float32"))
    }
    assert len(folders) == 6
    monkeypatch.setattr(engine_choice, "_version", lambda package: "another")
    assert engine_choice.folder_of(tmp_path, model, AUTO) not in folders


def test_without_openvino_torch_does_the_work(
    tmp_path: Path, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here its package is there, but fails as it is imported."""
    broken = tmp_path / "broken" / "openvino"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no such instruction set')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    chosen = tuner.choose(small_store, tmp_path / "engines", WITH_OPENVINO, no_wait)
    assert chosen.plan == IN_TORCH
    assert "no such instruction set" in chosen.trials[-1].problem


def test_a_song_never_waits_for_its_machine_to_be_measured(
    tmp_path: Path, small_store: Path, measured: Path
) -> None:
    """The engine that is found in the end takes the songs after that."""
    with EngineProcess() as engine:
        done, _stems = run(engine, small_store, tmp_path, WITH_OPENVINO)
        assert done.engine == "torch float32"
        assert not (tmp_path / "engines").exists()
        pid = engine.pid
        shutil.copytree(measured, tmp_path / "engines")
        request = Request("", "", str(small_store), str(tmp_path / "engines"), WITH_OPENVINO, 0)
        assert engine.load(request, 60.0, lambda: True) == "openvino float32"
        done, _stems = run(engine, small_store, tmp_path, WITH_OPENVINO)
        assert done.engine == "openvino float32"
        assert engine.pid == pid


def test_a_candidate_that_crashes_is_out(
    tmp_path: Path, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = tmp_path / "deadly" / "openvino"
    deadly.mkdir(parents=True)
    (deadly / "__init__.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("PYTHONPATH", str(deadly.parent))
    options = replace(AUTO, precision="float32")
    chosen = tuner.choose(small_store, tmp_path / "engines", options, no_wait)
    assert chosen.plan == IN_TORCH
    assert "status -11" in chosen.trials[-1].problem


def test_a_spoilt_artefact_is_made_again(tmp_path: Path, small_store: Path, measured: Path) -> None:
    shutil.copytree(measured, tmp_path / "engines")
    with EngineProcess() as engine:
        done, stems = run(engine, small_store, tmp_path, WITH_OPENVINO)
    assert done.engine == "openvino float32"
    (artefact,) = (tmp_path / "engines").glob("*/*.compiled")
    artefact.write_bytes(b"")
    with EngineProcess() as engine:
        done, again = run(engine, small_store, tmp_path, WITH_OPENVINO)
        assert done.engine == "openvino float32"
        assert all(stems[name].tobytes() == again[name].tobytes() for name in stems)
    assert artefact.stat().st_size > 1000


def test_with_openvino_no_torch_is_loaded(small_store: Path, measured: Path) -> None:
    """This saves 200 MB and seconds. No telemetry is loaded either."""
    code = (
        "import sys; from pathlib import Path; "
        "from separations.engine.process.network_cache import NetworkCache; "
        "from separations.engine.process import worker; "
        "from separations.engine.options import Options; "
        "from separations.engine.weights.store import read_model; "
        "store, engines = map(Path, sys.argv[1:]); "
        "options = Options(model='tiny', threads=1, engine='openvino', precision='float32'); "
        "cache = NetworkCache(read_model(store, 'tiny'), store, engines, options, lambda: None); "
        "cache.network(0); "
        "names = 'torch', 'demucs', 'torchaudio', 'openvino'; "
        "print([name for name in names if name in sys.modules])"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(small_store), str(measured)],
        capture_output=True,
        text=True,
        cwd=sounds.ROOT,
        check=True,
    )
    assert child.stdout.strip() == "['openvino']"


def test_each_part_of_a_bag_is_compiled_when_it_is_asked_for(
    tmp_path: Path, small_store: Path
) -> None:
    options = replace(WITH_OPENVINO, model="tiny_ft", stems="vocals")
    # As if this machine had been measured before, with nothing compiled yet.
    model = read_model(small_store, "tiny_ft")
    folder = engine_choice.folder_of(tmp_path / "engines", model, options)
    folder.mkdir(parents=True)
    engine_choice.write_choice(folder, [Trial(IN_OPENVINO, 1.0, 90.0)], options)
    with EngineProcess() as engine:
        done, _stems = run(engine, small_store, tmp_path, options)
    assert done.engine == "openvino float32"
    assert [path.name for path in folder.glob("*.compiled")] == ["3-float32-1.compiled"]


def test_older_networks_stay_with_torch(small_store: Path) -> None:
    model = read_model(small_store, "tiny_mdx")
    assert not engine_choice.has_alternatives(model, AUTO)
    assert engine_choice.has_alternatives(read_model(small_store, "tiny"), AUTO)
    cuda = replace(AUTO, device="cuda")
    assert not engine_choice.has_alternatives(read_model(small_store, "tiny"), cuda)


def test_bfloat16_is_tried_where_the_cpu_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flags, wanted in (
        ("fpu avx2", [FLOAT32]),
        ("fpu avx512_bf16", [FLOAT32, BFLOAT16]),
        ("fpu amx_bf16", [FLOAT32, BFLOAT16]),
    ):
        info = tmp_path / "cpuinfo"
        info.write_text(f"processor : 0\nmodel name : Some CPU\nflags : {flags}\n")
        monkeypatch.setattr(engine_choice, "CPU_INFO", info)
        engine_choice._cpu_field.cache_clear()
        assert engine_choice.wanted_precisions(AUTO) == wanted
        assert engine_choice.wanted_precisions(replace(AUTO, precision="float32")) == [FLOAT32]
    engine_choice._cpu_field.cache_clear()


def test_the_best_guess_is_torch_in_the_format_that_the_cpu_multiplies(
    small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read_model(small_store, "tiny")
    half = Plan(TORCH, BFLOAT16)

    def guess(options: Options) -> Plan:
        return engine_choice.best_guess(model, options)

    monkeypatch.setattr(engine_choice, "cpu_multiplies_bfloat16", lambda: True)
    assert guess(AUTO) == IN_TORCH, "what bfloat16 does to unknown weights has to be measured"
    monkeypatch.setattr(checksums, "was_known", lambda _model: True)
    assert guess(AUTO) == half
    assert guess(replace(AUTO, precision="float32")) == IN_TORCH
    assert guess(replace(AUTO, device="cuda")) == IN_TORCH
    assert engine_choice.best_guess(read_model(small_store, "tiny_mdx"), AUTO) == IN_TORCH
    monkeypatch.setattr(engine_choice, "cpu_multiplies_bfloat16", lambda: False)
    assert guess(AUTO) == guess(WITH_OPENVINO) == IN_TORCH


def test_measuring_that_gave_way_goes_on_from_there(
    tmp_path: Path, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GaveWay(Exception):
        pass

    tried: list[Plan] = []
    reports: list[float] = []

    def trial(task: Task, wait: Wait) -> Trial:
        wait()
        if task.step == "measure":
            tried.append(task.plan)
            if len(tried) == 2:
                return Trial(task.plan, problem="no result after 300 s")
        return Trial(task.plan, 3.0 - task.plan.streams, 90.0)

    def until(number: int) -> Wait:
        def wait() -> None:
            if len(tried) == number:
                raise GaveWay

        return wait

    monkeypatch.setattr(tuner, "run_trial", trial)
    monkeypatch.setattr(tuner, "_store", lambda made, wanted: None)
    options = replace(WITH_OPENVINO, threads=2)
    plans = [IN_TORCH, IN_OPENVINO, Plan(OPENVINO, FLOAT32, 2)]
    for number in (1, 3):
        with pytest.raises(GaveWay):
            tuner.choose(small_store, tmp_path, options, until(number))
        assert tried == plans[:number], "what was tried is not tried again"
    chosen = tuner.choose(
        small_store, tmp_path, options, no_wait, report=lambda share, _left: reports.append(share)
    )
    assert tried == [*plans, IN_OPENVINO], "what failed then may work by now"
    assert chosen.plan == plans[-1]
    assert {each.plan for each in chosen.trials} == set(plans)
    assert reports == sorted(reports)
    assert reports[-1] == 1.0
    assert [path.name for path in tmp_path.glob("*/*")] == [engine_choice.FILE_NAME]


def test_without_float32_in_torch_nothing_is_measured_or_stored(
    tmp_path: Path, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are compared with it; on a machine that is busy with something else, say."""
    monkeypatch.setattr(tuner, "run_trial", lambda task, _wait: Trial(task.plan, problem="late"))
    with pytest.raises(OSError, match="torch float32: late"):
        tuner.choose(small_store, tmp_path, WITH_OPENVINO, no_wait)
    assert tuner.known(small_store, tmp_path, WITH_OPENVINO) is None


def test_progress_is_told_in_words_that_never_go_back() -> None:
    log = io.StringIO()
    with progress.shown("Measuring", log) as report:
        clock = progress.Clock(100.0, report)
        for usual in (20.0, 40.0, 40.0):
            clock.begin(usual)
            clock.end()
    assert log.getvalue() == (
        "Measuring: 0%, about 2 minutes left\n"
        "Measuring: 20%, a few seconds left\n"
        "Measuring: 60%, a few seconds left\n"
        "Measuring: 100%, a few seconds left\n"
    )
    assert progress.in_words(37) == "about 40 seconds left"
    assert progress.in_words(58) == "about a minute left"


def test_a_choice_that_cannot_be_read_is_made_again(tmp_path: Path) -> None:
    for text in ("", "{}", json.dumps({"plan": {"engine": "abacus"}})):
        (tmp_path / engine_choice.FILE_NAME).write_text(text)
        assert engine_choice.read_choice(tmp_path) is None


def test_a_failure_that_may_have_passed_is_tried_again_a_day_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = [Trial(IN_TORCH, 4.0), Trial(IN_OPENVINO, problem="its process ended with status -9")]
    engine_choice.write_choice(tmp_path, failed, AUTO)
    assert engine_choice.read_choice(tmp_path) is not None
    later = time.time() + engine_choice.TRY_AGAIN_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert engine_choice.read_choice(tmp_path) is None
    assert engine_choice.read_choice(tmp_path, old=True) is not None, "good until then"
    refused = Trial(IN_OPENVINO, 1.0, 12.0, problem="too far off")
    missing = Trial(IN_OPENVINO, problem="ModuleNotFoundError: No module named 'openvino'")
    for lasting in (refused, missing):
        monkeypatch.setattr(time, "time", lambda: later)
        engine_choice.write_choice(tmp_path, [Trial(IN_TORCH, 4.0), lasting], AUTO)
        monkeypatch.setattr(time, "time", lambda: 2 * later)
        assert engine_choice.read_choice(tmp_path) is not None


def test_to_stop_is_no_failure(tmp_path: Path, small_store: Path) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        tuner.choose(small_store, tmp_path, AUTO, stop)
    assert not list(tmp_path.rglob(engine_choice.FILE_NAME))
    assert not list(tmp_path.rglob("trial-*"))


def test_a_folder_that_cannot_be_written_costs_no_job(tmp_path: Path, small_store: Path) -> None:
    (tmp_path / "engines").write_text("not a folder")
    with EngineProcess() as engine:
        done, _stems = run(engine, small_store, tmp_path, AUTO)
    assert done.engine == "torch float32"


def test_openvino_that_fails_half_way_leaves_the_song_to_torch(
    tmp_path: Path, small_store: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = worker.Engine().run(_request(small_store, tmp_path / "a", measured, AUTO_TORCH), _deaf)
    calls = []

    def failing(self: OpenVinoNetwork, *arguments: object) -> None:
        calls.append(arguments)
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(OpenVinoNetwork, "run", failing)
    request = _request(small_store, tmp_path / "b", measured, WITH_OPENVINO)
    done = worker.Engine().run(request, _deaf)
    assert calls
    assert done.engine == wanted.engine == "torch float32"
    for name in ("drums", "vocals"):
        found, expected = (tmp_path / each / "staging" / f"{name}.flac" for each in "ba")
        assert found.read_bytes() == expected.read_bytes()


def _request(store: Path, folder: Path, engines: Path, options: Options) -> Request:
    staging = folder / "staging"
    staging.mkdir(parents=True)
    source = sounds.wav(folder / "song.wav", sounds.music(2.0))
    return Request(str(source), str(staging), str(store), str(engines), options, 0)


def _deaf(_message: object) -> None:
    pass


def test_openvino_sends_no_telemetry() -> None:
    for module in ("inference.graph", "inference.openvino_network", "tuning.benchmark"):
        code = (
            f"import sys, separations.engine.{module}; "
            "print([name for name in sys.modules if name.startswith('openvino_telemetry.')])"
        )
        child = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=sounds.ROOT,
            check=True,
        )
        assert child.stdout.strip() == "[]"
