"""`make faults`: kill the processes of real sites hundreds of times and see that nothing is lost.

    make faults                                          all that this machine can
    make faults ARGS="--kills 40 --only sqlite-1 --seed 7"

Prints a table, and exits with 1 unless nothing was lost, doubled, wrong or left over.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.models_in_small import make_store
from tests.support.running_site import free_port, until
from tests.support.sounds import ROOT

COLUMNS = ("scenario", "kills", "jobs", "lost", "doubled", "wrong", "leftovers", "recovery")
MUST_BE_ZERO = ("lost", "doubled", "wrong", "leftovers")
POSTGRESQL = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@dataclass(frozen=True)
class Plan:
    """share: how much of all kills this scenario gets."""

    name: str
    consumers: int
    model: str
    share: float
    servers: bool = False


PLANS = (
    Plan("sqlite-1", 1, "tiny", 0.36),
    Plan("sqlite-2", 2, "tiny", 0.3),
    Plan("postgresql-redis-2", 2, "tiny", 0.3, servers=True),
    Plan("sqlite-real-weights", 1, "htdemucs", 0.06),
)


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """A PostgreSQL and a Redis of their own; yields the settings that lead to them."""
    database_port, queue_port = free_port(), free_port()
    binaries = POSTGRESQL[-1].parent
    home = folder / "postgresql"
    home.mkdir()
    user = []
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        shutil.chown(home, "postgres")
        for above in (folder, folder.parent):
            above.chmod(0o711)
        user = ["runuser", "-u", "postgres", "--"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    initdb = [binaries / "initdb", "-D", home, "-U", "stemsite", "-A", "trust"]
    subprocess.run([*user, *map(str, initdb)], check=True, **quiet)  # type: ignore[call-overload]
    options = ["-D", home, "-p", database_port, "-k", home, "-h", "127.0.0.1"]
    database = subprocess.Popen([*user, *map(str, [binaries / "postgres", *options])], **quiet)  # type: ignore[call-overload]
    queue = subprocess.Popen(
        ["redis-server", "--port", str(queue_port), "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    url = f"postgresql://stemsite@127.0.0.1:{database_port}/postgres"
    try:
        ready = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(database_port)]
        until(lambda: subprocess.run(ready, check=False, **quiet).returncode == 0, 60)  # type: ignore[call-overload]
        yield {"DATABASE_URL": url, "HUEY_URL": f"redis://127.0.0.1:{queue_port}/0"}
    finally:
        for server in (database, queue):
            server.terminate()
            server.wait(30)


def has_servers() -> bool:
    return bool(POSTGRESQL) and shutil.which("redis-server") is not None


def play(plan: Plan, kills: int, seed: int, folder: Path, store: Path) -> dict[str, Any]:
    """Run one scenario in a process and a data folder of its own."""
    folder.mkdir()
    data_dir = folder / "data"
    data_dir.mkdir()
    environment = {
        **os.environ,
        "DATA_DIR": str(data_dir),
        "FAULTS_JOURNAL": str(folder / "journal"),
        "DEFAULT_MODEL": plan.model,
        "LEASE_SECONDS": "8",
        "MAX_ATTEMPTS": "1000",
        "LOG_LEVEL": "INFO",
    }
    if plan.model == "tiny":
        environment["MODEL_DIR"] = str(store)
    # As `make run` does; else the first songs would be those of another engine.
    measure = ["manage.py", "models", plan.model, "--measure", "--if-missing"]
    subprocess.run([sys.executable, *measure], cwd=ROOT, env=environment, check=True)
    command = [sys.executable, "-m", "tests.faults.scenario", plan.name, str(kills), str(seed)]
    command += [str(plan.consumers), plan.model]
    with contextlib.ExitStack() as stack:
        if plan.servers:
            environment |= stack.enter_context(servers(folder))
        answer = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
    lines = answer.stdout.splitlines()
    if answer.returncode != 0 or not lines:
        raise SystemExit(f"{plan.name} did not come to an end; see {folder}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=220, help="in all scenarios together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[plan.name for plan in PLANS])
    parser.add_argument("--keep", action="store_true", help="leave logs and files behind")
    asked = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="stemsite-faults-"))
    print(f"seed {asked.seed}, in {home}", flush=True)
    store = make_store(home / "models")
    plans = [plan for plan in PLANS if plan.name in asked.only]
    for plan in [plan for plan in plans if plan.servers and not has_servers()]:
        print(f"{plan.name}: left out, PostgreSQL or Redis is not installed here")
        plans.remove(plan)
    shares = sum(plan.share for plan in plans)
    rows: list[dict[str, Any]] = []
    for plan in plans:
        kills = max(1, round(asked.kills * plan.share / shares))
        rows.append(play(plan, kills, asked.seed, home / plan.name, store))
        print(json.dumps(rows[-1]), flush=True)
    for row in [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]:
        print("  ".join(f"{row[column]!s:>10}" for column in COLUMNS).rstrip())
    total = {name: sum(row[name] for row in rows) for name in ("kills", *MUST_BE_ZERO)}
    print(", ".join(f"{name} {count}" for name, count in total.items()))
    bad = any(total[name] for name in MUST_BE_ZERO)
    if not bad and not asked.keep:
        shutil.rmtree(home)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
