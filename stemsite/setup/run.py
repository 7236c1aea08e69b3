"""Run the site: web server and consumer side by side under honcho."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import NoReturn

from stemsite.setup import paths
from stemsite.setup.ready import tell_when_ready
from stemsite.setup.steps import say

HONCHO_SECONDS = 5  # more than it takes to start, on a busy machine


def start(procfile: str, **environment: str) -> NoReturn:
    """Run what a Procfile names until one of it ends or this process is told to stop.

    environment: variables beside those of this process.
    """
    host = os.environ.get("HOST") or "127.0.0.1"
    port = os.environ.get("PORT") or "8000"
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"  # an IPv6 address, as servers write it
    path = f"{paths.PYTHON.parent}{os.pathsep}{os.environ['PATH']}"
    environment |= {"HOST": host, "PORT": port, "PATH": path, "PYTHONUNBUFFERED": "1"}
    say(f"Starting the site: http://{host}:{port} (Ctrl-C stops it)")
    command = [str(paths.PYTHON), "-m", "honcho", "-f", procfile, "-d", str(paths.ROOT), "start"]
    if os.environ.get("LOG_FORMAT") == "json":
        command += ["--no-prefix", "--no-colour"]  # which would stand before the objects
    # In a session of its own: only the signals sent below reach it, not the terminal's Ctrl-C.
    site = subprocess.Popen(
        command,
        cwd=paths.ROOT,
        env={**os.environ, **environment},
        start_new_session=True,
        umask=0o077,
    )
    started = time.monotonic()
    tell_when_ready(lambda: site.poll() is None, host, port)

    def stop(_signal: int, _frame: object) -> None:
        # If it is stopped before both of its processes have started, honcho fails and leaves them.
        time.sleep(max(0.0, HONCHO_SECONDS - (time.monotonic() - started)))
        site.terminate()

    # honcho does not handle a closed terminal (SIGHUP), and would leave both running.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)
    status = site.wait()
    sys.exit(0 if status in (130, 143) else status)
