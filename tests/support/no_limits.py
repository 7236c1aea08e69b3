"""Settings that turn off what the site allows in a time: tests do in seconds, from one address,
what nobody does in a day."""

NAMES = (
    *("UPLOADS", "LOGINS", "LOGINS_PER_NAME", "SIGNUPS", "RESETS"),
    *("CONFIRMATIONS", "MAILS", "MAILS_PER_ADDRESS"),
    *("ACTIONS", "DOWNLOADS", "ENCODINGS", "API"),
    *("SITE_SIGNUPS", "SITE_UPLOADS", "SITE_ENCODINGS"),
)
NO_LIMITS = {f"LIMIT_{name}": "0" for name in NAMES}
