"""From a fresh clone to a running site: `make run`, `make test` and the rest call this.

Runs on the system's Python with nothing installed, so it imports the standard library only. Each
step says what it does, is skipped when it is done already, and says what to do when it fails.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
TORCH = "2.13.0"
HONCHO_SECONDS = 5  # more than it takes to start, on a busy machine
OLDEST_PYTHON = (3, 11)
RUN_LOCK, DEV_LOCK = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class StepFailed(Exception):
    """A step did not work; the text says what to do."""


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def call(*command: str | Path, advice: str, quiet: bool = False) -> None:
    """Run a command in the project; show its output, or only when it fails."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
    )
    if result.returncode != 0:
        if quiet:
            print(result.stdout)
        raise StepFailed(advice)


def manage(*arguments: str, advice: str, quiet: bool = False) -> None:
    call(PYTHON, "manage.py", *arguments, advice=advice, quiet=quiet)


# Steps


def make_environment() -> None:
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        raise StepFailed(
            f"This is Python {sys.version.split()[0]}; Stemsite needs {wanted} or newer. Install "
            f"it, then run: make PYTHON=python{wanted} run"
        )
    if (
        PYTHON.exists()
        and subprocess.run(
            [PYTHON, "-m", "pip", "--version"], check=False, capture_output=True
        ).returncode
        == 0
    ):
        return
    say("Making a virtual environment in .venv")
    try:
        venv.create(VENV, clear=True, with_pip=True)
        return
    except (OSError, SystemExit, subprocess.CalledProcessError):
        pass  # Debian splits what brings pip into a package of its own
    # Another pip of the system can serve a new environment.
    venv.create(VENV, clear=True, with_pip=False)
    seed = [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "pip"]
    if subprocess.run(seed, check=False, capture_output=True).returncode != 0:
        raise StepFailed(
            "This Python can make no virtual environment with pip in it. On Debian and Ubuntu the "
            "package python3-venv (or python3-pip) brings what is missing."
        )


