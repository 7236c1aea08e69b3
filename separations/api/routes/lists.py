"""The API's lists: the songs of an owner, and the models."""

from dataclasses import asdict
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Annotated

from django.conf import settings
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext
from ninja import Query, Router

from separations.access import permissions
from separations.api import auth, job_pages, named_values, schemas
from separations.api.openapi import OPEN, problem_responses
from separations.api.serializers import serialize_task
from separations.audio.encoding.formats import DEFAULT_FORMAT, FORMATS, Format
from separations.engine.weights.store import list_models
from separations.fair_use import quotas, rate_limits
from separations.models import Job
from separations.web.forms import about_model
from separations.webhooks import events

router = Router()
MOST_A_PAGE = 100
# The parameter `page` is deprecated since version 0.2 (RFC 9745: seconds since 1970), and goes no
# earlier than that (RFC 8594); see "What stays, and for how long" in docs/api.md.
NUMBERED_PAGES_END = {
    "Deprecation": f"@{datetime(2026, 11, 28, tzinfo=UTC).timestamp():.0f}",
    "Sunset": format_datetime(datetime(2027, 11, 28, tzinfo=UTC), usegmt=True),
}
TOLD_RATES = ("upload", "action", "download", "encode", "api", "events")


@router.get(
    "/jobs",
    response={200: schemas.Tasks, **problem_responses(401, 404, 422, 429)},
    operation_id="listJobs",
    url_name="jobs",
    summary="Your songs, the newest first",
    tags=["Lists"],
)
def list_jobs(
    request: HttpRequest,
    response: HttpResponse,
    status: Annotated[
        list[named_values.Status],
        Query(
            default_factory=list,
            description="Of the songs themselves: one that waits for the run of another is "
            "`queued` here, while its `status` is that of the run.",
        ),
    ],
    model: Annotated[
        str,
        Query("", max_length=100, pattern=r"^[^\x00]*$", description="Songs of this model alone."),
    ],
    cursor: Annotated[
        str,
        Query(
            "",
            max_length=100,
            description="Where a page begins: `next_cursor` of the page before. Songs that come or "
            "go meanwhile move nothing. Without it and `page`, the newest come first.",
        ),
    ],
    page: Annotated[
        int | None,
        Query(
            None,
            ge=1,
            le=1_000_000,
            deprecated=True,
            description="The page of this number; `cursor` takes its place.",
        ),
    ],
    per_page: Annotated[int, Query(20, ge=1, le=MOST_A_PAGE, description="Songs on a page.")],
) -> schemas.Tasks:
    """Of the account or visitor that asks. Follow `next` until it is null."""
    found = permissions.visible_jobs(request).prefetch_related("stems")
    if status:
        found = found.filter(state__in=[s for s, name in events.STATUS.items() if name in status])
    if model:
        found = found.filter(model=model)
    pages = Paginator(found, per_page)
    if page is not None and not cursor:
        for name, value in NUMBERED_PAGES_END.items():
            response.headers[name] = value
        return _numbered_page(request, pages, page)
    shown = job_pages.read(found, per_page, cursor)
    return schemas.Tasks(
        items=[serialize_task(request, job) for job in shown.jobs],
        count=pages.count,
        page=None if cursor else 1,
        pages=pages.num_pages,
        next=_address(request, "cursor", shown.next),
        previous=_address(request, "cursor", shown.previous),
        next_cursor=shown.next,
    )


def _numbered_page(request: HttpRequest, pages: "Paginator[Job]", page: int) -> schemas.Tasks:
    if page > pages.num_pages:
        raise Http404
    shown = pages.page(page)
    return schemas.Tasks(
        items=[serialize_task(request, job) for job in shown],
        count=pages.count,
        page=page,
        pages=pages.num_pages,
        next=_address(request, "page", str(page + 1) if shown.has_next() else None),
        previous=_address(request, "page", str(page - 1) if shown.has_previous() else None),
        next_cursor=None,
    )


def _address(request: HttpRequest, name: str, value: str | None) -> str | None:
    """The address of the same list with this parameter, None where there is no such page."""
    if value is None:
        return None
    query = request.GET.copy()
    query[name] = value
    return request.build_absolute_uri(f"{reverse('api:jobs')}?{query.urlencode()}")


@router.get(
    "/models",
    response={200: schemas.Models, **problem_responses(401, 429)},
    auth=[*auth.IDENTIFIED, auth.public_allowed],
    openapi_extra=OPEN,
    operation_id="listModels",
    url_name="models",
    summary="The models that are installed",
    tags=["Lists"],
)
def models(request: HttpRequest) -> schemas.Models:
    """What can be `model` of a request, and the stems that each gives."""
    return schemas.Models(
        items=[
            schemas.Model(
                name=model.name,
                sources=list(model.sources),
                about=about_model(model.name),
                passes=model.passes,
                segment=float(model.segment),
                is_default=model.name == settings.DEFAULT_MODEL,
            )
            for model in list_models(settings.MODEL_DIR)
        ]
    )


@router.get(
    "/limits",
    response={200: schemas.Limits, **problem_responses(401, 429)},
    auth=[*auth.IDENTIFIED, auth.public_allowed],
    openapi_extra=OPEN,
    operation_id="getLimits",
    url_name="limits",
    summary="What the site takes and gives, and what is left for you",
    tags=["Lists"],
)
def limits(request: HttpRequest) -> schemas.Limits:
    """Sizes, lengths and formats; how often requests are answered; and quotas."""
    left = quotas.left_of(permissions.owner_of(request))
    found = [rate_limits.standing(kind, request) for kind in TOLD_RATES]
    return schemas.Limits(
        max_bytes=settings.MAX_UPLOAD_MB * 1_000_000,
        max_seconds=settings.MAX_DURATION_SECONDS,
        max_passes=settings.MAX_PASSES,
        extensions=list(settings.ALLOWED_EXTENSIONS),
        formats=[_format_choice(format) for format in FORMATS.values()],
        default_format=DEFAULT_FORMAT,
        rates=[
            schemas.RateLimit(name=each.kind, quota=each.quota, window=each.window, left=each.left)
            for each in found
            if each is not None
        ],
        quotas=schemas.Quotas.model_validate(
            {name: each and asdict(each) for name, each in left.items()}
        ),
        anonymous=auth.anonymous_allowed(request),
    )


def _format_choice(format: Format) -> schemas.FormatChoice:
    return schemas.FormatChoice(
        name=format.name,
        label=gettext(format.label),
        extension=format.extension,
        content_type=format.content_type,
        bit_rates=list(format.bit_rates),
        sample_rates=sorted(format.sample_rates),
        may_be_turned_down=not format.keeps_overs,
    )
