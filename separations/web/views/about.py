"""The page about the site, its models and its rules."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import (
    require_safe,
)

from separations.web.forms import SeparationForm


@require_safe
def about(request: HttpRequest) -> HttpResponse:
    context = {
        "models": SeparationForm().model_choices,
        "upload_minutes": settings.KEEP_UPLOADS_MINUTES,
        "result_hours": settings.KEEP_RESULTS_HOURS,
    }
    return render(request, "separations/about.html", context)
