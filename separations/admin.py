"""The operator's view of uploads, jobs and stems. Buttons call the services the pages call."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from separations import accounts, jobs, sentences, tasks
from separations.faults import Fault
from separations.models import Job, JobQuerySet, ShareLink, Stem, Upload
from separations.pages import clock


class ReadOnly:
    """Rows are written by the services alone."""

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


def song_link(job: Job | None) -> SafeString:
    """A link to the song's page."""
    if job is None:
        return SafeString("")
    address = reverse("separations:job", args=[job.pk])
    return format_html('<a href="{}">{}</a>', address, _("open"))


class StemInline(ReadOnly, admin.TabularInline[Stem, Job]):
    model = Stem
    fields = ("name", "peak")
    extra = 0
    can_delete = False


@admin.register(Upload)
class UploadAdmin(ReadOnly, admin.ModelAdmin[Upload]):
    list_display = (
        "title",
        "page",
        "artist",
        "length",
        "codec",
        "sample_rate",
        "channels",
        "megabytes",
        "created_at",
    )
    list_filter = ("codec", "created_at")
    search_fields = ("title", "artist", "file_name", "samples_sha256")
    date_hierarchy = "created_at"

    @admin.display(description=_("length"), ordering="seconds")
    def length(self, upload: Upload) -> str:
        return clock(upload.seconds)

    @admin.display(description=_("page"))
    def page(self, upload: Upload) -> SafeString:
        return song_link(upload.jobs.first())

    @admin.display(description=_("MB"), ordering="bytes")
    def megabytes(self, upload: Upload) -> str:
        return f"{upload.bytes / 1e6:.1f}"

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False  # an upload goes with the last of its jobs


@admin.register(Job)
class JobAdmin(ReadOnly, admin.ModelAdmin[Job]):
    list_display = (
        "song",
        "page",
        "state",
        "bar",
        "model",
        "stem_choice",
        "took",
        "attempt",
        "priority",
        "created_at",
    )
    list_filter = ("state", "model", "engine", "cached", "error_code", "created_at")
    search_fields = (
        "upload__title",
        "upload__artist",
        "upload__file_name",
        "=visitor",
        "=user__username",
    )
    list_select_related = ("upload",)
    date_hierarchy = "created_at"
    inlines = (StemInline,)
    actions = ("cancel_jobs", "retry_jobs", "run_first", "run_last", "run_in_turn", "delete_jobs")

    @admin.display(description=_("song"), ordering="upload__title")
    def song(self, job: Job) -> str:
        return str(job.upload)

    @admin.display(description=_("progress"), ordering="progress")
    def bar(self, job: Job) -> SafeString:
        return format_html('<progress max="100" value="{0}">{0} %</progress> {0} %', job.percent)

    @admin.display(description=_("took"))
    def took(self, job: Job) -> str:
        if job.started_at is None:
            return ""
        return clock(((job.finished_at or timezone.now()) - job.started_at).total_seconds())

    @admin.display(description=_("page"))
    def page(self, job: Job) -> SafeString:
        return song_link(job)

    def get_actions(self, request: HttpRequest) -> dict[str, tuple[object, str, str]]:  # type: ignore[override]
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)  # it would leave the files behind
        return actions  # type: ignore[return-value]

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Stems go with their job; no permission of their own is asked for."""
        shown, counts, _missing, protected = super().get_deleted_objects(objs, request)
        return shown, counts, set(), protected

    def delete_model(self, request: HttpRequest, obj: Job) -> None:
        jobs.remove(obj)

    def has_handle_permission(self, request: HttpRequest) -> bool:
        """Rows are never edited by hand, but who may change jobs may stop and restart them."""
        return request.user.has_perm("separations.change_job")

    @admin.action(description=_("Cancel"), permissions=("handle",))
    def cancel_jobs(self, request: HttpRequest, chosen: QuerySet[Job]) -> None:
        count = sum(jobs.cancel(job) for job in chosen)
        text = ngettext("%(count)d job was cancelled.", "%(count)d jobs were cancelled.", count)
        self.message_user(request, text % {"count": count})

    @admin.action(description=_("Try again"), permissions=("handle",))
    def retry_jobs(self, request: HttpRequest, chosen: QuerySet[Job]) -> None:
        count = 0
        for job in chosen.select_related("upload"):
            try:
                count += jobs.retry(job)
            except Fault as fault:
                self.message_user(request, f"{job}: {sentences.sentence(fault)}", messages.ERROR)
        tasks.wake()
        text = ngettext("%(count)d job was queued.", "%(count)d jobs were queued.", count)
        self.message_user(request, text % {"count": count})

    @admin.action(description=_("Run before all others"), permissions=("handle",))
    def run_first(self, request: HttpRequest, chosen: JobQuerySet) -> None:
        self._prioritise(request, chosen, jobs.FIRST)

    @admin.action(description=_("Run after all others"), permissions=("handle",))
    def run_last(self, request: HttpRequest, chosen: JobQuerySet) -> None:
        self._prioritise(request, chosen, jobs.LAST)

    @admin.action(description=_("Run when it is their turn"), permissions=("handle",))
    def run_in_turn(self, request: HttpRequest, chosen: JobQuerySet) -> None:
        self._prioritise(request, chosen, jobs.IN_TURN)

    def _prioritise(self, request: HttpRequest, chosen: JobQuerySet, priority: int) -> None:
        count = jobs.prioritise(chosen, priority)
        text = ngettext("%(count)d job was moved.", "%(count)d jobs were moved.", count)
        self.message_user(request, text % {"count": count})

    @admin.action(description=_("Delete with all files"), permissions=("delete",))
    def delete_jobs(self, request: HttpRequest, chosen: QuerySet[Job]) -> None:
        for job in chosen.select_related("upload"):
            jobs.remove(job)
        self.message_user(request, _("The jobs and their files were deleted."))


@admin.register(Stem)
class StemAdmin(ReadOnly, admin.ModelAdmin[Stem]):
    list_display = ("name", "job", "peak", "page")
    list_filter = ("name",)
    search_fields = ("job__upload__title", "name")
    list_select_related = ("job__upload",)

    @admin.display(description=_("page"))
    def page(self, stem: Stem) -> SafeString:
        return song_link(stem.job)

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


@admin.register(ShareLink)
class ShareLinkAdmin(ReadOnly, admin.ModelAdmin[ShareLink]):
    """Deleting a link ends it."""

    list_display = ("job", "created_at", "expires_at", "revoked_at", "page")
    list_filter = ("created_at",)
    search_fields = ("job__upload__title", "=job__user__username")
    list_select_related = ("job__upload",)
    exclude = ("token_hash",)

    @admin.display(description=_("page"))
    def page(self, link: ShareLink) -> SafeString:
        return song_link(link.job)


admin.site.unregister(User)


@admin.register(User)
class AccountAdmin(UserAdmin[User]):
    """Django's, but songs go with their owner; else nobody who has any could be deleted."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        shown, counts, missing, _songs = super().get_deleted_objects(objs, request)
        return shown, counts, missing, []

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        accounts.delete_account(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            accounts.delete_account(user)
