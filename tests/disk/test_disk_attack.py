"""One visitor who makes the running site write all it can, on a disk of 103 MB of its own."""

import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import IncompleteRead
from pathlib import Path

import numpy as np
import pytest

from tests.support import sounds
from tests.support.disks import mounted
from tests.support.running_site import Browser, Site, running, until

MIN_FREE_MB = 20
MIXES = 36
PIECE = bytes(200_000)
BROKEN_OFF = 0  # in place of a status


@pytest.fixture
def site(tmp_path: Path, small_store: Path) -> Iterator[Site]:
    settings = {
        "MODEL_DIR": str(small_store),
        "DEFAULT_MODEL": "tiny",
        "MIN_FREE_DISK_MB": str(MIN_FREE_MB),
    }
    with mounted(tmp_path / "disk", "103m") as disk, running(disk / "data", **settings) as site:
        yield site


@contextmanager
def watched(disk: Path) -> Iterator[list[int]]:
    """The free bytes of the disk, looked at all the time."""
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.002):
            seen.append(shutil.disk_usage(disk).free)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def status(visitor: Browser, path: str) -> int:
    try:
        visitor.fetch(path)
    except urllib.error.HTTPError as error:
        return error.code
    except IncompleteRead:
        return BROKEN_OFF
    return 200


def refusal(visitor: Browser, song: Path) -> tuple[int, str] | None:
    """The status and page of a refused upload; None where the song was taken."""
    try:
        visitor.upload(song)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    return None


def is_ready(site: Site) -> bool:
    try:
        with urllib.request.urlopen(site.url + "/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


def ended(site: Site, job: str) -> bool:
    return site.job(job).get("state") in ("done", "failed", "cancelled")


def test_one_visitor_cannot_take_the_disk(site: Site, tmp_path: Path) -> None:
    noise = 0.5 * np.random.default_rng(0).uniform(-1, 1, (2, 12 * sounds.RATE))
    song = sounds.wav(tmp_path / "song.wav", noise.astype(np.float32))
    attacker, other = Browser(site), Browser(site)
    found = []
    for _ in range(3):  # the second and the third cost nothing: the result is there already
        found.append(attacker.upload(song))
        until(lambda: ended(site, found[-1]))
    assert [site.job(job)["state"] for job in found] == ["done"] * 3
    mixes = [f"drums:{number}:0" for number in range(MIXES)]
    paths = [f"/songs/{found[n % 3]}/mix?format=flac&mix={mix}" for n, mix in enumerate(mixes)]
    paths += [f"/songs/{job}/archive?format=flac" for job in found]
    began = time.monotonic()
    with watched(site.data_dir) as seen, ThreadPoolExecutor(6) as pool:
        answers = Counter(pool.map(lambda path: status(attacker, path), paths))
    kept = sum(each.stat().st_size for each in (site.data_dir / "renditions").rglob("*.*"))
    print(f"{min(seen):,} bytes free at the least, {kept:,} of encodings kept", end=", ")
    print(f"{time.monotonic() - began:.1f} s, answers: {dict(answers)}")
    assert min(seen) >= MIN_FREE_MB * 1_000_000
    assert set(answers) <= {200, 429, 507}
    assert not list(site.data_dir.rglob("*.part"))
    second = other.upload(sounds.wav(tmp_path / "other.wav", sounds.music(2.0, seed=1)))
    until(lambda: ended(site, second))
    assert site.job(second)["state"] == "done"

    filler = site.data_dir.parent / "of another program"
    filler.write_bytes(bytes(shutil.disk_usage(site.data_dir).free - MIN_FREE_MB * 1_000_000))
    # What the site deletes to be ready again, the other program takes too. A clean-up may make room
    # between two steps, so both are tried until nothing is left to delete.
    third_song = sounds.wav(tmp_path / "third.wav", sounds.music(1.0, seed=2))
    until(lambda: _fill(filler, site) and not is_ready(site))
    code, page = until(lambda: refusal(other, third_song) if _fill(filler, site) else None)
    assert code == 507
    assert "disk of this site is full" in page
    secret = "a-long-secret-1"
    newcomer = Browser(site)
    newcomer.post("/account/signup", username="somebody", password1=secret, password2=secret)
    assert site.rows("SELECT 1 FROM auth_user WHERE username = 'somebody'")
    filler.unlink()
    until(lambda: is_ready(site))
    third = other.upload(third_song)
    until(lambda: ended(site, third))
    assert site.job(third)["state"] == "done"


def half_sent(site: Site, size: int) -> socket.socket:
    """Send so many bytes of a song, and keep the connection; less where the site stops reading."""
    host, port = site.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    song = b'Content-Disposition: form-data; name="file"; filename="a.wav"'
    head = f"POST /api/separate HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 90000000\r\n"
    form = b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n" + song + b"\r\n\r\n"
    connection.sendall(head.encode() + form)
    with suppress(OSError):
        for _ in range(size // len(PIECE)):
            connection.sendall(PIECE)
    return connection


def test_half_sent_songs_of_one_address_take_no_more_than_a_share(
    tmp_path: Path, small_store: Path
) -> None:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny", "WEB_WORKERS": "2"}
    settings |= {"MIN_FREE_DISK_MB": str(MIN_FREE_MB), "MAX_OWNER_STORAGE_GB": ""}
    with mounted(tmp_path / "disk", "103m") as disk, running(disk / "data", **settings) as site:
        share = (shutil.disk_usage(disk).total - MIN_FREE_MB * 1_000_000) // 5
        with ThreadPoolExecutor(8) as pool:
            sent = list(pool.map(lambda _number: half_sent(site, 10_000_000), range(8)))
        held = [each.stat().st_size for each in (site.data_dir / "incoming").iterdir()]
        print(f"{sum(held):,} bytes of 80 MB are held, of a share of {share:,}")
        assert share / 2 < sum(held) < 1.3 * share
        for connection in sent:
            connection.close()


def _fill(filler: Path, site: Site) -> bool:
    """Leave one megabyte less than the site needs."""
    free = shutil.disk_usage(site.data_dir).free
    with filler.open("ab") as file:
        file.write(bytes(max(0, free - (MIN_FREE_MB - 1) * 1_000_000)))
    return True
