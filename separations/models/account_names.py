"""Account names: one for all spellings that differ in case or in Unicode's forms alone.

A name is stored folded (NFKC and case-folded, as RFC 8265 does for user names), so the unique
column of Django's own table keeps `MÜLLER` and `müller` from being two accounts. Letters that
look alike in different scripts are not folded: no visitor ever sees another account's name.
"""

import unicodedata
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

# Letters by Unicode's tables, but invisible.
INVISIBLE = dict.fromkeys((0x115F, 0x1160, 0x3164, 0xFFA0))
NAME = User._meta.get_field("username")
LONGEST = 254  # characters; names have fewer, and none but mail addresses as many


def fold(name: str) -> str:
    """The form of a name under which its account is stored and found; "" for what is too long.

    Unicode's forms take a time that grows with the square of a text's length.
    """
    if len(name) > LONGEST:
        return ""
    while True:  # folded letters may come together in a form that folds on
        folded = unicodedata.normalize("NFKC", name).translate(INVISIBLE).casefold().strip()
        if folded == name:
            return folded
        name = folded


class FoldedNames(ModelBackend):
    """Django's log-in, by the folded name. It takes as long for a name without an account."""

    @sensitive_variables("password")
    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        name = None if username is None else fold(username)
        return super().authenticate(request, name, password, **kwargs)


class UniqueName:
    """For forms of accounts: folds the name before Django checks whether it is taken."""

    cleaned_data: dict[str, Any]
    instance: User

    def clean_username(self) -> str:
        name = fold(self.cleaned_data["username"])
        if not name:
            raise ValidationError(_("Nothing is seen of this name. Choose letters or digits."))
        MaxLengthValidator(NAME.max_length or 0)(name)  # a folded name can be longer
        if _is_taken(name, self.instance.pk):
            raise ValidationError(NAME.error_messages["unique"], code="unique")
        return name


def fold_before_save(instance: User, raw: bool = False, **signal: Any) -> None:
    """Fold the name of an account however it is saved: by a form, a command or a shell.

    Raises:
        ValidationError: another account has the name.
    """
    fields = signal.get("update_fields")
    if fields is not None and "username" not in fields:
        return
    instance.username = fold(instance.username)
    if not raw and _is_taken(instance.username, instance.pk):
        raise ValidationError({"username": NAME.error_messages["unique"]})


def _is_taken(name: str, own: int | None) -> bool:
    others = User.objects.filter(username=name)
    return (others if own is None else others.exclude(pk=own)).exists()
