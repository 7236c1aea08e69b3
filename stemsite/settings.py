"""Every setting comes from the environment and has a working default. README.md lists them all."""

import os
import re
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import dj_database_url
import dj_email_url
import django_stubs_ext
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _
from huey import PostgresHuey, RedisHuey, SqliteHuey
from huey.api import Huey
from platformdirs import user_cache_path

from stemsite import sentry

django_stubs_ext.monkeypatch()  # Django classes take type arguments at run time too

BASE_DIR = Path(__file__).resolve().parent.parent


def envstr(name: str, default: str) -> str:
    return os.environ.get(name, "").strip() or default


def envchoice(name: str, default: str, *others: str) -> str:
    value = envstr(name, default)
    if value not in (default, *others):
        allowed = " or ".join((default, *others))
        raise ImproperlyConfigured(f"{name} must be {allowed}, not {value!r}.")
    return value


def envint(name: str, default: int, lowest: int = 0) -> int:
    text = envstr(name, str(default))
    try:
        value = int(text)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {text!r}.") from None
    if value < lowest:
        raise ImproperlyConfigured(f"{name} must be at least {lowest}, not {value}.")
    return value


def envbool(name: str, default: bool) -> bool:
    text = envstr(name, "yes" if default else "no").lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ImproperlyConfigured(f"{name} must be yes or no, not {text!r}.")


def envlist(name: str, default: str) -> list[str]:
    return [item.strip() for item in envstr(name, default).split(",") if item.strip()]


def envrate(name: str, default: str) -> tuple[int, int]:
    """So many in so many seconds, from `20/h` or `10/15m`; (0, 0) where there is no limit."""
    text = envstr(name, default)
    if text == "0":
        return 0, 0
    match = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,4})?([smhd])", text)
    seconds = (
        int(match[2] or 1) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[3]] if match else 0
    )
    if match is None or seconds > 86400:
        raise ImproperlyConfigured(
            f"{name} must be like 20/h or 10/15m (s, m, h, d; within a day) or 0, not {text!r}."
        )
    return int(match[1]), seconds


SECRET_FILES: list[Path] = []  # what was read; `manage.py check` looks at who else may read them


def envsecret(name: str, default: str) -> str:
    """A setting that is a secret or holds one: from NAME, or from the file that NAME_FILE names.

    A file, because the environment of a process is inherited by its children, printed by debuggers
    and shown by container tools.
    """
    path = envstr(f"{name}_FILE", "")
    if not path:
        return envstr(name, default)
    if envstr(name, ""):
        raise ImproperlyConfigured(f"Set {name} or {name}_FILE, not both.")
    try:
        value = Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ImproperlyConfigured(f"{name}_FILE: {path} could not be read: {reason}.") from None
    if not value:
        raise ImproperlyConfigured(f"{name}_FILE: {path} is empty.")
    SECRET_FILES.append(Path(path).expanduser())
    return value


# What stands in examples and is copied from them.
EXAMPLE_KEYS = re.compile("change.?(me|this|it)|secret|insecure|example|password|placeholder", re.I)


def strong(key: str, name: str) -> str:
    """`key`, refused when somebody could guess it: who knows it signs in as anybody."""
    repeated = key in (key + key)[1:-1]
    if len(key) < 50 or len(set(key)) < 10 or repeated or EXAMPLE_KEYS.search(key):
        raise ImproperlyConfigured(
            f"{name} is weak: it must be at least 50 random characters. Leave it empty and one is "
            "made and kept in DATA_DIR, or make one: "
            'python3 -c "import secrets; print(secrets.token_urlsafe(64))"'
        )
    return key


