"""What is read of a file, decoded in the test's own process: quicker than a sandbox for each."""

from pathlib import Path

import numpy as np
import pytest

from separations.audio.decoding.downmix import stereo
from separations.audio.decoding.probe import probe
from separations.audio.decoding.source import open_source
from separations.audio.info import AudioInfo
from separations.errors.fault import Fault
from tests.support.sounds import Samples


def facts(path: Path, max_seconds: float = 60) -> AudioInfo:
    with path.open("rb") as file:
        return probe(file.fileno(), max_seconds)


def heard(path: Path) -> Samples:
    """Its samples as the engine gets them, at its own rate; shape (2, samples)."""
    with path.open("rb") as file, open_source(file.fileno()) as source:
        return np.concatenate(list(stereo(source.frames())), axis=1)


def refused(path: Path, max_seconds: float = 60) -> Fault:
    with pytest.raises(Fault) as caught:
        facts(path, max_seconds)
    return caught.value
