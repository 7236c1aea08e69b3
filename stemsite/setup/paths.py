"""Where things are in a checkout, and what `make` installs apart from the lock files."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
RUN_LOCK, DEV_LOCK = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
PLATFORMS_LOCK = ROOT / "requirements-platforms.lock"  # what only some platforms need
TORCH = "2.13.0"
