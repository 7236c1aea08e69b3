"""Inputs over HTTP to the web server as `make run` starts it."""

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path

import psutil

from tests.fuzz.inputs import Input, inputs
from tests.fuzz.tally import Tally, Watch
from tests.support.running_site import free_port
from tests.support.running_site import until as wait_until
from tests.support.sounds import ROOT

BOUNDARY = "fuzz"
GROWTH_BYTES = 60_000_000  # what the web server may grow by, whatever is sent to it
LARGE_BYTES = 100_000_000


class Server:
    """A web server without a consumer, and one visitor's cookie and token."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.port, self._process = port, process
        self.cookie = self.token = ""

    def greet(self) -> bool:
        """Fetch the front page's cookie and token; whether the server answers."""
        try:
            with closing(self.connect()) as connection:
                connection.request("GET", "/")
                answer = connection.getresponse()
                page = answer.read().decode()
        except OSError:
            return False
        cookies = (value.split(";")[0] for value in answer.msg.get_all("Set-Cookie") or ())
        self.cookie = "; ".join(cookies)
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        self.token = found[1] if found else ""
        return answer.status == 200 and bool(self.token)

    def connect(self, timeout: float = 120) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def headers(self, length: int) -> dict[str, str]:
        return {
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Content-Length": str(length),
            "Cookie": self.cookie,
            "X-CSRFToken": self.token,
            "HX-Request": "true",
        }

    def send(self, body: bytes) -> int:
        with closing(self.connect()) as connection:
            connection.request("POST", "/", body, self.headers(len(body)))
            answer = connection.getresponse()
            answer.read()
            return answer.status

    def processes(self) -> list[psutil.Process]:
        """Its own, the decoders they started left out."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "separations.audio.sandbox.worker" not in process.cmdline():
                    found.append(process)
        return found


def form(name: str, data: bytes) -> bytes:
    quoted = name.replace('"', "%22").encode("utf-8", "replace")
    parts = b""
    for key, value in (("model", "tiny"), ("stems", "all")):
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        parts += head.encode()
    opening = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="'.encode()
    parts += opening + quoted + b'"\r\nContent-Type: audio/mpeg\r\n\r\n' + data
    return parts + f"\r\n--{BOUNDARY}--\r\n".encode()


@contextmanager
def serving(data_dir: Path) -> Iterator[Server]:
    """The web process of the Procfile alone: what is taken is not separated."""
    port = free_port()
    environment = os.environ | {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with (data_dir / "web.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stemsite.supervisor", "Procfile", "web"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = Server(port, process)
    try:
        wait_until(server.greet, 60)
        yield server
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(30)
        for left in psutil.wait_procs(family, timeout=20)[1]:
            left.kill()


def run(
    server: Server, count: int, seed: int, songs: dict[str, bytes], watch: Watch, tally: Tally,
    limit: float, until: float,
) -> None:  # fmt: skip
    """Send `count` inputs, two at a time; no more when it is `until`."""

    def send(given: Input) -> None:
        if time.monotonic() > until:
            return
        before = time.monotonic()
        try:
            status = server.send(form(given.name, given.data))
        except (OSError, http.client.HTTPException) as error:
            tally.blame("wrong", f"no answer ({type(error).__name__})", given)
            return
        seconds = time.monotonic() - before
        for violation in tally.add("over HTTP", status, seconds, limit):
            tally.blame(violation, f"status {status} after {seconds:.1f} s, over HTTP", given)
        for found in watch.seen():
            tally.blame("outside access", found, given)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(send, islice(inputs(seed, songs, watch.bait), count)))


def lie(server: Server, song: bytes, incoming: Path, tally: Tally) -> None:
    """Requests that are not what they say, and clients that go away."""
    body = form("song.wav", song)
    head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    head += f"Cookie: {server.cookie}\r\nX-CSRFToken: {server.token}\r\n"
    unsaid = head
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    head += f"{kind}\r\n"
    large = b"x" * 3_000_000
    cut = form("song.wav", large)[: 2 << 20]
    chunked = head + "Transfer-Encoding: chunked\r\n\r\n"
    lies = {
        "more than it sends": (head + f"Content-Length: {10 * len(cut)}\r\n\r\n", cut),
        "less than it sends": (head + f"Content-Length: {len(body) // 2}\r\n\r\n", body),
        "no length": (head + "\r\n", body),
        "a negative length": (head + "Content-Length: -5\r\n\r\n", body),
        "no number": (head + "Content-Length: many\r\n\r\n", body),
        "a huge length": (head + f"Content-Length: {10**30}\r\n\r\n", cut),
        "two lengths": (head + "Content-Length: 5\r\nContent-Length: 500000\r\n\r\n", body),
        "chunks that end early": (chunked, b"100000\r\n" + cut),
        "chunks that are none": (chunked, b"zz\r\n" + body),
        "a huge chunk": (chunked, b"f" * 40 + b"\r\n" + body),
    }
    for codec in ("zlib", "undefined", "punycode", "unicode_escape", "utf-16", "rot13"):
        start = f"{unsaid}{kind}; charset={codec}\r\nContent-Length: {len(body)}\r\n\r\n"
        lies[f"text in {codec}"] = (start, body)
    for name, (start, content) in lies.items():
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            answer = b""
            try:
                client.sendall(start.encode() + content)
                client.shutdown(socket.SHUT_WR)  # and goes away
                answer = client.recv(12)
            except OSError:
                pass
            status = int(answer[9:12]) if answer[9:12].isdigit() else 400
            for violation in tally.add("lies in HTTP", status, 0.0, 1.0):
                tally.blame(violation, f"status {status} for {name}")
    deadline = time.monotonic() + 10
    while any(incoming.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for path in incoming.iterdir():
        tally.blame("files left", f"incoming/{path.name} of a client that went away")


def memory(processes: list[psutil.Process]) -> int:
    """Bytes that all of them hold together."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # a decoder that had only begun
            total += process.memory_info().rss
    return total


def large(server: Server, tally: Tally) -> None:
    """The largest file that is taken must not pass through memory."""
    body = form("song.wav", bytes(LARGE_BYTES - 1000))
    processes = server.processes()  # these alone: a decoder that begins looks like its parent
    before = highest = memory(processes)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.send, body)
        while not answer.done():
            highest = max(highest, memory(processes))
            time.sleep(0.02)
    tally.notes.append(f"100 MB: the web server grew by {(highest - before) / 1e6:.0f} MB")
    for violation in tally.add("100 MB", answer.result(), 0.0, 1.0):
        tally.blame(violation, f"status {answer.result()} for 100 MB")
    if highest - before > GROWTH_BYTES:
        tally.blame("wrong", "100 MB went through memory")
