"""The records. A job's row is the truth about it; the queue only hints that there is work."""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Exists, ExpressionWrapper, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_stubs_ext.db.models import TypedModelMeta

from separations.engine.options import ALL_STEMS, Options


@dataclass(frozen=True)
class Owner:
    """Whose a job is: a signed-in user, or whoever holds the session with this visitor id."""

    visitor: str
    user_id: int | None = None
    client: str = ""  # where the request came from; kept nowhere but as a hash, to count


class Upload(models.Model):
    """A song as it was sent, with what was found in it. Its file is named by its id alone."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    file_name = models.CharField(_("file name"), max_length=255)
    title = models.CharField(_("title"), max_length=200)
    artist = models.CharField(_("artist"), max_length=200, blank=True)
    bytes = models.PositiveBigIntegerField(_("bytes"))
    seconds = models.FloatField(_("seconds"))
    container = models.CharField(_("container"), max_length=20)
    codec = models.CharField(_("codec"), max_length=40)
    sample_rate = models.PositiveIntegerField(_("sample rate"))
    channels = models.PositiveSmallIntegerField(_("channels"))
    file_sha256 = models.CharField(_("file's SHA-256"), max_length=64, blank=True, db_index=True)
    samples_sha256 = models.CharField(_("samples' SHA-256"), max_length=64, db_index=True)
    created_at = models.DateTimeField(_("received"), auto_now_add=True)

    class Meta(TypedModelMeta):
        verbose_name = _("upload")
        verbose_name_plural = _("uploads")
        ordering = ("-created_at",)
        indexes = (
            models.Index(fields=("-created_at",), name="upload_newest"),
            models.Index(fields=("codec", "-created_at"), name="upload_of_codec"),
        )

    def __str__(self) -> str:
        return f"{self.artist} – {self.title}" if self.artist else self.title

    @property
    def path(self) -> Path:
        return settings.UPLOAD_DIR / self.id.hex

    @property
    def is_kept(self) -> bool:
        """Whether the song itself is still there to be separated (again)."""
        return self.path.is_file()


def folder_of(result_key: str) -> Path:
    """Where the result with this key lies."""
    return settings.RESULT_DIR / result_key[:2] / result_key


QUEUE_ORDER = ("-priority", "turn", "queued_at", "pk")
SERVED = Q(state="done", expired_at=None)


class JobQuerySet(models.QuerySet["Job"]):
    def visible_to(self, owner: Owner) -> "JobQuerySet":
        mine = Q(user=None, visitor=owner.visitor) if owner.visitor else Q(pk=None)
        return self.filter(mine | Q(user=owner.user_id)) if owner.user_id else self.filter(mine)

    def of(self, owner: Owner) -> "JobQuerySet":
        """What was submitted by `owner` as they are now (signed in or not)."""
        if owner.user_id:
            return self.filter(user=owner.user_id)
        return self.filter(user=None, visitor=owner.visitor)

    def active(self) -> "JobQuerySet":
        return self.filter(state__in=(Job.State.QUEUED, Job.State.RUNNING))

    def running(self) -> "JobQuerySet":
        return self.filter(state=Job.State.RUNNING)

    def held(self, lease: uuid.UUID | None) -> "JobQuerySet":
        """The one job that runs under this lease, if it still does."""
        return self.running().filter(lease=lease, lease__isnull=False)

    def waiting(self) -> "JobQuerySet":
        """Queued jobs in the order they will be taken, without those attached to a running one."""
        queued = self.filter(~_is_being_made(), state=Job.State.QUEUED)
        return queued.order_by(*QUEUE_ORDER)

    def attached_to(self, job: "Job") -> "JobQuerySet":
        """Queued jobs that wait for the very result which `job` is to give."""
        return self.filter(state=Job.State.QUEUED, result_key=job.result_key).exclude(pk=job.pk)

    def ahead_of(self, job: "Job") -> "JobQuerySet":
        """Jobs that run now or will be taken before `job`, but for those that share a run."""
        in_turn = Q(turn__lt=job.turn) | Q(turn=job.turn, queued_at__lt=job.queued_at)
        sooner = Q(priority__gt=job.priority) | Q(priority=job.priority) & in_turn
        others = self.exclude(result_key=job.result_key)
        taken_sooner = Q(~_is_being_made(), state=Job.State.QUEUED) & sooner
        return others.filter(Q(state=Job.State.RUNNING) | taken_sooner)

    def stalled(self) -> "JobQuerySet":
        """Running jobs whose runner has not been heard of for the length of a lease.

        By the database's clock alone, which is the same for runners on different machines.
        """
        silent_since = Now() - timedelta(seconds=settings.LEASE_SECONDS)
        return self.running().filter(heartbeat_at__lt=silent_since)

    def needing_result(self, key: str) -> "JobQuerySet":
        """Jobs whose stems are, or are about to be, the result with this key."""
        return self.filter(Q(state=Job.State.RUNNING) | SERVED, result_key=key)

    def with_result(self, key: str) -> "JobQuerySet":
        return self.filter(SERVED, result_key=key)

    def served(self) -> "JobQuerySet":
        """Finished jobs whose stems are kept."""
        return self.filter(SERVED)


def _is_being_made() -> Exists:
    """Whether a job runs that makes the same result."""
    return Exists(Job.objects.running().filter(result_key=OuterRef("result_key")))


class Job(models.Model):
    """One separation of one upload."""

    class State(models.TextChoices):
        QUEUED = "queued", _("waiting")
        RUNNING = "running", _("separating")
        DONE = "done", _("done")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")

    class Stage(models.TextChoices):
        WAIT = "wait", _("waiting")
        MEMORY = "memory", _("waiting for memory")
        START = "start", _("getting the model ready")
        DECODE = "decode", _("reading the song")
        SEPARATE = "separate", _("separating")
        ENCODE = "encode", _("saving the stems")

    ENDED = (State.DONE, State.FAILED, State.CANCELLED)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    upload = models.ForeignKey(
        Upload, on_delete=models.PROTECT, related_name="jobs", verbose_name=_("upload")
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,  # deleting its rows alone would leave the files behind
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("user"),
    )
    visitor = models.CharField(_("visitor"), max_length=32, blank=True, db_index=True)
    # A keyed hash of where somebody without an account is; see `separations.quotas.network`.
    network = models.CharField(_("network"), max_length=64, blank=True)

    model = models.CharField(_("model"), max_length=100)
    stem_choice = models.CharField(_("stem choice"), max_length=40, default=ALL_STEMS)
    options = models.JSONField(_("options"))
    notes = models.JSONField(_("notes"), default=list, blank=True)
    result_key = models.CharField(_("result"), max_length=64, db_index=True)

    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.QUEUED)
    stage = models.CharField(_("stage"), max_length=10, choices=Stage.choices, default=Stage.WAIT)
    progress = models.FloatField(_("progress"), default=0.0)
    remaining = models.FloatField(_("remaining seconds"), null=True, blank=True)
    priority = models.SmallIntegerField(_("priority"), default=0)
    turn = models.PositiveIntegerField(
        _("turn"), default=0, help_text=_("the round of the queue in which its owner is served")
    )
    attempt = models.PositiveSmallIntegerField(_("attempt"), default=0)
    lease = models.UUIDField(_("lease"), null=True, blank=True)
    heartbeat_at = models.DateTimeField(_("last heard of"), null=True, blank=True)
    host = models.CharField(_("machine"), max_length=255, blank=True)
    memory_reserved = models.PositiveBigIntegerField(_("memory set aside"), null=True, blank=True)
    memory_used = models.PositiveBigIntegerField(_("memory used"), null=True, blank=True)
    engine = models.CharField(_("engine"), max_length=80, blank=True)
    error_code = models.CharField(_("error"), max_length=40, blank=True)
    error_params = models.JSONField(_("error details"), default=dict, blank=True)

    cached = models.BooleanField(_("from an earlier result"), default=False)
    webhook_url = models.URLField(_("webhook"), max_length=500, blank=True)
    frames = models.PositiveBigIntegerField(_("samples"), null=True, blank=True)
    song_peak = models.FloatField(_("song's peak"), null=True, blank=True)
    song_loudness = models.FloatField(_("song's loudness"), null=True, blank=True)

    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    queued_at = models.DateTimeField(_("queued"))
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    used_at = models.DateTimeField(_("last used"), null=True, blank=True)
    expired_at = models.DateTimeField(_("stems deleted"), null=True, blank=True)

    objects = JobQuerySet.as_manager()

    class Meta(TypedModelMeta):
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        ordering = ("-created_at",)
        indexes = (
            models.Index(fields=("state", "-priority", "turn", "queued_at"), name="job_queue"),
            models.Index(
                fields=("model", "-finished_at"),
                name="job_measured",
                condition=Q(memory_used__isnull=False),
            ),
            models.Index(fields=("-created_at",), name="job_newest"),
            models.Index(fields=("-finished_at",), name="job_lately_ended"),
            models.Index(fields=("state", "-created_at"), name="job_of_state"),
            models.Index(fields=("cached", "-created_at"), name="job_from_store"),
            models.Index(fields=("model", "-created_at"), name="job_of_model"),
            models.Index(fields=("error_code", "-created_at"), name="job_of_error"),
        )
        constraints = (
            models.CheckConstraint(
                name="job_progress_is_a_share",
                condition=Q(progress__gte=0.0) & Q(progress__lte=1.0),
            ),
            models.CheckConstraint(
                name="job_runs_under_a_lease",
                condition=Q(state="running", lease__isnull=False, heartbeat_at__isnull=False)
                | (~Q(state="running") & Q(lease=None)),
            ),
            models.CheckConstraint(
                name="job_done_has_stems_to_play",
                condition=~Q(state="done") | Q(frames__isnull=False, progress=1.0),
            ),
            models.CheckConstraint(
                name="job_ended_has_a_time",
                condition=Q(state__in=("queued", "running"), finished_at=None)
                | Q(state__in=("done", "failed", "cancelled"), finished_at__isnull=False),
            ),
            models.CheckConstraint(
                name="job_ended_came_from_nowhere",
                condition=Q(network="") | Q(state__in=("queued", "running"), user=None),
            ),
            models.CheckConstraint(
                name="job_failed_says_why",
                condition=(Q(state="failed") & ~Q(error_code=""))
                | (~Q(state="failed") & Q(error_code="")),
            ),
            models.CheckConstraint(
                name="job_has_an_owner", condition=Q(user__isnull=False) | ~Q(visitor="")
            ),
            models.CheckConstraint(
                name="job_expires_when_done",
                condition=Q(expired_at=None) | Q(state="done"),
            ),
            models.UniqueConstraint(
                name="job_result_is_made_once", fields=("result_key",), condition=Q(state="running")
            ),
            models.UniqueConstraint(
                name="job_lease_is_unique", fields=("lease",), condition=Q(lease__isnull=False)
            ),
        )

    def __str__(self) -> str:
        return f"{self.upload} ({self.model})"

    @property
    def is_active(self) -> bool:
        return self.state in (Job.State.QUEUED, Job.State.RUNNING)

    @property
    def is_expired(self) -> bool:
        """Done, but its stems were deleted since."""
        return self.expired_at is not None

    @property
    def has_stems(self) -> bool:
        """The same as `JobQuerySet.served`, of a job at hand."""
        return self.state == Job.State.DONE and not self.is_expired

    @property
    def run(self) -> "Job":
        """The job whose progress is that of this one: it may wait for what another is making."""
        if self.state != Job.State.QUEUED:
            return self
        return Job.objects.running().filter(result_key=self.result_key).first() or self

    @property
    def owner(self) -> Owner:
        return Owner(visitor=self.visitor, user_id=self.user_id)

    def belongs_to(self, owner: Owner) -> bool:
        """The same as `JobQuerySet.visible_to`, of a job at hand."""
        if self.user_id is None:
            return bool(owner.visitor) and self.visitor == owner.visitor
        return self.user_id == owner.user_id

    @property
    def percent(self) -> int:
        """Whole percent, 100 only when the stems can be had."""
        return 100 if self.state == Job.State.DONE else min(99, int(self.progress * 100))

    @property
    def separation(self) -> Options:
        """The options as the engine takes them."""
        values: dict[str, Any] = self.options
        return Options(**values)

    @property
    def result_folder(self) -> Path:
        return folder_of(self.result_key)

    @property
    def staging_folder(self) -> Path:
        """Where the run that holds the job's lease writes."""
        return settings.STAGING_DIR / (self.lease or uuid.UUID(int=0)).hex

    @property
    def rendition_folder(self) -> Path:
        return settings.RENDITION_DIR / self.id.hex


