"""`manage.py clean`: run the consumer's regular clean-up by hand."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from separations.worker import retention


class Command(BaseCommand):
    help = "Delete songs, stems and records that are over their time, and what crashes left behind."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="tell only, delete nothing")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        try:
            found = retention.clean(dry_run=dry_run)
        except retention.Busy:
            raise CommandError("A clean-up is at work already. Try again in a minute.") from None
        for waste in found:
            self.stdout.write(f"{waste.kind}: {waste.name} ({waste.bytes / 1e6:.1f} MB)")
        verb = "would be" if dry_run else "were"
        freed = sum(waste.bytes for waste in found) / 1e6
        self.stdout.write(f"{len(found)} things {verb} deleted, {freed:.1f} MB")
