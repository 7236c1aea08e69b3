"""`python -m tests.bench.first_sound`: from "Ready" to the first sound of the demo song.

Starts the site as `make run` does, but for the packages, in a data folder of its own. As soon as it
says "Ready" the demo song is sent, as by its button, and each stem's first piece of 1.5 s is asked
for, as by the mixer. With --unmeasured as on a container's first start: the machine is not measured
before. --data keeps a folder, so that a second run finds what the first one measured.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
from contextlib import suppress
from pathlib import Path

import psutil
from loky import cpu_count

from tests.support.running_site import Browser, Site, free_port, until
from tests.support.sounds import ROOT

RUN = "from stemsite.setup import bootstrap; bootstrap.setup = lambda: None; bootstrap.run()"
STEMS = ("drums", "bass", "other", "vocals")
TARGET_SECONDS = 15.0


def start(data_dir: Path, measured: bool) -> Site:
    """Start the site and wait until it says that it is ready."""
    port = free_port()
    settings = {"DATA_DIR": str(data_dir), "HOST": "127.0.0.1", "PORT": str(port)}
    settings["MEASURE_FIRST"] = "yes" if measured else "no"
    environment = os.environ | settings | {"PYTHONUNBUFFERED": "1"}
    log = data_dir / "site.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    site = Site(f"http://127.0.0.1:{port}", data_dir, environment, log, process)

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        return "==> Ready" in log.read_text()

    until(is_ready, 1800)
    return site


def cpu_seconds(site: Site) -> float:
    """CPU time of the site's processes so far; on a busy machine it tells more than the clock."""
    total = 0.0
    for process in psutil.Process(site.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])  # its own, and that of its children which ended
    return total


def first_sound(site: Site) -> None:
    """Send the demo song, and print when what of it can be heard."""
    began, spent = time.monotonic(), cpu_seconds(site)
    visitor = Browser(site)
    job = visitor.post("/demo").rsplit("/", 1)[-1]
    print(f"page of the song   {time.monotonic() - began:5.1f} s")

    def heard() -> bool:
        state = site.job(job)
        assert state["state"] not in ("failed", "cancelled"), site.log.read_text()
        try:
            return all(visitor.fetch(f"/songs/{job}/stems/{stem}/chunks/0") for stem in STEMS)
        except urllib.error.HTTPError:
            return False

    until(heard, 600)
    seconds = time.monotonic() - began
    print(f"first sound        {seconds:5.1f} s (at most {TARGET_SECONDS:.0f} s are aimed at)")
    print(f"CPU until then     {cpu_seconds(site) - spent:5.1f} s")
    until(lambda: site.job(job)["state"] == "done", 1800)
    print(f"whole song         {time.monotonic() - began:5.1f} s")
    (engine,) = site.rows("SELECT engine FROM separations_job")[0]
    print(f"by {engine}; load average {os.getloadavg()[0]:.1f} on {cpu_count()} CPUs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--unmeasured", action="store_true")
    parser.add_argument("--data", type=Path, help="a data folder to keep")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data_dir = asked.data or Path(scratch)
        data_dir.mkdir(mode=0o700, exist_ok=True)
        began = time.monotonic()
        site = start(data_dir, measured=not asked.unmeasured)
        print(f"ready after        {time.monotonic() - began:5.1f} s")
        try:
            first_sound(site)
        finally:
            site.process.send_signal(signal.SIGINT)
            site.process.wait(60)


if __name__ == "__main__":
    main()
