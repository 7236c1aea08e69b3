"""gunicorn's settings: `gunicorn stemsite.wsgi -c python:stemsite.web_server`."""

import resource
from typing import Any

from separations.metric_files import Place
from stemsite.settings import HOST, LOGGING, WEB_THREADS, envint

bind = f"{HOST}:{envint('PORT', 8000, lowest=1)}"
workers = envint("WEB_WORKERS", 2, lowest=1)
threads = WEB_THREADS
worker_class = "stemsite.web_worker.Worker"
timeout = 120
sendfile = False
loglevel = "warning"
logconfig_dict = LOGGING  # its master process logs like everybody else
control_socket_disable = True
# Django alone says who is trusted to tell of https, and of nothing else (TRUSTED_PROXIES).
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
worker_connections = 500
OPEN_FILES = 4096  # of a worker: its connections, those that linger, the database's, songs


def _allow_files() -> None:
    """The usual 1024 are fewer than many clients can open, and a worker without any ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def on_starting(server: Any) -> None:
    """Allow the workers their files; be there for as long as the site is, as counts outlive the
    workers that counted."""
    _allow_files()
    try:
        Place()
    except OSError:  # a full disk, say, on which the site can still tell what to do
        server.log.exception("There is no place to count in: metrics may start again from zero")