class Stem(models.Model):
    """One stem of a finished job; its samples lie in the job's result folder."""

    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="stems", verbose_name=_("job")
    )
    name = models.CharField(_("name"), max_length=60)
    position = models.PositiveSmallIntegerField(_("position"))
    peak = models.FloatField(_("peak"), help_text=_("1 is full scale"))
    loudness = models.FloatField(_("loudness"), null=True, blank=True, help_text=_("LUFS"))

    class Meta(TypedModelMeta):
        verbose_name = _("stem")
        verbose_name_plural = _("stems")
        ordering = ("job", "position")
        indexes = (models.Index(fields=("name", "-id"), name="stem_of_name"),)
        constraints = (
            models.UniqueConstraint(name="stem_once_a_job", fields=("job", "name")),
            models.CheckConstraint(name="stem_peak_is_a_level", condition=Q(peak__gte=0.0)),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def path(self) -> Path:
        return self.job.result_folder / f"{self.name}.flac"


class ShareLinkQuerySet(models.QuerySet["ShareLink"]):
    def open(self) -> "ShareLinkQuerySet":
        """Links that lead to their song now."""
        in_time = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
        return self.filter(in_time, revoked_at=None)


class ShareLink(models.Model):
    """Lets whoever has its address listen to a song. The address itself is not kept."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="share_links", verbose_name=_("job")
    )
    token_hash = models.CharField(_("token's SHA-256"), max_length=64, unique=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    expires_at = models.DateTimeField(_("ends"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    objects = ShareLinkQuerySet.as_manager()

    class Meta(TypedModelMeta):
        verbose_name = _("share link")
        verbose_name_plural = _("share links")
        ordering = ("-created_at",)
        indexes = (models.Index(fields=("-created_at",), name="share_link_newest"),)

    def __str__(self) -> str:
        return str(self.pk)


class Transition(models.Model):
    """A line of a job's timeline: the state that it came into, when and why."""

    class Cause(models.TextChoices):
        SUBMITTED = "submitted", _("sent in")
        RETRIED = "retried", _("asked for again")
        CLAIMED = "claimed", _("taken by a runner")
        FINISHED = "finished", _("separated")
        REUSED = "reused", _("given the result of an earlier job")
        SHARED = "shared", _("given the result of a job beside it")
        INHERITED = "inherited", _("took over the run of a cancelled job")
        CANCELLED = "cancelled", _("cancelled")
        FAULT = "fault", _("met a fault")
        HANDED_BACK = "handed_back", _("handed back by a consumer that stopped")
        LOST = "lost", _("not heard of any more")

    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="timeline", verbose_name=_("job")
    )
    at = models.DateTimeField(_("time"), default=timezone.now)
    state = models.CharField(_("state"), max_length=10, choices=Job.State.choices)
    cause = models.CharField(_("cause"), max_length=12, choices=Cause.choices)
    detail = models.JSONField(_("details"), default=dict, blank=True)

    class Meta(TypedModelMeta):
        verbose_name = _("transition")
        verbose_name_plural = _("timeline")
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"{self.get_state_display()}: {self.get_cause_display()}"


