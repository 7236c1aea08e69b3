"""`manage.py models [--measure]`: what the model store holds, and what runs it on this machine."""

from argparse import ArgumentParser
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from separations import jobs, limits, sentences
from separations.engine import choice, tuning
from separations.engine.choice import Choice
from separations.engine.options import ALL_STEMS, Options
from separations.engine.store import ModelInfo, list_models
from separations.faults import Fault


class Command(BaseCommand):
    help = "List the models that are installed, and the engine that runs each on this machine."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--measure",
            action="store_true",
            help="find the fastest engine now, whatever is known already (a minute each)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        models = list_models(settings.MODEL_DIR)
        if not models:
            self.stdout.write(
                f"There are no models in {settings.MODEL_DIR}. Run manage.py fetch_models."
            )
            return
        rows: list[tuple[str, ...]] = [("MODEL", "STEMS", "SIZE", "SPEED", "ENGINE", "SHA-256")]
        choices = []
        for model in models:
            chosen = _chosen(model, measure=options["measure"])
            choices.append((model, chosen))
            rows.append(_row(model, chosen))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())
        self.stdout.write(f"in {settings.MODEL_DIR}")
        for model, chosen in choices:
            if chosen is not None:
                for trial in chosen.trials:
                    outcome = tuning.words(trial)
                    self.stdout.write(f"{model.name} on {chosen.cpu}, {trial.plan}: {outcome}")


def _chosen(model: ModelInfo, *, measure: bool) -> Choice | None:
    """What runs the model here; None when that is not known yet."""
    options = _options(model)
    if measure:
        try:
            return tuning.choose(
                settings.MODEL_DIR, settings.ENGINE_DIR, options, lambda: None, again=True
            )
        except Fault as fault:
            raise CommandError(sentences.sentence(fault)) from fault
    if not choice.has_alternatives(model, options):
        return Choice(choice.Plan(), (), choice.cpu_name())
    return choice.read_choice(choice.folder_of(settings.ENGINE_DIR, model, options))


def _options(model: ModelInfo) -> Options:
    options = jobs.site_options(model.name, ALL_STEMS)
    return replace(options, threads=options.threads or limits.threads())


def _row(model: ModelInfo, chosen: Choice | None) -> tuple[str, ...]:
    size = f"{model.bytes / 1e6:.0f} MB"
    speed = "fast" if model.passes == 1 else f"{model.passes}x slower"
    engine = str(chosen.plan) if chosen else "not measured yet"
    return (model.name, ", ".join(model.sources), size, speed, engine, model.digest[:16])
