"""The control room: one page for the operator, parts of it that refresh themselves, three buttons.

Whoever may see jobs in the admin sees it; the buttons need the permission to change them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.formats import number_format
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_POST
from django_htmx.http import HttpResponseClientRefresh

from separations import charts, control, retention, tasks
from separations import overview as figures_of
from separations.figures import lasting, share, size

View = Callable[..., HttpResponse]
UNCHANGED = 204  # htmx leaves the page as it is

# The kinds of `retention.Waste` in the reader's words.
KINDS = {
    "staging": _("left by runs that were broken off"),
    "unfinished upload": _("uploads that were broken off"),
    "song without a record": _("songs without a record"),
    "song without a job": _("songs without a job"),
    "song": _("songs whose time is over"),
    "result": _("results whose time is over"),
    "broken result": _("results that lost files"),
    "result without a job": _("results without a job"),
    "renditions": _("encoded files that can be made again"),
    "unfinished rendition": _("encodings that were broken off"),
    "job": _("records of jobs without files"),
    "sessions": _("sessions that ended"),
    "buckets": _("counts of fair use that ended"),
    "idempotency keys": _("keys of requests that could be repeated"),
}


def for_staff(permission: str) -> Callable[[View], View]:
    """Only for staff with a permission: others log in first, staff without it are refused."""

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not request.user.has_perm(permission):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        guarded: View = admin.site.admin_view(checked)

        @wraps(view)
        def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            # A part that refreshes itself must not be replaced by a log-in page.
            if _is_part(request) and not admin.site.has_permission(request):
                return HttpResponseClientRefresh()
            return guarded(request, *args, **kwargs)

        return answer

    return decorate


sees = for_staff("separations.view_job")
handles = for_staff("separations.change_job")


def _is_part(request: HttpRequest) -> bool:
    return bool(getattr(request, "htmx", False))


# The page and its parts


@require_GET
@sees
def overview(request: HttpRequest) -> HttpResponse:
    return _page(request)


def _page(request: HttpRequest, **more: object) -> HttpResponse:
    now = figures_of.live()
    context = {
        **admin.site.each_context(request),
        "title": gettext("Control room"),
        "now": now,
        "switch": now.switch,
        "day": _day(),
        "may_handle": _may_handle(request),
        **more,
    }
    return render(request, "admin/control/overview.html", context)


def _may_handle(request: HttpRequest) -> bool:
    return request.user.has_perm("separations.change_job")


@require_GET
@sees
def switch(request: HttpRequest) -> HttpResponse:
    """Whether jobs are taken. Nothing where the reader has it before them already."""
    state = figures_of.switch()
    if request.GET.get("known") == state.key:
        return HttpResponse(status=UNCHANGED)
    context = {"switch": state, "may_handle": _may_handle(request)}
    return render(request, "admin/control/_switch.html", context)


@require_GET
@sees
def live(request: HttpRequest) -> HttpResponse:
    return render(request, "admin/control/_live.html", {"now": figures_of.live()})


@require_GET
@sees
def day(request: HttpRequest) -> HttpResponse:
    return render(request, "admin/control/_day.html", {"day": _day()})


@require_GET
@sees
def waste(request: HttpRequest) -> HttpResponse:
    """What a clean-up would delete now."""
    try:
        heaps = figures_of.heaps(retention.clean(dry_run=True))
    except retention.Busy:
        heaps = None
    context = {
        "asked": True,
        "busy": heaps is None,
        "heaps": [
            (KINDS.get(heap.kind, heap.kind), heap.count, size(heap.bytes)) for heap in heaps or ()
        ],
        "freed": size(sum(heap.bytes for heap in heaps or ())),
    }
    if _is_part(request):
        return render(request, "admin/control/_waste.html", context)
    return _page(request, **context)


# Buttons


@require_POST
@handles
def pause(request: HttpRequest) -> HttpResponse:
    if control.is_paused():
        messages.info(request, gettext("The queue is paused already."))
    else:
        control.pause(request.user.get_username())
        messages.warning(request, gettext("The queue is paused. Jobs that run go on to their end."))
    return redirect("control:overview")


@require_POST
@handles
def resume(request: HttpRequest) -> HttpResponse:
    control.resume()
    tasks.wake()
    messages.success(request, gettext("The queue goes on."))
    return redirect("control:overview")


@require_POST
@handles
def clean(request: HttpRequest) -> HttpResponse:
    tasks.clean_soon()
    if figures_of.switch().alive:
        messages.success(request, gettext("A consumer is cleaning up now."))
    else:
        messages.warning(request, gettext("A consumer will clean up as soon as one runs."))
    return redirect("control:overview")


# The last day as it is shown


@dataclass(frozen=True)
class DayView:
    """figures: names and values. top_jobs, top_minutes: what the upper edge of a chart means."""

    figures: list[tuple[str, str]]
    jobs: charts.Chart
    minutes: charts.Chart
    top_jobs: str
    top_minutes: str
    says_jobs: str
    says_minutes: str
    day: figures_of.Day


def _day() -> DayView:
    day = figures_of.day()
    jobs = charts.stacked(("done", "failed"), [(hour.done, hour.failed) for hour in day.hours])
    minutes = charts.stacked(("minutes",), [(hour.minutes,) for hour in day.hours])
    return DayView(
        figures=_figures(day),
        jobs=jobs,
        minutes=minutes,
        top_jobs=_number(jobs.highest),
        top_minutes=_number(minutes.highest, 1),
        says_jobs=gettext("%(done)d done, %(failed)d failed; at most %(most)d in an hour.")
        % {"done": day.done, "failed": day.failed, "most": jobs.highest},
        says_minutes=gettext("%(minutes)d minutes in all; at most %(most)d in an hour.")
        % {"minutes": day.minutes, "most": minutes.highest},
        day=day,
    )


def _figures(day: figures_of.Day) -> list[tuple[str, str]]:
    hits = share(day.cached, day.done)
    return [
        (gettext("done"), _number(day.done)),
        (gettext("failed"), _number(day.failed)),
        (gettext("cancelled"), _number(day.cancelled)),
        (gettext("audio separated"), lasting(day.minutes * 60)),
        (gettext("time ÷ length"), "–" if day.speed is None else _number(day.speed, 2)),
        (gettext("from earlier results"), "–" if hits is None else f"{hits} %"),
    ]


def _number(value: float, places: int = 0) -> str:
    return number_format(value, places, use_l10n=True)
