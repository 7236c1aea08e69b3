"""Somebody who is called: a real web server on this machine that answers well or badly, as told."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Reaction = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """reactions: how it answers, call after call; when they are used up, with 204."""

    reactions: list[Reaction] = field(default_factory=list)
    calls: list[Received] = field(default_factory=list)
    port: int = 0
    written: int = 0  # bytes of bodies that were taken from it
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?from=stemsite"

    # How it answers

    def says(self, status: int, **headers: str) -> Reaction:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        return answer

    def hangs(self, handler: BaseHTTPRequestHandler) -> None:
        self.over.wait(30)

    def resets(self, handler: BaseHTTPRequestHandler) -> None:
        at_once = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        handler.connection.close()

    def closes(self, handler: BaseHTTPRequestHandler) -> None:
        handler.connection.shutdown(socket.SHUT_RDWR)

    def talks_nonsense(self, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"220 mail.example.org ESMTP\r\n")

    def drips(self, handler: BaseHTTPRequestHandler) -> None:
        """Headers without an end, each soon after the other."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.over.wait(0.05):
            handler.wfile.write(b"X-More: 1\r\n")

    def drips_its_body(self, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not self.over.wait(0.05):
            handler.wfile.write(b"x")

    def floods(self, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not self.over.is_set() and self.written < 200_000_000:
            handler.wfile.write(bytes(100_000))
            self.written += 100_000


@contextmanager
def receiving(certificate: Path | None = None) -> Iterator[Receiver]:
    """Start one; with a certificate (and its key, in one file) it speaks TLS."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.calls.append(Received(self.path, dict(self.headers), body))
            react = receiver.reactions.pop(0) if receiver.reactions else receiver.says(204)
            with suppress(OSError):
                react(self)
            self.close_connection = True

        def do_GET(self) -> None:
            receiver.calls.append(Received(f"GET {self.path}", {}, b""))

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: object) -> None:
            pass  # callers that hang up are what is tried here

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        server.server_close()


def elapsed(what: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.monotonic()
    what()
    return time.monotonic() - began
