"""Puts visitors with a waiting job each into a site's database; prints their sessions and jobs.

python -m tests.load.visitors 200 song.flac
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "stemsite.settings")
django.setup()

from django.contrib.sessions.backends.db import SessionStore  # noqa: E402

from separations.access.permissions import VISITOR  # noqa: E402
from separations.engine.options import ALL_STEMS  # noqa: E402
from separations.jobs import lifecycle  # noqa: E402
from separations.models import Owner  # noqa: E402
from separations.uploads import song_files  # noqa: E402


def main() -> None:
    number, song = int(sys.argv[1]), Path(sys.argv[2])
    model = os.environ["DEFAULT_MODEL"]
    made = []
    for index in range(number):
        session = SessionStore()
        session[VISITOR] = f"{index:032x}"
        session.create()
        # Another overlap is another result: none of them is attached to a job that runs.
        options = replace(lifecycle.site_options(model, ALL_STEMS), overlap=0.25 + index / 10_000)
        owner = Owner(session[VISITOR])
        job = lifecycle.submit(song_files.accept_path(song, song.name), options, owner)
        made.append((session.session_key, str(job.pk)))
    print(json.dumps(made))


if __name__ == "__main__":
    main()
