"""The configuration of Python's logging that all processes of the site share."""

from typing import Any


def logging_config(kind: str, *, personal: bool, level: str, requests: bool) -> dict[str, Any]:
    """What `logging.config.dictConfig` takes.

    Args:
        kind: "text" or "json".
        personal: whether lines may show names and addresses.
        level: of the root logger.
        requests: whether the development server logs each request, with its address.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": "separations.logs.formatter.formatter",
                "kind": kind,
                "personal": personal,
            }
        },
        "filters": {
            "no_tokens": {"()": "separations.logs.secret_tokens.TokenFilter"},
            "no_outages": {"()": "separations.errors.database_outage.OutageFilter"},
        },
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "filters": ["no_tokens"],
            }
        },
        "root": {"handlers": ["console"], "level": level},
        "loggers": {
            # A client's mistake is no error of the site.
            "django.request": {"level": "ERROR", "filters": ["no_outages"]},
            # The development server's, a line for each request, with its address.
            "django.server": {
                "handlers": ["console"],
                "level": "INFO" if requests else "ERROR",
                "propagate": False,
            },
            # gunicorn's, which names clients whose requests it cannot read. (It has no access log.)
            "gunicorn.error": {"handlers": ["console"], "level": "WARNING", "propagate": False},
            # Warns for each HEAD that Django made a body, which is not sent.
            "gunicorn.http": {"level": "ERROR"},
            "huey": {"handlers": ["console"], "level": "WARNING", "propagate": False},
            # Names the webhooks that are called, and their answers.
            "httpcore2": {"level": "WARNING"},
        },
    }
