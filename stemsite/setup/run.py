"""Run the site: the processes of a Procfile side by side, under stemsite.supervisor."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NoReturn

from stemsite.setup import env_file, paths
from stemsite.setup.steps import say

REFUSED = b"Stopped: "  # with which the supervisor begins the reason


def check_address() -> None:
    """End what a killed run left, and end here if the site could not listen.

    Early, as it saves the long steps, and what was left would disturb them.
    """
    checked = subprocess.run(_supervisor(), cwd=paths.ROOT, env=_environment(), check=False)
    if checked.returncode != 0:
        sys.exit(checked.returncode)  # it said why


def check_address_first() -> None:
    """The same before packages are installed, as a site that runs already may be using them.

    Says nothing where the packages that are there do not suffice to find out.
    """
    if not paths.PYTHON.exists():
        return
    checked = subprocess.run(
        _supervisor(), cwd=paths.ROOT, env=_environment(), capture_output=True, check=False
    )
    if checked.returncode != 0 and REFUSED in checked.stdout + checked.stderr:
        for file, text in ((sys.stdout, checked.stdout), (sys.stderr, checked.stderr)):
            file.write(text.decode("utf-8", "replace"))
        sys.exit(checked.returncode)


def start(procfile: str, **environment: str) -> NoReturn:
    """Become the supervisor of what a Procfile names: this process runs it from now on.

    environment: variables beside those of this process.
    """
    environment = _environment() | environment
    say(f"Starting the site: http://{environment['HOST']}:{environment['PORT']} (Ctrl-C stops it)")
    os.umask(0o077)
    os.chdir(paths.ROOT)
    # A process of its own, as the supervisor does nothing but supervise; it says "Ready" and ends.
    watch = [str(paths.PYTHON), "-m", "stemsite.setup.ready", environment["HOST"]]
    subprocess.Popen([*watch, environment["PORT"], str(os.getpid())], stdin=subprocess.DEVNULL)
    command = _supervisor(procfile)
    os.execve(command[0], command, environment)  # noqa: S606 - no shell wanted


def _supervisor(*arguments: str) -> list[str]:
    return [str(paths.PYTHON), "-m", "stemsite.supervisor", *arguments]


def _environment() -> dict[str, str]:
    """This process's variables and those of `.env`, with HOST, PORT and the environment's Python.

    Python is in PATH. Whoever asks where the site listens has to ask here: the supervisor changes
    nothing of it.
    """
    env_file.load(paths.ROOT)
    host = os.environ.get("HOST", "").strip() or "127.0.0.1"
    port = os.environ.get("PORT", "").strip() or "8000"
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"  # an IPv6 address, as servers write it
    path = f"{paths.PYTHON.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "HOST": host, "PORT": port, "PATH": path}
