"""Tasks that send e-mails in the consumer.

Not in the request: its duration would reveal who has an account. `site` comes from the web server's
settings: the consumer may run on another machine.
"""

from functools import partial

from django.conf import settings
from huey.contrib.djhuey import db_task

from separations.accounts import mails
from separations.fair_use import token_bucket
from separations.fair_use.address_ranges import widest_range
from separations.worker.tasks import enqueue


@db_task()
def mail_confirmation(user_id: int, address: str, language: str, site: str) -> None:
    """Mail a link that confirms an account's address."""
    mails.send_confirmation(user_id, address, language, site)


@db_task()
def mail_reset_links(address: str, language: str, site: str, requester: str) -> None:
    """Mail links to reset passwords, if accounts have this address."""
    mails.send_reset_links(address, language, site, requester)


def send_confirmation(user_id: int, address: str, language: str) -> bool:
    """Queue a mail that confirms an address. Returns whether the queue took it."""
    return enqueue(partial(mail_confirmation, user_id, address, language, settings.SITE_URL))


def send_reset_links(address: str, language: str, client: str) -> None:
    """Queue a mail with links to reset passwords, if accounts have this address.

    client: who asks; the queue gets a hash of its address range.

    Raises:
        Exception: the queue's own, when it cannot be reached.
    """
    requester = token_bucket.name_hash(f"mails asked from {widest_range(client)}")
    mail_reset_links(address, language, settings.SITE_URL, requester)
