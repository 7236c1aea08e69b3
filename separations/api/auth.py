"""Who may ask the API. Tokens are read in `separations.askers`, before anything is counted."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from ninja.security import APIKeyCookie, HttpBearer
from ninja.utils import check_csrf

from separations import access
from separations.faults import Fault
from separations.models import Owner


class Token(HttpBearer):
    """A token of an account, or one that a visitor got with their first song."""

    def authenticate(self, request: HttpRequest, token: str) -> Owner | None:
        return getattr(request, "asker", None)


class Session(APIKeyCookie):
    """The session of a browser on this site; what changes something needs its CSRF token too."""

    param_name = settings.SESSION_COOKIE_NAME

    def __call__(self, request: HttpRequest) -> Owner | None:
        owner = access.owner_of(request)
        is_known = owner.user_id is not None
        if not is_known and (not owner.visitor or settings.ACCOUNTS == "required"):
            return None
        if request.method not in access.SAFE and check_csrf(request):
            raise Fault("stale_form")
        return owner

    def authenticate(self, request: HttpRequest, key: str | None) -> Any:
        raise NotImplementedError  # `__call__` does


def anyone(request: HttpRequest) -> bool:
    """Whoever comes without account or session, where API_ANONYMOUS lets them."""
    return settings.API_ANONYMOUS and settings.ACCOUNTS != "required"


def reader(request: HttpRequest) -> bool:
    """What the front page shows to everybody too."""
    return settings.ACCOUNTS != "required"


KNOWN = (Token(), Session())
