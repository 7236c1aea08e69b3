"""All stems of a song as one ZIP whose download can be resumed."""

import contextlib
import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path

from django.utils import timezone

from separations.delivery import encoding_cache, encoding_jobs
from separations.delivery.byte_sources import ByteSource
from separations.delivery.downloads import Download, Wait
from separations.delivery.zip_archive import MOST, Member, Sum, ZipArchive
from separations.disk import disk_space
from separations.models import Job

ARCHIVE_VERSION = 1  # raised with every change that makes other bytes of the same members


@dataclass(frozen=True)
class Archive:
    """Stems of one format."""

    job: Job
    stems: list[Download]

    @cached_property
    def identity(self) -> str:
        """A hash that is the same for the same bytes, and for no others (the ETag)."""
        members = [(stem.file_name, stem.identity) for stem in self.stems]
        parts = (ARCHIVE_VERSION, self._modified.timetuple()[:6], members)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    @property
    def _modified(self) -> datetime:
        return timezone.localtime(self.job.finished_at or self.job.created_at)

    def source(self, wait: Wait = "some", client: str = "") -> ZipArchive:
        """The archive as a byte source; its length is known where those of all stems are.

        Args:
            wait: how much has to be encoded first: "all" for any range; "none" when nothing is
                read but its length.

        Raises:
            Fault: see `Download.source`.
        """
        sources = self._sources(wait, client)
        sums = KeptSums(self.job.rendition_folder / f"archive-{self.identity}.json")
        # Ranges begin when all is encoded, so a turn never waits for another.
        turn = partial(encoding_jobs.turn, client)
        members = [
            Member(stem.file_name, source, stem.most_bytes, sums, turn)
            for stem, source in zip(self.stems, sources, strict=True)
        ]
        return ZipArchive(members, self._modified)

    def _sources(self, wait: Wait, client: str) -> list[ByteSource]:
        if wait == "none":
            return [Announced(stem.size) for stem in self.stems]
        with contextlib.suppress(OSError):
            self.job.rendition_folder.mkdir(parents=True, exist_ok=True)  # for the checksums
        # All encodings are begun, in order. Formats that cannot grow have to be finished; of the
        # others the first has to have some bytes.
        sources: list[ByteSource] = [stem.source("none", client) for stem in self.stems]
        if wait == "all" or not all(stem.format.grows for stem in self.stems):
            sources = [stem.source("all", client) for stem in self.stems]
        elif self.stems:
            self.stems[0].source("some", client)
        return sources


@dataclass(frozen=True)
class Announced:
    """A byte source that only tells its length."""

    size: int | None

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        raise NotImplementedError


class KeptSums:
    """Checksums of an archive's members in a small file among the encodings.

    So the rest of an archive that broke off is sent without reading its beginning again. They can
    be lost: then they are computed anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Sum] | None = None

    def get(self, name: str) -> Sum | None:
        if self._known is None:
            self._known = self._load()
        return self._known.get(name)

    def put(self, name: str, found: Sum) -> None:
        if self.get(name) == found:
            return
        self._known = {**self._load(), **(self._known or {}), name: found}
        partial = self._path.with_suffix(f".{uuid.uuid4().hex}{encoding_cache.PART}")
        with contextlib.suppress(OSError):  # the disk is full, or the song was deleted
            disk_space.check_next(self._path.parent)
            partial.write_text(json.dumps({key: astuple(sum) for key, sum in self._known.items()}))
            partial.replace(self._path)

    def _load(self) -> dict[str, Sum]:
        try:
            stored = json.loads(self._path.read_bytes())
            return {name: Sum(sum[0] & MOST, sum[1], sum[2]) for name, sum in stored.items()}
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return {}
