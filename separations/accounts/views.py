"""Pages of accounts: sign-up, log-in, e-mail address, password, deletion. Mostly Django's views.

Views that create accounts, send mails or check a password are `limited`. Mails are also limited by
recipient: see `mails`.
"""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, views
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordResetForm
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render, resolve_url
from django.urls import reverse_lazy
from django.utils.translation import get_language, gettext
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
    require_safe,
)

from separations.access import permissions, redirects
from separations.accounts import mails, tasks
from separations.accounts.forms import DeleteEverythingForm, EmailForm, SignUpForm
from separations.errors import user_messages
from separations.errors.fault import Fault
from separations.fair_use import login_attempts, quotas, rate_limits, refusals
from separations.fair_use.client_address import client
from separations.fair_use.rate_limits import limited
from separations.jobs import ownership
from separations.models import account_names

ACCOUNT = reverse_lazy("accounts:account")
LOG_IN = reverse_lazy("accounts:login")


# In and out


form_methods = require_http_methods(["GET", "HEAD", "POST"])  # Django's views take PUT as well


class NextPage(views.RedirectURLMixin):
    """Makes Django's views accept only safe values of `next`."""

    request: HttpRequest

    def get_redirect_url(self, request: HttpRequest | None = None) -> str:
        return redirects.next_page(request or self.request)


class LogIn(NextPage, views.LoginView):
    template_name = "accounts/login.html"
    redirect_authenticated_user = True


class LogOut(NextPage, views.LogoutView):
    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().post(request, *args, **kwargs)
        permissions.forget_visitor(request, response)
        return response


log_in = limited("login")(form_methods(LogIn.as_view()))
log_out = require_POST(LogOut.as_view())


@limited("signup")
@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def sign_up(request: HttpRequest) -> HttpResponse:
    """Create an account, which gets the session's songs at once."""
    if request.user.is_authenticated:
        return redirect(ACCOUNT)
    form = SignUpForm(request.POST or None)
    after = redirects.next_page(request)
    try:
        user = _create_account(form) if form.is_valid() else None
    except Fault as fault:
        return refusals.refuse(request, fault)
    if user is not None:
        login(request, user)
        if address := form.cleaned_data.get("email"):
            _send_confirmation(request, user, address)
        return HttpResponseRedirect(after or resolve_url("separations:home"))
    status = 422 if request.method == "POST" else 200
    return render(request, "accounts/signup.html", {"form": form, "next": after}, status=status)


def _create_account(form: SignUpForm) -> User | None:
    """The new account; None when another request took its name at the same time.

    Raises:
        Fault: site_limit; no account is created then.
    """
    try:
        with transaction.atomic():
            user = form.save()
            quotas.count_for_site("signup")
            return user
    except (IntegrityError, ValidationError):
        form.add_error("username", account_names.NAME.error_messages["unique"])
        return None


def _send_confirmation(request: HttpRequest, user: User, address: str) -> None:
    """Mail a link to a new address of the account.

    Over the limits of recipients and of the site no mail is sent, and the page does not say so.
    """
    try:
        rate_limits.count_request("confirmation", request)
    except Fault as fault:
        messages.error(request, user_messages.sentence(fault))
        return
    if tasks.send_confirmation(user.pk, address, get_language() or settings.LANGUAGE_CODE):
        text = gettext(
            "A mail is on its way to %(address)s. The address is your account's once you have "
            "opened the link in it and confirmed it there."
        )
        messages.info(request, text % {"address": address})


# The account


@never_cache
@require_safe
@login_required
def account(request: HttpRequest) -> HttpResponse:
    return _account_page(request, _email_form(request), 200)


@limited("login")
@never_cache
@sensitive_post_parameters()
@require_POST
@login_required
def change_email(request: HttpRequest) -> HttpResponse:
    """Remove the address at once, or mail a link to a new one, which confirms it."""
    if not settings.EMAIL_URL:
        raise Http404
    form = _email_form(request)
    if not form.is_valid():
        return _account_page(request, form, 422)
    user, address = request.user, form.cleaned_data["email"]
    assert isinstance(user, User)  # noqa: S101 - for the type checker
    if not address:
        mails.remove_address(user)
        messages.success(request, gettext("Your account has no e-mail address now."))
    elif address != user.email:
        _send_confirmation(request, user, address)
    return redirect(ACCOUNT)


