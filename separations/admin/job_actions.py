"""What the operator can do to jobs: buttons that call what the pages call."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from separations import histories, jobs, sentences, tasks
from separations.admin.quick import QuickAdmin
from separations.faults import Fault
from separations.models import Job, JobQuerySet

SHOWN = 20  # songs that are named before they are deleted


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
        count = sum(jobs.cancel(job, jobs.STAFF) for job in chosen)
        text = ngettext("%(count)d job was cancelled.", "%(count)d jobs were cancelled.", count)
        self._tell(request, text, count)

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
        self._tell(request, text, count)

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
        count = jobs.prioritise(chosen.order_by(), priority)
        text = ngettext("%(count)d job was moved.", "%(count)d jobs were moved.", count)
        self._tell(request, text, count)

    def _tell(self, request: HttpRequest, text: str, count: int) -> None:
        level = messages.SUCCESS if count else messages.WARNING  # nothing was to be done
        self.message_user(request, text % {"count": count}, level)

    @admin.action(description=_("Download log"), permissions=("view",))
    def download_log(self, request: HttpRequest, chosen: QuerySet[Job]) -> HttpResponse:
        whole = chosen.select_related("upload", "user").prefetch_related("timeline")
        name = f"jobs-{timezone.localtime():%Y%m%d-%H%M%S}.txt"
        return HttpResponse(
            histories.log(whole),
            content_type="text/plain; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    @admin.action(description=_("Delete with all files"), permissions=("delete",))
    def delete_jobs(self, request: HttpRequest, chosen: QuerySet[Job]) -> HttpResponseBase | None:
        """Asks first, as Django's own does: it cannot be taken back."""
        if request.POST.get("post") != "yes":
            return self._ask_to_delete(request, chosen)
        gone = list(chosen.select_related("upload"))
        self.log_deletions(request, gone)  # type: ignore[arg-type]
        for job in gone:
            jobs.remove(job)
        text = ngettext(
            "%(count)d job and its files were deleted.",
            "%(count)d jobs and their files were deleted.",
            len(gone),
        )
        self._tell(request, text, len(gone))
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
