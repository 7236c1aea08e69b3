"""What accounts are for here: songs that follow their owner, and leave with them."""

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.forms import PasswordResetForm
from django.contrib.auth.models import AnonymousUser, User
from django.db.models import ProtectedError
from django.utils import translation

from separations import jobs
from separations.models import Job, Owner

TRIES = 5


def claim(visitor: str, user_id: int) -> int:
    """Make the songs of a session those of an account; returns how many.

    One UPDATE of what is no account's yet: of two log-ins at once each song goes to one. (A job
    without an account has a visitor; none is found for a session that has sent nothing.)
    """
    return Job.objects.filter(user=None, visitor=visitor).update(user_id=user_id, network="")


def delete_everything(owner: Owner) -> int:
    """Delete all songs of `owner` with their stems and links; returns how many there were."""
    count = 0
    # One by one as they are then: what is sent meanwhile goes too.
    while job := Job.objects.visible_to(owner).select_related("upload").first():
        jobs.remove(job)
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


def change_email(user: AbstractBaseUser | AnonymousUser, email: str) -> None:
    User.objects.filter(pk=user.pk or 0).update(email=email)


def mail_reset_link(email: str, domain: str, language: str, *, secure: bool) -> None:
    """Send a link to choose a new password to every account with this address, if there is one."""
    form = PasswordResetForm({"email": email})
    if form.is_valid():
        with translation.override(language):
            form.save(
                domain_override=domain,
                use_https=secure,
                subject_template_name="accounts/reset_subject.txt",
                email_template_name="accounts/reset_mail.txt",
            )
