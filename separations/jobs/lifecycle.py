"""The life of a job: submit, cancel, retry, separate again, remove.

    queued → running → done | failed | cancelled      failed | cancelled → queued (retry)
           ↖ lost, handed back

Claiming and heartbeats: see `worker.leases`. Every change of state is one compare-and-set UPDATE
whose count is checked (`jobs.transitions`, `jobs.endings`). A queued job whose result another job
makes just now is attached to that one: it is not run, it ends with it.
"""

from dataclasses import asdict, replace
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from separations.engine.options import (
    ALL_STEMS,
    BY_OPERATOR,
    Options,
    passes,
    settle,
    stem_names,
    work,
)
from separations.engine.weights.store import ModelInfo, read_model
from separations.errors.fault import Fault
from separations.fair_use import quotas
from separations.jobs import endings, fair_turns, result_keys, results, reuse, transitions
from separations.models import Job, Owner, Transition, Upload

State = Job.State
Cause = Transition.Cause
OWNER, STAFF = "owner", "staff"  # who acts on a job


def site_options(model: str, stems: str = ALL_STEMS, **chosen: Any) -> Options:
    """The options of a job on this machine: the sender's choice and the operator's settings."""
    by_operator = {name: getattr(settings, name.upper()) for name in BY_OPERATOR}
    return Options(model=model, stems=stems, **chosen, **by_operator)


def submit(upload: Upload, options: Options, owner: Owner, webhook_url: str = "") -> Job:
    """Queue a separation, or end it at once with the stored result of the same one.

    Args:
        webhook_url: an address to call when the job ends, checked already.

    Raises:
        Fault: when the options cannot be met (see `separations.engine.options.settle`), or the
            owner has used up a quota (see `separations.fair_use.quotas`).
    """
    model = read_model(settings.MODEL_DIR, options.model)
    options, notes = settle(options, model)
    _check_passes(options, model)
    with transaction.atomic():
        quotas.lock_queue_of(owner)
        job = Job(
            upload=upload,
            user_id=owner.user_id,
            visitor=owner.visitor,
            network=quotas.address_hash(owner),
            model=options.model,
            stem_choice=options.stems,
            options=options.as_dict(),
            notes=[asdict(note) for note in notes],
            recipe=result_keys.recipe_of(options, model),
            queued_at=timezone.now(),
            turn=fair_turns.next_turn(owner, upload.seconds * work(options, model)),
            webhook_url=webhook_url,
        )
        job.result_key = result_keys.own_key(job)
        job.save(force_insert=True)
        transitions.record([job.pk], State.QUEUED, Cause.SUBMITTED)
        quotas.check_storage(owner)
        if reuse.serve_from_store(job) or reuse.serve_from_copy(job):
            job.refresh_from_db()
            quotas.count_reused(owner, upload.seconds)
            quotas.count_storage(owner, job, stems=0)
        else:
            quotas.count_song(owner, upload.seconds * work(options, model), job)
            quotas.count_storage(owner, job, _stems_to_make(job, options, model))
    return job


def _stems_to_make(job: Job, options: Options, model: ModelInfo) -> int:
    """How many stems a queued job adds: none where another active job makes the same result."""
    same = Job.objects.active().filter(result_key=job.result_key).exclude(pk=job.pk)
    return 0 if same.exists() else len(stem_names(options, model))


def _check_passes(options: Options, model: ModelInfo) -> None:
    """Raises Fault (too_much_work), so that no job occupies the machine for hours."""
    asked, most = passes(options, model), settings.MAX_PASSES
    if most and asked > most:
        raise Fault("too_much_work", asked=f"{asked:.1f}", most=most)


def cancel(job: Job, by: str = OWNER) -> bool:
    """Stop a waiting or running job. Its slot notices within a second.

    When other jobs are attached to it, the run goes on for the first of them.

    Args:
        by: OWNER or STAFF, for the log of transitions.
    """
    with transaction.atomic():
        run = Job.objects.running().select_for_update().filter(pk=job.pk).first()
        cancelled = endings.cancel(job, by)
        if cancelled and run is not None:
            _pass_on(run)
    return cancelled


