"""Jobs: one separation of one upload each."""

import uuid
from pathlib import Path
from typing import Any, TypeAlias

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django_stubs_ext.db.models import TypedModelMeta

from separations.engine.options import ALL_STEMS, Options
from separations.models.bounds import LONGEST, is_level, is_loudness
from separations.models.job_queries import JobQuerySet
from separations.models.job_state import ACTIVE, ENDED, JobStage, JobState
from separations.models.owner import Owner
from separations.models.queue_order import QUEUE_ORDER
from separations.models.upload import Upload


def folder_of(result_key: str) -> Path:
    """The folder of the result with this key."""
    return settings.RESULT_DIR / result_key[:2] / result_key


class Job(models.Model):
    """One separation of one upload."""

    State: TypeAlias = JobState
    Stage: TypeAlias = JobStage
    ENDED = ENDED

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
    # A keyed hash of a visitor's address range, for the queue; see `fair_use.quotas.address_hash`.
    network = models.CharField(_("network"), max_length=64, blank=True)

    model = models.CharField(_("model"), max_length=100)
    stem_choice = models.CharField(_("stem choice"), max_length=40, default=ALL_STEMS)
    options = models.JSONField(_("options"))
    notes = models.JSONField(_("notes"), default=list, blank=True)
    result_key = models.CharField(_("result"), max_length=64, db_index=True)
    # A hash of model, options and versions (`result_keys.recipe_of`); "" in old rows.
    recipe = models.CharField(_("recipe"), max_length=64, blank=True)

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
    room_lacks_since = models.DateTimeField(_("waits for room since"), null=True, blank=True)
    not_before = models.DateTimeField(_("not taken before"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    used_at = models.DateTimeField(_("last used"), null=True, blank=True)
    expired_at = models.DateTimeField(_("stems deleted"), null=True, blank=True)

    objects = JobQuerySet.as_manager()

    class Meta(TypedModelMeta):
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        ordering = ("-created_at",)
        indexes = (
            models.Index(fields=("state", *QUEUE_ORDER[:-1]), name="job_queue"),
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
                name="job_remaining_is_a_time",
                condition=Q(remaining=None) | Q(remaining__gte=0.0, remaining__lte=LONGEST),
            ),
            models.CheckConstraint(
                name="job_song_peak_is_a_level",
                condition=Q(song_peak=None) | is_level("song_peak"),
            ),
            models.CheckConstraint(
                name="job_song_loudness_is_a_level", condition=is_loudness("song_loudness")
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
        return self.state in ACTIVE

    @property
    def is_expired(self) -> bool:
        """Done, but its stems have been deleted."""
        return self.expired_at is not None

    @property
    def has_stems(self) -> bool:
        """The same as `JobQuerySet.served`, for a loaded job."""
        return self.state == Job.State.DONE and not self.is_expired

    @property
    def run(self) -> "Job":
        """The job whose progress is that of this one: itself, or the one it is attached to."""
        if self.state != Job.State.QUEUED:
            return self
        return Job.objects.running().filter(result_key=self.result_key).first() or self

    @property
    def owner(self) -> Owner:
        return Owner(visitor=self.visitor, user_id=self.user_id)

    def belongs_to(self, owner: Owner) -> bool:
        """The same as `JobQuerySet.visible_to`, for a loaded job."""
        if self.user_id is None:
            own = bool(owner.visitor) and self.visitor == owner.visitor
            return own or self.pk == owner.task
        return self.user_id == owner.user_id

    @property
    def percent(self) -> int:
        """Whole percent, 100 only when the stems are published."""
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
