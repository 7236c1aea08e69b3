"""`manage.py separate FILE… --out DIR`: separate songs on the command line."""

import itertools
import logging
import tempfile
from argparse import ArgumentParser
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from loky import cpu_count
from pathvalidate import sanitize_filename
from tqdm import tqdm

from separations.audio.encoding import render
from separations.audio.encoding.formats import (
    DEFAULT_FORMAT,
    FORMATS,
    MODEL_RATE,
    RATE_CHOICES,
    Format,
    bit_rates,
    read_format,
    read_rate,
)
from separations.audio.info import SAMPLE_RATE, AudioInfo
from separations.audio.mixing.mix import Mix, Track
from separations.audio.mixing.resampled_peak import peak_at_rate
from separations.audio.sandbox.decoder_process import probe_isolated
from separations.audio.store.readers import StoredStem
from separations.audio.store.resampled import at_rate
from separations.engine.options import (
    BY_OPERATOR,
    DECLARED,
    Declared,
    Options,
    default_of,
    kind_of,
    settle,
)
from separations.engine.process.engine_process import EngineProcess
from separations.engine.process.engine_protocol import Done, Request
from separations.engine.tuning import progress, tuner
from separations.engine.weights.store import read_model
from separations.errors import user_messages
from separations.errors.fault import Fault
from separations.worker import resources

logger = logging.getLogger(__name__)
TICK_SECONDS = 1.0


class Command(BaseCommand):
    help = "Separate audio files into stems: DIR/NAME/{drums,bass,other,vocals}.EXT"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
        parser.add_argument("--out", type=Path, required=True, metavar="DIR")
        for name, declared in DECLARED.items():
            _add_option(parser, name, declared)
        parser.add_argument("--format", choices=tuple(FORMATS), default=DEFAULT_FORMAT)
        parser.add_argument(
            "--bitrate", type=int, choices=bit_rates(), help="default: the format's highest"
        )
        parser.add_argument(
            "--rate",
            choices=RATE_CHOICES,
            default=MODEL_RATE,
            help="sample rate: model is 44.1 kHz, as the models work; song is that of the song",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        asked = Options(**{name: options[name] for name in DECLARED})
        try:
            format, bit_rate = read_format(options["format"], options["bitrate"])
            output = _Output(options["out"], format, bit_rate, options["rate"])
            settled, notes = settle(asked, read_model(settings.MODEL_DIR, asked.model))
        except Fault as fault:
            raise CommandError(user_messages.sentence(fault)) from fault
        for note in user_messages.note_sentences([vars(note) for note in notes]):
            self.stderr.write(note)
        self._used: set[Path] = set()
        _measure(settled)
        failed = 0
        with EngineProcess() as engine:
            for file in options["files"]:
                try:
                    folder = self._separate(engine, file, settled, output)
                except Fault as fault:
                    failed += 1
                    self.stderr.write(self.style.ERROR(f"{file}: {user_messages.sentence(fault)}"))
                except OSError as error:
                    failed += 1
                    reason = error.strerror or str(error)
                    self.stderr.write(self.style.ERROR(f"{error.filename or file}: {reason}"))
                else:
                    self.stdout.write(str(folder))
        if failed:
            raise CommandError(f"{failed} of {len(options['files'])} files could not be separated.")

    def _separate(
        self, engine: EngineProcess, file: Path, options: Options, output: "_Output"
    ) -> Path:
        """Separate one file. Its stems appear in the output's folder when all are written."""
        info = probe_isolated(file.resolve(strict=True), float("inf"))
        out, format = output.folder, output.format
        rate = read_rate(output.rate, info.sample_rate, format)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".stemsite-") as scratch:
            staging, finished = Path(scratch) / "staging", Path(scratch) / "finished"
            staging.mkdir()
            finished.mkdir()
            done = self._run(engine, file, staging, options, info)
            paths = {stem.name: staging / f"{stem.name}.flac" for stem in done.stems}
            peaks = [_peak(paths[stem.name], stem.peak, done.frames, rate) for stem in done.stems]
            gain = 1.0 if format.keeps_overs else render.common_gain(peaks)
            if not format.keeps_overs and max(peaks) > 1.0:
                self.stderr.write(f"{file}: all stems were turned down together so none clips.")
            for stem in done.stems:
                title = f"{info.tags.title or file.stem} ({stem.name})"
                tags = replace(info.tags, title=title)
                source = at_rate(StoredStem(paths[stem.name], done.frames), rate)
                target = finished / f"{stem.name}.{format.extension}"
                render.write(source, target, format, gain, tags, output.bit_rate)
            folder = self._folder(out, file)
            folder.mkdir(exist_ok=True)
            for target in finished.iterdir():
                target.replace(folder / target.name)
        return folder

    def _folder(self, out: Path, file: Path) -> Path:
        """A folder named like the song; songs of the same name in one call are numbered."""
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
            decoder_dir=str(resources.decoder_folder()),
            decoders=resources.slots_at_most(),
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


@dataclass(frozen=True)
class _Output:
    """What is written, and where. rate: a word of RATE_CHOICES."""

    folder: Path
    format: Format
    bit_rate: int
    rate: str


def _peak(stem: Path, peak: float, frames: int, rate: int) -> float:
    return peak_at_rate(Mix((Track.plain(stem),), frames), peak, 0, frames, rate)


def _measure(options: Options) -> None:
    """Find the fastest engine for the model, once on a machine."""
    folders = settings.MODEL_DIR, settings.ENGINE_DIR
    options = replace(options, threads=options.threads or cpu_count())
    try:
        if tuner.known(*folders, options) is None:
            with progress.shown("Measuring this machine, once") as report:
                tuner.choose(*folders, options, lambda: None, report=report)
    except OSError:
        logger.warning("The fastest engine cannot be found; torch goes on", exc_info=True)


def _add_option(parser: ArgumentParser, name: str, declared: Declared) -> None:
    """A flag for an option of the engine. The site's settings are the operator's defaults."""
    about = declared.about.replace("`", "")
    default = getattr(settings, name.upper()) if name in BY_OPERATOR else default_of(name)
    if name == "model":
        default = settings.DEFAULT_MODEL
    kind = kind_of(name)
    if kind is bool:  # on by default: the flag switches it off
        parser.add_argument(f"--no-{name}", dest=name, action="store_false", help=about)
        return
    if declared.lowest is not None:
        about = f"{declared.lowest:g} to {declared.highest:g}: {about}"
    choices = declared.choices or None
    parser.add_argument(f"--{name}", type=kind, choices=choices, default=default, help=about)
