"""The tokens of share links and of the API: how they look, and how they are kept out of the logs.

No models here: logging is set up before Django's apps are.
"""

import hashlib
import logging
import re

PATTERN = r"[A-Za-z0-9_-]{43}"  # 256 bits, as `secrets.token_urlsafe(32)` would write them
API_TOKEN_PREFIX = "stemsite_"  # noqa: S105 - the part that is no secret
API_TOKEN = re.compile(rf"{API_TOKEN_PREFIX}{PATTERN}")
# Whoever reads one of these in a log could open the song, or set the password.
IN_ADDRESSES = re.compile(r"(/s/|/account/reset/[^/\s]+/)[\w-]{20,}", re.ASCII)
# Or act for an account, or pretend to be this site to a webhook. Wherever they stand, as a whole
# or cut off; what follows "Bearer" is secret even where it is no token of ours.
ANYWHERE = re.compile(
    r"(stemsite_|whsec_|\bBearer[\s:=]+(?:\\?['\"])?)[\w+/=.~%-]{12,}", re.ASCII | re.IGNORECASE
)


def discreet(text: str) -> str:
    """`text` with "…" for every token in it."""
    return ANYWHERE.sub(r"\1…", IN_ADDRESSES.sub(r"\1…", text))


class ShareToken(str):
    """What is secret in the address of a shared song; it shows nothing of itself in a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ShareToken(…)"

    @property
    def digest(self) -> str:
        """What is kept of it: enough to know it again, not enough to make the address."""
        return hashlib.sha256(self.encode()).hexdigest()


class NoTokens(logging.Filter):
    """Writes tokens as "…". On handlers, so that it sees every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):
            return True  # the handler will tell of the mistake
        shown = discreet(text)
        if shown != text:
            record.msg, record.args = shown, ()
        return True
