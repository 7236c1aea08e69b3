"""Taking uploads in: cut off at their limit as they arrive, refused when they cannot be kept."""

import contextlib

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import (
    FileUploadHandler,
    SkipFile,
    TemporaryFileUploadHandler,
)
from django.http import HttpRequest

from separations.faults import Fault, storage_fault


class SizeLimit(FileUploadHandler):
    """Keeps files of at most MAX_UPLOAD_MB; a larger one goes to `refused`.

    The rest of an oversized body is read and dropped, because a browser shows an answer only once
    it has sent everything.
    """

    chunk_size = 1 << 20

    def new_file(self, *args: object, **kwargs: object) -> None:
        super().new_file(*args, **kwargs)  # type: ignore[arg-type]
        self._received = 0

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        self._received += len(raw_data)
        if self._received <= settings.MAX_UPLOAD_MB * 1_000_000:
            return raw_data
        _refuse(self, too_large())
        raise SkipFile

    def file_complete(self, file_size: int) -> "UploadedFile[bytes] | None":
        return None


class DiskFile(TemporaryFileUploadHandler):
    """Django's own, but a file that the disk does not take goes to `refused` and leaves nothing."""

    def new_file(self, *args: object, **kwargs: object) -> None:
        self.__dict__.pop("file", None)  # the one before is complete, and to be kept
        try:
            super().new_file(*args, **kwargs)  # type: ignore[arg-type]
        except OSError as error:
            _refuse(self, storage_fault(error))
            raise SkipFile from error

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        try:
            super().receive_data_chunk(raw_data, start)
        except OSError as error:
            self._give_up(error)
            raise SkipFile from error

    def file_complete(self, file_size: int) -> "UploadedFile[bytes] | None":
        try:
            return super().file_complete(file_size)
        except OSError as error:
            self._give_up(error)
            return None

    def _give_up(self, error: OSError) -> None:
        _refuse(self, storage_fault(error))
        with contextlib.suppress(OSError):
            self.file.close()  # deletes it, though what is left to write does not fit either
        del self.file


def too_large() -> Fault:
    return Fault("too_large", max_mb=settings.MAX_UPLOAD_MB)


def _refuse(handler: FileUploadHandler, fault: Fault) -> None:
    refused(handler.request).append((handler.file_name or "", fault))


def refused(request: HttpRequest | None) -> list[tuple[str, Fault]]:
    """Names of the files in `request` that were not kept, and why."""
    found: list[tuple[str, Fault]] = request.__dict__.setdefault("_refused_files", [])
    return found