def kept_secret(path: Path) -> str:
    """The key in the file at `path`, made at the first start and readable by its owner alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(64))
    except FileExistsError:
        pass
    SECRET_FILES.append(path)
    key = path.read_text().strip()
    if len(key) < 50:
        raise ImproperlyConfigured(f"{path} holds no usable key. Delete it; a new one is made.")
    return key


def queue(url: str, file: Path) -> Huey:
    """The queue behind HUEY_URL; a file of its own where none is set."""
    scheme = urlparse(url).scheme
    if scheme == "":
        return SqliteHuey("stemsite", filename=str(file), strict_fifo=True, immediate=False)
    if scheme in ("redis", "rediss"):
        return RedisHuey("stemsite", url=url, immediate=False)
    if scheme in ("postgres", "postgresql"):
        return PostgresHuey("stemsite", dsn=url, immediate=False)
    raise ImproperlyConfigured(
        f"HUEY_URL must begin with redis:// or postgresql://, not {scheme}:."
    )


def mail_server(url: str) -> dict[str, Any]:
    """Django's EMAIL_ settings from EMAIL_URL; without one, nothing is ever sent."""
    if not url:
        return {"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}
    schemes = ("smtp", "submission", "console", "file", "memory")
    scheme = urlparse(url).scheme
    if scheme not in schemes:
        raise ImproperlyConfigured(
            f"EMAIL_URL must begin with {': or '.join(schemes)}:, not {scheme}:."
        )
    found: dict[str, Any] = dj_email_url.parse(url)
    return {**found, "EMAIL_TIMEOUT": found["EMAIL_TIMEOUT"] or 20}


def mail_domain(allowed: list[str], host: str) -> str:
    """The site's first public name: mail servers refuse senders at 127.0.0.1."""
    names = (name.lstrip(".") for name in allowed)  # all below it, and itself
    return next((name for name in names if re.fullmatch(r"\w.*\.[A-Za-z][\w-]+", name)), host)


# Where things are

DATA_DIR = Path(envstr("DATA_DIR", str(BASE_DIR / "data"))).expanduser().resolve()
MODEL_DIR = (
    Path(envstr("MODEL_DIR", str(user_cache_path("stemsite") / "models"))).expanduser().resolve()
)
UPLOAD_DIR = DATA_DIR / "uploads"
RESULT_DIR = DATA_DIR / "results"
STAGING_DIR = DATA_DIR / "staging"
ENGINE_DIR = DATA_DIR / "engines"  # what was measured and compiled on this machine
RENDITION_DIR = DATA_DIR / "renditions"
FILE_UPLOAD_TEMP_DIR = DATA_DIR / "incoming"
# Where all processes of the site count; prometheus_client looks for it when it is imported.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(DATA_DIR / "metrics")
DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)  # other people's songs, and their sessions
for folder in (UPLOAD_DIR, RESULT_DIR, STAGING_DIR, RENDITION_DIR, FILE_UPLOAD_TEMP_DIR):
    folder.mkdir(parents=True, exist_ok=True)

# The site

DEBUG = envbool("DEBUG", False)
SECRET_KEY = envsecret("SECRET_KEY", "")
SECRET_KEY = (
    strong(SECRET_KEY, "SECRET_KEY") if SECRET_KEY else kept_secret(DATA_DIR / "secret_key")
)
SECRET_KEY_FALLBACKS = [
    strong(key, "SECRET_KEY_FALLBACKS")
    for key in re.split(r"[\s,]+", envsecret("SECRET_KEY_FALLBACKS", ""))
    if key
]
HOST = envstr("HOST", "127.0.0.1")
ALLOWED_HOSTS = envlist("ALLOWED_HOSTS", f"localhost,127.0.0.1,[::1],{HOST}")
CSRF_TRUSTED_ORIGINS = envlist("CSRF_TRUSTED_ORIGINS", "")
TRUSTED_PROXIES = envint("TRUSTED_PROXIES", 0)  # that append to X-Forwarded-For
SLOW_CLIENT_SECONDS = envint("SLOW_CLIENT_SECONDS", 15, lowest=1)
WEB_THREADS = envint("WEB_THREADS", 64, lowest=4)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_htmx",
    "ninja",  # the files of the API's page
    "huey.contrib.djhuey",
    "separations",
]
MIDDLEWARE = [
    "stemsite.middleware.protective_headers",  # first, so that no answer goes out without them
    "stemsite.watch.request_ids",
    "stemsite.watch.counted",
    "stemsite.watch.probes",  # before whatever looks at hosts, https and sessions
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "stemsite.middleware.well_formed",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "separations.access.Guard",  # before the next, which reads what was sent, however large
    "separations.rate_limits.Limits",  # likewise
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "separations.askers.Askers",  # after it: who sends a token is who the token says
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "stemsite.urls"
WSGI_APPLICATION = "stemsite.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "separations.access.accounts",
            ]
        },
    }
]
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
CSRF_FAILURE_VIEW = "separations.views.stale_form"
CSRF_COOKIE_HTTPONLY = LANGUAGE_COOKIE_HTTPONLY = True  # no script of ours reads them
CSRF_COOKIE_SAMESITE = SESSION_COOKIE_SAMESITE = LANGUAGE_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 365 * 24 * 3600  # an anonymous visitor's songs hang on it
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# Accounts, and the mail that sets a forgotten password anew

