"""Result keys: which jobs share one result, by SHARE_RESULTS and by all that a result depends on.

Different owners share by the file's hash alone: everything else that is known of a song comes from
a decoder, which a malicious file may control. One owner's copies with other tags share by the hash
of their samples: a forged one harms its owner alone.
"""

import hashlib
import json

from django.conf import settings

from separations.audio.info import DECODER_VERSION
from separations.engine.options import Options
from separations.engine.process.engine_protocol import OUTPUT_VERSION
from separations.engine.weights.store import ModelInfo
from separations.models import Job

EVERYBODY, OWN, NONE = "site", "owner", "no"  # values of SHARE_RESULTS


def recipe_of(options: Options, model: ModelInfo) -> str:
    """A hash of what is done to a song: same file and recipe, same stems to the last byte."""
    parts = {
        "decoder": DECODER_VERSION,
        "model": model.digest,
        "options": options.that_change_samples(),
        "output": OUTPUT_VERSION,
    }
    return _hash(parts)


def own_key(job: Job) -> str:
    """The key of the result that a run of this very job makes."""
    file = job.upload.file_sha256
    if settings.SHARE_RESULTS == NONE or not file or not job.recipe:
        return _hash({"job": job.pk.hex})
    scope = "" if settings.SHARE_RESULTS == EVERYBODY else _owner(job)
    return _hash({"whose": scope, "file": file, "recipe": job.recipe})


def key_of_copy(job: Job) -> str | None:
    """The key of a result of the same samples that the job's owner has, or waits for.

    A job may share that result, but never runs under its key: the run would decode another file,
    and its result would be served to all who send the first file. See `jobs.reuse.renew_key`.
    """
    if settings.SHARE_RESULTS == NONE or not job.recipe:
        return None
    copies = Job.objects.visible_to(job.owner).exclude(pk=job.pk).order_by("created_at", "pk")
    same = copies.filter(recipe=job.recipe, upload__samples_sha256=job.upload.samples_sha256)
    found = same.served().first() or same.active().first()
    return found.result_key if found else None


def _owner(job: Job) -> str:
    return f"user {job.user_id}" if job.user_id else f"visitor {job.visitor}"


def _hash(parts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