class QueueSwitch(models.Model):
    """Whether jobs are taken from the queue at all: the one row there is, or none yet."""

    paused_at = models.DateTimeField(_("paused"), null=True, blank=True)
    paused_by = models.CharField(_("paused by"), max_length=150, blank=True)

    class Meta(TypedModelMeta):
        verbose_name = _("switch of the queue")
        verbose_name_plural = _("switches of the queue")
        constraints = (models.CheckConstraint(name="queue_switch_is_one", condition=Q(pk=1)),)

    def __str__(self) -> str:
        return "paused" if self.paused_at else "running"


PRESENCE_SECONDS = 20  # they tell of themselves every five, and have other things to do


class ConsumerQuerySet(models.QuerySet["Consumer"]):
    def alive(self) -> "ConsumerQuerySet":
        """Those heard of lately, by the database's clock alone."""
        return self.filter(self._heard())

    def with_liveness(self) -> "ConsumerQuerySet":
        """Each with `is_alive`, also those that stopped without a word."""
        return self.annotate(is_alive=ExpressionWrapper(self._heard(), models.BooleanField()))

    @staticmethod
    def _heard() -> Q:
        seconds = max(settings.LEASE_SECONDS, PRESENCE_SECONDS)
        return Q(heartbeat_at__gte=Now() - timedelta(seconds=seconds))


