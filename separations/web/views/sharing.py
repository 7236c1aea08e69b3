"""Making and ending share links."""

import uuid

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import (
    require_POST,
)

from separations.access import permissions, share_links
from separations.errors.fault import Fault
from separations.fair_use.rate_limits import limited
from separations.web.views.song import refused_page


@limited("action")
@require_POST
def share(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """Create a link that lets others play and download the song."""
    job = permissions.own_job_or_404(request, job_id)
    try:
        share_links.create(job, request.POST.get("lasts", ""))
    except Fault as fault:
        return refused_page(request, job_id, fault)
    return redirect(f"{reverse('separations:job', args=[job_id])}#links")


@limited("action")
@require_POST
def revoke(request: HttpRequest, job_id: uuid.UUID, link_id: uuid.UUID) -> HttpResponse:
    """End a link at once. A link that has ended stays ended."""
    share_links.revoke(permissions.own_job_or_404(request, job_id), link_id)
    return redirect(f"{reverse('separations:job', args=[job_id])}#links")
