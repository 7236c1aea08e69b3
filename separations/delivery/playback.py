"""Playback: the stems that the player can read now, finished or of a run in progress."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from django.conf import settings

from separations.audio.info import SAMPLE_RATE
from separations.audio.store.player_chunks import Chunk, read_chunk
from separations.audio.store.stem_file import CELL_FRAMES, peaks_of, readable_cells
from separations.engine.options import MIXTURE, stem_names
from separations.engine.weights.store import read_model
from separations.errors.fault import Fault, storage_fault
from separations.models import Job

T = TypeVar("T")


@dataclass(frozen=True)
class Recording:
    """Stems of a job, in order, and how far they reach.

    frames: of the whole song at 44.1 kHz. reach: how many of them every stem has.
    has_song: whether the mixture is stored beside them.
    """

    folder: Path
    names: tuple[str, ...]
    frames: int
    reach: int
    has_song: bool

    def track(self, name: str) -> Path | None:
        """The file of a stem, or of the mixture by the name `MIXTURE`; None for other names."""
        known = name in self.names or (name == MIXTURE and self.has_song)
        return _track(self.folder, name) if known else None


def recording(job: Job, run: Job | None = None) -> Recording | None:
    """The stems of a job, finished or in progress; None when it ended without stems.

    Args:
        run: `job.run`, where that is known.
    """
    if job.has_stems:
        frames = job.frames or 0
        names = tuple(stem.name for stem in job.stems.all())
        folder = job.result_folder
        return Recording(folder, names, frames, frames, _track(folder, MIXTURE).is_file())
    if not job.is_active:
        return None
    if not (names := _names(job)):
        return None
    folder = _folder(run or job.run)
    frames = round(job.upload.seconds * SAMPLE_RATE)
    reach = min(frames, _cells(folder, names) * CELL_FRAMES)
    return Recording(folder, names, frames, reach, has_song=True)


def finished_cells(run: Job) -> int:
    """How many cells of a run's stems are finished; polls see from it whether there are more."""
    if run.state != Job.State.RUNNING:
        return 0
    names = _names(run)
    return _cells(_folder(run), names) if names else 0


def _names(job: Job) -> tuple[str, ...]:
    """The stems of an active job; none where its model cannot be used: the run will fail."""
    try:
        return tuple(stem_names(job.separation, read_model(settings.MODEL_DIR, job.model)))
    except (Fault, OSError, TypeError, ValueError):
        return ()


def _folder(run: Job) -> Path:
    """Where a run writes: its staging, or the result once that was moved before the commit."""
    return run.staging_folder if run.staging_folder.is_dir() else run.result_folder


def _cells(folder: Path, names: tuple[str, ...]) -> int:
    return min(readable_cells(_track(folder, name)) for name in (MIXTURE, *names))


def chunk(job: Job, name: str, index: int) -> Chunk:
    """Chunk `index` of a stem or of the mixture.

    Raises:
        Fault: not_finished where there is none (yet); result_gone where there will be none; or
            storage.
    """
    return _read(job, name, lambda path: read_chunk(path, index))


def peaks(job: Job, name: str) -> bytes:
    """The peaks of a stem's waveform, as far as it is finished. Raises as `chunk` does."""
    return _read(job, name, lambda path: peaks_of(path).read_bytes())


def _read(job: Job, name: str, read: Callable[[Path], T | None]) -> T:
    """Read a track, with a second try: a run that ends moves its files between lookup and read."""
    for attempt in (1, 2):
        found = recording(job)
        if found is None:
            raise Fault("result_gone")
        path = found.track(name)
        try:
            if path is not None and (answer := read(path)) is not None:
                return answer
        except FileNotFoundError:
            pass  # moved, or from an earlier version
        except OSError as error:
            if attempt == 2:
                raise storage_fault(error) from error
        try:
            job.refresh_from_db()
        except Job.DoesNotExist:
            raise Fault("result_gone") from None
    raise Fault("not_finished")


def _track(folder: Path, name: str) -> Path:
    return folder / f"{name}.flac"
