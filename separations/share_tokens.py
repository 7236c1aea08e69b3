"""The tokens of share links: what they look like, and how they are kept out of the logs.

No models here: logging is set up before Django's apps are.
"""

import hashlib
import logging
import re

PATTERN = r"[A-Za-z0-9_-]{43}"  # 256 bits, as `secrets.token_urlsafe(32)` would write them
# Whoever reads one of these in a log could open the song, or set the password.
IN_ADDRESSES = re.compile(r"(/s/|/account/reset/[^/\s]+/)[\w-]{20,}", re.ASCII)


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
    """Writes addresses that hold a token without it. On handlers, so that it sees every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):
            return True  # the handler will tell of the mistake
        discreet = IN_ADDRESSES.sub(r"\1…", text)
        if discreet != text:
            record.msg, record.args = discreet, ()
        return True
