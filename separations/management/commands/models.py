"""`manage.py models`: what the model store holds."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from separations.engine.store import ModelInfo, list_models


class Command(BaseCommand):
    help = "List the models that are installed."

    def handle(self, *args: Any, **options: Any) -> None:
        models = list_models(settings.MODEL_DIR)
        if not models:
            self.stdout.write(
                f"There are no models in {settings.MODEL_DIR}. Run manage.py fetch_models."
            )
            return
        rows = [("MODEL", "STEMS", "SIZE", "SPEED", "SHA-256"), *map(_row, models)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())
        self.stdout.write(f"in {settings.MODEL_DIR}")


def _row(model: ModelInfo) -> tuple[str, ...]:
    size = f"{model.bytes / 1e6:.0f} MB"
    speed = "fast" if model.passes == 1 else f"{model.passes}x slower"
    return (model.name, ", ".join(model.sources), size, speed, model.digest[:16])
