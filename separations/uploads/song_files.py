"""Accepting a song: check it, probe it, store it. A refused file leaves nothing behind."""

import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath

from django.conf import settings
from django.core.files.uploadedfile import TemporaryUploadedFile

from separations.audio.decoding.allowed_codecs import (
    is_container_allowed,
    is_known_extension,
    kinds,
)
from separations.audio.info import DECODER_VERSION, TAGS_VERSION, printable_line
from separations.audio.sandbox.decoder_process import probe_isolated
from separations.disk import disk_space
from separations.errors.fault import Fault, storage_fault
from separations.fair_use import quotas, token_bucket
from separations.fair_use.address_ranges import widest_range
from separations.jobs import result_keys
from separations.models import Job, Owner, Upload
from separations.models.upload import TAG_FIELDS

logger = logging.getLogger(__name__)
NO_OWNER = Owner(visitor="")  # owns no songs
MAX_COPIES_TRIED = 20  # the latest; older ones are mostly deleted


def accept(file: TemporaryUploadedFile, owner: Owner) -> Upload:
    """Store an uploaded song by moving its temporary file.

    Args:
        owner: the song's owner. Their client gets no more than a share of the decoders.

    Raises:
        Fault: what is wrong with the file, or site_limit; nothing is stored then.
    """
    name = file.name or ""
    check_extension(name)
    if not file.size:
        raise Fault("empty")
    digest = getattr(file, "sha256", "")  # see `separations.uploads.handlers`
    return _store(name, Path(file.temporary_file_path()).replace, owner, digest)


def check_extension(name: str) -> None:
    """Check that the file's name is one that ALLOWED_EXTENSIONS lists, or says nothing.

    A name without an extension, or with one that stands for nothing known, is judged by its content
    (`_check_container`): browsers name a recording "blob", and titles have dots.

    Raises:
        Fault: wrong_extension.
    """
    extension = PurePath(name).suffix.lower()
    if extension not in settings.ALLOWED_EXTENSIONS and is_known_extension(extension):
        raise _wrong_extension()


def _check_container(name: str, container: str) -> None:
    extension = PurePath(name).suffix.lower()
    if extension in settings.ALLOWED_EXTENSIONS or is_known_extension(extension):
        return  # `check_extension` judged it
    if not is_container_allowed(container, settings.ALLOWED_EXTENSIONS):
        raise _wrong_extension()


def _wrong_extension() -> Fault:
    return Fault("wrong_extension", allowed=", ".join(kinds(settings.ALLOWED_EXTENSIONS)))


def accept_path(source: Path, name: str, owner: Owner = NO_OWNER) -> Upload:
    """Store a copy of a file on this machine (the demo song).

    It is a hard link to an earlier copy where one is stored, and takes no space.

    Raises:
        Fault: as `accept`; disk_full.
    """
    owner = replace(owner, client="")  # the client sent nothing to decode
    return _store(name, partial(_copy, source), owner)


def _copy(source: Path, target: Path) -> None:
    same = Upload.objects.filter(file_sha256=_digest_of(source)).order_by("-created_at")
    for kept in same[:MAX_COPIES_TRIED]:
        try:
            os.utime(kept.path)  # as new: the clean-up deletes old files without a record
            os.link(kept.path, target)
        except OSError:
            continue  # it was deleted, or the disk has no hard links
        return
    disk_space.require_room(target.parent, source.stat().st_size)
    shutil.copyfile(source, target)


def _store(name: str, put: Callable[[Path], object], owner: Owner, digest: str = "") -> Upload:
    """Store a song with `put`, which writes it to the given path, then probe it.

    Args:
        digest: the file's SHA-256, if known.
    """
    quotas.count_for_site("upload")
    upload_id = uuid.uuid4()
    target = settings.UPLOAD_DIR / upload_id.hex
    try:
        put(target)
        return _record(upload_id, name, target, digest or _digest_of(target), owner)
    except OSError as error:
        Upload(pk=upload_id).delete_files()
        logger.exception("An upload could not be stored")
        raise storage_fault(error) from error
    except BaseException:
        Upload(pk=upload_id).delete_files()
        raise


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(upload_id: uuid.UUID, name: str, path: Path, digest: str, owner: Owner) -> Upload:
    found = _from_earlier_upload(digest, name, owner) or _probe(path, name, owner.client)
    upload, cover = found
    _check_container(name, upload.container)
    upload.id = upload_id
    upload.file_name = PurePath(name).name[-255:]
    upload.file_sha256 = digest
    upload.bytes = path.stat().st_size
    _store_cover(upload, cover)
    upload.save(force_insert=True)
    return upload


def _store_cover(upload: Upload, cover: bytes) -> None:
    if cover:
        disk_space.require_room(upload.cover_path.parent, len(cover))
        upload.cover_path.write_bytes(cover)


def _from_earlier_upload(digest: str, name: str, owner: Owner) -> tuple[Upload, bytes] | None:
    """An earlier upload of the same file that this decoder has probed, and its cover.

    SHARE_RESULTS decides whose uploads count: a quick answer reveals that the file was sent before.
    """
    if settings.SHARE_RESULTS == result_keys.NONE:
        return None
    same = Upload.objects.filter(
        file_sha256=digest,
        decoder=DECODER_VERSION,
        tags_version=TAGS_VERSION,
        seconds__lte=settings.MAX_DURATION_SECONDS,
    )
    if settings.SHARE_RESULTS == result_keys.OWN:
        same = same.filter(jobs__in=Job.objects.visible_to(owner))
    earlier = same.first()
    cover = earlier.read_cover() if earlier is not None else b""
    if earlier is None or bool(earlier.cover_sha256) != bool(cover):
        return None  # the cover is not stored any more: the file has it
    if earlier.title == _title_from(earlier.file_name):
        earlier.title = _title_from(name)
    return earlier, cover


def _probe(path: Path, name: str, client: str) -> tuple[Upload, bytes]:
    spent = partial(quotas.count_decoding, client)
    # By the widest range: decoders are too few to give wider ranges larger shares.
    who = token_bucket.name_hash(f"decoder {widest_range(client)}") if client else ""
    info = probe_isolated(path, settings.MAX_DURATION_SECONDS, who, spent)
    tags = {field: getattr(info.tags, field) for field in TAG_FIELDS}
    cover = info.tags.cover
    upload = Upload(
        **tags | {"title": info.tags.title or _title_from(name)},
        cover_sha256=hashlib.sha256(cover).hexdigest() if cover else "",
        tags_version=TAGS_VERSION,
        seconds=info.seconds,
        container=info.container,
        codec=info.codec,
        sample_rate=info.sample_rate,
        channels=info.channels,
        samples_sha256=info.samples_sha256,
        decoder=DECODER_VERSION,
    )
    return upload, cover


def _title_from(name: str) -> str:
    path = PurePath(name)
    extension = path.suffix.lower()
    is_extension = extension in settings.ALLOWED_EXTENSIONS or is_known_extension(extension)
    stem = (path.stem if is_extension else path.name).replace("_", " ")
    return printable_line(stem.replace("\N{REPLACEMENT CHARACTER}", " "))[:200].strip() or "song"


def drop(upload: Upload) -> None:
    """Delete an upload without a job, and its files."""
    files = Upload(pk=upload.pk)  # as `delete` takes the id away
    upload.delete()
    files.delete_files()
