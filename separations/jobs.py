"""The life of a job, as its owner and the staff see it. What runners do to it is in `leases`.

    queued → running → done | failed | cancelled      failed | cancelled → queued (retry)
           ↖ lost, handed back

Every change of state is one compare-and-set UPDATE whose count is looked at. A queued job whose
result another job is making just now is attached to that one: it is not run, it ends with it.
"""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, replace

from django.conf import settings
from django.db import transaction
from django.db.models import F, Max, Min
from django.utils import timezone

from separations import quotas, results, timeline
from separations.engine.messages import OUTPUT_VERSION
from separations.engine.options import Options, passes, settle, work
from separations.engine.store import ModelInfo, read_model
from separations.faults import Fault
from separations.models import QUEUE_ORDER, Job, JobQuerySet, Owner, Stem, Transition, Upload

State = Job.State
Cause = Transition.Cause
FIRST, IN_TURN, LAST = 1, 0, -1  # the priorities; staff can change them
OF_A_NETWORK = 4  # songs in a round of the queue, of all its visitors without an account
OWNER, STAFF = "owner", "staff"  # who acts on a job
QUEUED_AFRESH: dict[str, object] = {
    "state": State.QUEUED,
    "stage": Job.Stage.WAIT,
    "progress": 0.0,
    "remaining": None,
    "lease": None,
    "started_at": None,
}


def site_options(model: str, stems: str) -> Options:
    """The options of a job on this machine: the visitor's choice and the operator's settings."""
    return Options(
        model=model,
        stems=stems,
        device=settings.DEVICE,
        jobs=settings.JOBS,
        threads=settings.THREADS,
        engine=settings.ENGINE,
        precision=settings.PRECISION,
    )


def submit(upload: Upload, options: Options, owner: Owner, webhook_url: str = "") -> Job:
    """Queue a separation, or hand out the finished result of the same one.

    Args:
        webhook_url: an address to call when the job ends, checked already.

    Raises:
        Fault: when the options cannot be met (see `separations.engine.options.settle`), or the
            owner has enough waiting, kept or done today (see `separations.quotas`).
    """
    model = read_model(settings.MODEL_DIR, options.model)
    options, notes = settle(options, model)
    _check_passes(options, model)
    with transaction.atomic():
        quotas.hold(owner)
        job = Job.objects.create(
            upload=upload,
            user_id=owner.user_id,
            visitor=owner.visitor,
            network=quotas.network(owner),
            model=options.model,
            stem_choice=options.stems,
            options=options.as_dict(),
            notes=[asdict(note) for note in notes],
            result_key=result_key(upload, options, model),
            queued_at=timezone.now(),
            turn=next_turn(owner),
            webhook_url=webhook_url,
        )
        timeline.note([job.pk], State.QUEUED, Cause.SUBMITTED)
        quotas.check_storage(owner)
        if serve_from_store(job):
            job.refresh_from_db()
        else:
            quotas.check(owner, upload.seconds * work(options, model), job)
    return job


def _check_passes(options: Options, model: ModelInfo) -> None:
    """Raises Fault (too_much_work): nobody's options hold the machine for hours."""
    asked, most = passes(options, model), settings.MAX_PASSES
    if most and asked > most:
        raise Fault("too_much_work", asked=f"{asked:.1f}", most=most)


