"""Django's settings. Each of the site's own comes from the environment and has a working default.

Importing this module makes nothing: see stemsite.data_folder for what is made at the start.
"""

import re
from pathlib import Path
from typing import Any

import dj_database_url
import django_stubs_ext
from django.utils.translation import gettext_lazy as _
from platformdirs import user_cache_path

from separations.audio.info import studio_megabytes
from separations.checks.host_names import mail_domain
from separations.logs.config import logging_config
from separations.monitoring import sentry
from stemsite.environment import (
    SECRET_FILES,
    envauto,
    envbool,
    envchoice,
    envint,
    envlist,
    envorigins,
    envrate,
    envsecret,
    envsite,
    envstr,
    likely_site,
    mail_server,
)
from stemsite.secret_key import stored_key, strong
from stemsite.signed_queue import queue_at

django_stubs_ext.monkeypatch()  # Django classes take type arguments at run time too

BASE_DIR = Path(__file__).resolve().parent.parent


# Folders, and whether the group may read them: see stemsite.data_folder

GROUP_ACCESS = envbool("GROUP_ACCESS", False)
DATA_DIR = Path(envstr("DATA_DIR", str(BASE_DIR / "data"))).expanduser().resolve()
MODEL_DIR = (
    Path(envstr("MODEL_DIR", str(user_cache_path("stemsite") / "models"))).expanduser().resolve()
)
UPLOAD_DIR = DATA_DIR / "uploads"
RESULT_DIR = DATA_DIR / "results"
STAGING_DIR = DATA_DIR / "staging"
ENGINE_DIR = DATA_DIR / "engines"  # measurements and compiled networks of this machine
RENDITION_DIR = DATA_DIR / "renditions"
FILE_UPLOAD_TEMP_DIR = DATA_DIR / "incoming"
METRICS_DIR = (
    DATA_DIR / "metrics"
)  # counts of all processes, see separations.monitoring.multiprocess
# Made when the site starts, not here: see stemsite.data_folder
DATA_FOLDERS = (UPLOAD_DIR, RESULT_DIR, STAGING_DIR, RENDITION_DIR, FILE_UPLOAD_TEMP_DIR)

# The site

DEBUG = envbool("DEBUG", False)
SECRET_KEY = envsecret("SECRET_KEY", "")
if SECRET_KEY:
    strong(SECRET_KEY, "SECRET_KEY")
else:
    SECRET_KEY = stored_key(DATA_DIR / "secret_key")
    SECRET_FILES.append(DATA_DIR / "secret_key")
SECRET_KEY_FALLBACKS = [
    strong(key, "SECRET_KEY_FALLBACKS")
    for key in re.split(r"[\s,]+", envsecret("SECRET_KEY_FALLBACKS", ""))
    if key
]
HOST = envstr("HOST", "127.0.0.1")
PORT = envint("PORT", 8000, lowest=1)
ALLOWED_HOSTS = envlist("ALLOWED_HOSTS", f"localhost,127.0.0.1,[::1],{HOST}")
CSRF_TRUSTED_ORIGINS = envlist("CSRF_TRUSTED_ORIGINS", "")
TRUSTED_PROXIES = envint("TRUSTED_PROXIES", 0)  # that append to X-Forwarded-For
DIRECT = envbool("DIRECT", False)  # see separations.checks.listen_address
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
    "stemsite.middleware.security_headers",  # first, so that no answer goes out without them
    "separations.monitoring.middleware.request_ids",
    "separations.monitoring.middleware.count_requests",
    # Before all that checks hosts, https and sessions
    "separations.monitoring.middleware.probes",
    "stemsite.cross_origin.CrossOriginMiddleware",  # before all that answers or reads cookies
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "stemsite.middleware.refuse_nul_bytes",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    # Before CsrfViewMiddleware, which reads the whole body
    "separations.access.middleware.AccessMiddleware",
    "separations.fair_use.middleware.RateLimitMiddleware",  # likewise
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "separations.access.token_auth.TokenAuthMiddleware",  # after it: a token decides who asks
    "django.contrib.messages.middleware.MessageMiddleware",
    "separations.accounts.sessions.LoginExpiryMiddleware",  # after it: adds a message at log-out
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
                "separations.access.permissions.accounts",
            ]
        },
    }
]
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
CSRF_FAILURE_VIEW = "separations.web.views.errors.stale_form"
CSRF_COOKIE_HTTPONLY = LANGUAGE_COOKIE_HTTPONLY = True  # no script of ours reads them
CSRF_COOKIE_SAMESITE = SESSION_COOKIE_SAMESITE = LANGUAGE_COOKIE_SAMESITE = "Lax"
# How long a session lasts. Accounts have to log in again then and lose no song. The songs of
# visitors without an account hang on the session, which lasts this long after their last visit.
SESSION_COOKIE_AGE = CSRF_COOKIE_AGE = envint("SESSION_DAYS", 30, lowest=1) * 24 * 3600
STAFF_SESSION_HOURS = envint("STAFF_SESSION_HOURS", 12, lowest=1)
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

