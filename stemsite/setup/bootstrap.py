"""From a fresh clone to a running site: `make run`, `make test` and the rest call this.

Runs on the system's Python without packages, so all of this folder imports the standard library
only. Each step reports what it does, is skipped when it is done already, and gives advice when it
fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from stemsite.setup.env_file import load as load_env_file
from stemsite.setup.javascript_tools import NPM, install_javascript_tools
from stemsite.setup.lock import one_at_a_time
from stemsite.setup.packages import install_packages
from stemsite.setup.paths import PYTHON, ROOT
from stemsite.setup.run import check_address, check_address_first, start
from stemsite.setup.site_files import (
    check_settings,
    compile_translations,
    fetch_models,
    find_browser,
    measure_machine,
    prepare_site,
)
from stemsite.setup.steps import StepFailed, call, manage, say
from stemsite.setup.virtual_environment import make_environment


def setup(*, dev: bool = False) -> None:
    with one_at_a_time():
        make_environment()
        install_packages(dev=dev)
        compile_translations()


def run() -> NoReturn:
    _before_setup()
    setup()
    check_settings()
    check_address()
    fetch_models()
    prepare_site()
    manage(
        "check",
        "--fail-level",
        "ERROR",
        quiet=True,
        advice="The site is not fit to start; see above.",
    )
    measure_machine()
    start("Procfile")


def dev() -> NoReturn:
    _before_setup()
    setup(dev=True)
    check_settings()
    check_address()
    fetch_models()
    prepare_site()
    start(".ci/Procfile.dev", DEBUG=os.environ.get("DEBUG", "yes"))


def _before_setup() -> None:
    """Read `.env` for all steps, and end here where a site runs already at this address."""
    try:
        load_env_file(ROOT)
    except ValueError as error:
        raise StepFailed(str(error)) from None
    check_address_first()


def test(*arguments: str) -> None:
    setup(dev=True)
    install_javascript_tools()
    find_browser()
    try:
        fetch_models()
    except StepFailed:
        say("The tests with real weights will be SKIPPED: the weights could not be fetched")
    say("Running the tests")
    # Three at once, as tests mostly wait. The order is tests/conftest.py's.
    side_by_side = ("-n", "3", "--dist", "loadgroup", "--no-loadscope-reorder")
    call(PYTHON, "-m", "pytest", *side_by_side, *arguments, advice="Tests failed; see above.")


def faults(*arguments: str) -> None:
    """The long tests of what must never go wrong. `arguments` go to tests.faults."""
    setup(dev=True)
    fetch_models()
    say("Checking the state machine, more thoroughly than make test does")
    advice = "Something can go wrong; see above."
    long = {"FAULTS_EXAMPLES": "150"}
    machine = ("-m", "pytest", "-q", "tests/jobs/test_state_machine.py")
    call(PYTHON, *machine, advice=advice, environment=long)
    say("Killing the processes of running sites (half an hour)")
    call(PYTHON, "-m", "tests.faults", *arguments, advice=advice)
    say("Killing the set-up (a few minutes)")
    call(PYTHON, "-m", "tests.faults.killed_setup", advice=advice)


def fuzz(*arguments: str) -> None:
    """Hostile uploads by the thousand. `arguments` go to tests.fuzz."""
    setup(dev=True)
    say("Sending the API what fits its description, and what does not")
    live = ("-m", "pytest", "-q", "tests/api/test_api_live.py", "-k", "schemathesis")
    advice = "An answer of the API is wrong; see above."
    call(PYTHON, *live, advice=advice, environment={"API_EXAMPLES": "60"})
    say("Sending hostile files to a site of its own (an hour)")
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
    """Report known vulnerabilities, missing hashes, licences and differences from the lock file."""
    setup(dev=True)
    say("Auditing the packages")
    call(PYTHON, "-m", "stemsite.setup.dependencies", "audit", advice="See each PROBLEM above.")


def sbom() -> None:
    """Write the packages that the site runs with to test-output/sbom.json (CycloneDX)."""
    setup(dev=True)
    say("Listing the packages")
    call(
        PYTHON,
        "-m",
        "stemsite.setup.dependencies",
        "sbom",
        advice="No list could be made; see above.",
    )


def lint() -> None:
    setup(dev=True)
    install_javascript_tools()
    say("Checking style, types, migrations, translations and JavaScript")
    advice = "The check above found something to mend."
    call(PYTHON, "-m", "ruff", "check", ".", advice=advice)
    call(PYTHON, "-m", "ruff", "format", "--check", ".", advice=advice)
    call(PYTHON, "-m", "mypy", advice=advice)
    no_database = {"DATABASE_URL": "sqlite://:memory:"}  # a fresh clone has none
    migrations = ("manage.py", "makemigrations", "--check", "--dry-run")
    call(PYTHON, *migrations, advice=advice, environment=no_database)
    compile_translations(again=True)
    call(PYTHON, "-c", NPM, "run", "--silent", "lint", advice=advice)


def messages(*arguments: str) -> None:
    """The translators' catalogues as the sources are now; `arguments` are languages to begin."""
    setup(dev=True)
    advice = "The catalogues could not be brought up to date; see above."
    call(PYTHON, "-m", "stemsite.setup.messages", *arguments, advice=advice)


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
    "messages": messages,
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