class Consumer(models.Model):
    """A process that runs jobs, as it last told of itself.

    slots: for each, the job it works on ("" for none) and the bytes its engine holds.
    machine: bytes of memory and disk, and of what is kept there; see `control.Machine`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    host = models.CharField(_("machine"), max_length=255)
    pid = models.PositiveIntegerField(_("process"))
    started_at = models.DateTimeField(_("started"))
    heartbeat_at = models.DateTimeField(_("last heard of"))
    slots = models.JSONField(_("slots"), default=list)
    machine = models.JSONField(_("machine's state"), default=dict)

    objects = ConsumerQuerySet.as_manager()

    class Meta(TypedModelMeta):
        verbose_name = _("consumer")
        verbose_name_plural = _("consumers")
        ordering = ("started_at",)

    def __str__(self) -> str:
        return f"{self.host} ({self.pid})"


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def valid(self) -> "ApiTokenQuerySet":
        in_time = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
        return self.filter(in_time, revoked_at=None, user__is_active=True)


class ApiToken(models.Model):
    """Lets a program act for an account. The token itself is shown once and not kept.

    hint: its first characters, by which its owner tells it from others.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="api_tokens",
        verbose_name=_("user"),
    )
    name = models.CharField(_("name"), max_length=60)
    hint = models.CharField(_("begins with"), max_length=12)
    token_hash = models.CharField(_("token's SHA-256"), max_length=64, unique=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    expires_at = models.DateTimeField(_("ends"), null=True, blank=True)
    used_at = models.DateTimeField(_("last used"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    objects = ApiTokenQuerySet.as_manager()

    class Meta(TypedModelMeta):
        verbose_name = _("API token")
        verbose_name_plural = _("API tokens")
        ordering = ("-created_at",)
        indexes = (models.Index(fields=("-created_at",), name="api_token_newest"),)

    def __str__(self) -> str:
        return self.name

    @property
    def has_ended(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= timezone.now()


class WebhookKey(models.Model):
    """Which signing secret of an account is in use; the secret itself is worked out, not kept."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="+",
        verbose_name=_("user"),
    )
    version = models.PositiveIntegerField(_("version"), default=1)

    class Meta(TypedModelMeta):
        verbose_name = _("webhook key")
        verbose_name_plural = _("webhook keys")

    def __str__(self) -> str:
        return f"{self.user_id} v{self.version}"


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def due(self) -> "DeliveryQuerySet":
        """What is to be sent now, the longest due first, by the database's clock."""
        waiting = self.filter(state=Delivery.State.WAITING, next_at__lte=Now())
        return waiting.order_by("next_at")


class Delivery(models.Model):
    """A webhook call about a job that ended, until it arrived or was given up.

    body: the very text that is sent and signed, the same in every attempt.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        DELIVERED = "delivered", _("delivered")
        GIVEN_UP = "given_up", _("given up")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="deliveries", verbose_name=_("job")
    )
    url = models.URLField(_("address"), max_length=500)
    host = models.CharField(_("host"), max_length=255, blank=True)
    body = models.TextField(_("body"))
    state = models.CharField(
        _("state"), max_length=10, choices=State.choices, default=State.WAITING
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_at = models.DateTimeField(_("next attempt"), default=timezone.now)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    outcome = models.CharField(_("last answer"), max_length=200, blank=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta(TypedModelMeta):
        verbose_name = _("webhook delivery")
        verbose_name_plural = _("webhook deliveries")
        ordering = ("-created_at",)
        indexes = (
            models.Index(fields=("next_at",), name="delivery_due", condition=Q(state="waiting")),
            models.Index(fields=("-created_at",), name="delivery_newest"),
            models.Index(fields=("state", "-created_at"), name="delivery_of_state"),
        )

    def __str__(self) -> str:
        return str(self.pk)


class IdempotencyKey(models.Model):
    """A request that may be repeated without making a second job. key: a keyed hash of the
    asker and what they sent as Idempotency-Key. request: a hash of what was asked for."""

    key = models.CharField(_("key"), max_length=64, primary_key=True)
    request = models.CharField(_("request"), max_length=64)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="+", verbose_name=_("job"))
    created_at = models.DateTimeField(_("created"), auto_now_add=True, db_index=True)

    class Meta(TypedModelMeta):
        verbose_name = _("idempotency key")
        verbose_name_plural = _("idempotency keys")

    def __str__(self) -> str:
        return self.key[:12]


class Bucket(models.Model):
    """What is left of a limit; see `separations.buckets`."""

    key = models.CharField(_("key"), max_length=64, primary_key=True)
    tokens = models.FloatField(_("tokens"))
    updated_at = models.DateTimeField(_("changed"), db_index=True)

    class Meta(TypedModelMeta):
        verbose_name = _("bucket")
        verbose_name_plural = _("buckets")

    def __str__(self) -> str:
        return self.key[:12]
