"""`make load`: many visitors at a real site on this machine, and many uploads at once.

    make load                                  four minutes
    make load ARGS="--visitors 50 --seconds 10"

Prints a table, and exits with 1 when something failed that must not. Every visitor is a thread with
a connection, and an address (127.1.x.y), of its own; a load generator would be one more package for
what `http.client` does.
"""

import argparse
import http.client
import json
import os
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import psutil
from platformdirs import user_cache_path

from tests.support.models_in_small import make_store
from tests.support.running_site import Site, running, until
from tests.support.sounds import ROOT, music, wav

SLOWEST_P95 = 2.0  # seconds, of polls and pages beside two separations
MOST_GROWTH_MB = 100  # of the web process; 50 uploads of 10 MB in memory would be 500
PAGE_SECONDS = 5.0  # after which a visitor loads the song's page anew
ACCEPTABLE = (200, 302, 429, 503)


class Visitor:
    """A browser with an address of its own."""

    def __init__(self, site: Site, number: int, session: str = "") -> None:
        port = int(site.url.rsplit(":", 1)[1])
        source = (f"127.1.{number // 250}.{number % 250 + 1}", 0)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, 60, source)
        self._cookies = {"sessionid": session} if session else {}

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, str, float]:
        """Status, text and seconds."""
        cookie = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        started = time.monotonic()
        was_kept = self._is_kept()
        try:
            self._connection.request(method, path, body, {"Cookie": cookie, **headers})
            answer = self._connection.getresponse()
        except (ConnectionResetError, BrokenPipeError):
            # The site let go of it in this moment: browsers ask again, too.
            self._connection.close()
            if not was_kept or method != "GET":
                raise
            self._connection.request(method, path, body, {"Cookie": cookie, **headers})
            answer = self._connection.getresponse()
        text = answer.read().decode()
        for header in answer.headers.get_all("Set-Cookie", []):
            name, _, value = header.partition("=")
            self._cookies[name] = value.partition(";")[0]
        return answer.status, text, time.monotonic() - started

    def _is_kept(self) -> bool:
        """Whether a connection is still open from before; closed if the site let go of it."""
        kept = self._connection.sock
        if kept is not None and select.select([kept], [], [], 0)[0]:
            self._connection.close()
        return self._connection.sock is not None

    def close(self) -> None:
        self._connection.close()


class Times:
    def __init__(self) -> None:
        self.polls: list[float] = []
        self.pages: list[float] = []
        self.errors: Counter[str] = Counter()


def visit(site: Site, number: int, session: str, job: str, stop: Event, times: Times) -> None:
    """Keep a song's page open, which polls as often as it says, and load it now and then anew."""
    visitor = Visitor(site, number, session)
    stop.wait(number % 50 / 50)  # not all in the same moment
    page_due = poll_due = time.monotonic()
    path, every = "", 0.0
    while not stop.is_set():
        is_page = not path or page_due <= poll_due
        is_first = not path
        try:
            asked = f"/songs/{job}" if is_page else path
            status, text, seconds = visitor.ask("GET", asked, Accept="text/html")
        except (OSError, http.client.HTTPException) as error:
            times.errors[type(error).__name__] += 1
            visitor.close()
        else:
            (times.pages if is_page else times.polls).append(seconds)
            if status not in (200, 204, 286):
                times.errors[str(status)] += 1
            if status != 204:
                path, every = polling(text)
        now = time.monotonic()
        if is_page:
            page_due = now + PAGE_SECONDS
        if is_first or not is_page:
            poll_due = now + every
        stop.wait(max(0.0, (min(page_due, poll_due) if path else page_due) - now))
    visitor.close()


def polling(text: str) -> tuple[str, float]:
    """What a page polls and every how many seconds; no address where the song has ended."""
    found = re.search(r'hx-get="(/songs/[^"]+/status\?seen=\w+)" hx-trigger="every (\d+)s"', text)
    return (found[1], float(found[2])) if found else ("", 0.0)


def crowd(site: Site, who: list[tuple[str, str]], seconds: float) -> Times:
    times, stop = Times(), Event()
    with ThreadPoolExecutor(len(who)) as pool:
        for number, (session, job) in enumerate(who):
            pool.submit(visit, site, number, session, job, stop, times)
        time.sleep(seconds)
        stop.set()
    return times


def upload(site: Site, number: int, song: bytes, together: Barrier) -> str:
    """Send a song as a browser does; what came of it. One half comes from one address."""
    visitor = Visitor(site, 0 if number % 2 else number)
    try:
        _status, page, _seconds = visitor.ask("GET", "/")
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert token is not None
        parts = {"csrfmiddlewaretoken": token[1], "model": os.environ["DEFAULT_MODEL"]}
        head = "".join(
            f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in parts.items()
        )
        head += '--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        body = head.encode() + song + b"\r\n--x--\r\n"
        together.wait(60)
        kind = "multipart/form-data; boundary=x"
        status, text, _seconds = visitor.ask("POST", "/", body, **{"Content-Type": kind})
        told = status == 302 or "." in text
        return str(status) if told else f"{status} without a sentence"
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        visitor.close()


