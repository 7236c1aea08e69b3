"""Bare connections to a running site, from any address of this machine."""

import socket
import time
from contextlib import ExitStack

from tests.support.running_site import Site


def connect(site: Site, stack: ExitStack, start: bytes, source: str = "127.0.0.1") -> socket.socket:
    port = int(site.url.rsplit(":", 1)[1])
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.bind((source, 0))
    client.connect(("127.0.0.1", port))
    client.sendall(start)
    stack.callback(client.close)
    return client


def seconds_for_a_page(site: Site, source: str = "127.0.0.1") -> float:
    started = time.monotonic()
    port = int(site.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), 20, (source, 0)) as client:
        client.sendall(b"GET /about HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.recv(15) == b"HTTP/1.1 200 OK"
    return time.monotonic() - started


def is_closed(client: socket.socket) -> bool:
    client.settimeout(0.01)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
