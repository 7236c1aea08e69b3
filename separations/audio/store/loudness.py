"""Measure the integrated loudness of a signal block by block (ITU-R BS.1770-4).

The meter is FFmpeg's, which comes with PyAV.
"""

import math
from fractions import Fraction

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

from separations.audio.info import SAMPLE_RATE

ABSOLUTE_GATE = -70.0  # LUFS; a signal that never exceeds it has no loudness (BS.1770-4, 2.8)
INTEGRATED = "lavfi.r128.I"


class LoudnessMeter:
    """Integrated loudness of all blocks added so far.

    Args:
        exponent: samples are scaled by 2^-exponent first, if they exceed the meter's range.
    """

    def __init__(self, exponent: int = 0) -> None:
        self._exponent = exponent
        self._graph = av.filter.Graph()
        source = self._graph.add_abuffer(
            sample_rate=SAMPLE_RATE,
            format="flt",
            layout="stereo",
            time_base=Fraction(1, SAMPLE_RATE),
        )
        meter = self._graph.add("ebur128", "metadata=1:framelog=quiet")
        sink = self._graph.add("abuffersink")
        source.link_to(meter)
        meter.link_to(sink)
        self._graph.configure()
        self._frames = 0
        self._loudness = ABSOLUTE_GATE

    def add(self, block: NDArray[np.float32]) -> None:
        """Measure `block` of shape (samples, 2)."""
        packed = np.ascontiguousarray(np.ldexp(block, -self._exponent)).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout="stereo")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = self._frames
        self._frames += len(block)
        self._graph.push(frame)
        while True:
            try:
                measured = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            self._loudness = float(measured.metadata.get(INTEGRATED, ABSOLUTE_GATE))

    @property
    def loudness(self) -> float | None:
        """LUFS; None for silence, or less than one gating block (0.4 s)."""
        if not (math.isfinite(self._loudness) and self._loudness > ABSOLUTE_GATE):
            return None
        return self._loudness + 20 * math.log10(2) * self._exponent
