"""`manage.py models [NAME…] [--measure]`: list the installed models and what runs each of them."""

from argparse import ArgumentParser
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from separations.engine.engine_choice import Choice
from separations.engine.options import ALL_STEMS, Options
from separations.engine.tuning import progress, tuner
from separations.engine.weights.store import ModelInfo, list_models
from separations.errors import user_messages
from separations.errors.fault import Fault
from separations.jobs import lifecycle
from separations.worker import resources


class Command(BaseCommand):
    help = "List the models that are installed, and the engine that runs each on this machine."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
        parser.add_argument(
            "--if-missing",
            action="store_true",
            help="measure only what was not measured yet, and list nothing",
        )
        parser.add_argument(
            "--measure",
            action="store_true",
            help="find the fastest engine now, whatever is known already (a minute each)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        models = list_models(settings.MODEL_DIR)
        if unknown := set(options["names"]) - {model.name for model in models}:
            raise CommandError(
                f"Not installed: {', '.join(sorted(unknown))}. See manage.py models."
            )
        models = [each for each in models if each.name in (options["names"] or [each.name])]
        if options["if_missing"]:
            for model in models:
                self._measure_if_missing(model)
            return
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
                    outcome = tuner.describe(trial)
                    self.stdout.write(f"{model.name} on {chosen.cpu}, {trial.plan}: {outcome}")

    def _measure_if_missing(self, model: ModelInfo) -> None:
        # Plans that failed once may work by now; the consumer tries them while there are no songs.
        if tuner.known(settings.MODEL_DIR, settings.ENGINE_DIR, _options(model)) is None:
            self.stdout.write(f"{model.name} runs with {_measure(model).plan} here")


def _chosen(model: ModelInfo, *, measure: bool) -> Choice | None:
    """The engine choice for the model on this machine; None if it was not measured yet."""
    if measure:
        return _measure(model, again=True)
    return tuner.known(settings.MODEL_DIR, settings.ENGINE_DIR, _options(model))


def _measure(model: ModelInfo, *, again: bool = False) -> Choice:
    """Find the fastest engine for the model, with a progress bar."""
    folders = settings.MODEL_DIR, settings.ENGINE_DIR
    options = _options(model)
    try:
        with progress.shown(f"Measuring for {model.name}") as report:
            return tuner.choose(*folders, options, lambda: None, again, report)
    except Fault as fault:
        raise CommandError(user_messages.sentence(fault)) from fault
    except OSError as error:
        raise CommandError(f"{model.name} could not be measured: {error}") from error


def _options(model: ModelInfo) -> Options:
    options = lifecycle.site_options(model.name, ALL_STEMS)
    return replace(options, threads=options.threads or resources.threads())


def _row(model: ModelInfo, chosen: Choice | None) -> tuple[str, ...]:
    size = f"{model.bytes / 1e6:.0f} MB"
    speed = "fast" if model.passes == 1 else f"{model.passes}x slower"
    engine = str(chosen.plan) if chosen else "not measured yet"
    return (model.name, ", ".join(model.sources), size, speed, engine, model.digest[:16])
