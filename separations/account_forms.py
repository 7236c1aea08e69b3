"""What people tell of themselves: Django's own forms, and a password where it must be theirs."""

import uuid
from typing import Any

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import AbstractUser, AnonymousUser, User
from django.core.exceptions import ValidationError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

from separations import tokens


class SignUpForm(UserCreationForm[User]):
    email = forms.EmailField(
        label=_("E-mail (optional)"),
        required=False,
        max_length=254,
        help_text=_("Used for one thing: a link to choose a new password."),
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )

    class Meta(UserCreationForm.Meta):
        model = User
        fields = ("username", "email")


class WithPassword(forms.Form):
    """Asks whoever sits there for the account's password once more."""

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


class EmailForm(WithPassword):
    email = forms.EmailField(
        label=_("E-mail"),
        required=False,
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    field_order = ("email", "password")

    def clean(self) -> dict[str, Any]:
        self.check_password(self.cleaned_data.get("password", ""))
        return self.cleaned_data


class TokenForm(forms.Form):
    """made_as: the id of the token to be made, so that a form that is sent twice makes one."""

    name = forms.CharField(
        label=_("What is it for?"),
        max_length=tokens.MOST_CHARACTERS,
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


class DeleteEverythingForm(WithPassword):
    """The password is asked for only when the account goes too."""

    account = forms.BooleanField(label=_("Delete my account too"), required=False)
    field_order = ("account", "password")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password"].required = False
        self.fields["password"].help_text = _("Needed only to delete the account.")

    @property
    def for_account(self) -> bool:
        """Whether there is an account that can go. Those of staff go in the admin."""
        return self.user.is_authenticated and not self.user.is_staff

    def clean(self) -> dict[str, Any]:
        if self.cleaned_data.get("account") and self.for_account:
            self.check_password(self.cleaned_data.get("password", ""))
        return self.cleaned_data
