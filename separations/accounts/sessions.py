"""Session lifetimes: hours for staff, weeks for others.

The server ends a log-in STAFF_SESSION_HOURS after it began for an account that is staff now, and
SESSION_DAYS after it for any other. The session of a visitor without an account, which owns their
songs, is renewed while they return.
"""

import time
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import BACKEND_SESSION_KEY, SESSION_KEY, logout
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext

LOGGED_IN_AT = "logged_in_at"
RENEWED_AT = "renewed_at"
RENEWED_EVERY = 24 * 3600  # seconds; each time is a write


def on_login(request: HttpRequest, user: User, **_signal: object) -> None:
    """Store the time of the log-in, and set the age of the session cookie: shorter for staff."""
    request.session[LOGGED_IN_AT] = time.time()
    request.session.pop(RENEWED_AT, None)
    request.session.set_expiry(_max_age(user))


def _max_age(user: Any) -> int:
    """Seconds that a log-in of this account lasts."""
    staff = user.is_staff or user.is_superuser
    seconds: int = settings.STAFF_SESSION_HOURS * 3600 if staff else settings.SESSION_COOKIE_AGE
    return min(seconds, settings.SESSION_COOKIE_AGE)


def _use_current_backend(session: SessionBase) -> None:
    """Replace the earlier name of an authentication backend in a session by its current one.

    Django logs out sessions whose backend is not in AUTHENTICATION_BACKENDS. The row stays as it
    is: no request writes for this, and an earlier version of the site can still read the session.
    """
    stored = session.get(BACKEND_SESSION_KEY, "")
    if stored in settings.MOVED_NAMES and stored not in settings.AUTHENTICATION_BACKENDS:
        modified = session.modified
        session[BACKEND_SESSION_KEY] = settings.MOVED_NAMES[stored]
        session.modified = modified


class LoginExpiryMiddleware(MiddlewareMixin):
    """Ends expired log-ins, and renews sessions of visitors without an account."""

    def process_request(self, request: HttpRequest) -> None:
        by_token = hasattr(request, "token_owner")  # see `access.token_auth`
        if by_token or SESSION_KEY not in request.session:
            return
        _use_current_backend(request.session)  # before Django reads the user
        age = time.time() - float(request.session.get(LOGGED_IN_AT, 0))
        if age > settings.SESSION_COOKIE_AGE or (
            age > settings.STAFF_SESSION_HOURS * 3600 and age > _max_age(request.user)
        ):
            logout(request)
            text = gettext("You were logged out, as your log-in was some time ago. Log in again.")
            messages.info(request, text)

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        # Only where the request read the session anyway.
        session = request.session
        if session.accessed and response.status_code < 400 and not session.is_empty():
            stale = time.time() - float(session.get(RENEWED_AT, 0)) > RENEWED_EVERY
            if stale and SESSION_KEY not in session:
                session[RENEWED_AT] = time.time()
        return response
