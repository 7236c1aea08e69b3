"""The operator's side: lists and pages of Django's admin. Buttons call what the pages call."""

from separations.admin import accounts, calls, jobs, songs

__all__ = ["accounts", "calls", "jobs", "songs"]
