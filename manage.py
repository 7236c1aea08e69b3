#!/usr/bin/env python
"""Django's command line."""

import os
import sys
from contextlib import suppress

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

from stemsite import data_folder

# Commands that work on the site's data, for which DATA_DIR is made. All others leave no trace.
WORKING = {
    *("migrate", "showmigrations", "collectstatic", "runserver", "run_consumer", "clean"),
    *("separate", "createsuperuser", "changepassword", "clearsessions", "shell", "dbshell"),
    *("loaddata", "dumpdata", "flush", "remove_stale_contenttypes"),
}


def is_working(command: list[str]) -> bool:
    """Whether a command line works on the site's data, rather than to explain itself."""
    return bool(command) and command[0] in WORKING and not {"-h", "--help"} & set(command)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "stemsite.settings")
    data_folder.set_umask()
    if is_working(sys.argv[1:]):
        with suppress(ImproperlyConfigured):  # a setting, which Django reports below
            data_folder.prepare()
    execute_from_command_line(sys.argv)