def _pass_on(run: Job) -> None:
    """Move a cancelled job's run to the first job attached to it, lease and memory included."""
    columns = {
        "stage": run.stage,
        "progress": run.progress,
        "remaining": run.remaining,
        "lease": run.lease,
        "heartbeat_at": run.heartbeat_at,
        "started_at": run.started_at,
        "attempt": F("attempt") + 1,
        "host": run.host,
        "memory_reserved": run.memory_reserved,
    }
    queued, source = Job.objects.filter(state=State.QUEUED), str(run.pk)
    for heir in Job.objects.attached_to(run):
        if transitions.change(heir, queued, State.RUNNING, columns, Cause.INHERITED, source=source):
            return


def retry(job: Job, owner: Owner | None = None) -> bool:
    """Queue a failed or cancelled job again, with all its attempts.

    Args:
        owner: counted against the quotas; None for staff, who are not counted.

    Raises:
        Fault: upload_gone when the song is not stored any more, a fault of the model, or of
            `separations.fair_use.quotas`.
    """
    # Staff retries have no client address; they count as the client "staff".
    due = replace(job.owner, client=owner.client if owner else STAFF)
    with transaction.atomic():
        quotas.lock_queue_of(owner or due)
        _hold_song(job)
        columns = {
            "attempt": 0,
            "error_code": "",
            "error_params": {},
            "memory_reserved": None,
            "queued_at": timezone.now(),
            "room_lacks_since": None,
            "not_before": None,
            "network": quotas.address_hash(due),
            "turn": fair_turns.next_turn(due, fair_turns.seconds_of_work(job)),
        }
        ended = Job.objects.filter(state__in=(State.FAILED, State.CANCELLED))
        by = STAFF if owner is None else OWNER
        queued = transitions.queue_again(job, ended, columns, Cause.RETRIED, by=by)
        if queued:
            reuse.renew_key(job)
            if owner is not None:
                quotas.check_storage(owner)
            if reuse.serve_from_store(job) or reuse.serve_from_copy(job):
                if owner is not None:
                    quotas.count_reused(owner, job.upload.seconds)
            elif owner is not None:
                quotas.count_song(owner, fair_turns.seconds_of_work(job), job)
    return queued


def again(job: Job, options: Options, owner: Owner) -> Job:
    """Separate the song of `job` once more, with other options.

    Raises:
        Fault: upload_gone, site_limit, or what `submit` raises.
    """
    unchanged = {"segment", "shifts", "overlap", "split", "rest"}
    kept = {name: value for name, value in job.options.items() if name in unchanged}
    with transaction.atomic():
        quotas.lock_queue_of(
            owner
        )  # before the song, as `retry` does: two never wait for each other
        _hold_song(job)
        new = submit(job.upload, replace(options, **kept), owner)
        quotas.count_for_site("upload")
        return new


def _hold_song(job: Job) -> None:
    """Lock the job's song against the clean-up until the end of the transaction.

    Raises:
        Fault: upload_gone when it is not stored any more.
    """
    upload = Upload.objects.select_for_update().filter(pk=job.upload_id).first()
    if upload is None or not upload.is_kept:
        raise Fault("upload_gone")


def remove(job: Job) -> None:
    """Delete a job in any state, and its files unless another job needs them too."""
    cancel(job)
    upload = job.upload
    with transaction.atomic():
        Upload.objects.select_for_update().filter(pk=upload.pk).first()  # see `again`
        Job.objects.filter(pk=job.pk).delete()
        upload_is_used = upload.jobs.exists()
        if not upload_is_used:
            Upload.objects.filter(pk=upload.pk).delete()
    results.discard_renditions(job.rendition_folder)
    if not upload_is_used:
        upload.delete_files()
    results.release(job.result_key)
