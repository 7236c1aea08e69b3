"""The public ones of the site's host names. No Django here: the settings import it."""

import re


def public_names(allowed: list[str]) -> list[str]:
    """The names in ALLOWED_HOSTS that have a dot and are no IP addresses."""
    names = (name.lstrip(".") for name in allowed)  # ".a.example" includes it
    return [name for name in names if re.fullmatch(r"\w.*\.[A-Za-z][\w-]+", name)]


def mail_domain(allowed: list[str], host: str) -> str:
    """The domain that mails come from: mail servers refuse senders at 127.0.0.1."""
    return next(iter(public_names(allowed)), host)
