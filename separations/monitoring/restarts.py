"""How often this run's processes were started again, as the supervisor records it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

RUN_VARIABLE = "STEMSITE_RUN"  # in the environment of every process of a run: its mark
RUNS = "runs"  # the folder of their records in DATA_DIR; see stemsite.supervisor.runs


def restarts(data_dir: Path) -> Mapping[str, int]:
    """By the process' name in the Procfile; empty without a supervisor."""
    mark = os.environ.get(RUN_VARIABLE, "")
    if not mark.isalnum():
        return {}
    try:
        record = json.loads((data_dir / RUNS / f"{mark}.json").read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): int(count) for name, count in record["restarts"].items()}
