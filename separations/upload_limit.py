"""Uploads are cut off at their limit while they arrive, before they fill the disk."""

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, SkipFile, StopUpload


class SizeLimit(FileUploadHandler):
    """Keeps files of at most MAX_UPLOAD_MB; the name of a larger one goes to `too_large`.

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
        request = self.request
        if request is None:  # pragma: no cover - Django always sets it
            raise StopUpload
        oversized(request).append(self.file_name or "")
        raise SkipFile

    def file_complete(self, file_size: int) -> "UploadedFile[bytes] | None":
        return None


def oversized(request: object) -> list[str]:
    """Names of the files in `request` that were too large and were not kept."""
    names: list[str] = request.__dict__.setdefault("_oversized_files", [])
    return names
