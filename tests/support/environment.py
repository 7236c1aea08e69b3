"""Loaded before Django's settings (see `addopts`): the tests keep their data in a folder apart."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from tests.support.no_limits import NO_LIMITS

data_dir = tempfile.mkdtemp(prefix="stemsite-tests-")
atexit.register(shutil.rmtree, data_dir, ignore_errors=True)
os.environ["DATA_DIR"] = data_dir
# Small models gain nothing from another engine; the tests of engines say which they want.
os.environ["ENGINE"], os.environ["PRECISION"] = "torch", "float32"
os.environ["ENGINE_NICE"] = "0"  # tests run side by side, and all of them wait for engines
# Several processes share the cores: a thread of torch's that spins while it waits takes one away.
os.environ["OMP_WAIT_POLICY"] = "passive"
os.environ["MIN_FREE_DISK_MB"] = "0"  # whatever else lies on this machine's disk
os.environ["WEB_WORKERS"] = "1"  # starts sooner, and shares of its threads can be counted
os.environ.update(NO_LIMITS)
for name in ("MAX_QUEUED_JOBS", "MAX_MINUTES_A_DAY", "MAX_OWNER_STORAGE_GB"):
    os.environ[name] = "0"
Path(data_dir, "static").mkdir()  # WhiteNoise warns when there is none
for name in ("SECRET_KEY", "DATABASE_URL", "HUEY_URL", "DEBUG", "ALLOWED_HOSTS", "DEFAULT_MODEL"):
    os.environ.pop(name, None)
