"""The exception for a body that turns out to be too large while it is read."""

from django.core.exceptions import SuspiciousOperation


class BodyTooLarge(SuspiciousOperation):
    """More came in chunks than this request may hold; `web.views.errors` answers it (413)."""
