"""Forms of accounts: sign-up, e-mail address, API tokens, deletion."""

import uuid
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import AbstractUser, AnonymousUser, User
from django.core.exceptions import ValidationError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

from separations.access import api_tokens
from separations.accounts import mails
from separations.models.account_names import UniqueName


def plain_address(address: str) -> None:
    """A validator for e-mail addresses: refuses quoted ones, which have many spellings."""
    if not mails.is_unquoted(address):
        raise ValidationError(gettext("Write the address without quotation marks and spaces."))


class SignUpForm(UniqueName, UserCreationForm[User]):
    """Sign-up. The account gets its address only by confirmation: see `mails.send_confirmation`."""

    email = forms.EmailField(
        label=_("E-mail (optional)"),
        required=False,
        max_length=254,
        validators=[plain_address],
        help_text=_(
            "Used for one thing: a link to choose a new password. First you get a mail to confirm "
            "the address."
        ),
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )

    class Meta(UserCreationForm.Meta):
        model = User
        fields = ("username", "email")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        text = _("Up to 150 letters, digits and @ . + - _, in any case: Anna and anna are one.")
        self.fields["username"].help_text = text
        if not settings.EMAIL_URL:
            del self.fields["email"]  # which could not be confirmed

    def save(self, commit: bool = True) -> User:
        self.instance.email = ""
        return super().save(commit)


class PasswordConfirmation(forms.Form):
    """Asks for the account's password again: the browser may be unattended."""

    password = forms.CharField(
        label=_("Your password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def __init__(self, user: AbstractUser | AnonymousUser, *args: Any, **kwargs: Any) -> None:
        self.user = user
        super().__init__(*args, **kwargs)

    @sensitive_variables("password")
    def check_password(self, password: str) -> None:
        if not self.user.check_password(password):
            raise ValidationError({"password": gettext("This is not your password.")})


class EmailForm(PasswordConfirmation):
    email = forms.EmailField(
        label=_("E-mail"),
        required=False,
        max_length=254,
        validators=[plain_address],
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    field_order = ("email", "password")

    def clean(self) -> dict[str, Any]:
        self.check_password(self.cleaned_data.get("password", ""))
        return self.cleaned_data


class TokenForm(forms.Form):
    """made_as: the new token's id, so that a form that is sent twice creates one token."""

    name = forms.CharField(
        label=_("What is it for?"),
        max_length=api_tokens.MAX_NAME_LENGTH,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    lasts = forms.ChoiceField(
        label=_("It works for"),
        initial="90",
        choices=[
            ("30", _("30 days")),
            ("90", _("90 days")),
            ("365", _("a year")),
            ("never", _("until you end it")),
        ],
    )
    made_as = forms.UUIDField(initial=uuid.uuid4, widget=forms.HiddenInput)


class DeleteEverythingForm(PasswordConfirmation):
    """Needs the password only to delete the account as well."""

    account = forms.BooleanField(label=_("Delete my account too"), required=False)
    field_order = ("account", "password")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password"].required = False
        self.fields["password"].help_text = _("Needed only to delete the account.")

    @property
    def for_account(self) -> bool:
        """Whether the account can be deleted here. Staff accounts are deleted in the admin."""
        return self.user.is_authenticated and not self.user.is_staff

    def clean(self) -> dict[str, Any]:
        if self.cleaned_data.get("account") and self.for_account:
            self.check_password(self.cleaned_data.get("password", ""))
        return self.cleaned_data
