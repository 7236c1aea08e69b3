"""Probing in a process of its own, so that a file that breaks a decoder breaks nothing else."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from separations.audio.info import AudioInfo
from separations.faults import Fault

logger = logging.getLogger(__name__)
WALL_SECONDS = 120
ROOT = Path(__file__).resolve().parents[2]


def probe_isolated(path: Path, max_seconds: float) -> AudioInfo:
    """`separations.audio.probe.probe` behind a process boundary, with limits on what it may use.

    Raises:
        Fault: what `probe` raises; unreadable when the process dies or takes too long.
    """
    command = [sys.executable, "-m", "separations.audio.probe", str(path), str(max_seconds)]
    # Thread pools reserve address space by the core, which the child's limit would then count.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        child = subprocess.run(
            command,
            capture_output=True,
            timeout=WALL_SECONDS,
            env=environment,
            cwd=ROOT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        logger.warning("Reading a song took over %s s", WALL_SECONDS)
        raise Fault("unreadable") from error
    try:
        answer = json.loads(child.stdout)
    except ValueError as error:
        complaint = child.stderr.decode(errors="replace")[-2000:]
        logger.warning("Reading a song ended with status %s: %s", child.returncode, complaint)
        raise Fault("unreadable") from error
    if "fault" in answer:
        raise Fault(answer["fault"], **answer["params"])
    return AudioInfo(**answer["info"])
