"""Upload handlers: check files while they arrive, and refuse those that cannot be stored."""

import contextlib
import hashlib
from typing import Any, cast

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import (
    FileUploadHandler,
    SkipFile,
    TemporaryFileUploadHandler,
)
from django.http import HttpRequest, QueryDict
from django.utils.datastructures import MultiValueDict

from separations.audio.sandbox.decoder_process import decoder_check
from separations.disk import disk_space
from separations.errors import problem_details
from separations.errors.fault import Fault, storage_fault
from separations.fair_use import incoming_uploads, rate_limits
from separations.fair_use.client_address import client
from separations.uploads.song_files import check_extension

FIELD = "file"  # the only form field that takes files
MAX_FILES = 20  # in one form; the page's script sends each song by itself
FORM_BYTES = 1_000_000  # of a form, beside its files
ENCODED = (("%22", '"'), ("%0D", "\r"), ("%0A", "\n"))


class SizeLimitHandler(FileUploadHandler):
    """Refuses files over MAX_UPLOAD_MB, and records them in `refused_files`.

    It also refuses files with a wrong extension, those beyond MAX_FILES, and those that would use
    the last MIN_FREE_DISK_MB or more than a client's share (see `fair_use.incoming_uploads`). A
    program sends one file; each file of a form is counted as it begins, so those over a limit never
    reach the disk. The rest of an oversized body is read and dropped, within limits: a browser
    shows an answer only after it has sent everything.
    """

    chunk_size = 1 << 20
    _files = 0

    def handle_raw_input(
        self, input_data: object, META: dict[str, str], content_length: int, *args: object
    ) -> tuple[QueryDict, MultiValueDict[str, "UploadedFile[bytes]"]] | None:
        """Reads nothing of a body that is larger than all allowed files together. The length of one
        in chunks is not known: reading it raises BodyTooLarge past that length."""
        assert self.request is not None  # noqa: S101 - for the type checker
        self._most = 1 if problem_details.is_api_request(self.request) else MAX_FILES
        self._client = client(self.request)
        most = self._most * settings.MAX_UPLOAD_MB * 1_000_000 + FORM_BYTES
        if "HTTP_TRANSFER_ENCODING" in META:
            cast(Any, META["wsgi.input"]).allow(most)  # see `stemsite.server.chunked_bodies`
            return None
        if content_length <= most:
            return None
        _refuse(self, too_large())
        return QueryDict(), MultiValueDict()

    def new_file(self, *args: object, **kwargs: object) -> None:
        super().new_file(*args, **kwargs)  # type: ignore[arg-type]
        self.file_name = browser_name(self.file_name)
        self._received = 0
        if self.field_name != FIELD:
            unknown_file_fields(self.request).append(self.field_name or "")
            raise SkipFile
        self._files += 1
        if self._files > self._most + 1:
            raise SkipFile  # `refused_files` names one such file already
        try:
            self._check_number()
            check_extension(self.file_name or "")
            decoder_check.require()
            disk_space.require_room(settings.FILE_UPLOAD_TEMP_DIR)
            incoming_uploads.reserve(self._client)
        except Fault as fault:
            _refuse(self, fault)
            raise SkipFile from fault

    def _check_number(self) -> None:
        if self._files > self._most:
            alone = self._most == 1
            raise Fault("one_file") if alone else Fault("too_many_files", most=self._most)
        if self._files > 1:  # the middleware counted the first
            assert self.request is not None  # noqa: S101 - for the type checker
            rate_limits.count_request("upload", self.request)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        self._received += len(raw_data)
        try:
            if self._received > settings.MAX_UPLOAD_MB * 1_000_000:
                raise too_large()
            disk_space.require_next(settings.FILE_UPLOAD_TEMP_DIR)
            incoming_uploads.reserve(self._client, len(raw_data))
        except Fault as fault:
            _refuse(self, fault)
            raise SkipFile from fault
        return raw_data

    def file_complete(self, file_size: int) -> "UploadedFile[bytes] | None":
        return None


class DiskFileHandler(TemporaryFileUploadHandler):
    """Django's own handler, but it records a file that the disk cannot hold in `refused_files`.

    Each file gets its SHA-256, computed as it arrives, as `sha256`.
    """

    def new_file(self, *args: object, **kwargs: object) -> None:
        self.__dict__.pop("file", None)  # of an earlier file that was refused halfway
        self._digest = hashlib.sha256()
        # Skips Django's own, which creates a file without the client's hashes in its name.
        FileUploadHandler.new_file(self, *args, **kwargs)  # type: ignore[arg-type]
        self.file_name = browser_name(self.file_name)
        assert self.request is not None  # noqa: S101 - for the type checker
        try:
            self.file = incoming_uploads.IncomingFile(
                client(self.request),
                self.file_name or "",
                self.content_type or "",
                self.charset,
                self.content_type_extra or {},
            )
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
            # The parser closes, and so deletes, a handler's file when the next file is refused.
            del self.file
            return file
        except OSError as error:
            self._give_up(error)
            return None

    def _give_up(self, error: OSError) -> None:
        _refuse(self, storage_fault(error))
        with contextlib.suppress(OSError):
            self.file.close()  # this deletes it, though its buffer does not fit either
        del self.file


def browser_name(name: str | None) -> str | None:
    """A file's name as it was before the browser encoded it for the form.

    Quotes and line ends are encoded so, and nothing else is (HTML Standard, multipart form data).
    """
    for code, character in ENCODED:
        name = name and name.replace(code, character)
    return name


def too_large() -> Fault:
    return Fault("too_large", max_mb=settings.MAX_UPLOAD_MB)


def _refuse(handler: FileUploadHandler, fault: Fault) -> None:
    refused_files(handler.request).append((handler.file_name or "", fault))


def refused_files(request: HttpRequest | None) -> list[tuple[str, Fault]]:
    """Names of the request's files that were refused, with the reasons."""
    found: list[tuple[str, Fault]] = request.__dict__.setdefault("_refused_files", [])
    return found


def unknown_file_fields(request: HttpRequest | None) -> list[str]:
    """Names of fields with files that were sent but are not FIELD; the files were dropped."""
    found: list[str] = request.__dict__.setdefault("_unknown_file_fields", [])
    return found
