"""The API's lists: the songs of an owner, and the models."""

from typing import Annotated

from django.conf import settings
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest
from django.urls import reverse
from ninja import Query, Router

from separations.access import permissions
from separations.api import auth, named_values, schemas
from separations.api.openapi import OPEN, problem_responses
from separations.api.serializers import serialize_task
from separations.engine.weights.store import list_models
from separations.web.forms import about_model
from separations.webhooks import events

router = Router()
MOST_A_PAGE = 100


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
    page: Annotated[int, Query(1, ge=1, le=1_000_000, description="Which page.")],
    per_page: Annotated[int, Query(20, ge=1, le=MOST_A_PAGE, description="Songs on a page.")],
) -> schemas.Tasks:
    """Of the account or visitor that asks, page by page."""
    found = permissions.visible_jobs(request).prefetch_related("stems")
    if status:
        found = found.filter(state__in=[s for s, name in events.STATUS.items() if name in status])
    if model:
        found = found.filter(model=model)
    pages = Paginator(found, per_page)
    if page > pages.num_pages:
        raise Http404
    shown = pages.page(page)

    def address(number: int) -> str:
        query = request.GET.copy()
        query["page"] = str(number)
        return request.build_absolute_uri(f"{reverse('api:jobs')}?{query.urlencode()}")

    return schemas.Tasks(
        items=[serialize_task(request, job) for job in shown],
        count=pages.count,
        page=page,
        pages=pages.num_pages,
        next=address(page + 1) if shown.has_next() else None,
        previous=address(page - 1) if shown.has_previous() else None,
    )


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
