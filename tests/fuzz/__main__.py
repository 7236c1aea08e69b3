"""`make fuzz`: more than 10,000 hostile inputs through the upload path and the decoder.

    make fuzz
    make fuzz ARGS="--inputs 500 --http 50 --forms 100 --seed 7"

Prints a table, and exits with 1 unless nothing crashed, hung, stayed behind or reached outside.
Inputs that did are kept in test-output/fuzz; move them to tests/fuzz/corpus, which every run sends
first.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import inputs
from tests.fuzz.tally import Tally, Watch
from tests.support.models_in_small import make_store
from tests.support.no_limits import NO_LIMITS
from tests.support.sounds import ROOT

MOST_SECONDS = "30"  # of a song, in this site


def main() -> int:
    parser = argparse.ArgumentParser(description="Throw hostile inputs at the site.")
    parser.add_argument("--inputs", type=int, default=9_000, help="files within one process")
    parser.add_argument("--http", type=int, default=1_000, help="files over HTTP to gunicorn")
    parser.add_argument("--forms", type=int, default=1_000, help="forms made by hypothesis")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=90, help="send no more files after that")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stemsite-fuzz-") as folder:
        tally = _run(asked, Path(folder))
    print(tally.table())
    sent = sum(row.inputs for row in tally.rows.values())
    seconds = time.monotonic() - began
    print(f"{sent} inputs in {seconds:.0f} s, {sent / seconds:.1f} a second")
    return 1 if tally.violations else 0


def _run(asked: argparse.Namespace, folder: Path) -> Tally:
    data_dir = folder / "data"
    os.environ.update(
        DJANGO_SETTINGS_MODULE="stemsite.settings",
        DATA_DIR=str(data_dir),
        MODEL_DIR=str(make_store(folder / "models")),
        DEFAULT_MODEL="tiny",
        MAX_DURATION_SECONDS=MOST_SECONDS,
        MAX_UPLOAD_MB="100",
        ALLOWED_HOSTS="127.0.0.1,localhost,testserver",
        LOG_LEVEL="ERROR",
        # Limits on how much one visitor may send would leave little to be read.
        **NO_LIMITS,
        MAX_QUEUED_JOBS="0",
        **dict.fromkeys(("MAX_MINUTES_A_DAY", "MAX_OWNER_STORAGE_GB"), "0"),
    )
    for name in ("SECRET_KEY", "DATABASE_URL", "HUEY_URL", "DEBUG"):
        os.environ.pop(name, None)
    for step in (("migrate", "-v0"), ("collectstatic", "--noinput", "-v0")):
        subprocess.run([sys.executable, "manage.py", *step], cwd=ROOT, check=True)

    import django

    django.setup()
    from separations.worker import tasks
    from tests.fuzz import serving, uploading

    tasks._send = lambda: None  # no consumer hears it
    made = folder / "songs"
    made.mkdir()
    songs = inputs.valid(made)
    tally, watch = Tally(), Watch(folder)
    limit = uploading.limit()
    until = time.monotonic() + asked.minutes * 60
    with serving.serving(data_dir) as server:
        serving.run(server, asked.http, asked.seed + 1, songs, watch, tally, limit, until)
        serving.lie(server, songs["pcm.wav"], data_dir / "incoming", tally)
        serving.large(server, tally)
        good = server.send(serving.form("good.flac", songs["plain.flac"]))
        if good != 200:
            tally.blame("wrong", f"after all that a good song gets {good}")
    uploading.run(asked.inputs, asked.seed, songs, watch, tally, until)
    uploading.run_forms(asked.forms, asked.seed, songs["plain.flac"], tally)
    uploading.look_for_files(tally)
    for found in watch.seen():
        tally.blame("outside access", found)
    return tally


if __name__ == "__main__":
    sys.exit(main())
