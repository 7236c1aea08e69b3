"""One scenario: a site under load whose processes are killed again and again. Prints one JSON line.

`python -m tests.faults.scenario NAME KILLS SEED CONSUMERS MODEL`, with the site's settings in the
environment. Songs are sent, cancelled and deleted through the pages all the while. When the killing
is over, every job must be done with the bytes of an undisturbed run, once; and when all of them are
deleted, nothing may be left.
"""

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

from tests.faults.points import note
from tests.support.running_site import Browser, free_port, until
from tests.support.sounds import ROOT, music, wav

SONG_SECONDS = {"tiny": (2, 4, 7, 11), "htdemucs": (7, 12)}
WAITING = 4  # jobs that are kept in the queue
PATIENCE = 300.0
UNREACHABLE = (OSError, urllib.error.URLError, http.client.HTTPException)


@dataclass
class Process:
    """A process of the site that is started again whenever it died."""

    role: str
    command: list[str]
    started: int = 0
    child: "subprocess.Popen[bytes] | None" = None

    def keep(self, seed: int, armed: bool, log: Path) -> None:
        if self.child is not None and self.child.poll() is None:
            return
        self.started += 1
        environment = os.environ | {
            "FAULTS_SEED": f"{seed}-{self.role}-{self.started}",
            "FAULTS_ARMED": "yes" if armed else "no",
        }
        with log.open("ab") as output:
            self.child = subprocess.Popen(
                self.command, cwd=ROOT, env=environment, stdout=output, stderr=output
            )

    def family(self) -> list[psutil.Process]:
        if self.child is None or self.child.poll() is not None:
            return []
        try:
            process = psutil.Process(self.child.pid)
            return [process, *process.children(recursive=True)]
        except psutil.Error:
            return []

    def engines(self) -> list[psutil.Process]:
        found = []
        for process in self.family():
            try:
                if "separations.engine" in process.cmdline():
                    found.append(process)
            except psutil.Error:
                pass
        return found


@dataclass
class Seen:
    """What was seen of the running jobs: how long after its last heartbeat each was recovered."""

    leases: dict[Any, tuple[Any, float]] = field(default_factory=dict)
    slowest: float = 0.0

    def look(self) -> None:
        """A job whose lease is gone without an end is recovered: it is queued, or runs again."""
        from separations.models import Job

        rows = {
            pk: (state, lease, beat.timestamp() if beat else 0.0)
            for pk, state, lease, beat in Job.objects.values_list(
                "pk", "state", "lease", "heartbeat_at"
            )
        }
        for pk, (lease, beat) in list(self.leases.items()):
            state, now_lease, _beat = rows.get(pk, ("deleted", None, 0.0))
            if state == "running" and now_lease == lease:
                continue
            del self.leases[pk]
            if state in ("queued", "running"):
                self.slowest = max(self.slowest, time.time() - beat)
        for pk, (state, lease, beat) in rows.items():
            if state == "running":
                self.leases[pk] = (lease, beat)


