"""What the template of a song's share links shows."""

from collections.abc import Callable
from dataclasses import dataclass

from django.urls import reverse
from django.utils.translation import gettext, ngettext

from separations.access import share_links
from separations.models import Job, ShareLink


@dataclass(frozen=True)
class LinkPresenter:
    """A share link. address: "" when the site's key changed since, and it cannot be shown."""

    link: ShareLink
    address: str


@dataclass(frozen=True)
class SharingPresenter:
    links: list[LinkPresenter]
    choices: list[tuple[str, str]]


def present_sharing(job: Job, absolute: Callable[[str], str]) -> SharingPresenter:
    """A job's open links, for its owner. absolute: turns a path into a whole address."""
    links = [LinkPresenter(link, _address(link, absolute)) for link in job.share_links.open()]
    days = [(name, lasts.days) for name, lasts in share_links.LIFETIMES.items() if lasts]
    choices = [
        (name, ngettext("%(count)d day", "%(count)d days", count) % {"count": count})
        for name, count in days
    ]
    return SharingPresenter(links, [*choices, ("never", gettext("until you end it"))])


def _address(link: ShareLink, absolute: Callable[[str], str]) -> str:
    token = share_links.token_of(link)
    return absolute(reverse("separations:job", args=[token])) if token else ""