def install_packages(*, dev: bool) -> None:
    """Install the locked packages, once for each state of the lock file.

    First all that is locked, each file by its hash, without asking what else a package wants; then
    torch, whose build depends on the machine and which finds what it needs already there.
    """
    lock = DEV_LOCK if dev else RUN_LOCK
    stamp = VENV / f"installed-{lock.stem}"
    wanted = hashlib.sha256(lock.read_bytes() + TORCH.encode() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say(f"Installing the packages of {lock.name} (a few minutes the first time)")
    advice = (
        "A package could not be installed; see above. Check the network (behind a mirror, set "
        "PIP_INDEX_URL) and the free disk space, then run the same command again. Where it says "
        "that hashes do not match, somebody changed a file of a version that is out: do not go on."
    )
    pinned = re.findall(r"^[\w.-]+==[^\s;\\]+", lock.read_text(), re.MULTILINE)
    if pip_install("--no-deps", "--require-hashes", "-r", str(lock), total=len(pinned)) != 0:
        raise StepFailed(advice)
    install_torch()
    complete = subprocess.run([PYTHON, "-m", "pip", "check"], check=False, capture_output=True)
    if complete.returncode != 0:
        say("This platform needs more than the lock file holds: installing the rest by version")
        with tempfile.TemporaryDirectory() as folder:
            names = Path(folder) / "names.txt"
            names.write_text("\n".join(pinned))
            if pip_install("-r", str(names), total=len(pinned)) != 0:
                raise StepFailed(advice)
    mend_torchaudio()
    stamp.write_text(wanted)


def pip_install(*arguments: str, total: int) -> int:
    """Run pip, counting packages as they are found; what it complains of is shown."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    seen = 0
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        for line in pip.stdout or ():
            if line.startswith(("Collecting ", "Requirement already satisfied: ")):
                seen += 1
                name = line.removeprefix("Requirement already satisfied: ")
                progress(f"{seen} of {total}: {name.removeprefix('Collecting ').split()[0]}")
            elif line.startswith("Installing collected"):
                progress("unpacking")
            elif line.startswith("ERROR"):
                print(f"\n{line.rstrip()}")
    progress("")
    return pip.returncode


def progress(text: str) -> None:
    """Overwrite one line on a terminal; stay quiet in a log."""
    if sys.stdout.isatty():
        print(f"\r    {text[:70]:<70}", end="" if text else "\r", flush=True)


def install_torch() -> None:
    """A CPU build where one can be had: by TORCH_INDEX, or among what pip is set up to see."""
    if _torch_is_installed():
        return
    index = os.environ.get("TORCH_INDEX", "").strip()
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
    if index:
        say(f"Installing torch {TORCH} from TORCH_INDEX")
        call(
            *pip,
            f"torch=={TORCH}",
            "--index-url",
            index,
            advice="TORCH_INDEX does not offer this torch. Check its address, or unset it.",
        )
        return
    say(f"Looking for a CPU build of torch {TORCH} (200 MB)")
    cpu_only = subprocess.run(
        [*pip, f"torch=={TORCH}+cpu"], cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True
    )
    if cpu_only.returncode == 0:
        return
    if "No matching distribution" not in cpu_only.stderr:
        print(cpu_only.stderr)
        raise StepFailed("torch could not be installed; see above. Then run the same again.")
    say(
        f"None here: installing the default build of torch {TORCH}. On Linux that is the one for "
        "GPUs, several GB; stop now and set TORCH_INDEX (see README) if that is too much"
    )
    call(
        *pip,
        f"torch=={TORCH}",
        advice="torch could not be installed. Check the network and the free disk space, or set "
        "TORCH_INDEX to PyTorch's CPU wheel index (see README).",
    )


def _torch_is_installed() -> bool:
    code = f"import importlib.metadata as m; exit(m.version('torch').split('+')[0] != '{TORCH}')"
    return subprocess.run([PYTHON, "-c", code], check=False, capture_output=True).returncode == 0


def mend_torchaudio() -> None:
    """Set torchaudio's compiled part aside where it was built for another torch.

    torchaudio treats it as optional; resampling is plain torch and needs none of it.
    """
    check = [str(PYTHON), "-c", "import torchaudio"]
    if subprocess.run(check, check=False, capture_output=True).returncode == 0:
        return
    say("Fitting torchaudio to this build of torch")
    for library in VENV.glob("**/site-packages/torchaudio/lib/*.so"):
        library.rename(library.with_name(library.name + ".aside"))
    call(*check, advice="torchaudio cannot be imported. Delete .venv and run this again.")


def compile_translations(*, again: bool = False) -> None:
    """Compile the catalogues that are newer than what was compiled, or all of them `again`."""
    for catalogue in (ROOT / "separations" / "locale").glob("*/LC_MESSAGES/django.po"):
        compiled = catalogue.with_suffix(".mo")
        fresh = compiled.exists() and compiled.stat().st_mtime >= catalogue.stat().st_mtime
        if again or not fresh:
            call(
                PYTHON,
                *("-m", "babel.messages.frontend", "compile", "-i", catalogue, "-o", compiled),
                advice=f"{catalogue.relative_to(ROOT)} does not compile; see above.",
                quiet=True,
            )


def fetch_models() -> None:
    names = os.environ.get("MODELS") or os.environ.get("DEFAULT_MODEL") or "htdemucs"
    manage(
        "fetch_models",
        "--if-missing",
        *names.split(),
        advice="The model's weights could not be fetched; what was tried stands above.",
    )


def prepare_site() -> None:
    say("Preparing the database and the static files")
    manage(
        "migrate",
        "--verbosity",
        "0",
        advice="The database could not be brought up to date; see above.",
    )
    manage(
        "collectstatic",
        "--noinput",
        "--verbosity",
        "0",
        quiet=True,
        advice="The static files could not be collected; see above.",
    )


def find_browser() -> None:
    """The end-to-end tests need a Chromium; Debian's is installed when we are root."""
    if os.environ.get("CHROMIUM") or any(map(shutil.which, CHROMIUM)):
        return
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        say("Installing Chromium for the browser tests")
        advice = "Chromium could not be installed. Install it by hand, or set CHROMIUM to one."
        call("apt-get", "update", "-qq", advice=advice, quiet=True)
        call(
            "apt-get",
            "install",
            "-y",
            "-qq",
            "chromium",
            "fonts-noto-cjk",
            advice=advice,
            quiet=True,
        )
        return
    say("Looking for a Chromium that needs no root")
    download = [str(PYTHON), "-m", "playwright", "install", "chromium"]
    if subprocess.run(download, check=False, cwd=ROOT).returncode == 0:
        return
    raise StepFailed(
        "The browser tests need Chromium. Install it (Debian, Ubuntu: sudo apt-get install "
        "chromium) or set CHROMIUM to the path of one."
    )


# Commands


def setup(*, dev: bool = False) -> None:
    make_environment()
    install_packages(dev=dev)
    compile_translations()


def run() -> NoReturn:
    setup()
    fetch_models()
    prepare_site()
    manage(
        "check",
        "--fail-level",
        "ERROR",
        quiet=True,
        advice="The site is not fit to start; see above.",
    )
    start("Procfile")


def dev() -> NoReturn:
    setup(dev=True)
    fetch_models()
    prepare_site()
    os.environ.setdefault("DEBUG", "yes")
    start(".ci/Procfile.dev")


def start(procfile: str) -> NoReturn:
    """Web server and consumer side by side under honcho, which stops both when one ends."""
    host = os.environ.get("HOST") or "127.0.0.1"
    port = os.environ.get("PORT") or "8000"
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"  # an IPv6 address, as servers write it
    path = f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}"
    os.environ.update(HOST=host, PORT=port, PATH=path, PYTHONUNBUFFERED="1")
    say(f"Starting the site: http://{host}:{port} (Ctrl-C stops it)")
    command = [str(PYTHON), "-m", "honcho", "-f", procfile, "-d", str(ROOT), "start"]
    if os.environ.get("LOG_FORMAT") == "json":
        command += ["--no-prefix", "--no-colour"]  # which would stand before the objects
    # In a session of its own: only what is decided below reaches it, not the terminal's Ctrl-C.
    site = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    started = time.monotonic()

    def stop(_signal: int, _frame: object) -> None:
        # Stopped before it has heard from both of its processes, honcho fails and leaves them.
        time.sleep(max(0.0, HONCHO_SECONDS - (time.monotonic() - started)))
        site.terminate()

    # honcho does not know of a closed terminal (SIGHUP), and would leave both running.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)
    status = site.wait()
    sys.exit(0 if status in (130, 143) else status)


