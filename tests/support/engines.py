"""An engine process for tests, and requests to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from separations.engine.options import Options
from separations.engine.process.engine_process import EngineProcess
from separations.engine.process.engine_protocol import Request
from tests.support import sounds


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess() as process:
        yield process


def request_for(source: Path, staging: Path, store: Path, **options: object) -> Request:
    staging.mkdir(exist_ok=True)
    plain = {"model": "tiny", "engine": "torch", "precision": "float32"}
    asked = Options(**{**plain, **options})  # type: ignore[arg-type]
    engines = staging.parent / "engines"
    return Request(str(source), str(staging), str(store), str(engines), asked, 3 * sounds.RATE)
