"""gunicorn's settings: `gunicorn stemsite.wsgi -c python:stemsite.web_server`."""

import resource
import sys
from typing import Any

from separations.checks import listen_address
from separations.monitoring.multiprocess import CountFiles
from stemsite import data_folder
from stemsite.environment import envint
from stemsite.settings import (
    DIRECT,
    GROUP_ACCESS,
    HOST,
    LOGGING,
    METRICS_DIR,
    PORT,
    TRUSTED_PROXIES,
    WEB_THREADS,
)

bind = f"{HOST}:{PORT}"
workers = envint("WEB_WORKERS", 2, lowest=1)
threads = WEB_THREADS
worker_class = "stemsite.server.gunicorn_worker.Worker"
timeout = 120
umask = data_folder.forbidden_bits(group=GROUP_ACCESS)
sendfile = False
loglevel = "warning"
logconfig_dict = LOGGING  # for its master process
control_socket_disable = True
# Django alone decides which proxies may report https (TRUSTED_PROXIES); gunicorn trusts none.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
worker_connections = 1000  # a quarter of them may be heads that are still arriving
OPEN_FILES = 4096  # of a worker: connections, lingering ones too, the database, songs


def _raise_file_limit() -> None:
    """Allow OPEN_FILES. The usual 1024 are fewer than clients can open, and a worker then ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def post_worker_init(_worker: Any) -> None:
    """gunicorn's hook in each worker: find out whether songs can be read here."""
    from separations.audio.sandbox.decoder_process import decoder_check

    decoder_check.check_soon()


def worker_exit(_server: Any, _worker: Any) -> None:
    """gunicorn's hook in a worker that ends."""
    from separations.monitoring import fault_counts

    fault_counts.write()


def on_starting(server: Any) -> None:
    """gunicorn's hook in the master process, before it listens.

    Refuses an address that strangers reach unless that is meant, makes what the site needs, and
    holds a place among the counting processes, so that counts outlive the workers that counted.
    """
    if why := listen_address.refusal(HOST, proxies=TRUSTED_PROXIES, direct=DIRECT):
        sys.exit(f"The site does not start: {why}")
    data_folder.prepare()
    _raise_file_limit()
    try:
        CountFiles(METRICS_DIR)
    except OSError:  # a full disk: pages still work, and explain it
        server.log.exception("There is no place to count in: metrics may start again from zero")
