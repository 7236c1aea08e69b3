"""`make faults`, its last part: the set-up killed at random moments, and set up again.

    python -m tests.faults.killed_setup                    50 kills of a set-up of tiny packages
    python -m tests.faults.killed_setup --real --kills 50  of this checkout's own, for an hour

Each kill meets an environment that is whole, incomplete, half made or absent; it ends the set-up
with all that it started, or one process of it. A program that runs from the environment, as a site
does, must go on throughout. Exits with 1 unless every next set-up succeeded, the environment was
complete after it, and the system's Python has the packages that it had.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.setup_in_small import Project, make_project
from tests.support.sounds import ROOT

SYSTEM = str(Path(sys.base_prefix, "bin", "python3"))
PACKAGES = (
    "import importlib.metadata as m; print(sorted((d.name, d.version) for d in m.distributions()))"
)
# As a site does: it imports something now and then, for as long as it runs.
SITE = (
    "import importlib, pkgutil, sys, time, {package} as package\n"
    "for each in pkgutil.iter_modules(package.__path__):\n"
    "    time.sleep(0.1)\n"
    "    importlib.import_module(f'{package}.{{each.name}}')\n"
    "    importlib.invalidate_caches()\n"
    "time.sleep(3600)\n"
)
STATES = ("whole", "whole", "unstamped", "half made", "absent")


@dataclass(frozen=True)
class Checkout(Project):
    """This checkout, copied: its set-up is the real one."""

    def start(self, point: str = "") -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [SYSTEM, "-m", "stemsite.setup.bootstrap", "setup"],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def copy_checkout(root: Path) -> Checkout:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    return Checkout(root)


def system_packages() -> str:
    command = [SYSTEM, "-I", "-c", PACKAGES]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


class Trial:
    """Kills of the set-up of one project, and what was wrong after them."""

    def __init__(self, project: Project, seed: int, longest: float, package: str) -> None:
        self.project, self.draw, self.longest = project, random.Random(seed), longest
        self.site_code = SITE.format(package=package)
        self.killed: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.set_ups = 0
        self.state = "absent"

    def complete(self) -> None:
        """The next set-up, which must succeed and leave a complete environment."""
        began = time.monotonic()
        self.set_ups += 1
        process = self.project.start()
        output = process.communicate()[0]
        lacking = self._lacking() if process.returncode == 0 else output[-2000:]
        if lacking:
            self.wrong.append(f"after {self.state}: {lacking}")
        print(f"  whole after {time.monotonic() - began:.0f} s {lacking}", flush=True)
        self.state = "whole"

    def _lacking(self) -> str:
        venv = self.project.venv
        if not (venv / "installed-requirements").exists():
            return "no stamp"
        left = [path.name for path in venv.parent.glob(".venv?*")]
        left += [path.name for path in self.project.packages.glob("~*")]
        check = [str(self.project.python), "-m", "pip", "check"]
        answer = subprocess.run(check, capture_output=True, check=False, text=True)
        tried = [str(self.project.python), "-c", "import torch, torchaudio"]
        imported = subprocess.run(tried, capture_output=True, check=False, text=True)
        return "".join([*left, answer.stdout * bool(answer.returncode), imported.stderr])

    def spoil(self) -> None:
        """Bring the environment into a state for the next kill to meet."""
        self.state = self.draw.choice(STATES)
        if self.state == "unstamped":
            (self.project.venv / "installed-requirements").unlink()
        elif self.state == "half made":
            (self.project.venv / "pyvenv.cfg").unlink()
        elif self.state == "absent":
            shutil.rmtree(self.project.venv)

    def kill(self) -> None:
        """Begin a set-up and kill it; a program that runs from the environment goes on."""
        site = None
        if self.state in ("whole", "unstamped"):
            command = [str(self.project.python), "-c", self.site_code]
            site = subprocess.Popen(command, stderr=subprocess.PIPE)
        process = self.project.start()
        span = 1.0 if self.state == "whole" else self.longest
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.draw.uniform(0.0, span))
        what = self._end(process)
        self.killed[f"{self.state}, {what}"] += 1
        print(f"{sum(self.killed.values())}: {self.state}, {what}", flush=True)
        if site is not None:
            if site.poll() is not None:
                errors = site.communicate()[1].decode()
                self.wrong.append(f"a site ended at {self.state}, {what}: {errors}")
            site.kill()
            site.wait()
        if what != "done before":
            self.state = "killed before"

    def _end(self, process: "subprocess.Popen[str]") -> str:
        if process.poll() is not None:
            return "done before"
        what = self.draw.choice(("all", "all", "the set-up alone", "its last process"))
        if what == "all":
            os.killpg(process.pid, signal.SIGKILL)
        elif what == "the set-up alone":
            process.kill()
        else:
            with contextlib.suppress(psutil.Error):
                itself = psutil.Process(process.pid)
                [*_others, last] = [itself, *itself.children(recursive=True)]
                last.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.draw.uniform(0.0, self.longest))  # it may bear that, and go on
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()  # not for what it started: the next set-up does that
        return what


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", action="store_true", help="the set-up of this checkout")
    parser.add_argument("--longest", type=float, help="seconds until a kill, at most")
    parser.add_argument("--whole", type=float, help="how often the next set-up is not killed, too")
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="stemsite-killed-setup-"))
    project = copy_checkout(root / "checkout") if asked.real else make_project(root / "project")
    longest = asked.longest or (60.0 if asked.real else 3.0)
    whole = asked.whole or (0.25 if asked.real else 1.0)
    before = system_packages()
    trial = Trial(project, asked.seed, longest, "django" if asked.real else "large")
    print(f"seed {asked.seed}, in {root}", flush=True)
    for number in range(asked.kills):
        trial.kill()
        if trial.draw.random() < whole or number == asked.kills - 1:
            trial.complete()
            trial.spoil()
    for what, count in sorted(trial.killed.items()):
        print(f"{count:4}  {what}")
    if system_packages() != before:
        trial.wrong.append("the system's Python has other packages")
    print(f"kills {sum(trial.killed.values())}, set-ups after them {trial.set_ups}, ", end="")
    print(f"wrong {len(trial.wrong)}")
    for wrong in trial.wrong:
        print(f"WRONG: {wrong}")
    if not trial.wrong:
        shutil.rmtree(root)
    return int(bool(trial.wrong))


if __name__ == "__main__":
    sys.exit(main())
