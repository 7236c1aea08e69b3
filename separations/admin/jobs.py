"""Jobs in the admin: the list, its filters and search, and a job's page."""

import uuid
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from separations.admin import job_history
from separations.admin.base import IndexedFilter
from separations.admin.job_actions import JobActions
from separations.admin.search import matching_jobs
from separations.errors import user_messages
from separations.models import Job, JobQuerySet
from separations.web.number_format import lasting, size

State = Job.State
# The actions on a job's page, by its state.
BUTTONS = {
    State.QUEUED: ("cancel_jobs", "run_first", "run_last", "run_in_turn"),
    State.RUNNING: ("cancel_jobs",),
    State.FAILED: ("retry_jobs",),
    State.CANCELLED: ("retry_jobs",),
}


def song_link(job_id: uuid.UUID | None) -> SafeString:
    """A link to the song's page."""
    if job_id is None:
        return SafeString("")
    address = reverse("separations:job", args=[job_id])
    return format_html('<a href="{}">{}</a>', address, _("open"))


def job_link(job: Job) -> SafeString:
    """A link to the job's page in the admin."""
    address = reverse("admin:separations_job_change", args=[job.pk])
    return format_html('<a href="{}">{}</a>', address, job)


class ModelFilter(IndexedFilter):
    model, parameter_name, title = Job, "model", _("model")


class ErrorFilter(IndexedFilter):
    model, parameter_name, title = Job, "error_code", _("error")


class CachedFilter(admin.SimpleListFilter):
    """Compares with a value: SQLite uses no index for a bare boolean column."""

    title, parameter_name = _("from an earlier result"), "cached"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("yes")), ("no", _("no"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Model]) -> QuerySet[Model]:
        value = self.value()
        return queryset.filter(cached__in=[value == "yes"]) if value else queryset


class OwnerFilter(admin.SimpleListFilter):
    """Jobs with the same owner as a given job; only links choose it."""

    title, parameter_name = _("owner"), "owner_of"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        given = request.GET.get(self.parameter_name)
        return [(given, gettext("of this one"))] if given else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Model]) -> QuerySet[Model]:
        value = self.value()
        if not value:
            return queryset
        try:
            job = Job.objects.get(pk=uuid.UUID(value))
        except (ValueError, Job.DoesNotExist):
            return queryset.none()
        return cast(JobQuerySet, queryset).of(job.owner)


