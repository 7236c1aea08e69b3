"""Whether the site can listen where it should; if not, who does and what to do about it."""

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

import psutil

from stemsite.supervisor.runs import described, run_of

HIGHEST_PORT = 65535


class WhyNot(Exception):
    """The site cannot listen; the text says why and what to do."""


def url(host: str, port: str | int) -> str:
    return f"http://{host}:{port}"


def check_port(host: str, port: int, data_dir: Path) -> None:
    """Raise WhyNot unless a web server can listen at HOST and PORT."""
    error = _refusal(host, port)
    if error is None:
        return
    if error.errno == errno.EADDRINUSE:
        raise WhyNot(_who_holds(host, port, data_dir))
    if error.errno == errno.EACCES:
        raise WhyNot(f"Port {port} is for root alone. Choose one from 1024 on: PORT=8000 make run")
    if error.errno == errno.EADDRNOTAVAIL:
        raise WhyNot(f"This machine has no address {host}. Set HOST to one that it has.")
    # What else there may be, the web server says.


def _refusal(host: str, port: int) -> OSError | None:
    """The error with which the system refuses an address to a web server."""
    try:
        address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        family, kind, protocol, _name, place = address
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as web servers do
            probe.bind(place)
        # On macOS a server at all addresses leaves room for one at a single address.
        if _answers(host.strip("[]"), port):
            return OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    except socket.gaierror:
        return None
    except (OSError, OverflowError) as error:
        return error if isinstance(error, OSError) else None
    return None


def _answers(host: str, port: int) -> bool:
    """Whether a server listens at an address of this machine."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1) as connection:
        return bool(connection.getsockname() != connection.getpeername())  # not with itself
    return False


def _who_holds(host: str, port: int, data_dir: Path) -> str:
    other = next(
        (each for each in range(port + 1, HIGHEST_PORT) if _refusal(host, each) is None), port + 1
    )
    instead = f"choose another port: PORT={other} make run"
    holder = _holder(port)
    if holder is None:
        return f"Port {port} is held by a process that this user may not see. End it, or {instead}"
    run = run_of(holder, data_dir)
    if run is not None:
        return (
            f"The site runs already, on {run.get('address')} (process {run.get('pid')}). "
            f"Use that one, or end it: kill {run.get('pid')}. To run a second one beside it, "
            f"{instead}"
        )
    return f"Port {port} is held by {described(holder)}. End that: kill {holder.pid}. Or {instead}"


def _holder(port: int) -> psutil.Process | None:
    """The process that listens on a port: the one that began to, where others inherited it."""
    with suppress(psutil.Error, OSError):
        listening = {
            each.pid
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port
        } - {None}
        found = [psutil.Process(pid) for pid in listening]
        return min(found, key=lambda process: process.create_time(), default=None)
    return None