ACCOUNTS = envchoice("ACCOUNTS", "optional", "off", "required")
LOGIN_URL = "accounts:login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "separations:home"
PASSWORD_RESET_TIMEOUT = 3600
EMAIL_URL = envsecret("EMAIL_URL", "")
globals().update(mail_server(EMAIL_URL))
DEFAULT_FROM_EMAIL = SERVER_EMAIL = envstr(
    "EMAIL_FROM", f"stemsite@{mail_domain(ALLOWED_HOSTS, HOST)}"
)

# HTTPS

HTTPS = envbool("HTTPS", False)
SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = envbool("HSTS_SUBDOMAINS", False)
CSRF_COOKIE_SECURE = SESSION_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = HTTPS
if TRUSTED_PROXIES > 0:  # else the header is the visitor's own word
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Browsers take a cookie of this prefix from this host by https alone: no neighbour on another
# sub-domain can plant one, and so have visitors work in a session that it knows.
_PREFIX = "__Host-" if HTTPS else ""
SESSION_COOKIE_NAME = f"{_PREFIX}sessionid"
CSRF_COOKIE_NAME = f"{_PREFIX}csrftoken"
VISITOR_COOKIE_NAME = f"{_PREFIX}visitor"
# Whether sub-domains and browsers' built-in lists are to insist on https is decided for the whole
# domain, of which this site may be a small part: HSTS_SUBDOMAINS, and a proxy's header.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

# Records and queue

DATABASE_URL = envsecret("DATABASE_URL", "")
DATABASES: dict[str, Any] = {
    "default": dj_database_url.parse(DATABASE_URL, conn_health_checks=True)
    if DATABASE_URL
    else {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA_DIR / "db.sqlite3"}
}
if "sqlite3" in DATABASES["default"]["ENGINE"]:
    DATABASES["default"]["CONN_MAX_AGE"] = None  # to open it costs more than what is asked of it
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",  # a writer waits its turn instead of failing half-way
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
HUEY = queue(envsecret("HUEY_URL", ""), DATA_DIR / "queue.sqlite3")

# Language and time

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("ko", _("Korean"))]
LOCALE_PATHS = [BASE_DIR / "separations" / "locale"]
TIME_ZONE = envstr("TIME_ZONE", "UTC")
USE_TZ = True

# Static files: hashed names, served by WhiteNoise

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "stemsite.storage.ModuleStorage"},
}
WHITENOISE_KEEP_ONLY_HASHED_FILES = True

# Uploads

MAX_UPLOAD_MB = envint("MAX_UPLOAD_MB", 100, lowest=1)
MAX_DURATION_SECONDS = envint("MAX_DURATION_SECONDS", 600, lowest=1)
ALLOWED_EXTENSIONS = [
    "." + extension.lstrip(".").lower()
    for extension in envlist("ALLOWED_EXTENSIONS", ".mp3,.wav,.flac,.ogg,.opus,.m4a,.aac")
]
DATA_UPLOAD_MAX_NUMBER_FILES = 100  # sent at all; separations.upload_limit keeps fewer
DATA_UPLOAD_MAX_NUMBER_FIELDS = 300  # the admin's lists have a field for each of 100 rows
FILE_UPLOAD_HANDLERS = [
    "separations.upload_limit.SizeLimit",
    "separations.upload_limit.DiskFile",
]

# Fair use

