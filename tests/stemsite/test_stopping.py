"""Long responses end when the web server stops: on the real worker, with a small application."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from separations.monitoring.shutdown import stopping
from tests.support.running_site import free_port, until
from tests.support.sounds import ROOT


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """The application: a response that goes on until the server stops."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun"
    if stopping.wait(60):
        yield b"ended"


def signalled(name: str) -> Callable[..., Any]:
    """`app`; its worker gets the signal while it hands a request to a new thread, and holds the
    locks of its threads for that."""
    add_thread = ThreadPoolExecutor._adjust_thread_count

    def add_thread_and_signal(pool: ThreadPoolExecutor) -> None:
        add_thread(pool)
        os.kill(os.getpid(), getattr(signal, name))

    ThreadPoolExecutor._adjust_thread_count = add_thread_and_signal  # type: ignore
    return app


@contextlib.contextmanager
def server(data_dir: Path, served: str = "app") -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A web server of one of the applications here, and its port."""
    port = free_port()
    command = (
        "-m",
        "gunicorn",
        f"tests.stemsite.test_stopping:{served}",
        "-c",
        "python:stemsite.web_server",
    )
    told = {"DATA_DIR": str(data_dir), "PORT": str(port), "WEB_THREADS": "4"}
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=os.environ | told)
    try:
        yield process, port
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()


def connected(port: int) -> socket.socket:
    def connect() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), 30)
        except ConnectionRefusedError:
            return None

    return until(connect, 30)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_long_answer_ends_when_the_server_is_told_to_stop(tmp_path: Path, name: str) -> None:
    with server(tmp_path) as (process, port), connected(port) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b"begun" not in answer:
            answer += client.recv(4096)
        asked = time.monotonic()
        process.send_signal(getattr(signal, name))
        while data := client.recv(4096):
            answer += data
        process.wait(30)
    assert b"ended" in answer
    assert time.monotonic() - asked < 10, "gunicorn's own patience is thirty seconds"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGQUIT"])
def test_a_worker_stops_though_it_is_handing_on_a_request(tmp_path: Path, name: str) -> None:
    with server(tmp_path, f"signalled('{name}')") as (_, port), connected(port) as client:
        asked = time.monotonic()
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while data := client.recv(4096):
            answer += data
        assert b"ended" in answer
        assert time.monotonic() - asked < 10
