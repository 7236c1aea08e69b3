"""`python -m stemsite.supervisor [PROCFILE [NAME…]]`: run what a Procfile names, or those of it.

First it ends what a killed run left in DATA_DIR, and looks whether the site can
listen; without a Procfile that is all. HOST and PORT say where; `make run` sets them.

The exit status is 0 when it was told to stop, else that of the process that could not be started,
or 1 where that one ended with 0.
"""

import logging
import os
import sys
from pathlib import Path

from honcho import environ

from stemsite.setup import env_file
from stemsite.supervisor.output import Output
from stemsite.supervisor.port import WhyNot, check_port, url
from stemsite.supervisor.runs import (
    RUN_VARIABLE,
    Run,
    data_folder,
    end_orphans,
    shared_by_group,
)
from stemsite.supervisor.service import Service
from stemsite.supervisor.supervisor import Supervisor


def main(procfile: str = "", *names: str) -> int:
    try:
        env_file.load(Path())
    except ValueError as error:
        sys.exit(f"\nStopped: {error}")
    environment = dict(os.environ)
    environment["HOST"] = environment.get("HOST", "").strip() or "127.0.0.1"
    environment["PORT"] = environment.get("PORT", "").strip() or "8000"
    environment["PYTHONUNBUFFERED"] = "1"
    group = shared_by_group(environment)
    os.umask(0o007 if group else 0o077)
    text = Path(procfile).read_text(encoding="utf-8") if procfile else ""
    commands = environ.parse_procfile(text).processes
    chosen = {name: commands[name] for name in names or commands}
    output = Output(list(chosen), as_json=environment.get("LOG_FORMAT", "").strip() == "json")
    try:
        return _run(chosen, environment, output, group=group)
    finally:
        output.close()


def _run(
    chosen: dict[str, str], environment: dict[str, str], output: Output, *, group: bool
) -> int:
    """Run these commands, if the site can listen; without any, only look whether it can."""
    folder = data_folder(environment)
    host, port = environment["HOST"], environment["PORT"]
    end_orphans(folder, output.say)
    try:
        # What is no number, the settings refuse.
        if port.isdecimal() and ("web" in chosen or not chosen):
            check_port(host, int(port), folder)
    except WhyNot as reason:
        output.stopped(str(reason))
        return 1
    if not chosen:
        return 0
    with Run(folder, url(host, port), group=group) as run:
        if run.problem:
            output.say(run.problem, logging.WARNING)
        environment[RUN_VARIABLE] = run.mark
        services = [Service(name, command, environment) for name, command in chosen.items()]
        return Supervisor(services, output, run.record).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
