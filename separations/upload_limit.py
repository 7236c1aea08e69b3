"""Taking uploads in: cut off at their limit as they arrive, refused when they cannot be kept."""

import contextlib
import hashlib
import shutil

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import (
    FileUploadHandler,
    SkipFile,
    TemporaryFileUploadHandler,
)
from django.http import HttpRequest, QueryDict
from django.utils.datastructures import MultiValueDict

from separations import problems, rate_limits
from separations.faults import Fault, storage_fault
from separations.uploads import check_extension

FIELD = "file"  # the one field of the site that takes files
MOST_FILES = 20  # in one form; the page's script sends each song by itself
FORM_BYTES = 1_000_000  # of a form, beside its files


class SizeLimit(FileUploadHandler):
    """Keeps files of at most MAX_UPLOAD_MB; a larger one goes to `refused`.

    So do files of a kind that is not taken, those beyond MOST_FILES, and those that would take the
    last MIN_FREE_DISK_MB, which running jobs need. Of a program there is one, and each of a form is
    counted as it begins: none of the others sees the disk. The rest of an oversized body is read
    and dropped, because a browser shows an answer only once it has sent everything; but not without
    end.
    """

    chunk_size = 1 << 20
    _files = 0

    def handle_raw_input(
        self, input_data: object, META: object, content_length: int, *args: object
    ) -> tuple[QueryDict, MultiValueDict[str, "UploadedFile[bytes]"]] | None:
        """Of a body that is too large even for all files there may be, nothing is read at all."""
        assert self.request is not None  # noqa: S101 - for the type checker
        self._most = 1 if problems.is_for_programs(self.request) else MOST_FILES
        if content_length <= self._most * settings.MAX_UPLOAD_MB * 1_000_000 + FORM_BYTES:
            return None
        _refuse(self, too_large())
        return QueryDict(), MultiValueDict()

    def new_file(self, *args: object, **kwargs: object) -> None:
        super().new_file(*args, **kwargs)  # type: ignore[arg-type]
        self._received = 0
        if self.field_name != FIELD:
            raise SkipFile
        self._files += 1
        if self._files > self._most + 1:
            raise SkipFile  # that is said already
        try:
            self._check_number()
            check_extension(self.file_name or "")
            _check_room()
        except Fault as fault:
            _refuse(self, fault)
            raise SkipFile from fault

    def _check_number(self) -> None:
        if self._files > self._most:
            alone = self._most == 1
            raise Fault("one_file") if alone else Fault("too_many_files", most=self._most)
        if self._files > 1:  # the first was counted before anything was read
            assert self.request is not None  # noqa: S101 - for the type checker
            rate_limits.take("upload", self.request)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        self._received += len(raw_data)
        try:
            if self._received > settings.MAX_UPLOAD_MB * 1_000_000:
                raise too_large()
            _check_room()
        except Fault as fault:
            _refuse(self, fault)
            raise SkipFile from fault
        return raw_data

    def file_complete(self, file_size: int) -> "UploadedFile[bytes] | None":
        return None


class DiskFile(TemporaryFileUploadHandler):
    """Django's own, but a file that the disk does not take goes to `refused` and leaves nothing.

    The files have their SHA-256, taken as they came, as `sha256`.
    """

    def new_file(self, *args: object, **kwargs: object) -> None:
        self.__dict__.pop("file", None)  # of one before that was refused halfway
        self._digest = hashlib.sha256()
        try:
            super().new_file(*args, **kwargs)  # type: ignore[arg-type]
        except OSError as error:
            _refuse(self, storage_fault(error))
            raise SkipFile from error

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self._digest.update(raw_data)
        try:
            super().receive_data_chunk(raw_data, start)
        except OSError as error:
            self._give_up(error)
            raise SkipFile from error

    def file_complete(self, file_size: int) -> "UploadedFile[bytes] | None":
        try:
            file = super().file_complete(file_size)
            file.sha256 = self._digest.hexdigest()  # type: ignore[union-attr]
            # The parser closes, and so deletes, what handlers hold when the next file is refused.
            del self.file
            return file
        except OSError as error:
            self._give_up(error)
            return None

    def _give_up(self, error: OSError) -> None:
        _refuse(self, storage_fault(error))
        with contextlib.suppress(OSError):
            self.file.close()  # deletes it, though what is left to write does not fit either
        del self.file


def _check_room() -> None:
    """Raises Fault: disk_full where only what running jobs need is left."""
    try:
        free = shutil.disk_usage(settings.FILE_UPLOAD_TEMP_DIR).free
    except OSError as error:
        raise storage_fault(error) from error
    if free < settings.MIN_FREE_DISK_MB * 1_000_000:
        raise Fault("disk_full")


def too_large() -> Fault:
    return Fault("too_large", max_mb=settings.MAX_UPLOAD_MB)


def _refuse(handler: FileUploadHandler, fault: Fault) -> None:
    refused(handler.request).append((handler.file_name or "", fault))


def refused(request: HttpRequest | None) -> list[tuple[str, Fault]]:
    """Names of the files in `request` that were not kept, and why."""
    found: list[tuple[str, Fault]] = request.__dict__.setdefault("_refused_files", [])
    return found
