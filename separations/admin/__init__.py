"""The operator's admin: lists, pages and actions. Actions call the services of the pages."""

from separations.admin import accounts, jobs, songs, webhooks

__all__ = ["accounts", "jobs", "songs", "webhooks"]
