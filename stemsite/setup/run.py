"""Run the site: the processes of a Procfile side by side, under stemsite.supervisor."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NoReturn

from stemsite.setup import paths
from stemsite.setup.steps import say


def check_address() -> None:
    """End what a killed run left, and end here if the site could not listen.

    Early, as it saves the long steps, and what was left would disturb them.
    """
    command = [str(paths.PYTHON), "-m", "stemsite.supervisor"]
    checked = subprocess.run(command, cwd=paths.ROOT, env=_environment(), check=False)
    if checked.returncode != 0:
        sys.exit(checked.returncode)  # it said why


def start(procfile: str, **environment: str) -> NoReturn:
    """Become the supervisor of what a Procfile names: this process runs it from now on.

    environment: variables beside those of this process.
    """
    environment = _environment() | environment
    say(f"Starting the site: http://{environment['HOST']}:{environment['PORT']} (Ctrl-C stops it)")
    os.umask(0o077)
    os.chdir(paths.ROOT)
    # A process of its own, as the supervisor has no threads; it says "Ready" and ends.
    watch = [str(paths.PYTHON), "-m", "stemsite.setup.ready", environment["HOST"]]
    subprocess.Popen([*watch, environment["PORT"], str(os.getpid())], stdin=subprocess.DEVNULL)
    command = [str(paths.PYTHON), "-m", "stemsite.supervisor", procfile]
    os.execve(command[0], command, environment)  # noqa: S606 - no shell wanted


def _environment() -> dict[str, str]:
    """The variables of this process, with HOST, PORT and the environment's Python in PATH."""
    host = os.environ.get("HOST") or "127.0.0.1"
    port = os.environ.get("PORT") or "8000"
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"  # an IPv6 address, as servers write it
    path = f"{paths.PYTHON.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "HOST": host, "PORT": port, "PATH": path}
