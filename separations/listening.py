"""What of a job can be heard now: its result, or as much of it as its run has finished."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from django.conf import settings

from separations.audio.chunks import Chunk, read_chunk
from separations.audio.info import SAMPLE_RATE
from separations.audio.stems import CELL_FRAMES, peaks_of, readable_cells
from separations.engine.options import MIXTURE, stem_names
from separations.engine.store import read_model
from separations.faults import Fault, storage_fault
from separations.models import Job

T = TypeVar("T")


@dataclass(frozen=True)
class Recording:
    """Stems of a job, in order, and how far they reach.

    frames: of the whole song at 44.1 kHz. reach: how many of them every stem has.
    has_song: whether the song itself lies beside them.
    """

    folder: Path
    names: tuple[str, ...]
    frames: int
    reach: int
    has_song: bool

    def track(self, name: str) -> Path | None:
        """Where a stem lies, or the song itself by the name `MIXTURE`; None for other names."""
        known = name in self.names or (name == MIXTURE and self.has_song)
        return _track(self.folder, name) if known else None


def recording(job: Job, run: Job | None = None) -> Recording | None:
    """What can be, or will be, heard of a job; None of one that ended without stems.

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
    """How much of a run's stems can be heard: what tells whether that has grown."""
    if run.state != Job.State.RUNNING:
        return 0
    names = _names(run)
    return _cells(_folder(run), names) if names else 0


def _names(job: Job) -> tuple[str, ...]:
    """The stems of a job on its way; none where its model cannot be used (it will say so)."""
    try:
        return tuple(stem_names(job.separation, read_model(settings.MODEL_DIR, job.model)))
    except (Fault, OSError, TypeError, ValueError):
        return ()


def _folder(run: Job) -> Path:
    """Where a run writes; one that ends now has that moved before the database knows."""
    return run.staging_folder if run.staging_folder.is_dir() else run.result_folder


def _cells(folder: Path, names: tuple[str, ...]) -> int:
    return min(readable_cells(_track(folder, name)) for name in (MIXTURE, *names))


def chunk(job: Job, name: str, index: int) -> Chunk:
    """Chunk `index` of a stem or of the song itself.

    Raises:
        Fault: not_finished where there is none (yet); result_gone where there will be none; or
            storage.
    """
    return _read(job, name, lambda path: read_chunk(path, index))


def peaks(job: Job, name: str) -> bytes:
    """What a stem's waveform is drawn from, as far as it is finished. Raises as `chunk` does."""
    return _read(job, name, lambda path: peaks_of(path).read_bytes())


def _read(job: Job, name: str, read: Callable[[Path], T | None]) -> T:
    """Twice, where it fails: a run that ends moves its files between two looks at them."""
    for attempt in (1, 2):
        found = recording(job)
        if found is None:
            raise Fault("result_gone")
        path = found.track(name)
        try:
            if path is not None and (answer := read(path)) is not None:
                return answer
        except FileNotFoundError:
            pass  # moved, or of an earlier version
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