def test(*arguments: str) -> None:
    setup(dev=True)
    find_browser()
    try:
        fetch_models()
    except StepFailed:
        say("The tests with real weights will be SKIPPED: the weights could not be fetched")
    say("Running the tests")
    # Most of them wait most of the time. In the order of tests/conftest.py.
    side_by_side = ("-n", "3", "--dist", "loadgroup", "--no-loadscope-reorder")
    call(PYTHON, "-m", "pytest", *side_by_side, *arguments, advice="Tests failed; see above.")


def faults(*arguments: str) -> None:
    """The long tests of what must never go wrong. `arguments` go to tests.faults."""
    setup(dev=True)
    fetch_models()
    say("Checking the state machine, more thoroughly than make test does")
    os.environ["FAULTS_EXAMPLES"] = "150"
    advice = "Something can go wrong; see above."
    call(PYTHON, "-m", "pytest", "-q", "tests/test_state_machine.py", advice=advice)
    say("Killing the processes of running sites (half an hour)")
    call(PYTHON, "-m", "tests.faults", *arguments, advice=advice)


def fuzz(*arguments: str) -> None:
    """Hostile uploads by the thousand. `arguments` go to tests.fuzz."""
    setup(dev=True)
    say("Sending the API what fits its description, and what does not")
    os.environ["API_EXAMPLES"] = "60"
    live = ("tests/test_api_live.py", "-k", "schemathesis")
    call(PYTHON, "-m", "pytest", "-q", *live, advice="An answer of the API is wrong; see above.")
    say("Sending hostile files to a site of its own (half an hour)")
    advice = "A file did harm; see above."
    call(PYTHON, "-m", "tests.fuzz", *arguments, advice=advice)


def bench(*arguments: str) -> None:
    """Speed, memory and quality beside Demucs' own Separator. `arguments` go to tests.bench."""
    setup(dev=True)
    fetch_models()
    models = ["--models", os.environ["MODEL_DIR"]] if os.environ.get("MODEL_DIR") else []
    advice = "The benchmark did not come to its end; see above."
    call(PYTHON, "-m", "tests.bench", *models, *arguments, advice=advice)


def load(*arguments: str) -> None:
    """Many visitors and uploads at once. `arguments` go to tests.load."""
    setup(dev=True)
    fetch_models()
    advice = "The site did not bear it; see above."
    call(PYTHON, "-m", "tests.load", *arguments, advice=advice)


def audit() -> None:
    """Known vulnerabilities, hashes, licences and what differs from the lock file."""
    setup(dev=True)
    say("Auditing the packages")
    call(PYTHON, "-m", "stemsite.dependencies", "audit", advice="See each PROBLEM above.")


def sbom() -> None:
    """What the site is built from, as test-output/sbom.json (CycloneDX), without test tools."""
    setup(dev=True)
    say("Listing the packages")
    call(PYTHON, "-m", "stemsite.dependencies", "sbom", advice="No list could be made; see above.")


def lint() -> None:
    setup(dev=True)
    say("Checking style, types, migrations and translations")
    advice = "The check above found something to mend."
    call(PYTHON, "-m", "ruff", "check", ".", advice=advice)
    call(PYTHON, "-m", "ruff", "format", "--check", ".", advice=advice)
    call(PYTHON, "-m", "mypy", advice=advice)
    manage("makemigrations", "--check", "--dry-run", advice=advice)
    compile_translations(again=True)


COMMANDS: dict[str, Callable[..., None]] = {
    "setup": setup,
    "run": run,
    "dev": dev,
    "test": test,
    "faults": faults,
    "fuzz": fuzz,
    "bench": bench,
    "load": load,
    "lint": lint,
    "audit": audit,
    "sbom": sbom,
}


def main() -> int:
    name, *arguments = sys.argv[1:] or [""]
    if name not in COMMANDS:
        print(f"Say one of: {', '.join(COMMANDS)}")
        return 2
    try:
        COMMANDS[name](*arguments)
    except StepFailed as failure:
        print(f"\nStopped: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