class Scenario:
    def __init__(self, name: str, kills: int, seed: int, consumers: int, model: str) -> None:
        self.name, self.kills, self.seed, self.model = name, kills, seed, model
        self.draw = random.Random(seed)
        self.data_dir = Path(os.environ["DATA_DIR"])
        self.journal = Path(os.environ["FAULTS_JOURNAL"])
        self.journal.touch()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        web = [sys.executable, "-m", "gunicorn", "tests.faults.points:application"]
        web += ["--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "4"]
        web += ["--log-level", "warning", "--no-control-socket"]
        consumer = [sys.executable, "-m", "tests.faults.points"]
        self.web = Process("web", web)
        self.consumers = [Process(f"consumer{n}", consumer) for n in range(consumers)]
        self.armed = False
        self.seen = Seen()
        self.promised: set[uuid.UUID] = set()  # jobs whose page was shown to who sent the song
        self.reference: dict[str, str] = {}
        self.checked: set[Any] = set()
        self.wrong: set[Any] = set()
        self.songs = [
            wav(self.data_dir / f"song{number}.wav", music(seconds, seed=number))
            for number, seconds in enumerate(SONG_SECONDS[model])
        ]

    # The site

    def keep(self) -> None:
        """Start again what died, as systemd or Docker would."""
        for process in (self.web, *self.consumers):
            process.keep(self.seed, self.armed, self.data_dir / "site.log")
        self.seen.look()

    def stop(self) -> None:
        for process in (self.web, *self.consumers):
            if process.child is not None:
                process.child.send_signal(signal.SIGTERM)
        for process in (self.web, *self.consumers):
            if process.child is not None:
                process.child.wait(60)
                process.child = None

    def ask(self, browser: Browser, path: str, song: Path | None = None) -> str | None:
        """Send a form; None when the server died over it."""
        try:
            answer = browser.post(path, song, model=self.model, stems="all")
            if song is not None:
                self.promised.add(uuid.UUID(answer.rsplit("/", 1)[-1]))
            return answer
        except AssertionError:
            return None
        except UNREACHABLE:
            return None

    # The killing

    def kill_something(self) -> None:
        """One kill from outside, of a kind drawn by the seed."""
        kind = self.draw.choice(("engine", "engine", "engine", "consumer", "web", "all"))
        everything = [self.web, *self.consumers]
        victims: list[psutil.Process] = []
        if kind == "engine":
            victims = [engine for each in self.consumers for engine in each.engines()][:1]
        elif kind == "consumer":
            victims = self.draw.choice(self.consumers).family()[:1]
        elif kind == "web":
            victims = self.web.family()
        else:
            victims = [process for each in everything for process in each.family()]
        if not victims:
            return
        stages = ",".join(sorted({str(stage) for stage in self.running_stages()})) or "idle"
        note("kill", f"{kind} at {stages}")
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        for process in everything:
            if process.child is not None and process.child.pid in {each.pid for each in victims}:
                process.child.wait(30)

    def running_stages(self) -> list[str]:
        from separations.models import Job

        return list(Job.objects.running().values_list("stage", flat=True))

    def lines(self, kind: str) -> list[str]:
        rows = (line.split(" ", 3) for line in self.journal.read_text().splitlines())
        return [row[3] for row in rows if row[1] == kind]

    # The run

    def run(self) -> dict[str, Any]:
        self.keep()
        until(self.is_up, 60)
        people = [Browser(self) for _ in range(3)]
        self.make_reference(people[0])
        self.stop()
        self.armed = True
        next_kill = time.monotonic() + 2
        while len(self.lines("kill")) < self.kills:
            self.keep()
            self.use_the_site(people)
            if time.monotonic() > next_kill:
                self.kill_something()
                next_kill = time.monotonic() + self.draw.uniform(0.3, 10.0)
            time.sleep(0.1)
        self.armed = False
        self.stop()
        self.settle()
        return self.verdict()

    def is_up(self) -> bool:
        try:
            return "<form" in Browser(self).get("/")
        except UNREACHABLE:
            return False

    def make_reference(self, browser: Browser) -> None:
        """The digest of every song's stems when nothing disturbs their making."""
        from separations.models import Job

        for song in self.songs:
            assert self.ask(browser, "/", song) is not None
        until(lambda: not Job.objects.active().exists(), PATIENCE)
        for job in Job.objects.all():
            assert job.state == "done", job.error_code
            self.reference[job.result_key] = digest(job)
            self.anybody([browser], job.pk, "delete")

    def use_the_site(self, people: list[Browser]) -> None:
        """Send a song when few wait, look at what is done and delete it, change one's mind."""
        from separations.models import Job

        if Job.objects.active().count() < WAITING:
            self.ask(self.draw.choice(people), "/", self.draw.choice(self.songs))
        done = list(Job.objects.filter(state="done").order_by("finished_at"))
        if done and (len(done) > 1 or self.draw.random() < 0.3):
            self.check(done[0])
            self.anybody(people, done[0].pk, "delete")
        if self.draw.random() < 0.03 and (jobs := list(Job.objects.active())):
            action = self.draw.choice(("cancel", "cancel", "delete"))
            self.anybody(people, self.draw.choice(jobs).pk, action)
        for job in Job.objects.filter(state="cancelled"):
            self.anybody(people, job.pk, "retry")

    def anybody(self, people: list[Browser], job: Any, action: str) -> None:
        """Whoever it belongs to does it; the others get a 404."""
        if action == "delete":  # the server may do it and die before it says so
            self.promised.discard(job)
        for each in people:
            self.ask(each, f"/songs/{job}/{action}")

    def check(self, job: Any) -> None:
        """Compare the stems of a job that is done with the reference."""
        from separations.models import Job

        self.checked.add(job.pk)
        try:
            same = digest(job) == self.reference[job.result_key]
        except OSError:
            same = not Job.objects.filter(pk=job.pk).exists()  # deleted under our eyes
        if not same:
            self.wrong.add(job.pk)

    def settle(self) -> None:
        """Without any more kills, let all that waits come to its end."""
        from separations.jobs import lifecycle
        from separations.models import Job

        for job in Job.objects.filter(state="cancelled"):
            lifecycle.retry(job)
        deadline = time.monotonic() + PATIENCE
        while Job.objects.active().exists() and time.monotonic() < deadline:
            self.keep()
            time.sleep(0.2)
        self.stop()

    def verdict(self) -> dict[str, Any]:
        from separations.jobs import lifecycle
        from separations.models import Job, Stem, Upload

        lost = Job.objects.exclude(state="done")
        faults = sorted(set(lost.exclude(error_code="").values_list("error_code", flat=True)))
        rows = set(Job.objects.values_list("pk", flat=True))
        number_lost = lost.count() + len(self.promised - rows - self.checked)
        self.age()
        self.manage("clean")
        for job in Job.objects.filter(state="done"):
            self.check(job)
        for job in Job.objects.all():
            lifecycle.remove(job)
        left = [str(path.relative_to(self.data_dir)) for path in self.kept()]
        left += [str(row) for model in (Job, Stem, Upload) for row in model.objects.all()]
        finished = Counter(self.lines("finished"))
        kills = Counter(line.split(" at ")[0] for line in self.lines("kill"))
        stages = Counter(line.split(" at ")[1] for line in self.lines("kill") if " at " in line)
        return {
            "scenario": self.name,
            "kills": sum(kills.values()),
            "jobs": len(self.checked) + number_lost,
            "lost": number_lost,
            "doubled": sum(count - 1 for count in finished.values()),
            "wrong": len(self.wrong),
            "leftovers": len(left),
            "recovery": round(self.seen.slowest, 1),
            "points": dict(kills),
            "stages": dict(stages),
            "left": left[:20],
            "faults": faults,
            "gone": [str(job) for job in self.promised - rows - self.checked],
        }

    def age(self) -> None:
        """Let what lies about be two hours old, so that the clean-up takes it for abandoned."""
        from separations.models import Upload

        then = datetime.now(UTC) - timedelta(hours=2)
        Upload.objects.update(created_at=then)
        for path in self.kept():
            os.utime(path, (then.timestamp(),) * 2)

    def kept(self) -> list[Path]:
        folders = ("uploads", "results", "staging", "renditions", "incoming")
        found = [path for name in folders for path in (self.data_dir / name).rglob("*")]
        return [path for path in found if path.is_file() or path.parent.name == "staging"]

    def manage(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, check=True)


def digest(job: Any) -> str:
    """SHA-256 over the names and bytes of a job's result."""
    whole = sha256()
    for path in sorted(job.result_folder.iterdir()):
        whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def main() -> None:
    import django
    from django.core.management import call_command

    from stemsite import data_folder

    name, kills, seed, consumers, model = sys.argv[1:]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "stemsite.settings")
    data_folder.prepare()
    django.setup()
    call_command("migrate", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)
    scenario = Scenario(name, int(kills), int(seed), int(consumers), model)
    try:
        print(json.dumps(scenario.run()), file=sys.__stdout__, flush=True)
    finally:
        for process in (scenario.web, *scenario.consumers):
            for member in process.family():
                member.kill()


if __name__ == "__main__":
    main()
