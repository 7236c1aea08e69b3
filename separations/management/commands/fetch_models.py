"""`manage.py fetch_models [NAME …]`: fill the model store."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from separations import sentences
from separations.engine import fetch, store
from separations.faults import Fault


class Command(BaseCommand):
    help = "Fetch model weights into the model store (MODEL_DIR)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        known = ", ".join(fetch.KNOWN)
        parser.add_argument(
            "names",
            nargs="*",
            metavar="NAME",
            help=f"{known}, or namespace/name on the hub. Default: {settings.DEFAULT_MODEL}.",
        )
        parser.add_argument(
            "--from", dest="folder", type=Path, help="Take them from this folder and nowhere else."
        )
        parser.add_argument(
            "--if-missing", action="store_true", help="Say nothing of models that are there."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        failures = []
        for name in options["names"] or [settings.DEFAULT_MODEL]:
            try:
                there = _is_there(name)
                if there and options["if_missing"]:
                    continue
                if not there:
                    self.stdout.write(f"Fetching {name} into {settings.MODEL_DIR}")
                model = fetch.fetch(name, settings.MODEL_DIR, options["folder"])
            except Fault as fault:
                failures.append(sentences.sentence(fault))
                continue
            state = "is there already" if there else "is ready"
            self.stdout.write(
                self.style.SUCCESS(f"{model.name} {state}: {', '.join(model.sources)}")
            )
        if failures:
            raise CommandError("\n".join(failures))


def _is_there(name: str) -> bool:
    try:
        store.read_model(settings.MODEL_DIR, name)
    except Fault:
        return False
    return True