AUTHENTICATION_BACKENDS = ["separations.models.account_names.FoldedNames"]

# Python names that are stored: a log-in's session holds that of its authentication backend, a
# message in the queue that of its task. What was stored before a module moved holds the old name:
# here is what each is called now. The left side is data and never changes.
MOVED_NAMES = {
    "separations.names.FoldedNames": AUTHENTICATION_BACKENDS[0],
    "separations.tasks.work": "separations.worker.tasks.work",
    "separations.tasks.clean": "separations.worker.tasks.clean",
    "separations.tasks.mail_confirmation": "separations.accounts.tasks.mail_confirmation",
    "separations.tasks.mail_reset_links": "separations.accounts.tasks.mail_reset_links",
}

# Accounts, and their mails

ACCOUNTS = envchoice("ACCOUNTS", "optional", "off", "required")
LOGIN_URL = "accounts:login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "separations:home"
PASSWORD_RESET_TIMEOUT = 3600
EMAIL_CONFIRMATION_TIMEOUT = 24 * 3600
EMAIL_URL = envsecret("EMAIL_URL", "")
globals().update(mail_server(EMAIL_URL))
DEFAULT_FROM_EMAIL = SERVER_EMAIL = envstr(
    "EMAIL_FROM", f"stemsite@{mail_domain(ALLOWED_HOSTS, HOST)}"
)

# HTTPS, and the site's own address

HTTPS = envbool("HTTPS", False)
SITE_URL_GIVEN = envsite("SITE_URL", https=HTTPS)
SITE_URL = SITE_URL_GIVEN or likely_site(  # links in mails begin with it
    ALLOWED_HOSTS, HOST, PORT, https=HTTPS, proxied=TRUSTED_PROXIES > 0
)
SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = envbool("HSTS_SUBDOMAINS", False)
CSRF_COOKIE_SECURE = SESSION_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = HTTPS
if TRUSTED_PROXIES > 0:  # else any client could set the header
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Browsers accept a cookie with this prefix only from this host and by https: no neighbour on
# another sub-domain can plant one and have visitors work in a session that it knows.
_PREFIX = "__Host-" if HTTPS else ""
SESSION_COOKIE_NAME = f"{_PREFIX}sessionid"
CSRF_COOKIE_NAME = f"{_PREFIX}csrftoken"
VISITOR_COOKIE_NAME = f"{_PREFIX}visitor"
# HSTS for sub-domains and preload lists is a decision about the whole domain, of which this site
# may be a small part: HSTS_SUBDOMAINS, and a proxy's header.
# files.E001: the folder of uploads is made when the site starts, see stemsite.data_folder.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021", "files.E001"]

# Pages of other origins, which may use the API with tokens: see stemsite.cross_origin

CORS_ALLOWED_ORIGINS = envorigins("CORS_ALLOWED_ORIGINS")
CORS_URLS_REGEX = "^/api/"
CORS_ALLOW_CREDENTIALS = False
CORS_ALLOW_METHODS = ("GET", "HEAD", "POST", "DELETE")
CORS_ALLOW_HEADERS = (
    "accept",
    "accept-language",
    "authorization",
    "content-type",
    "idempotency-key",
    "if-none-match",
    "if-range",
    "last-event-id",
    "range",
)
CORS_EXPOSE_HEADERS = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Length",
    "Content-Range",
    "Deprecation",
    "ETag",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Stemsite-Gain-Db",
    "Sunset",
    "X-Request-ID",
)

# Records and queue

DATABASE_URL = envsecret("DATABASE_URL", "")
DATABASES: dict[str, Any] = {
    "default": dj_database_url.parse(DATABASE_URL, conn_health_checks=True)
    if DATABASE_URL
    else {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA_DIR / "db.sqlite3"}
}
if "sqlite3" in DATABASES["default"]["ENGINE"]:
    DATABASES["default"]["CONN_MAX_AGE"] = None  # opening it costs more than most queries
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",  # a writer waits for the lock instead of failing halfway
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
HUEY_URL = envsecret("HUEY_URL", "")
HUEY = queue_at(HUEY_URL, DATA_DIR / "queue.sqlite3")

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
    "staticfiles": {"BACKEND": "stemsite.static_files.ModuleStorage"},
}
WHITENOISE_KEEP_ONLY_HASHED_FILES = True

# Uploads

