"""One HTTP POST to an address that a stranger chose, safe against server-side request forgery.

It resolves the host, checks all its addresses, and connects to a checked address: a name that
resolves differently a moment later (DNS rebinding) gains nothing. It follows no redirect, uses no
proxy of the environment, and ends within CALL_SECONDS. No Django here.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from queue import Empty, SimpleQueue
from threading import Thread

import httpcore2

from separations.webhooks.address_rules import Target
from separations.webhooks.special_addresses import Address, is_public

CALL_SECONDS = 20.0  # for all steps: resolving, connecting, sending, reading
STEP_SECONDS = 10.0  # for each step
BODY_SECONDS = 2.0  # for the answer's body, which is not stored
MOST_BYTES = 64 * 1024  # of that body
MOST_TRIED = 3  # addresses of one host


class CallFailed(Exception):
    """No answer came. reason: why, in words of this module and none of the receiver's."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class Answer:
    """A receiver's answer. retry_after: the seconds it asks to wait before the next attempt."""

    status: int
    retry_after: float | None = None


def post(target: Target, body: bytes, headers: dict[str, str], *, private: bool) -> Answer:
    """Send `body` once. private: whether addresses off the public network are allowed.

    Raises:
        CallFailed: no answer came.
    """
    clock = _Deadline(CALL_SECONDS)
    pool = httpcore2.ConnectionPool(
        ssl_context=_trusted(), network_backend=_CheckedBackend(clock, private=private)
    )
    url = httpcore2.URL(
        scheme=target.scheme, host=target.host, port=target.port, target=target.path
    )
    all_headers = [("Host", target.header), *headers.items(), ("Connection", "close")]
    steps = dict.fromkeys(("connect", "read", "write", "pool"), STEP_SECONDS)
    call = pool.stream(
        "POST", url, headers=all_headers, content=body, extensions={"timeout": steps}
    )
    try:
        with pool, call as response:
            _read_rest(response, clock)
            return Answer(response.status, _retry_after(response.headers))
    except httpcore2.TimeoutException:
        raise CallFailed("timed out") from None
    except httpcore2.NetworkError as error:
        raise CallFailed(_reason(error)) from None
    except httpcore2.ProtocolError:
        raise CallFailed("the answer is no HTTP") from None


@cache
def _trusted() -> ssl.SSLContext:
    """Trusts the system's certificate authorities, or those in SSL_CERT_FILE."""
    return httpcore2.default_ssl_context()


def _read_rest(response: httpcore2.Response, clock: "_Deadline") -> None:
    """Read the rest of the answer for a moment, so that the receiver can end it; discard it."""
    clock.at_most(BODY_SECONDS)
    read = 0
    try:
        for piece in response.iter_stream():
            read += len(piece)
            if read >= MOST_BYTES:
                break
    except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError):
        pass


def _retry_after(headers: list[tuple[bytes, bytes]]) -> float | None:
    """Seconds, given as a number or as a date (RFC 9110, 10.2.3)."""
    found = next((value for name, value in headers if name.lower() == b"retry-after"), b"")
    text = found.decode("ascii", "replace").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError, TypeError):
        return None
    if date.tzinfo is None:
        return None
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _reason(error: Exception) -> str:
    cause = error.args[0] if error.args else None  # the pool drops `__cause__`
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "the certificate is not valid for this host"
    if isinstance(cause, ssl.SSLError):
        return "no TLS connection"
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    return "no connection" if isinstance(error, httpcore2.ConnectError) else "connection lost"


class _Deadline:
    """The time limit of the whole call."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def at_most(self, seconds: float) -> None:
        self._end = min(self._end, time.monotonic() + seconds)

    def left(self, step: float | None = None) -> float:
        """Seconds that the next step may take."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("the whole call took too long")
        return min(left, STEP_SECONDS if step is None else step)


class _CheckedBackend(httpcore2.NetworkBackend):
    """Resolves a host, and connects to it if all its addresses may be called."""

    def __init__(self, clock: _Deadline, *, private: bool) -> None:
        self._clock, self._private = clock, private
        self._network = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        found = look_up(host, port, self._clock.left(timeout))
        if not self._private and not all(map(is_public, found)):
            raise CallFailed("the address is not on the public network")
        failure: Exception = httpcore2.ConnectError("no address")
        for address in found[:MOST_TRIED]:
            try:
                left = self._clock.left(timeout)
                return _TimedStream(
                    self._network.connect_tcp(str(address), port, left), self._clock
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure


class _TimedStream(httpcore2.NetworkStream):
    """A connection whose steps never outlast the call's deadline, however slow the other end is."""

    def __init__(self, stream: httpcore2.NetworkStream, clock: _Deadline) -> None:
        self._stream, self._clock = stream, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._clock.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        left = self._clock.left(timeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._clock)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def look_up(host: str, port: int, seconds: float) -> list[Address]:
    """A host's addresses, in the order to try them.

    Raises:
        CallFailed: it has none, or the resolver did not answer in time.
    """
    answers: SimpleQueue[list[Address] | OSError | UnicodeError] = SimpleQueue()

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put([ipaddress.ip_address(row[4][0]) for row in rows])
        except (OSError, UnicodeError) as error:
            answers.put(error)

    Thread(target=ask, daemon=True).start()  # the resolver knows no time limit
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise CallFailed("the host was not found in time") from None
    if isinstance(answer, Exception) or not answer:
        raise CallFailed("there is no such host")
    return answer
