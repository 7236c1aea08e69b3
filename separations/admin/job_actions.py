"""Admin actions on jobs: cancel, retry, reorder, download the log, delete."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from separations.admin import job_history
from separations.admin.base import QuickAdmin
from separations.errors import user_messages
from separations.errors.fault import Fault
from separations.jobs import fair_turns, lifecycle
from separations.models import Job, JobQuerySet
from separations.worker import tasks

SHOWN = 20  # songs that the confirmation page names


class JobActions(QuickAdmin[Job]):
    actions = (
        "cancel_jobs",
        "retry_jobs",
        "run_first",
        "run_last",
        "run_in_turn",
        "download_log",
        "delete_jobs",
    )

    def get_actions(self, request: HttpRequest) -> dict[str, tuple[Any, str, str]]:  # type: ignore[override]
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)  # it would leave the files behind
        return actions  # type: ignore[return-value]

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Stems are deleted with their job and need no permission of their own."""
        shown, counts, _missing, protected = super().get_deleted_objects(objs, request)
        return shown, counts, set(), protected

    def delete_model(self, request: HttpRequest, obj: Job) -> None:
        lifecycle.remove(obj)

    def has_handle_permission(self, request: HttpRequest) -> bool:
        """Jobs are never edited by hand; the permission to change them allows these actions."""
        return request.user.has_perm("separations.change_job")

    @admin.action(description=_("Cancel"), permissions=("handle",))
    def cancel_jobs(self, request: HttpRequest, chosen: QuerySet[Job]) -> None:
        count = sum(lifecycle.cancel(job, lifecycle.STAFF) for job in chosen)
        text = ngettext("%(count)d job was cancelled.", "%(count)d jobs were cancelled.", count)
        self._report(request, text, count)

    @admin.action(description=_("Try again"), permissions=("handle",))
    def retry_jobs(self, request: HttpRequest, chosen: QuerySet[Job]) -> None:
        count = 0
        for job in chosen.select_related("upload"):
            try:
                count += lifecycle.retry(job)
            except Fault as fault:
                self.message_user(
                    request, f"{job}: {user_messages.sentence(fault)}", messages.ERROR
                )
        tasks.wake()
        text = ngettext("%(count)d job was queued.", "%(count)d jobs were queued.", count)
        self._report(request, text, count)

    @admin.action(description=_("Run before all others"), permissions=("handle",))
    def run_first(self, request: HttpRequest, chosen: JobQuerySet) -> None:
        self._prioritise(request, chosen, fair_turns.FIRST)

    @admin.action(description=_("Run after all others"), permissions=("handle",))
    def run_last(self, request: HttpRequest, chosen: JobQuerySet) -> None:
        self._prioritise(request, chosen, fair_turns.LAST)

    @admin.action(description=_("Run when it is their turn"), permissions=("handle",))
    def run_in_turn(self, request: HttpRequest, chosen: JobQuerySet) -> None:
        self._prioritise(request, chosen, fair_turns.IN_TURN)

    def _prioritise(self, request: HttpRequest, chosen: JobQuerySet, priority: int) -> None:
        count = fair_turns.prioritise(chosen.order_by(), priority)
        text = ngettext("%(count)d job was moved.", "%(count)d jobs were moved.", count)
        self._report(request, text, count)

    def _report(self, request: HttpRequest, text: str, count: int) -> None:
        level = messages.SUCCESS if count else messages.WARNING  # there was nothing to do
        self.message_user(request, text % {"count": count}, level)

    @admin.action(description=_("Download log"), permissions=("view",))
    def download_log(self, request: HttpRequest, chosen: QuerySet[Job]) -> HttpResponse:
        whole = chosen.select_related("upload", "user").prefetch_related("timeline")
        name = f"jobs-{timezone.localtime():%Y%m%d-%H%M%S}.txt"
        return HttpResponse(
            job_history.log_text(whole),
            content_type="text/plain; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    @admin.action(description=_("Delete with all files"), permissions=("delete",))
    def delete_jobs(self, request: HttpRequest, chosen: QuerySet[Job]) -> HttpResponseBase | None:
        """Delete after a confirmation page, as Django's own action."""
        if request.POST.get("post") != "yes":
            return self._ask_to_delete(request, chosen)
        gone = list(chosen.select_related("upload"))
        self.log_deletions(request, gone)  # type: ignore[arg-type]
        for job in gone:
            lifecycle.remove(job)
        text = ngettext(
            "%(count)d job and its files were deleted.",
            "%(count)d jobs and their files were deleted.",
            len(gone),
        )
        self._report(request, text, len(gone))
        return None

    def _ask_to_delete(self, request: HttpRequest, chosen: QuerySet[Job]) -> HttpResponseBase:
        count = chosen.count()
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("Delete with all files"),
            "opts": self.opts,
            "count": count,
            "shown": chosen.select_related("upload")[:SHOWN],
            "more": max(0, count - SHOWN),
            "box": ACTION_CHECKBOX_NAME,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "across": request.POST.get("select_across", "0"),
        }
        return TemplateResponse(request, "admin/separations/delete_jobs.html", context)
