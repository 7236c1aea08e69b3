"""Reuse of results: a queued job that is served from the store instead of being run.

Which jobs share a result is in `jobs.result_keys`.
"""

from django.conf import settings

from separations.engine.weights.store import read_model
from separations.jobs import endings, result_keys, results
from separations.models import Job, Transition

State = Job.State
Cause = Transition.Cause


def renew_key(job: Job) -> bool:
    """Set a queued job's key to that of the result that it would make if it ran now.

    The key changes when weights, decoder or engine changed since, when the job passed to an
    account, or when it waited for the result of a copy which is not made any more.

    Returns:
        Whether the key changed.

    Raises:
        Fault: when the job's model cannot be used any more.
    """
    try:
        model = read_model(settings.MODEL_DIR, job.model)
        job.recipe = result_keys.recipe_of(job.separation, model)
    finally:
        renewed = _set_own_key(job)
    return renewed


def _set_own_key(job: Job) -> bool:
    key, had = result_keys.own_key(job), job.result_key
    queued = Job.objects.filter(pk=job.pk, state=State.QUEUED)
    if queued.update(result_key=key, recipe=job.recipe):
        job.result_key = key
    return key != had


def serve_from_store(job: Job) -> bool:
    """End a queued job with a stored result of the same key, when there is one.

    Called in a transaction.
    """
    # Locked, so that the result is not deleted between this check and the commit.
    earlier = Job.objects.with_result(job.result_key).select_for_update().order_by("pk").first()
    if earlier is None or not results.is_whole(earlier):
        return False
    return endings.share_result(earlier, Job.objects.filter(pk=job.pk), Cause.REUSED) == 1


def serve_from_copy(job: Job) -> bool:
    """End a queued job with the result of its owner's copy of the song, or attach it to that.

    Called in a transaction.
    """
    key = result_keys.key_of_copy(job)
    if key is None or not Job.objects.filter(pk=job.pk, state=State.QUEUED).update(result_key=key):
        return False
    job.result_key = key
    return serve_from_store(job)
