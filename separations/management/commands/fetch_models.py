"""`manage.py fetch_models [NAME …]`: download model weights into the model store."""

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from separations.engine.weights import checksums, fetch, store
from separations.errors import user_messages
from separations.errors.fault import Fault


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
            "--sha256",
            nargs="+",
            default=[],
            metavar="SUM",
            help="Take one model NAME only if its .safetensors files have these SHA-256.",
        )
        parser.add_argument(
            "--accept-change",
            action="store_true",
            help="Take weights that are not those that were fetched first.",
        )
        parser.add_argument(
            "--if-missing", action="store_true", help="Say nothing of models that are there."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        before = os.umask(0o022)  # weights are public, and several users may share the store
        try:
            self._fetch(options)
        finally:
            os.umask(before)

    def _fetch(self, options: dict[str, Any]) -> None:
        failures = []
        expected = fetch.Expectation(tuple(options["sha256"]), options["accept_change"])
        if expected.sha256 and len(options["names"]) != 1:
            raise CommandError("--sha256 is about one model: name it.")
        for name in options["names"] or [settings.DEFAULT_MODEL]:
            try:
                there = _is_there(name)
                if there and options["if_missing"]:
                    continue
                if not there:
                    self.stdout.write(f"Fetching {name} into {settings.MODEL_DIR}")
                model = fetch.fetch(name, settings.MODEL_DIR, options["folder"], expected)
            except Fault as fault:
                failures.append(user_messages.sentence(fault))
                continue
            state = "is there already" if there else "is ready"
            self.stdout.write(
                self.style.SUCCESS(f"{model.name} {state}: {', '.join(model.sources)}")
            )
            if not there and not checksums.was_known(model):
                self._print_checksums(model)
        if failures:
            raise CommandError("\n".join(failures))

    def _print_checksums(self, model: store.ModelInfo) -> None:
        """Print the checksums of weights that this version does not know, to compare elsewhere."""
        found = " ".join(store.file_digest(file) for file in model.files)
        self.stdout.write(
            "These weights are not known beforehand; the site keeps to them from now on. To have "
            f"another machine take the same: fetch_models {model.name} --sha256 {found}"
        )


def _is_there(name: str) -> bool:
    try:
        checksums.check_unchanged(store.read_model(settings.MODEL_DIR, name))
    except Fault:
        return False
    return True
