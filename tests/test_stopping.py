"""Long answers end when the web server is told to stop: on its own worker, with a small answer."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from separations.stopping import stopping
from tests.running_site import free_port, until
from tests.sounds import ROOT


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """What gunicorn serves here: an answer that goes on until the server stops."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun"
    if stopping.wait(60):
        yield b"ended"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_long_answer_ends_when_the_server_is_told_to_stop(tmp_path: Path, name: str) -> None:
    port = free_port()
    command = ("-m", "gunicorn", "tests.test_stopping:app", "-c", "python:stemsite.web_server")
    told = {"DATA_DIR": str(tmp_path), "PORT": str(port), "WEB_THREADS": "4"}
    server = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=os.environ | told)

    def connect() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), 30)
        except ConnectionRefusedError:
            return None

    try:
        with until(connect, 30) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while b"begun" not in answer:
                answer += client.recv(4096)
            asked = time.monotonic()
            server.send_signal(getattr(signal, name))
            while data := client.recv(4096):
                answer += data
        server.wait(30)
    finally:
        server.kill()
    assert b"ended" in answer
    assert time.monotonic() - asked < 10, "gunicorn's own patience is thirty seconds"