@admin.register(Job)
class JobAdmin(JobActions):
    list_display = (
        *("song", "status", "owner", "the_model", "length"),
        *("waited", "took", "speed", "page", "created_at"),
    )
    list_filter = ("state", ModelFilter, CachedFilter, ErrorFilter, "created_at", OwnerFilter)
    search_fields = ("upload__title",)  # brings the box; see `get_search_results`
    search_help_text = _(
        "Title, artist, file name, account, visitor, or the beginning of an id or hash"
    )
    list_select_related = ("upload", "user")
    date_hierarchy = "created_at"
    own_lookups = ("user__id__exact",)  # of an account's songs
    change_form_template = "admin/separations/job_page.html"
    readonly_fields = (
        *("step", "bar", "sentence", "owner", "page", "length", "waited", "took", "speed"),
        *("choices", "said", "set_aside", "needed"),
    )
    fieldsets = (
        (None, {"fields": ("state", "step", "bar", "sentence", "owner", "page", "priority")}),
        (_("Times"), {"fields": ("created_at", "length", "waited", "took", "speed", "attempt")}),
        (_("Separation"), {"fields": ("model", "stem_choice", "choices", "said", "cached")}),
        (_("Machine"), {"fields": ("engine", "host", "set_aside", "needed")}),
        (_("Result"), {"fields": ("result_key", "finished_at", "used_at", "expired_at")}),
    )

    # Columns

    @admin.display(description=_("song"))
    def song(self, job: Job) -> str:
        return str(job.upload)

    @admin.display(description=_("page"))
    def page(self, job: Job) -> SafeString:
        return song_link(job.pk)

    @admin.display(description=_("state"))
    def status(self, job: Job) -> SafeString:
        """The state, attempt, stage, progress and error in one column, to fit the screen."""
        label = job.get_state_display()
        parts: list[str] = [format_html('<span class="state {}">{}</span>', job.state, label)]
        if job.attempt > 1:
            parts.append(gettext("attempt %(number)s") % {"number": job.attempt})
        if job.is_active:
            if job.stage != Job.Stage.SEPARATE:  # whose label is the state's
                parts.append(self.step(job))
            parts.append(self.bar(job))
        if job.error_code:
            parts.append(self._error(job))
        return format_html_join(SafeString("<br>"), "{}", ((each,) for each in parts))

    @admin.display(description=_("progress"))
    def bar(self, job: Job) -> SafeString:
        text = '<progress max="100" value="{0}" aria-label="{1}">{0} %</progress> {0} %'
        return format_html(text, job.percent, _("progress"))

    @admin.display(description=_("stage"))
    def step(self, job: Job) -> str:
        return job.get_stage_display() if job.is_active else ""

    @admin.display(description=_("owner"))
    def owner(self, job: Job) -> SafeString:
        address = reverse("admin:separations_job_changelist")
        words = job_history.owner_label(job)
        return format_html('<a href="{}?owner_of={}">{}</a>', address, job.pk, words)

    @admin.display(description=_("model"))
    def the_model(self, job: Job) -> str:
        return job.model

    @admin.display(description=_("length"))
    def length(self, job: Job) -> str:
        return lasting(job.upload.seconds)

    @admin.display(description=_("waited"))
    def waited(self, job: Job) -> str:
        return lasting(job_history.waited(job))

    @admin.display(description=_("took"))
    def took(self, job: Job) -> str:
        seconds = job_history.took(job)
        return "" if seconds is None else lasting(seconds)

    @admin.display(description=_("time ÷ length"))
    def speed(self, job: Job) -> str:
        value = job_history.speed(job)
        return "" if value is None else f"{value:.2f}"

    def _error(self, job: Job) -> SafeString:
        sentence = user_messages.fault_sentence(job.error_code, job.error_params)
        short = Truncator(sentence).chars(60)
        return format_html('<span class="error" title="{}">{}</span>', sentence, short)

    # Only on a job's page

    @admin.display(description=_("error"))
    def sentence(self, job: Job) -> str:
        return (
            user_messages.fault_sentence(job.error_code, job.error_params) if job.error_code else ""
        )

    @admin.display(description=_("options"))
    def choices(self, job: Job) -> SafeString:
        return _terms({name: _value(value) for name, value in job.options.items()})

    @admin.display(description=_("notes"))
    def said(self, job: Job) -> str:
        return " ".join(user_messages.note_sentences(job.notes))

    @admin.display(description=_("memory set aside"))
    def set_aside(self, job: Job) -> str:
        return size(job.memory_reserved) if job.memory_reserved else ""

    @admin.display(description=_("memory used"))
    def needed(self, job: Job) -> str:
        return size(job.memory_used) if job.memory_used else ""

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        job = self.get_object(request, object_id)
        more: dict[str, Any] = {}
        if job is not None and self.has_view_permission(request, job):
            offered = self.get_actions(request)
            names = (*BUTTONS.get(State(job.state), ()), "download_log")
            more = {
                "timeline": job_history.log_lines(job),
                "stems": job.stems.all(),
                "deliveries": job.deliveries.all(),
                "buttons": [(name, offered[name][2]) for name in names if name in offered],
                "box": ACTION_CHECKBOX_NAME,
            }
        return super().change_view(request, object_id, form_url, {**more, **(extra_context or {})})

    # Search

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        text = search_term.strip()
        return (queryset.filter(matching_jobs(text)) if text else queryset), False


def _value(value: object) -> object:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return "–" if value in (None, "") else value


def _terms(values: dict[str, object]) -> SafeString:
    """A list of names and values."""
    rows = (format_html("<dt>{}</dt><dd>{}</dd>", *pair) for pair in values.items())
    return format_html('<dl class="terms">{}</dl>', SafeString("".join(rows)))