def web_processes(site: Site) -> list[psutil.Process]:
    """gunicorn's workers: the children of the one that listens."""

    def found() -> list[psutil.Process]:
        workers = []
        for child in psutil.Process(site.process.pid).children(recursive=True):
            parent = child.parent()
            if "gunicorn" in child.cmdline() and parent and "gunicorn" in parent.cmdline():
                workers.append(child)
        return workers

    return until(found)


def peak_mb(processes: list[psutil.Process]) -> float:
    """The most that each of them held, added up."""
    total = 0.0
    for process in processes:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        total += int(found[1]) / 1000 if found else process.memory_info().rss / 1e6
    return total


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else float("nan")


def jobs_of(site: Site, visitors: int, song: Path) -> list[tuple[str, str]]:
    """Visitors with a job each: their sessions and the jobs' ids."""
    command = [sys.executable, "-m", "tests.load.visitors", str(visitors), str(song)]
    made = subprocess.run(
        command, cwd=ROOT, env=site.environment, check=True, stdout=subprocess.PIPE
    )
    return [(session, job) for session, job in json.loads(made.stdout)]


def measure(site: Site, asked: argparse.Namespace, folder: Path, bad: list[str]) -> None:
    """Everything, printed as it is found; what must not be goes to `bad`."""
    song = wav(folder / "song.wav", music(57.0))
    visitors = asked.visitors

    def expect(good: bool, text: str) -> None:
        print(f"{'    ' if good else 'BAD '}{text}", flush=True)
        if not good:
            bad.append(text)

    with site.stilled():  # an idle site: nothing is separated yet
        who = jobs_of(site, visitors, song)
        idle = crowd(site, who[:1], 20)
        alone = crowd(site, who, asked.seconds / 2)
    running_now = "SELECT count(*) FROM separations_job WHERE state = 'running' AND progress > 0"
    until(lambda: site.rows(running_now)[0][0], 400)  # the machine may be measured first
    busy = crowd(site, who, asked.seconds)
    worked_on = "SELECT count(*) FROM separations_job WHERE progress > 0"
    expect(int(str(site.rows(worked_on)[0][0])) >= 2, "two songs or more were worked on meanwhile")

    base = {"polls": p95(idle.polls), "pages": p95(idle.pages)}
    print(f"{'':28}{'polls':>7}{'p95 ms':>9}{'x idle':>8}{'pages':>8}{'p95 ms':>9}{'x idle':>8}")
    for name, times in (
        ("idle, 1 visitor", idle),
        (f"{visitors} visitors", alone),
        (f"{visitors} and 2 separations", busy),
    ):
        polls, pages = p95(times.polls), p95(times.pages)
        print(
            f"{name:28}{len(times.polls):>7}{polls * 1000:>9.0f}{polls / base['polls']:>8.1f}"
            f"{len(times.pages):>8}{pages * 1000:>9.0f}{pages / base['pages']:>8.1f}"
        )
    errors = sum((times.errors for times in (idle, alone, busy)), Counter())
    expect(not errors, f"errors: {dict(errors)}")
    expect(p95(busy.polls) < SLOWEST_P95, f"95 % of polls within {SLOWEST_P95} s")
    expect(p95(busy.pages) < SLOWEST_P95, f"95 % of pages within {SLOWEST_P95} s")

    web = web_processes(site)
    before = peak_mb(web)
    together = Barrier(asked.uploads)
    data = song.read_bytes()
    with ThreadPoolExecutor(asked.uploads) as pool:
        answers = Counter(
            pool.map(lambda number: upload(site, number, data, together), range(asked.uploads))
        )
    after = peak_mb(web)
    print(f"{asked.uploads} uploads of {len(data) / 1e6:.0f} MB at once: {dict(answers)}")
    expect(
        after - before < MOST_GROWTH_MB,
        f"peak memory of {len(web)} web processes: {before:.0f} MB before, {after:.0f} MB after",
    )
    unknown = {each for each in answers if each not in map(str, ACCEPTABLE)}
    expect(not unknown, f"answers that are none: {sorted(unknown)}")
    log = site.log.read_text()
    locks = len(re.findall(r"database (?:table )?is locked", log))
    expect(locks == 0, f"database lock errors: {locks}")
    expect("Traceback" not in log, "no traceback in the log")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--visitors", type=int, default=200)
    parser.add_argument("--uploads", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--small", action="store_true", help="a model of random weights")
    asked = parser.parse_args()
    real = Path(os.environ.get("MODEL_DIR") or user_cache_path("stemsite") / "models")
    has_real = not asked.small and (real / "htdemucs").is_dir()
    bad: list[str] = []
    with tempfile.TemporaryDirectory(prefix="stemsite-load-") as name:
        folder = Path(name)
        store = real if has_real else make_store(folder / "models")
        model = "htdemucs" if has_real else "tiny"
        os.environ.update(MODEL_DIR=str(store), DEFAULT_MODEL=model, SLOTS="2")
        os.environ.update(ENGINE="torch", PRECISION="float32")  # nothing to be measured first
        print(f"model {model}", flush=True)
        with running(folder / "data", LOG_LEVEL="WARNING") as site:
            try:
                measure(site, asked, folder, bad)
            except BaseException:
                print(site.log.read_text()[-4000:])
                raise
            if bad:
                print(site.log.read_text()[-4000:])
    print(f"{len(bad)} of this must not be" if bad else "All as it must be")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
