"""Patterns of the tokens of share links and of the API, and the filter that hides them in logs.

No models here: logging is configured before Django's apps.
"""

import hashlib
import logging
import re

PATTERN = r"[A-Za-z0-9_-]{43}"  # 256 bits, as `secrets.token_urlsafe(32)` would write them
API_TOKEN_PREFIX = "stemsite_"  # noqa: S105 - the part that is no secret
API_TOKEN = re.compile(rf"{API_TOKEN_PREFIX}{PATTERN}")
# With one of these from a log anybody could open the song, set the password, confirm an address.
IN_ADDRESSES = re.compile(
    r"(/s/|/account/reset/[^/\s]+/|/account/confirm/)[\w-]{20,}(?:\.[\w-]+)*", re.ASCII
)
# With one of these, act for an account or pretend to be this site to a webhook. Anywhere in a text,
# whole or cut off; what follows "Bearer" is secret even if it is no token of this site.
ANYWHERE = re.compile(
    r"(stemsite_|whsec_|\bBearer[\s:=]+(?:\\?['\"])?)[\w+/=.~%-]{12,}", re.ASCII | re.IGNORECASE
)


def hide_tokens(text: str) -> str:
    """`text` with "…" for every token in it."""
    return ANYWHERE.sub(r"\1…", IN_ADDRESSES.sub(r"\1…", text))


class ShareToken(str):
    """The secret in the address of a share link; its repr in a traceback shows nothing of it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ShareToken(…)"

    @property
    def digest(self) -> str:
        """The hash that is stored: enough to recognize the token, not to make the address."""
        return hashlib.sha256(self.encode()).hexdigest()


class TokenFilter(logging.Filter):
    """Replaces tokens by "…". On handlers, so that every record passes it."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):
            return True  # the handler reports the mistake
        shown = hide_tokens(text)
        if shown != text:
            record.msg, record.args = shown, ()
        return True
