"""Share links for tests."""

from separations.access import share_links
from separations.logs.secret_tokens import ShareToken
from separations.models import ShareLink


def token_of(link: ShareLink) -> ShareToken:
    token = share_links.token_of(link)
    assert token is not None
    return token
