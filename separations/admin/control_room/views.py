"""The control room: the operator's page, its parts that refresh themselves, and its buttons.

It needs the permission to view jobs; the buttons need the permission to change them.
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

from separations.admin.control_room import charts, dashboard, last_day
from separations.admin.control_room.waste import summarize
from separations.queue import queue_switch
from separations.web.number_format import lasting, share, size
from separations.worker import retention, tasks

View = Callable[..., HttpResponse]
UNCHANGED = 204  # htmx leaves the page as it is

# The kinds of `worker.waste.Waste` in the reader's language.
KINDS = {
    "staging": _("left by runs that were broken off"),
    "unfinished upload": _("uploads that were broken off"),
    "song without a record": _("songs without a record"),
    "song without a job": _("songs without a job"),
    "song": _("songs whose time is over"),
    "result": _("results whose time is over"),
    "broken result": _("results that lost files"),
    "result without a job": _("results without a job"),
    "cover": _("covers of songs that are gone"),
    "renditions": _("encoded files that can be made again"),
    "unfinished rendition": _("encodings that were broken off"),
    "job": _("records of jobs without files"),
    "sessions": _("sessions that ended"),
    "buckets": _("counts of fair use that ended"),
    "idempotency keys": _("keys of requests that could be repeated"),
    "counts of faults": _("counts of refused songs"),
}


def for_staff(permission: str) -> Callable[[View], View]:
    """Restrict a view to staff with a permission: others log in, staff without it get 403."""

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not request.user.has_perm(permission):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        guarded: View = admin.site.admin_view(checked)

        @wraps(view)
        def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            # A log-in page must not replace a part that refreshes itself.
            if _is_part(request) and not admin.site.has_permission(request):
                return HttpResponseClientRefresh()
            return guarded(request, *args, **kwargs)

        return answer

    return decorate


needs_view_permission = for_staff("separations.view_job")
needs_change_permission = for_staff("separations.change_job")


def _is_part(request: HttpRequest) -> bool:
    return bool(getattr(request, "htmx", False))


# The page and its parts


@require_GET
@needs_view_permission
def overview(request: HttpRequest) -> HttpResponse:
    return _page(request)


def _page(request: HttpRequest, **more: object) -> HttpResponse:
    now = dashboard.live()
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
@needs_view_permission
def switch(request: HttpRequest) -> HttpResponse:
    """The switch of the queue; 204 when the page shows its current state."""
    state = dashboard.switch()
    if request.GET.get("known") == state.key:
        return HttpResponse(status=UNCHANGED)
    context = {"switch": state, "may_handle": _may_handle(request)}
    return render(request, "admin/control/_switch.html", context)


@require_GET
@needs_view_permission
def live(request: HttpRequest) -> HttpResponse:
    return render(request, "admin/control/_live.html", {"now": dashboard.live()})


@require_GET
@needs_view_permission
def day(request: HttpRequest) -> HttpResponse:
    return render(request, "admin/control/_day.html", {"day": _day()})


@require_GET
@needs_view_permission
def waste(request: HttpRequest) -> HttpResponse:
    """What a clean-up would delete now, by a dry run."""
    try:
        heaps = summarize(retention.clean(dry_run=True))
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
@needs_change_permission
def pause(request: HttpRequest) -> HttpResponse:
    if queue_switch.is_paused():
        messages.info(request, gettext("The queue is paused already."))
    else:
        queue_switch.pause(request.user.get_username())
        messages.warning(request, gettext("The queue is paused. Jobs that run go on to their end."))
    return redirect("control:overview")


@require_POST
@needs_change_permission
def resume(request: HttpRequest) -> HttpResponse:
    queue_switch.resume()
    tasks.wake()
    messages.success(request, gettext("The queue goes on."))
    return redirect("control:overview")


@require_POST
@needs_change_permission
def clean(request: HttpRequest) -> HttpResponse:
    tasks.clean_soon()
    if dashboard.switch().alive:
        messages.success(request, gettext("A consumer is cleaning up now."))
    else:
        messages.warning(request, gettext("A consumer will clean up as soon as one runs."))
    return redirect("control:overview")


# The last day


@dataclass(frozen=True)
class DayPresenter:
    """What the template shows of the last day. top_jobs, top_minutes: a chart's highest value."""

    figures: list[tuple[str, str]]
    jobs: charts.Chart
    minutes: charts.Chart
    top_jobs: str
    top_minutes: str
    says_jobs: str
    says_minutes: str
    day: last_day.Day


def _day() -> DayPresenter:
    day = last_day.day()
    jobs = charts.stacked(("done", "failed"), [(hour.done, hour.failed) for hour in day.hours])
    minutes = charts.stacked(("minutes",), [(hour.minutes,) for hour in day.hours])
    return DayPresenter(
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


def _figures(day: last_day.Day) -> list[tuple[str, str]]:
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