MAX_DURATION_SECONDS = envint("MAX_DURATION_SECONDS", 600, lowest=1)
# The default holds the longest song as studios keep it
MAX_UPLOAD_MB = envint("MAX_UPLOAD_MB", studio_megabytes(MAX_DURATION_SECONDS), lowest=1)
ALLOWED_EXTENSIONS = [
    "." + extension.lstrip(".").lower()
    for extension in envlist(
        "ALLOWED_EXTENSIONS",
        ".mp3,.wav,.flac,.ogg,.oga,.opus,.m4a,.m4b,.aac,.aiff,.aif,.aifc,.wma,.caf,.w64,.wv,"
        ".mp4,.m4v,.mov,.3gp,.mkv,.mka,.webm",
    )
]
DATA_UPLOAD_MAX_NUMBER_FILES = 100  # in a form; separations.uploads.handlers stores fewer
DATA_UPLOAD_MAX_NUMBER_FIELDS = 300  # the admin's lists have a field for each of 100 rows
FILE_UPLOAD_HANDLERS = [
    "separations.uploads.handlers.SizeLimitHandler",
    "separations.uploads.handlers.DiskFileHandler",
]

# Fair use

RATE_LIMITS = {
    "upload": envrate("LIMIT_UPLOADS", "60/h"),
    "login": envrate("LIMIT_LOGINS", "20/15m"),
    "name": envrate("LIMIT_LOGINS_PER_NAME", "30/15m"),
    "signup": envrate("LIMIT_SIGNUPS", "10/h"),
    "reset": envrate("LIMIT_RESETS", "10/h"),
    "confirmation": envrate("LIMIT_CONFIRMATIONS", "5/d"),
    "mails": envrate("LIMIT_MAILS", "500/d"),
    "mails_per_address": envrate("LIMIT_MAILS_PER_ADDRESS", "3/d"),
    "action": envrate("LIMIT_ACTIONS", "120/10m"),
    "download": envrate("LIMIT_DOWNLOADS", "300/10m"),
    "encode": envrate("LIMIT_ENCODINGS", "600/h"),
    "api": envrate("LIMIT_API", "1200/10m"),
}
RATE_LIMITS["events"] = RATE_LIMITS["api"]
SITE_LIMITS = {  # of all clients together; one /48 of IPv6 may take a third at most
    "signup": envrate("LIMIT_SITE_SIGNUPS", "1000/h"),
    "upload": envrate("LIMIT_SITE_UPLOADS", "6000/h"),
    "encode": envrate("LIMIT_SITE_ENCODINGS", "30000/h"),
}
MAX_QUEUED_JOBS = envint("MAX_QUEUED_JOBS", 20)  # these three: 0 for no limit
MAX_MINUTES_A_DAY = envint("MAX_MINUTES_A_DAY", 600)
MAX_OWNER_STORAGE_GB = envauto("MAX_OWNER_STORAGE_GB")
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
ENGINE_NICE = envint("ENGINE_NICE", 5)  # engines read it; see separations.engine.priority
THREADS = envint("THREADS", 0)  # of each slot; 0: the CPUs divided by the slots
JOBS = envint("JOBS", 0)  # chunks side by side
SLOTS = envint("SLOTS", 0)  # songs side by side; 0: what CPUs and memory hold
MEMORY_MB = envint("MEMORY_MB", 0)  # 0: what the machine has, or what its cgroup may use
MEMORY_MARGIN_MB = envint("MEMORY_MARGIN_MB", 1000)
DECODERS = envint("DECODERS", 0)  # of uploads, 0: what CPUs and memory hold
MAX_ATTEMPTS = envint("MAX_ATTEMPTS", 3, lowest=1)
LEASE_SECONDS = envint("LEASE_SECONDS", 20, lowest=5)
JOB_TIMEOUT_SECONDS = envint("JOB_TIMEOUT_SECONDS", 600, lowest=1)
STALL_SECONDS = envint("STALL_SECONDS", 180, lowest=1)

# Who may reuse a result; see separations.jobs.result_keys
SHARE_RESULTS = envchoice("SHARE_RESULTS", "site", "owner", "no")

# Retention

KEEP_UPLOADS_MINUTES = envint("KEEP_UPLOADS_MINUTES", 60)
KEEP_RESULTS_HOURS = envint("KEEP_RESULTS_HOURS", 72, lowest=1)
KEEP_JOBS_DAYS = envint("KEEP_JOBS_DAYS", 90, lowest=1)
# None: they follow the disk, see separations.disk.disk_space; 0: no limit.
MAX_STORAGE_GB = envauto("MAX_STORAGE_GB")
MAX_ENCODINGS_GB = envauto("MAX_ENCODINGS_GB")

# Monitoring

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
LOGGING = logging_config(
    LOG_FORMAT,
    personal=LOG_PERSONAL,
    level=envstr("LOG_LEVEL", "INFO").upper(),
    requests=DEBUG or LOG_PERSONAL,
)
