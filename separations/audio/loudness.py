"""How loud a signal is over its whole length, measured as it passes by (ITU-R BS.1770-4).

By FFmpeg's own meter, which comes with PyAV.
"""

from fractions import Fraction

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

from separations.audio.info import SAMPLE_RATE

ABSOLUTE_GATE = -70.0  # LUFS; what never exceeds it has no loudness (BS.1770-4, 2.8)
INTEGRATED = "lavfi.r128.I"


class LoudnessMeter:
    """Integrated loudness of everything that `add` was given so far."""

    def __init__(self) -> None:
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
        packed = np.ascontiguousarray(block).reshape(1, -1)
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
        """LUFS; None for silence and for what is shorter than one gating block (0.4 s)."""
        return self._loudness if self._loudness > ABSOLUTE_GATE else None
