"""Settings from environment variables: one function for each kind of value. All of them raise
ImproperlyConfigured for a value that does not fit."""

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse, urlsplit

import dj_email_url
from django.core.exceptions import ImproperlyConfigured

from separations.checks.host_names import public_names


def envstr(name: str, default: str) -> str:
    return os.environ.get(name, "").strip() or default


def envchoice(name: str, default: str, *others: str) -> str:
    value = envstr(name, default)
    if value not in (default, *others):
        allowed = " or ".join((default, *others))
        raise ImproperlyConfigured(f"{name} must be {allowed}, not {value!r}.")
    return value


def envint(name: str, default: int, lowest: int = 0) -> int:
    text = envstr(name, str(default))
    try:
        value = int(text)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {text!r}.") from None
    if value < lowest:
        raise ImproperlyConfigured(f"{name} must be at least {lowest}, not {value}.")
    return value


def envauto(name: str) -> int | None:
    """A whole number, or None for "auto", which is the default."""
    text = envstr(name, "auto")
    return None if text.lower() == "auto" else envint(name, 0)


def envbool(name: str, default: bool) -> bool:
    text = envstr(name, "yes" if default else "no").lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ImproperlyConfigured(f"{name} must be yes or no, not {text!r}.")


def envlist(name: str, default: str) -> list[str]:
    return [item.strip() for item in envstr(name, default).split(",") if item.strip()]


def envrate(name: str, default: str) -> tuple[int, int]:
    """A rate as (count, seconds), from `20/h` or `10/15m`; (0, 0) for no limit."""
    text = envstr(name, default)
    if text == "0":
        return 0, 0
    match = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,4})?([smhd])", text)
    seconds = (
        int(match[2] or 1) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[3]] if match else 0
    )
    if match is None or seconds > 86400:
        raise ImproperlyConfigured(
            f"{name} must be like 20/h or 10/15m (s, m, h, d; within a day) or 0, not {text!r}."
        )
    return int(match[1]), seconds


SECRET_FILES: list[Path] = []  # that were read; `manage.py check` warns if others may read them


def envsecret(name: str, default: str) -> str:
    """A setting that is or holds a secret: from NAME, or from the file that NAME_FILE names.

    A file, because child processes inherit the environment, debuggers print it and container tools
    show it.
    """
    path = envstr(f"{name}_FILE", "")
    if not path:
        return envstr(name, default)
    if envstr(name, ""):
        raise ImproperlyConfigured(f"Set {name} or {name}_FILE, not both.")
    try:
        value = Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ImproperlyConfigured(f"{name}_FILE: {path} could not be read: {reason}.") from None
    if not value:
        raise ImproperlyConfigured(f"{name}_FILE: {path} is empty.")
    SECRET_FILES.append(Path(path).expanduser())
    return value


SITE = re.compile(r"https?://([\w.-]+|\[[\da-fA-F:.]+\])(:\d+)?", re.ASCII)


def envsite(name: str, *, https: bool) -> str:
    """The site's own address as `https://stems.example.org`, without a slash at its end; or ""."""
    text = envstr(name, "").rstrip("/")
    if not text:
        return ""
    try:
        fits = bool(SITE.fullmatch(text)) and urlsplit(text).port != 0
    except ValueError:  # a port beyond 65535, an IPv6 address that is none
        fits = False
    if not fits:
        raise ImproperlyConfigured(
            f"{name} must be like https://stems.example.org, without a path, not {text!r}."
        )
    if https and not text.startswith("https:"):
        raise ImproperlyConfigured(f"{name} must begin with https:// where HTTPS is yes.")
    return text


def envorigins(name: str) -> list[str]:
    """Origins of pages, as browsers write them: scheme, host and, where it is unusual, port."""
    origins = []
    for text in envlist(name, ""):
        origin = text.rstrip("/").lower()
        try:
            fits = bool(SITE.fullmatch(origin)) and urlsplit(origin).port != 0
        except ValueError:  # a port beyond 65535, an IPv6 address that is none
            fits = False
        if not fits:
            raise ImproperlyConfigured(
                f"{name}: {text!r} is no origin. Write each like https://studio.example.org, with "
                "https:// or http:// and without a path; there is no * for all."
            )
        scheme, _, _host = origin.partition(":")
        origins.append(origin.removesuffix(":443" if scheme == "https" else ":80"))
    return origins


def likely_site(hosts: list[str], host: str, port: int, *, https: bool, proxied: bool) -> str:
    """The site's address where SITE_URL is not set; never taken from a request.

    hosts: ALLOWED_HOSTS. host, port: where the site listens.
    """
    names = public_names(hosts)
    name = names[0] if names else host
    if name in ("0.0.0.0", "::", "[::]"):  # noqa: S104 - no address to open
        name = "localhost"
    name = f"[{name}]" if ":" in name and not name.startswith("[") else name
    if https:
        return f"https://{name}"
    return f"http://{name}" if names and proxied else f"http://{name}:{port}"


def mail_server(url: str) -> dict[str, Any]:
    """Django's EMAIL_ settings from EMAIL_URL; without one, mails go to the console."""
    if not url:
        return {"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}
    schemes = ("smtp", "submission", "console", "file", "memory")
    scheme = urlparse(url).scheme
    if scheme not in schemes:
        raise ImproperlyConfigured(
            f"EMAIL_URL must begin with {': or '.join(schemes)}:, not {scheme}:."
        )
    found: dict[str, Any] = dj_email_url.parse(url)
    return {**found, "EMAIL_TIMEOUT": found["EMAIL_TIMEOUT"] or 20}
