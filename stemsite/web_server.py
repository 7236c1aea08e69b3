"""gunicorn's settings: `gunicorn stemsite.wsgi -c python:stemsite.web_server`."""

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


def on_starting(server: Any) -> None:
    """Be there for as long as the site is: counts outlive the workers that counted."""
    try:
        Place()
    except OSError:  # a full disk, say, on which the site can still tell what to do
        server.log.exception("There is no place to count in: metrics may start again from zero")
