"""`manage.py separate FILE… --out DIR`: the site's main job without the web."""

import itertools
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from pathvalidate import sanitize_filename
from tqdm import tqdm

from separations import sentences
from separations.audio import render
from separations.audio.formats import FORMATS, Format, Tags
from separations.audio.info import SAMPLE_RATE, AudioInfo
from separations.audio.isolated import probe_isolated
from separations.audio.readers import StoredStem
from separations.engine.host import EngineProcess
from separations.engine.messages import Done, Request
from separations.engine.options import (
    ALL_STEMS,
    ENGINES,
    MOST_SHIFTS,
    PRECISIONS,
    Options,
    settle,
)
from separations.engine.store import read_model
from separations.faults import Fault

TICK_SECONDS = 1.0


class Command(BaseCommand):
    help = "Separate audio files into stems: DIR/NAME/{drums,bass,other,vocals}.EXT"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
        parser.add_argument("--out", type=Path, required=True, metavar="DIR")
        parser.add_argument("--model", default=settings.DEFAULT_MODEL)
        parser.add_argument(
            "--stems", default=ALL_STEMS, help="all, or one stem to set against the rest (vocals)"
        )
        parser.add_argument(
            "--rest",
            choices=("mixture", "sum"),
            default="mixture",
            help="how the rest is made: mixture minus the stem, or sum of the other stems",
        )
        parser.add_argument("--segment", type=float, help="seconds a chunk (default: the model's)")
        parser.add_argument("--shifts", type=int, default=0, help=f"0 to {MOST_SHIFTS} (default 0)")
        parser.add_argument("--overlap", type=float, default=0.25)
        parser.add_argument("--no-split", action="store_true", help="take the song in one piece")
        parser.add_argument("--jobs", type=int, default=settings.JOBS, help="chunks side by side")
        parser.add_argument("--device", default=settings.DEVICE)
        parser.add_argument("--engine", choices=ENGINES, default=settings.ENGINE)
        parser.add_argument("--precision", choices=PRECISIONS, default=settings.PRECISION)
        parser.add_argument("--format", choices=tuple(FORMATS), default="wav")
        rates = sorted({rate for each in FORMATS.values() for rate in each.bit_rates})
        parser.add_argument(
            "--bitrate", type=int, choices=rates, help="default: the format's highest"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        asked = Options(
            model=options["model"],
            stems=options["stems"],
            rest=options["rest"],
            segment=options["segment"],
            shifts=options["shifts"],
            overlap=options["overlap"],
            split=not options["no_split"],
            jobs=options["jobs"],
            threads=settings.THREADS,
            engine=options["engine"],
            precision=options["precision"],
            device=options["device"],
        )
        format = FORMATS[options["format"]]
        try:
            bit_rate = _bit_rate(format, options["bitrate"])
            settled, notes = settle(asked, read_model(settings.MODEL_DIR, asked.model))
        except Fault as fault:
            raise CommandError(sentences.sentence(fault)) from fault
        for note in sentences.note_sentences([vars(note) for note in notes]):
            self.stderr.write(note)
        self._used: set[Path] = set()
        failed = 0
        with EngineProcess() as engine:
            for file in options["files"]:
                try:
                    folder = self._separate(engine, file, settled, format, bit_rate, options["out"])
                except Fault as fault:
                    failed += 1
                    self.stderr.write(self.style.ERROR(f"{file}: {sentences.sentence(fault)}"))
                except OSError as error:
                    failed += 1
                    reason = error.strerror or str(error)
                    self.stderr.write(self.style.ERROR(f"{error.filename or file}: {reason}"))
                else:
                    self.stdout.write(str(folder))
        if failed:
            raise CommandError(f"{failed} of {len(options['files'])} files could not be separated.")

    def _separate(
        self,
        engine: EngineProcess,
        file: Path,
        options: Options,
        format: Format,
        bit_rate: int,
        out: Path,
    ) -> Path:
        """Separate one file; its stems appear under `out` when all of them are written."""
        info = probe_isolated(file.resolve(strict=True), float("inf"))
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".stemsite-") as scratch:
            staging, finished = Path(scratch) / "staging", Path(scratch) / "finished"
            staging.mkdir()
            finished.mkdir()
            done = self._run(engine, file, staging, options, info)
            peaks = [stem.peak for stem in done.stems]
            gain = 1.0 if format.keeps_overs else render.common_gain(peaks)
            if not format.keeps_overs and max(peaks) > 1.0:
                self.stderr.write(f"{file}: all stems were turned down together so none clips.")
            for stem in done.stems:
                tags = Tags(f"{info.title or file.stem} ({stem.name})", info.artist)
                source = StoredStem(staging / f"{stem.name}.flac", done.frames)
                target = finished / f"{stem.name}.{format.extension}"
                render.write(source, target, format, gain, tags, bit_rate)
            folder = self._folder(out, file)
            folder.mkdir(exist_ok=True)
            for target in finished.iterdir():
                target.replace(folder / target.name)
        return folder

    def _folder(self, out: Path, file: Path) -> Path:
        """A folder of the song's name; two songs of one name in one call get one each."""
        name = sanitize_filename(file.stem, replacement_text="_") or "song"
        numbered = (f"{name} ({number})" if number > 1 else name for number in itertools.count(1))
        folder = next(out / each for each in numbered if out / each not in self._used)
        self._used.add(folder)
        return folder

    def _run(
        self, engine: EngineProcess, file: Path, staging: Path, options: Options, info: AudioInfo
    ) -> Done:
        request = Request(
            source=str(file.resolve()),
            staging=str(staging),
            model_dir=str(settings.MODEL_DIR),
            engine_dir=str(settings.ENGINE_DIR),
            options=options,
            frames=round(info.seconds * SAMPLE_RATE),
        )
        line = "{desc}: {percentage:3.0f}%|{bar}| {postfix}"
        with tqdm(desc=file.name, total=1.0, bar_format=line, disable=None) as bar:
            for message in engine.run(request, TICK_SECONDS):
                if isinstance(message, Done):
                    bar.update(1.0 - bar.n)
                    return message
                if message is not None:
                    bar.update(message.fraction - bar.n)
                    left = f"{message.remaining:.0f} s left" if message.remaining else ""
                    bar.set_postfix_str(left)
        raise Fault("engine_error", reason="no result")


def _bit_rate(format: Format, asked: int | None) -> int:
    """The bit rate to encode with, 0 for formats that have none. Raises Fault for another's."""
    if not format.bit_rates:
        return 0
    if asked is not None and asked not in format.bit_rates:
        raise Fault("bad_option", option="bitrate", allowed=", ".join(map(str, format.bit_rates)))
    return asked or format.bit_rates[-1]
