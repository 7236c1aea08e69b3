"""Taking a song in: check it, read it, keep it. Nothing of a refused file stays behind."""

import hashlib
import logging
import shutil
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath

from django.conf import settings
from django.core.files.uploadedfile import TemporaryUploadedFile

from separations import quotas
from separations.audio.isolated import probe_isolated
from separations.faults import Fault, storage_fault
from separations.models import Upload

logger = logging.getLogger(__name__)


def accept(file: TemporaryUploadedFile, client: str = "") -> Upload:
    """Keep an uploaded song: its temporary file becomes ours.

    Args:
        client: where it came from, to be given no more than a share of the decoders.

    Raises:
        Fault: whatever is wrong with the file; nothing is kept then.
    """
    name = file.name or ""
    check_extension(name)
    if not file.size:
        raise Fault("empty")
    digest = getattr(file, "sha256", "")  # see `separations.upload_limit`
    return _keep(name, Path(file.temporary_file_path()).replace, digest, client)


def check_extension(name: str) -> None:
    """Raises Fault for a file name of a kind that is not taken."""
    if PurePath(name).suffix.lower() not in settings.ALLOWED_EXTENSIONS:
        allowed = ", ".join(each.lstrip(".").upper() for each in settings.ALLOWED_EXTENSIONS)
        raise Fault("wrong_extension", allowed=allowed)


def accept_path(source: Path, name: str) -> Upload:
    """Keep a copy of a file that is on this machine already (the demo song).

    Raises:
        Fault: as `accept`.
    """
    return _keep(name, lambda target: shutil.copyfile(source, target))


def _keep(name: str, put: Callable[[Path], object], digest: str = "", client: str = "") -> Upload:
    """Have `put` bring the song to its place, then read it.

    Args:
        digest: the file's SHA-256, where it is known already.
    """
    upload_id = uuid.uuid4()
    target = settings.UPLOAD_DIR / upload_id.hex
    try:
        put(target)
        return _record(upload_id, name, target, digest or _digest_of(target), client)
    except OSError as error:
        target.unlink(missing_ok=True)
        logger.exception("An upload could not be kept")
        raise storage_fault(error) from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(upload_id: uuid.UUID, name: str, path: Path, digest: str, client: str) -> Upload:
    upload = _known(digest, name) or _probed(path, name, client)
    upload.id = upload_id
    upload.file_name = PurePath(name).name[-255:]
    upload.file_sha256 = digest
    upload.bytes = path.stat().st_size
    upload.save(force_insert=True)
    return upload


def _known(digest: str, name: str) -> Upload | None:
    """What was found in the same file when it was sent before: no need to decode it again."""
    earlier = Upload.objects.filter(
        file_sha256=digest, seconds__lte=settings.MAX_DURATION_SECONDS
    ).first()
    if earlier is not None and earlier.title == _title_from(earlier.file_name):
        earlier.title = _title_from(name)
    return earlier


def _probed(path: Path, name: str, client: str) -> Upload:
    spent = partial(quotas.count_decoding, client)
    info = probe_isolated(path, settings.MAX_DURATION_SECONDS, client, spent)
    return Upload(
        title=info.title or _title_from(name),
        artist=info.artist,
        seconds=info.seconds,
        container=info.container,
        codec=info.codec,
        sample_rate=info.sample_rate,
        channels=info.channels,
        samples_sha256=info.samples_sha256,
    )


def _title_from(name: str) -> str:
    stem = PurePath(name).stem.replace("_", " ")
    return " ".join("".join(c if c.isprintable() else " " for c in stem).split())[:200] or "song"


def drop(upload: Upload) -> None:
    """Take back an upload that no job came of."""
    path = upload.path
    upload.delete()
    path.unlink(missing_ok=True)