@limited("reset")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def confirm(request: HttpRequest, token: str) -> HttpResponse:
    """Confirm an address by its mailed link, and by a button: mail scanners open links."""
    found = mails.read_token(token)
    if request.method == "POST" and mails.confirm(token):
        messages.success(request, gettext("The e-mail address is confirmed."))
        return redirect(ACCOUNT if request.user.is_authenticated else "separations:home")
    context = {"account": found and found[0].get_username(), "address": found and found[1]}
    return render(request, "accounts/confirm.html", context, status=200 if found else 404)


def _email_form(request: HttpRequest) -> EmailForm:
    initial = {"email": getattr(request.user, "email", "")}
    return EmailForm(request.user, request.POST or None, initial=initial)


def _account_page(request: HttpRequest, form: EmailForm, status: int) -> HttpResponse:
    songs = permissions.visible_jobs(request).count()
    context = {"form": form, "songs": songs, "can_mail": bool(settings.EMAIL_URL)}
    return render(request, "accounts/account.html", context, status=status)


class ChangePassword(views.PasswordChangeView):
    template_name = "accounts/password.html"
    success_url = ACCOUNT

    def form_valid(self, form: Any) -> HttpResponse:
        messages.success(self.request, gettext("Your password was changed."))
        return super().form_valid(form)


change_password = limited("login")(form_methods(ChangePassword.as_view()))


# A forgotten password


@limited("reset")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def reset(request: HttpRequest) -> HttpResponse:
    """Mail links to reset passwords; the answer does not reveal whether an account exists.

    Without a mail server the page tells visitors to ask the site's operator.
    """
    form = PasswordResetForm(request.POST or None)
    can_mail = bool(settings.EMAIL_URL)
    if request.method == "POST" and not can_mail:
        raise Http404
    if form.is_valid():
        language = get_language() or settings.LANGUAGE_CODE
        tasks.send_reset_links(form.cleaned_data["email"], language, client(request))
        return redirect("accounts:reset_sent")
    context = {"form": form, "can_mail": can_mail}
    status = 422 if request.method == "POST" else 200
    return render(request, "accounts/reset.html", context, status=status)


@require_GET
def reset_sent(request: HttpRequest) -> HttpResponse:
    minutes = settings.PASSWORD_RESET_TIMEOUT // 60
    return render(request, "accounts/reset_sent.html", {"minutes": minutes})


class ResetConfirm(views.PasswordResetConfirmView):
    template_name = "accounts/reset_confirm.html"
    success_url = LOG_IN
    reset_url_token = "new"  # noqa: S105 - stands in the address for the token, which the session keeps

    def form_valid(self, form: Any) -> HttpResponse:
        messages.success(self.request, gettext("Your password was changed. Log in with it."))
        response = super().form_valid(form)
        # Guessing does not lock the owner out of this browser from now on.
        login_attempts.set_known_browser_cookie(response, form.user)
        return response


reset_confirm = limited("reset")(form_methods(ResetConfirm.as_view()))


# Deleting everything


@limited("login")
@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def delete_everything(request: HttpRequest) -> HttpResponse:
    """Delete all songs of the session or account, and the account on request; a form asks first."""
    form = DeleteEverythingForm(
        request.user,
        request.POST if request.method == "POST" else None,
        initial={"account": "account" in request.GET},
    )
    if not form.is_valid():
        songs = permissions.visible_jobs(request).count()
        status = 422 if form.is_bound else 200
        context = {"form": form, "songs": songs}
        return render(request, "accounts/delete_everything.html", context, status=status)
    user = request.user
    count = ownership.delete_everything(permissions.owner_of(request))
    account_too = bool(form.cleaned_data["account"]) and form.for_account
    if account_too:
        assert isinstance(user, User)  # noqa: S101 - for the type checker
        count += ownership.delete_account(user)
    response = redirect("separations:home")
    if account_too or not user.is_authenticated:
        permissions.forget_visitor(request, response)
    messages.success(request, user_messages.deleted_everything(count, account=account_too))
    return response
