"""The whole site as `make run` starts it: web server and consumer, in a data folder apart."""

import atexit
import http.cookiejar
import io
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import psutil

from tests.support.sounds import ROOT

T = TypeVar("T")


def until(found: Callable[[], T | None], seconds: float = 60.0) -> T:
    """The first true answer of `found`, asked again and again for at most `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.1)
    return answer


@dataclass
class Site:
    """A running site: `url` without a slash at its end."""

    url: str
    data_dir: Path
    environment: dict[str, str]
    log: Path
    process: "subprocess.Popen[bytes]"

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with sqlite3.connect(f"file:{self.data_dir / 'db.sqlite3'}?mode=ro", uri=True) as database:
            return database.execute(query).fetchall()

    def job(self, job_id: str) -> dict[str, object]:
        names = "state", "stage", "progress", "attempt", "error_code"
        key = uuid.UUID(job_id).hex
        query = f"SELECT {', '.join(names)} FROM separations_job WHERE id = '{key}'"
        rows = self.rows(query)
        return dict(zip(names, rows[0], strict=True)) if rows else {}

    def consumer(self) -> psutil.Process:
        """The consumer process."""
        return until(self.running_consumer)

    def running_consumer(self) -> psutil.Process | None:
        """The consumer process, if it runs just now."""
        return self._child("run_consumer")

    def _child(self, word: str) -> psutil.Process | None:
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                command = child.cmdline()
            except psutil.Error:
                continue
            if word in command and Path(command[0]).name.startswith("python"):
                return child
        return None

    @contextmanager
    def stilled(self) -> Iterator[None]:
        """Nothing is separated meanwhile: the consumer stands still, and not in a transaction."""
        consumer = self.consumer()
        try:
            _suspend(consumer)
            while self._is_locked():
                consumer.resume()
                _suspend(consumer)
            yield
        finally:
            consumer.resume()

    def _is_locked(self) -> bool:
        return any(map(_is_locked, (self.data_dir / "db.sqlite3", self.data_dir / "queue.sqlite3")))

    @contextmanager
    def another_consumer(self) -> Iterator[None]:
        """A second consumer beside the one of the site."""
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "run_consumer"],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )


def _is_locked(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=1)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        database.rollback()
        return False


def _suspend(process: psutil.Process) -> None:
    """Stop all threads of a process; each of them runs until the kernel has stopped it."""
    process.suspend()
    until(lambda: all(_is_stopped(thread.id) for thread in process.threads()))


def _is_stopped(thread: int) -> bool:
    try:
        return psutil.Process(thread).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def _prepared() -> Path:
    """A data folder with an empty database and the static files: made once, then copied."""
    folder = Path(tempfile.mkdtemp(prefix="stemsite-prepared-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    environment = os.environ | {"DATA_DIR": str(folder)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    for step in (("migrate", "-v0"), ("collectstatic", "--noinput", "-v0")):
        subprocess.run([sys.executable, "manage.py", *step], cwd=ROOT, env=environment, check=True)
    return folder


def prepared(data_dir: Path) -> Path:
    """`data_dir` with an empty database and the static files."""
    shutil.copytree(_prepared(), data_dir, dirs_exist_ok=True)
    return data_dir


@contextmanager
def running(data_dir: Path, **settings: str) -> Iterator[Site]:
    """Start the site on a free port; stop it at the end as Ctrl-C would."""
    port = free_port()
    environment = os.environ | {
        "DATA_DIR": str(data_dir),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **settings,
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    data_dir.mkdir(parents=True, exist_ok=True)
    if not (data_dir / "db.sqlite3").exists():
        prepared(data_dir)
    log = data_dir / "site.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stemsite.supervisor", "Procfile"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    site = Site(f"http://127.0.0.1:{port}", data_dir, environment, log, process)
    try:
        until(lambda: answers(site), 60)
        yield site
    finally:
        family = (
            psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        )
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        for left in psutil.wait_procs(family, timeout=20)[1]:
            left.kill()


def answers(site: Site) -> bool:
    if site.process.poll() is not None:
        raise AssertionError(f"the site ended:\n{site.log.read_text()}")
    try:
        with urllib.request.urlopen(site.url + "/about", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def workers(site: Site) -> list[psutil.Process]:
    """The web server's processes, without the one that starts them."""
    family = psutil.Process(site.process.pid).children(recursive=True)
    servers = [each for each in family if _is_server(each)]
    return [each for each in servers if each.ppid() in {server.pid for server in servers}]


def _is_server(process: psutil.Process) -> bool:
    try:
        return "gunicorn" in process.cmdline()
    except psutil.Error:
        return False


def raw(site: Site, request: bytes) -> bytes:
    """The web server's response to raw bytes, also such as no client would send."""
    place = urlsplit(site.url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall(request.replace(b"HOST", b"Host: " + place.netloc.encode()))
        connection.shutdown(socket.SHUT_WR)
        found = io.BytesIO()
        while data := connection.recv(65536):
            found.write(data)
    return found.getvalue()


class HasUrl(Protocol):
    url: str


class Browser:
    """A visitor without JavaScript: cookies, forms, redirects."""

    def __init__(self, site: HasUrl) -> None:
        self._site = site
        self.cookies = http.cookiejar.CookieJar()
        jar = urllib.request.HTTPCookieProcessor(self.cookies)
        self._opener = urllib.request.build_opener(jar)

    def get(self, path: str) -> str:
        with self._opener.open(self._site.url + path, timeout=60) as response:
            return str(response.read().decode())

    def fetch(self, path: str) -> bytes:
        with self._opener.open(self._site.url + path, timeout=60) as response:
            return bytes(response.read())

    def post(self, path: str, file: Path | None = None, **fields: str) -> str:
        """Send a form with the token of the front page; returns the address arrived at."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get("/"))
        assert token is not None
        boundary = uuid.uuid4().hex
        body = io.BytesIO()
        for name, value in {"csrfmiddlewaretoken": token[1], **fields}.items():
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
            body.write(head.encode() + value.encode() + b"\r\n")
        if file is not None:
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
            head += f'filename="{file.name}"\r\n\r\n'
            body.write(head.encode() + file.read_bytes() + b"\r\n")
        body.write(f"--{boundary}--\r\n".encode())
        request = urllib.request.Request(self._site.url + path, body.getvalue())
        request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
        with self._opener.open(request, timeout=60) as response:
            return str(response.geturl())

    def upload(self, song: Path, model: str = "tiny") -> str:
        """Send a song; returns the id of its job."""
        return self.post("/", song, model=model, stems="all").rsplit("/", 1)[-1]