RATE_LIMITS = {
    "upload": envrate("LIMIT_UPLOADS", "60/h"),
    "login": envrate("LIMIT_LOGINS", "20/15m"),
    "name": envrate("LIMIT_LOGINS_PER_NAME", "30/15m"),
    "signup": envrate("LIMIT_SIGNUPS", "10/h"),
    "reset": envrate("LIMIT_RESETS", "10/h"),
    "action": envrate("LIMIT_ACTIONS", "120/10m"),
    "download": envrate("LIMIT_DOWNLOADS", "300/10m"),
    "api": envrate("LIMIT_API", "1200/10m"),
}
RATE_LIMITS["events"] = RATE_LIMITS["api"]
MAX_QUEUED_JOBS = envint("MAX_QUEUED_JOBS", 20)  # these three: 0 for no limit
MAX_MINUTES_A_DAY = envint("MAX_MINUTES_A_DAY", 600)
MAX_OWNER_STORAGE_GB = envint("MAX_OWNER_STORAGE_GB", 0)
MAX_PASSES = envint("MAX_PASSES", 8)  # over one song; more shifts and overlap take more
API_ANONYMOUS = envbool("API_ANONYMOUS", True)

# Webhooks

WEBHOOKS = envbool("WEBHOOKS", True)
WEBHOOK_PRIVATE_ADDRESSES = envbool("WEBHOOK_PRIVATE_ADDRESSES", False)

# Separation

DEFAULT_MODEL = envstr("DEFAULT_MODEL", "htdemucs")
DEVICE = envchoice("DEVICE", "cpu", "cuda")
ENGINE = envchoice("ENGINE", "auto", "torch", "openvino")
PRECISION = envchoice("PRECISION", "auto", "float32", "bfloat16")
ENGINE_NICE = envint("ENGINE_NICE", 5)  # read by the engines; see separations.engine.politeness
THREADS = envint("THREADS", 0)  # of each slot; 0: the CPUs, shared out
JOBS = envint("JOBS", 0)  # chunks side by side
SLOTS = envint("SLOTS", 0)  # songs side by side, 0: what CPUs and memory hold
MEMORY_MB = envint("MEMORY_MB", 0)  # 0: what the machine has, or what its cgroup may use
MEMORY_MARGIN_MB = envint("MEMORY_MARGIN_MB", 1000)
MAX_ATTEMPTS = envint("MAX_ATTEMPTS", 3, lowest=1)
LEASE_SECONDS = envint("LEASE_SECONDS", 20, lowest=5)
JOB_TIMEOUT_SECONDS = envint("JOB_TIMEOUT_SECONDS", 600, lowest=1)
STALL_SECONDS = envint("STALL_SECONDS", 180, lowest=1)

# What is kept, and how long

KEEP_UPLOADS_MINUTES = envint("KEEP_UPLOADS_MINUTES", 60)
KEEP_RESULTS_HOURS = envint("KEEP_RESULTS_HOURS", 72, lowest=1)
KEEP_JOBS_DAYS = envint("KEEP_JOBS_DAYS", 90, lowest=1)
MAX_STORAGE_GB = envint("MAX_STORAGE_GB", 0)  # 0: no limit

# Watching it

MIN_FREE_DISK_MB = envint("MIN_FREE_DISK_MB", 1000)
METRICS_TOKEN = envsecret("METRICS_TOKEN", "")
SENTRY_DSN = envsecret("SENTRY_DSN", "")
if SENTRY_DSN:
    sentry.check(SENTRY_DSN)
SENTRY_ENVIRONMENT = envstr("SENTRY_ENVIRONMENT", "production")
SENTRY_RELEASE = envstr("SENTRY_RELEASE", "")

# Logs

LOG_FORMAT = envchoice("LOG_FORMAT", "text", "json")
LOG_PERSONAL = envbool("LOG_PERSONAL", False)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "stemsite.logs.formatter", "kind": LOG_FORMAT, "personal": LOG_PERSONAL}
    },
    "filters": {"no_tokens": {"()": "separations.share_tokens.NoTokens"}},
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["no_tokens"],
        }
    },
    "root": {"handlers": ["console"], "level": envstr("LOG_LEVEL", "INFO").upper()},
    "loggers": {
        # A visitor's mistake is no error of the site.
        "django.request": {"level": "ERROR"},
        # The development server's, a line for each request, with its address.
        "django.server": {
            "handlers": ["console"],
            "level": "INFO" if DEBUG or LOG_PERSONAL else "ERROR",
            "propagate": False,
        },
        # The web server's, which names who sent what it cannot read. (It keeps no access log.)
        "gunicorn.error": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        "huey": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        # Which would tell whose webhooks are called, and what they answer.
        "httpcore2": {"level": "WARNING"},
    },
}
