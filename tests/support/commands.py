"""Python in a process of its own, with an environment of its own."""

import os
import subprocess
import sys

from tests.support.sounds import ROOT

# The settings of a site on a public address, as its documentation gives them.
PUBLIC = {"HTTPS": "yes", "TRUSTED_PROXIES": "1", "ALLOWED_HOSTS": "stems.example.org"}


def python(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