def result_key(upload: Upload, options: Options, model: ModelInfo) -> str:
    """What the stems depend on, hashed: same key, same bytes."""
    parts = {
        "samples": upload.samples_sha256,
        "model": model.digest,
        "options": options.that_change_samples(),
        "output": OUTPUT_VERSION,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def renew_key(job: Job) -> bool:
    """Mend a queued job's key when weights or engine changed since. Says whether they did.

    Raises:
        Fault: when the job's model cannot be used any more.
    """
    model = read_model(settings.MODEL_DIR, job.model)
    key = result_key(job.upload, job.separation, model)
    if key == job.result_key:
        return False
    queued = Job.objects.filter(pk=job.pk, state=State.QUEUED)
    if queued.update(result_key=key):
        job.result_key = key
    return True


def next_turn(owner: Owner) -> int:
    """The round of the queue in which the next song of `owner` is due.

    Each owner has one song in every round, so nobody waits for the whole list of somebody else. A
    newcomer joins the round after the one that is served now, so no stream of newcomers holds up
    who waits already. Who drops their cookies is a newcomer each time, so those who have no account
    share a few places in each round with the others of their network.
    """
    served = Job.objects.running().aggregate(turn=Max("turn"))["turn"]
    in_turn = Job.objects.active().filter(priority__gte=IN_TURN)
    next_up = in_turn.waiting().aggregate(turn=Min("turn"))["turn"]
    own = in_turn.of(owner).aggregate(turn=Max("turn"))["turn"]
    now = [turn for turn in (served, next_up) if turn is not None]
    turn = 1 + max(min(now, default=-1), -1 if own is None else own)
    if network := quotas.network(owner):
        beside = in_turn.filter(network=network, turn__gte=turn)
        taken = Counter(beside.values_list("turn", flat=True))
        while taken[turn] >= OF_A_NETWORK:
            turn += 1
    return turn


def serve_from_store(job: Job) -> bool:
    """End a queued job with the result of an earlier one, when there is one with the same key.

    Called in a transaction.
    """
    # Locked, so that nobody deletes the result between the look and the commit.
    earlier = Job.objects.with_result(job.result_key).select_for_update().order_by("pk").first()
    if earlier is None or not results.is_whole(earlier):
        return False
    return hand_out(earlier, Job.objects.filter(pk=job.pk), Cause.REUSED) == 1


def hand_out(finished: Job, waiting: JobQuerySet, cause: Cause) -> int:
    """Give the stems of a finished job to queued ones with the same key; returns to how many.

    Called in a transaction.
    """
    stems = list(finished.stems.all())
    given = 0
    now = timezone.now()
    for job in waiting:
        taken = Job.objects.filter(pk=job.pk, state=State.QUEUED).update(
            state=State.DONE,
            stage=Job.Stage.ENCODE,
            progress=1.0,
            cached=True,
            network="",
            frames=finished.frames,
            engine=finished.engine,
            song_peak=finished.song_peak,
            song_loudness=finished.song_loudness,
            started_at=now,
            finished_at=now,
            used_at=now,
        )
        if taken:
            given += 1
            Stem.objects.bulk_create(
                Stem(
                    job=job,
                    name=stem.name,
                    position=stem.position,
                    peak=stem.peak,
                    loudness=stem.loudness,
                )
                for stem in stems
            )
            timeline.note([job.pk], State.DONE, cause, source=str(finished.pk))
    return given


def cancel(job: Job, by: str = OWNER) -> bool:
    """Stop a waiting or running job. Its runner notices within a second.

    When other jobs are attached to it, the run goes on for the first of them.

    Args:
        by: OWNER or STAFF, for the timeline.
    """
    with transaction.atomic():
        run = Job.objects.running().select_for_update().filter(pk=job.pk).first()
        cancelled = (
            Job.objects.active()
            .filter(pk=job.pk)
            .update(
                state=State.CANCELLED,
                network="",
                remaining=None,
                lease=None,
                memory_reserved=None,
                finished_at=timezone.now(),
            )
        )
        if cancelled:
            timeline.note([job.pk], State.CANCELLED, Cause.CANCELLED, by=by)
        if cancelled and run is not None:
            _pass_on(run)
    return cancelled == 1


def _pass_on(run: Job) -> None:
    """Let the first job attached to a cancelled one take over its run, lease and all."""
    for heir in Job.objects.attached_to(run).order_by(*QUEUE_ORDER):
        taken_over = Job.objects.filter(pk=heir.pk, state=State.QUEUED).update(
            state=State.RUNNING,
            stage=run.stage,
            progress=run.progress,
            remaining=run.remaining,
            lease=run.lease,
            heartbeat_at=run.heartbeat_at,
            started_at=run.started_at,
            attempt=F("attempt") + 1,
            host=run.host,
            memory_reserved=run.memory_reserved,
        )
        if taken_over:
            timeline.note([heir.pk], State.RUNNING, Cause.INHERITED, source=str(run.pk))
            return


def retry(job: Job, owner: Owner | None = None) -> bool:
    """Queue a failed or cancelled job again, with all its attempts.

    Args:
        owner: who asks, to be counted; the site's own staff are not.

    Raises:
        Fault: upload_gone when the song is not kept any more, what is wrong with the model, or
            what `separations.quotas` says.
    """
    # Whose address nobody knows any more, the staff's, is one of them.
    due = replace(job.owner, client=owner.client if owner else STAFF)
    with transaction.atomic():
        quotas.hold(owner or due)
        _hold_song(job)
        queued = Job.objects.filter(pk=job.pk, state__in=(State.FAILED, State.CANCELLED)).update(
            **QUEUED_AFRESH,
            attempt=0,
            error_code="",
            error_params={},
            memory_reserved=None,
            queued_at=timezone.now(),
            network=quotas.network(due),
            turn=next_turn(due),
            finished_at=None,
        )
        if queued:
            by = STAFF if owner is None else OWNER
            timeline.note([job.pk], State.QUEUED, Cause.RETRIED, by=by)
            renew_key(job)
            if owner is not None:
                quotas.check_storage(owner)
            if not serve_from_store(job) and owner is not None:
                model = read_model(settings.MODEL_DIR, job.model)
                quotas.check(owner, job.upload.seconds * work(job.separation, model), job)
    return queued == 1


def again(job: Job, options: Options, owner: Owner) -> Job:
    """Separate the song of `job` once more, with other options.

    Raises:
        Fault: upload_gone, or what `submit` raises.
    """
    unchanged = {"segment", "shifts", "overlap", "split", "rest"}
    kept = {name: value for name, value in job.options.items() if name in unchanged}
    with transaction.atomic():
        quotas.hold(owner)  # before the song, as `retry` does: two never wait for each other
        _hold_song(job)
        return submit(job.upload, replace(options, **kept), owner)


def _hold_song(job: Job) -> None:
    """Keep the clean-up from the job's song until the end of the transaction, if it is kept."""
    upload = Upload.objects.select_for_update().filter(pk=job.upload_id).first()
    if upload is None or not upload.is_kept:
        raise Fault("upload_gone")


def prioritise(jobs: JobQuerySet, priority: int) -> int:
    """Move waiting jobs before (FIRST) or behind (LAST) everybody else's, or back (IN_TURN)."""
    return jobs.filter(state=State.QUEUED).update(priority=priority)


def remove(job: Job) -> None:
    """Delete a job in any state, and its files unless another job uses them too."""
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
        upload.path.unlink(missing_ok=True)
    results.release(job.result_key)
