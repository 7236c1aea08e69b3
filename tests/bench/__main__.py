"""`make bench`: the site's engine beside `demucs.api.Separator`, in turn, on this machine.

Prints a table and writes test-output/bench.json. With ARGS=--short it takes minutes, not most of an
hour: one run of each on an excerpt, and no long songs.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile
from loky import cpu_count
from platformdirs import user_cache_path

from separations.audio.song_reader import decode
from separations.audio.store.stem_file import read_stem
from separations.engine import engine_choice
from separations.engine.options import Options
from separations.engine.process.engine_process import EngineProcess
from separations.engine.process.engine_protocol import Done, Progress, Request
from separations.engine.tuning import tuner
from separations.engine.weights.store import read_model
from tests.support.sounds import DEMO, RATE, ROOT, SHARED, Samples, snr

MODEL = "htdemucs"
FLOPS_A_CHUNK = 335e9  # counted by torch's profiler
STRIDE_SECONDS = 5.85
TABLE = ROOT / "test-output" / "bench.json"


@dataclass
class Run:
    """One song through one engine. Seconds from the request; peak in bytes."""

    seconds: float
    peak: int
    engine: str
    decoded: float
    separated: float
    first_block: float
    stems: dict[str, Samples] = field(default_factory=dict)


@dataclass
class Row:
    """One line of the table."""

    name: str
    engine: str
    seconds: list[float]
    ratios: list[float] = field(default_factory=list)  # baseline over this, pair by pair
    peaks: dict[int, int] = field(default_factory=dict)  # by length of the song


class Ours:
    """A warm engine process of the site."""

    def __init__(self, model_dir: Path, engine_dir: Path, scratch: Path, options: Options) -> None:
        self._folders = str(model_dir), str(engine_dir)
        self._staging = Path(tempfile.mkdtemp(dir=scratch))
        self._options = options
        self._process = EngineProcess()

    def run(self, song: Path, keep: bool = False, first_block: bool = False) -> Run:
        shutil.rmtree(self._staging, ignore_errors=True)
        self._staging.mkdir()
        request = Request(str(song), str(self._staging), *self._folders, self._options, 0)
        marks: dict[str, float] = {}
        heard = 0.0
        began = time.monotonic()
        for message in self._process.run(request, 0.05):
            now = time.monotonic() - began
            if first_block and not heard and self._is_heard():
                heard = now
            if isinstance(message, Progress):
                marks.setdefault(message.stage, now)
            if isinstance(message, Done):
                stems = {
                    stem.name: np.concatenate(
                        list(read_stem(self._staging / f"{stem.name}.flac"))
                    ).T
                    for stem in message.stems
                    if keep
                }
                return Run(
                    now,
                    message.memory,
                    message.engine,
                    marks["separate"] - marks["decode"],
                    marks["encode"] - marks["separate"],
                    heard,
                    stems,
                )
        raise AssertionError("no result")

    def _is_heard(self) -> bool:
        """Whether a second of every stem can be read from the disk."""
        files = list(self._staging.glob("*.flac"))
        try:
            return len(files) > 1 and all(
                len(soundfile.read(file, frames=RATE, dtype="float32")[0]) == RATE for file in files
            )
        except soundfile.LibsndfileError:
            return False

    def close(self) -> None:
        self._process.kill()


class Baseline:
    """`demucs.api.Separator` in a process of its own, warm."""

    def __init__(self, model_dir: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.baseline", str(model_dir), MODEL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._answer()

    def run(self, song: Path) -> Run:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{song}\n")
        self._process.stdin.flush()
        answer = self._answer()
        return Run(answer["seconds"], int(answer["peak"]), "Separator", 0.0, 0.0, 0.0)

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--models", type=Path, default=user_cache_path("stemsite") / "models")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        Bench(arguments.models, Path(scratch), short=arguments.short).all()


class Bench:
    """All that is measured, in the order of its use."""

    def __init__(self, model_dir: Path, scratch: Path, *, short: bool) -> None:
        self._model_dir, self._scratch, self._short = model_dir, scratch, short
        self._engine_dir = scratch / "engines"
        self._options = Options(model=MODEL, threads=cpu_count())
        self._info = read_model(model_dir, MODEL)
        whole = SHARED / "metal-madness.ogg"
        self._song = whole if whole.exists() else DEMO
        self._facts: dict[str, object] = {"cpu": engine_choice.cpu_name(), "threads": cpu_count()}

    def all(self) -> None:
        say(f"On {engine_choice.cpu_name()}, {cpu_count()} threads. Measuring what is fastest here")
        rows = self._speed()
        self._start_up()
        if not self._short:
            self._memory(rows)
        self._quality()
        self._side_by_side()
        self._matrix_peak(rows)
        report(rows, self._facts)
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(
            json.dumps({"rows": [asdict(row) for row in rows], **self._facts}, indent=1)
        )
        say(f"Written to {TABLE.relative_to(ROOT)}")

    # What is measured

    def _speed(self) -> list[Row]:
        """Baseline and ours in turn, on the same song."""
        song = self._song if not self._short else self._excerpt(30)
        wav = self._wav(song, None)
        seconds = soundfile.info(wav).duration
        self._facts |= {"song_seconds": seconds, "chunks": -(-seconds // STRIDE_SECONDS)}
        rounds = 1 if self._short else 3
        wanted = {"default": self._options}
        plan = self._choose(self._options)
        if plan.precision != engine_choice.FLOAT32:
            wanted["float32"] = replace(self._options, precision="float32")
        wanted["torch"] = replace(self._options, engine="torch", precision="float32")
        rows = {"Separator": Row("Separator", "torch float32", [])}
        with self._baseline() as baseline:
            engines = {name: self._ours(options) for name, options in wanted.items()}
            for name, engine in engines.items():
                say(f"Warming up: {name}")
                warm = engine.run(self._excerpt(10))
                rows[name] = Row(name, warm.engine, [])
            baseline.run(self._wav(self._excerpt(10), None))
            for number in range(rounds):
                theirs = baseline.run(wav)
                rows["Separator"].seconds.append(theirs.seconds)
                rows["Separator"].peaks[round(seconds)] = theirs.peak
                for name, engine in engines.items():
                    if name == "torch" and number:
                        continue  # one run tells what the other engine is worth
                    ours = engine.run(song, first_block=True)
                    rows[name].seconds.append(ours.seconds)
                    rows[name].ratios.append(theirs.seconds / ours.seconds)
                    rows[name].peaks[round(seconds)] = ours.peak
                    if name == "default":
                        self._note_latency(ours)
                    say(f"{name}: {ours.seconds:.1f} s, Separator {theirs.seconds:.1f} s")
            for engine in engines.values():
                engine.close()
        return list(rows.values())

    def _note_latency(self, run: Run) -> None:
        chunks = float(str(self._facts["chunks"]))
        self._facts |= {
            "seconds_a_chunk": run.separated / chunks,
            "first_block": run.first_block,
            "first_block_allowed": 2 * run.separated / chunks + 2,
            "fixed_cost": run.seconds - run.separated,
        }

    def _start_up(self) -> None:
        """From nothing to a warm engine, when everything was measured and compiled before."""
        engine = self._ours(self._options)
        short = self._excerpt(1)
        cold = engine.run(short).seconds
        warm = engine.run(short).seconds
        engine.close()
        self._facts["start_up"] = cold - warm
        say(f"Start-up: {cold - warm:.1f} s")

    def _memory(self, rows: list[Row]) -> None:
        for length in (60, 600):
            wav = self._wav(self._song, length)
            engine = self._ours(self._options)
            engine.run(self._excerpt(1))
            found = engine.run(wav)
            engine.close()
            row = next(row for row in rows if row.name == "default")
            row.peaks[length] = found.peak
            say(f"{length} s: ours {found.peak / 1e6:.0f} MB")
            with self._baseline() as baseline:
                theirs = baseline.run(wav)
            rows[0].peaks[length] = theirs.peak
            say(f"{length} s: Separator {theirs.peak / 1e6:.0f} MB")

    def _quality(self) -> None:
        """SDR against the true stems, SNR against float32 in torch."""
        mixture = SHARED / "reference" / "mixture.flac"
        source = mixture if mixture.exists() else self._excerpt(20)
        engine = self._ours(self._options)
        ours = engine.run(source, keep=True).stems
        engine.close()
        engine = self._ours(replace(self._options, engine="torch", precision="float32"))
        exact = engine.run(source, keep=True).stems
        engine.close()
        self._facts["snr"] = {name: snr(exact[name], ours[name]) for name in ours}
        if mixture.exists():
            truth = {
                name: soundfile.read(mixture.with_name(f"{name}.flac"), dtype="float32")[0].T
                for name in ours
            }
            self._facts["sdr"] = {name: snr(truth[name], ours[name]) for name in ours}
            self._facts["sdr_float32"] = {name: snr(truth[name], exact[name]) for name in ours}

    def _side_by_side(self) -> None:
        """Two songs in two slots of half the threads, against one after the other with all."""
        if cpu_count() < 2:
            return
        song = self._excerpt(15 if self._short else 45)
        half = replace(self._options, threads=cpu_count() // 2)
        self._choose(half)
        alone = self._ours(self._options)
        slots = [self._ours(half) for _ in range(2)]
        ratios = []
        for engine in (alone, *slots):
            engine.run(self._excerpt(1))
        with ThreadPoolExecutor(2) as pool:
            for _ in range(1 if self._short else 3):
                began = time.monotonic()
                alone.run(song)
                alone.run(song)
                one_after_the_other = time.monotonic() - began
                began = time.monotonic()
                list(pool.map(lambda engine: engine.run(song), slots))
                ratios.append(one_after_the_other / (time.monotonic() - began))
        for engine in (alone, *slots):
            engine.close()
        self._facts["two_jobs_throughput"] = statistics.median(ratios)

    def _matrix_peak(self, rows: list[Row]) -> None:
        chunks = float(str(self._facts["chunks"]))
        for row in rows:
            precision = "bfloat16" if "bfloat16" in row.engine else "float32"
            command = ["-m", "tests.bench.matrix_peak", str(cpu_count()), precision]
            answer = subprocess.run(
                [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True
            )
            peak = float(answer.stdout)
            share = FLOPS_A_CHUNK * chunks / statistics.median(row.seconds) / peak
            self._facts[f"peak_share_{row.name}"] = share

    # What is needed for it

    def _choose(self, options: Options) -> engine_choice.Plan:
        chosen = tuner.choose(self._model_dir, self._engine_dir, options, lambda: None)
        for trial in chosen.trials:
            say(f"{options.threads} threads, {trial.plan}: {tuner.describe(trial)}")
        return chosen.plan

    def _ours(self, options: Options) -> Ours:
        return Ours(self._model_dir, self._engine_dir, self._scratch, options)

    @contextmanager
    def _baseline(self) -> Iterator[Baseline]:
        baseline = Baseline(self._model_dir)
        try:
            yield baseline
        finally:
            baseline.close()

    def _excerpt(self, seconds: int) -> Path:
        return self._wav(self._song, seconds)

    def _wav(self, song: Path, seconds: int | None) -> Path:
        """The song as WAV; cut, or begun again, to be so long."""
        target = self._scratch / f"{song.stem}-{seconds or 'whole'}.wav"
        if not target.exists():
            with soundfile.SoundFile(target, "w", RATE, 2, "PCM_16") as file:
                left = (seconds or 36_000) * RATE
                while left:
                    for block in decode(song):
                        file.write(block[:, :left].T)
                        left -= min(left, block.shape[1])
                    if seconds is None:
                        break
        return target


def report(rows: list[Row], facts: dict[str, object]) -> None:
    """Print what was found, as a table and some lines."""
    seconds = float(str(facts["song_seconds"]))
    lengths = sorted(rows[0].peaks)
    head = ["", "engine", "time ÷ length", "Separator ÷ it"]
    print("\n| " + " | ".join([*head, *(f"MB, {each} s" for each in lengths), "of peak"]) + " |")
    print("|" + "---|" * (len(head) + len(lengths) + 1))
    for row in rows:
        cells = [
            row.name,
            row.engine,
            f"{statistics.median(row.seconds) / seconds:.2f}",
            f"{statistics.median(row.ratios):.2f}" if row.ratios else "1",
            *(f"{row.peaks[each] / 1e6:.0f}" if each in row.peaks else "–" for each in lengths),
            f"{facts[f'peak_share_{row.name}']:.0%}",
        ]
        print("| " + " | ".join(cells) + " |")
    print()
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{stem} {number:.2f}" for stem, number in value.items())
        print(f"{name}: {f'{value:.2f}' if isinstance(value, float) else value}")


def say(words: str) -> None:
    print(f"==> {words}", flush=True)


if __name__ == "__main__":
    main()
