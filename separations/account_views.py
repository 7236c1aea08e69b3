"""Accounts: Django's own views with this site's pages around them.

What guesses passwords or makes accounts is `limited` in number: `sign_up`, `log_in`, `reset` (each
POST mails), and what tries a password (`change_email`, `change_password`, `delete_everything`).
"""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, views
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordResetForm
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.urls import reverse_lazy
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import get_language, gettext
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
    require_safe,
)

from separations import access, accounts, sentences, tasks
from separations.account_forms import DeleteEverythingForm, EmailForm, SignUpForm
from separations.rate_limits import limited

ACCOUNT = reverse_lazy("accounts:account")
LOG_IN = reverse_lazy("accounts:login")


# In and out


form_methods = require_http_methods(["GET", "HEAD", "POST"])  # Django's views take PUT as well


class LogIn(views.LoginView):
    template_name = "accounts/login.html"
    redirect_authenticated_user = True


class LogOut(views.LogoutView):
    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().post(request, *args, **kwargs)
        access.forget(request, response)
        return response


log_in = limited("login")(form_methods(LogIn.as_view()))
log_out = require_POST(LogOut.as_view())


@limited("signup")
@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def sign_up(request: HttpRequest) -> HttpResponse:
    """Make an account; the songs of this session are in it at once."""
    if request.user.is_authenticated:
        return redirect(ACCOUNT)
    form = SignUpForm(request.POST or None)
    after = request.POST.get("next") or request.GET.get("next", "")
    if form.is_valid():
        login(request, form.save())
        return redirect(after if _is_here(request, after) else resolve_url("separations:home"))
    status = 422 if request.method == "POST" else 200
    return render(request, "accounts/signup.html", {"form": form, "next": after}, status=status)


def _is_here(request: HttpRequest, address: str) -> bool:
    """Whether an address is one of this site: others could pretend to be it."""
    return url_has_allowed_host_and_scheme(
        address, {request.get_host()}, require_https=request.is_secure()
    )


# The account


@never_cache
@require_safe
@login_required
def account(request: HttpRequest) -> HttpResponse:
    return _account(request, _email_form(request), 200)


@limited("login")
@never_cache
@sensitive_post_parameters()
@require_POST
@login_required
def change_email(request: HttpRequest) -> HttpResponse:
    form = _email_form(request)
    if not form.is_valid():
        return _account(request, form, 422)
    accounts.change_email(request.user, form.cleaned_data["email"])
    messages.success(request, gettext("Your e-mail address was changed."))
    return redirect(ACCOUNT)


def _email_form(request: HttpRequest) -> EmailForm:
    initial = {"email": getattr(request.user, "email", "")}
    return EmailForm(request.user, request.POST or None, initial=initial)


def _account(request: HttpRequest, form: EmailForm, status: int) -> HttpResponse:
    songs = access.visible_jobs(request).count()
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
    """Mail a link to choose a new password; the answer does not tell whether there is an account.

    Without a mail server the page says whom to ask.
    """
    form = PasswordResetForm(request.POST or None)
    can_mail = bool(settings.EMAIL_URL)
    if request.method == "POST" and not can_mail:
        raise Http404
    if form.is_valid():
        tasks.mail_reset_link(
            form.cleaned_data["email"],
            request.get_host(),
            get_language() or settings.LANGUAGE_CODE,
            request.is_secure(),
        )
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
        return super().form_valid(form)


reset_confirm = limited("reset")(form_methods(ResetConfirm.as_view()))


# Everything of mine


@limited("login")
@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def delete_everything(request: HttpRequest) -> HttpResponse:
    """Ask, then delete all songs of this session or account, and the account if that is wished."""
    form = DeleteEverythingForm(
        request.user,
        request.POST if request.method == "POST" else None,
        initial={"account": "account" in request.GET},
    )
    if not form.is_valid():
        songs = access.visible_jobs(request).count()
        status = 422 if form.is_bound else 200
        context = {"form": form, "songs": songs}
        return render(request, "accounts/delete_everything.html", context, status=status)
    user = request.user
    count = accounts.delete_everything(access.owner_of(request))
    account_too = bool(form.cleaned_data["account"]) and form.for_account
    if account_too:
        assert isinstance(user, User)  # noqa: S101 - for the type checker
        count += accounts.delete_account(user)
    response = redirect("separations:home")
    if account_too or not user.is_authenticated:
        access.forget(request, response)
    messages.success(request, sentences.deleted_everything(count, account=account_too))
    return response
