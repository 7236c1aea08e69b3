"""What the site needs before it starts: translations, models, database and static files."""

from __future__ import annotations

import os
import shutil

from stemsite.setup import paths
from stemsite.setup.lock import one_at_a_time
from stemsite.setup.steps import StepFailed, call, manage, run, say

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def check_settings() -> None:
    """Fail early, before the long steps, on settings that keep the site from starting."""
    advice = "The site is not fit to start; see above."
    manage("check", "--tag", "security", "--fail-level", "ERROR", quiet=True, advice=advice)


def compile_translations(*, again: bool = False) -> None:
    """Compile the message catalogues that changed, or all of them `again`."""
    for catalogue in (paths.ROOT / "separations" / "locale").glob("*/LC_MESSAGES/django.po"):
        compiled = catalogue.with_suffix(".mo")
        fresh = compiled.exists() and compiled.stat().st_mtime >= catalogue.stat().st_mtime
        if again or not fresh:
            part = compiled.with_name("django.part.mo")
            call(
                paths.PYTHON,
                *("-m", "babel.messages.frontend", "compile", "-i", catalogue, "-o", part),
                advice=f"{catalogue.relative_to(paths.ROOT)} does not compile; see above.",
                quiet=True,
            )
            part.replace(compiled)


def fetch_models() -> None:
    names = os.environ.get("MODELS") or os.environ.get("DEFAULT_MODEL") or "htdemucs"
    manage(
        "fetch_models",
        "--if-missing",
        *names.split(),
        advice="The model's weights could not be fetched; what was tried stands above.",
    )


def measure_machine() -> None:
    """Find the engine that runs the default model fastest here, once, before the first song.

    If it fails, songs run on the engine that is guessed best, and the consumer tries again.
    """
    if os.environ.get("MEASURE_FIRST", "").strip().lower() in ("0", "false", "no", "off"):
        return
    name = os.environ.get("DEFAULT_MODEL") or "htdemucs"
    measure = "manage.py", "models", name, "--measure", "--if-missing"
    result = run([paths.PYTHON, *measure], environment={"LOG_LEVEL": "WARNING"})
    if result.returncode != 0:
        say("This machine was not measured; songs run on the engine that is guessed best")


def prepare_site() -> None:
    """Bring the database up to date and collect the static files; two at once would mix theirs."""
    say("Preparing the database and the static files")
    quietly = "--verbosity", "0"
    with one_at_a_time():
        advice = "The database could not be brought up to date; see above."
        manage("migrate", *quietly, advice=advice)
        advice = "The static files could not be collected; see above."
        manage("collectstatic", "--noinput", *quietly, quiet=True, advice=advice)


def find_browser() -> None:
    """Find or install Chromium for the browser tests; as root on Debian, its package."""
    if os.environ.get("CHROMIUM") or any(map(shutil.which, CHROMIUM)):
        return
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        say("Installing Chromium for the browser tests")
        advice = (
            "Chromium could not be installed. Install it by hand, or set CHROMIUM to one. Where an "
            "installation was ended in the middle: dpkg --configure -a"
        )
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
    download = [str(paths.PYTHON), "-m", "playwright", "install", "chromium"]
    if run(download).returncode == 0:
        return
    raise StepFailed(
        "The browser tests need Chromium. Install it (Debian, Ubuntu: sudo apt-get install "
        "chromium) or set CHROMIUM to the path of one."
    )
