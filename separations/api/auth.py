"""Authentication of API requests. `access.token_auth` has read their tokens before."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from ninja.security import APIKeyCookie, HttpBearer
from ninja.utils import check_csrf

from separations.access import permissions
from separations.errors.fault import Fault
from separations.models import Owner


class Token(HttpBearer):
    """A token of an account, or one that a visitor got with their first song."""

    def authenticate(self, request: HttpRequest, token: str) -> Owner | None:
        return getattr(request, "token_owner", None)


class Session(APIKeyCookie):
    """A browser's session on this site; requests that change something need a CSRF token too."""

    param_name = settings.SESSION_COOKIE_NAME

    def __call__(self, request: HttpRequest) -> Owner | None:
        owner = permissions.owner_of(request)
        is_known = owner.user_id is not None
        if not is_known and (not owner.visitor or settings.ACCOUNTS == "required"):
            return None
        if request.method not in permissions.SAFE and check_csrf(request):
            raise Fault("stale_form")
        return owner

    def authenticate(self, request: HttpRequest, key: str | None) -> Any:
        raise NotImplementedError  # `__call__` takes its place


def anonymous_allowed(request: HttpRequest) -> bool:
    """Lets requests without account or session in when API_ANONYMOUS is on."""
    return settings.API_ANONYMOUS and settings.ACCOUNTS != "required"


def public_allowed(request: HttpRequest) -> bool:
    """Lets everyone read what the home page shows as well."""
    return settings.ACCOUNTS != "required"


IDENTIFIED = (Token(), Session())
