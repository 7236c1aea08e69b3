"""Run the site: the processes of a Procfile side by side, under stemsite.supervisor."""

from __future__ import annotations

import os
from typing import NoReturn

from stemsite.setup import paths
from stemsite.setup.steps import say


def start(procfile: str, **environment: str) -> NoReturn:
    """Become the supervisor of what a Procfile names: this process runs it from now on.

    environment: variables beside those of this process.
    """
    host = os.environ.get("HOST") or "127.0.0.1"
    port = os.environ.get("PORT") or "8000"
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"  # an IPv6 address, as servers write it
    path = f"{paths.PYTHON.parent}{os.pathsep}{os.environ['PATH']}"
    environment |= {"HOST": host, "PORT": port, "PATH": path}
    say(f"Starting the site: http://{host}:{port} (Ctrl-C stops it)")
    os.umask(0o077)
    os.chdir(paths.ROOT)
    command = [str(paths.PYTHON), "-m", "stemsite.supervisor", procfile]
    os.execve(command[0], command, {**os.environ, **environment})  # noqa: S606 - no shell wanted
