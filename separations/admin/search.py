"""Search in the admin: jobs and songs by words, account, visitor tag, id or hash."""

import re
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet

from separations.admin.base import MAX_COUNTED
from separations.admin.job_history import visitor_tag
from separations.models import Job, Upload

HEX = re.compile(r"[0-9a-f]{6,64}")
TAG_LENGTH = len(visitor_tag(""))
MOST_WORDS = 20  # databases allow some hundred conditions
ABOVE_HEX = "g"  # sorts after every hash with the same beginning


def matching_jobs(text: str) -> Q:
    """Jobs whose song, owner, id or hash `text` means: words of title, artist or file name, an
    account's name, a visitor's tag, an id or the beginning of one, with hyphens or without."""
    found = jobs_with_words(text)
    digits = text.replace("-", "").lower()
    if HEX.fullmatch(digits):
        found |= Q(pk__in=_jobs_with_id(digits)) | Q(upload__in=songs_with_hash(digits))
        if len(digits) == TAG_LENGTH:
            found |= Q(visitor__in=_visitors_with_tag(digits), user=None)
    return found


def jobs_with_words(text: str) -> Q:
    """Jobs whose song has these words, or whose account has this name."""
    accounts = User.objects.filter(username__iexact=text).values("pk")
    return Q(upload__in=songs_with_words(text)) | Q(user__in=accounts)


def songs_with_words(text: str) -> QuerySet[Upload, Any]:
    """The ids of songs that have every word (of the first MOST_WORDS) in their title, artist or
    file name."""
    songs = Upload.objects.order_by()
    for word in text.split()[:MOST_WORDS]:
        songs = songs.filter(
            Q(title__icontains=word) | Q(artist__icontains=word) | Q(file_name__icontains=word)
        )
    return songs.values("pk")


def songs_with_hash(digits: str) -> list[UUID]:
    """The ids of songs whose samples' hash begins with these digits."""
    # As a range of the index: LIKE would read all of it.
    between = Upload.objects.order_by().filter(
        samples_sha256__gte=digits, samples_sha256__lt=digits + ABOVE_HEX
    )
    return list(between.values_list("pk", flat=True)[:MAX_COUNTED])


def _jobs_with_id(digits: str) -> list[UUID]:
    if len(digits) > 32:
        return []
    first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    between = Job.objects.order_by().filter(pk__gte=first, pk__lte=last)
    return list(between.values_list("pk", flat=True)[:MAX_COUNTED])


def _visitors_with_tag(tag: str) -> list[str]:
    """The visitors with this tag among the latest jobs. Tags are not stored but computed."""
    latest = Job.objects.filter(user=None).order_by("-created_at")
    visitors = set(latest.values_list("visitor", flat=True)[:MAX_COUNTED])
    return [visitor for visitor in visitors if visitor_tag(visitor) == tag]
