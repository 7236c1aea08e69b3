"""Ownership of songs: claim them for an account, delete all of an owner, delete an account."""

from django.contrib.auth.models import User
from django.db.models import ProtectedError

from separations.jobs import lifecycle
from separations.models import Job, Owner

TRIES = 5


def claim(visitor: str, user_id: int) -> int:
    """Move the songs of a session to an account; returns how many.

    One UPDATE of jobs without an account: of two log-ins at once, each song goes to one. (A job
    without an account has a visitor; a session that has sent nothing has no jobs.)
    """
    return Job.objects.filter(user=None, visitor=visitor).update(user_id=user_id, network="")


def delete_everything(owner: Owner) -> int:
    """Delete all songs of `owner` with their stems and links; returns how many there were."""
    count = 0
    # One by one, until none is found: songs sent meanwhile are deleted too.
    while job := Job.objects.visible_to(owner).select_related("upload").first():
        lifecycle.remove(job)
        count += 1
    return count


def delete_account(user: User) -> int:
    """Delete an account with all its songs; returns how many there were."""
    count = 0
    for attempt in range(1, TRIES + 1):
        count += delete_everything(Owner(visitor="", user_id=user.pk))
        try:
            user.delete()
            break
        except ProtectedError:  # a song was sent between the two
            if attempt == TRIES:
                raise
    return count
