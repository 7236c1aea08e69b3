"""The page of an account's API tokens and of its webhook signing secret."""

import uuid

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from separations.access import api_tokens
from separations.accounts.forms import TokenForm
from separations.errors import user_messages
from separations.errors.fault import Fault
from separations.fair_use.rate_limits import limited
from separations.models import ApiToken, Owner
from separations.webhooks import events

PAGE = "accounts:tokens"


@limited("action")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@login_required
@sensitive_variables("text")
def token_page(request: HttpRequest) -> HttpResponse:
    """List the tokens; a POST creates one, and only its answer shows it.

    Reloading that answer sends the form again: its id is used, so no token is created.
    """
    if request.method != "POST":
        return _page(request, TokenForm(), 200)
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _page(request, form, 422)
    try:
        made, text = api_tokens.create(
            _user(request),
            form.cleaned_data["name"],
            form.cleaned_data["lasts"],
            form.cleaned_data["made_as"],
        )
    except Fault as fault:
        if fault.code == "token_shown":
            return redirect(PAGE)
        form.add_error(None, user_messages.sentence(fault))
        return _page(request, form, user_messages.status(fault))
    return _page(request, TokenForm(), 200, made, text)


@sensitive_variables("text", "secret")
def _page(
    request: HttpRequest,
    form: TokenForm,
    status: int,
    made: ApiToken | None = None,
    text: str = "",
) -> HttpResponse:
    user = _user(request)
    secret = events.signing_secret(Owner(visitor="", user_id=user.pk)) if settings.WEBHOOKS else ""
    context = {
        "form": form,
        "tokens": api_tokens.list_tokens(user),
        "made": made,
        "text": text,
        "secret": secret,
    }
    return render(request, "accounts/tokens.html", context, status=status)


@limited("action")
@require_POST
@login_required
def revoke(request: HttpRequest, token_id: uuid.UUID) -> HttpResponse:
    if api_tokens.revoke(_user(request), token_id):
        messages.success(request, gettext("The token was ended. Nothing can use it any more."))
    return redirect(PAGE)


@limited("action")
@require_POST
@login_required
def renew_secret(request: HttpRequest) -> HttpResponse:
    events.renew_secret(_user(request))
    messages.success(request, gettext("There is a new signing secret. Give it to your receivers."))
    return redirect(PAGE)


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - for the type checker
    return request.user
