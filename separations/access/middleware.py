"""Middleware: what the setting ACCOUNTS closes, and the headers of addresses that hold secrets."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url
from django.utils.deprecation import MiddlewareMixin
from django_htmx.http import HttpResponseClientRedirect

from separations.access import redirects, share_links
from separations.access.permissions import SAFE
from separations.logs.secret_tokens import ShareToken

OPEN_TO_ALL = ("separations:about", "set_language")
OPEN_APPS = ("accounts", "admin", "control", "api")  # their views ask for a log-in themselves
FOR_PLAYERS = ("separations:chunk", "separations:peaks", "separations:stem")


class AccessMiddleware(MiddlewareMixin):
    """Sends visitors to the log-in page where ACCOUNTS=required; ends accounts where it is "off".

    Under "required" every address is closed that is not listed here as open.
    """

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., Any],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        match = request.resolver_match
        if match is None:
            return None
        if settings.ACCOUNTS == "off" and match.app_name == "accounts":
            raise Http404
        shared = isinstance(view_kwargs.get("song"), ShareToken)
        is_open = shared or match.view_name in OPEN_TO_ALL or match.app_name in OPEN_APPS
        if settings.ACCOUNTS != "required" or is_open or request.user.is_authenticated:
            return None
        if match.view_name in FOR_PLAYERS:
            raise Http404  # a player would take the log-in page for sound
        return self._redirect_to_login(request)

    def _redirect_to_login(self, request: HttpRequest) -> HttpResponseBase:
        home = resolve_url("separations:home")
        log_in = resolve_url(settings.LOGIN_URL)
        htmx = getattr(request, "htmx", None)
        if htmx:
            back = redirect_to_login(redirects.current_page(request) or home, log_in)
            return HttpResponseClientRedirect(back.url)
        return redirect_to_login(
            request.get_full_path() if request.method in SAFE else home, log_in
        )

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        match = request.resolver_match
        names = ("song", "job_id", "task_id")
        key = match and next(filter(None, map(match.kwargs.get, names)), None)
        if key:
            response.headers["X-Robots-Tag"] = "noindex"
        if isinstance(key, ShareToken):
            for name, value in share_links.HEADERS.items():
                response.headers[name] = value
        return response
