"""Constant offset of a song (direct current that a sound card recorded): which stem gets it.

`demucs.api.Separator` takes the mean of the mono downmix off the song, and adds it to every stem.
So do we for the small mean that music has. An offset would be in the stems' sum several times. One
stem alone gets it, so that the sum is still the song, and the others are free of it.

The downmix lacks what one channel has more than the other. Of an offset this much stays in what the
networks get, who are worse by it: htdemucs by up to 2 dB of SDR. So each channel's own mean is
taken off then.
"""

from dataclasses import dataclass

import numpy as np

from separations.engine.inference.network import Samples

# The least mean that is an offset, in deviations of the song. Whole songs were seen to have 0.005.
LEAST_OFFSET = 0.01
CARRIER = "other"  # the stem that gets it, where a model has that; else its first one


@dataclass(frozen=True)
class Constants:
    """What is taken off a song, shape (2, 1), and what its stems get back, shape (stems, 2, 1)."""

    of_song: Samples
    of_stems: Samples

    @classmethod
    def of(cls, means: tuple[float, float], deviation: float, carries: list[bool]) -> "Constants":
        """The constants of a song with these means of its channels and deviation of its downmix.

        Args:
            carries: for each stem, whether it is the one that gets an offset.
        """
        left, right = means
        mean = (left + right) / 2
        differ = abs(left - right) / 2 > LEAST_OFFSET * deviation
        is_offset = differ or abs(mean) > LEAST_OFFSET * deviation
        of_song = np.array(means if differ else (mean, mean), np.float32)[:, None]
        shares = np.array([not is_offset or carrier for carrier in carries], np.float32)
        return cls(of_song, shares[:, None, None] * of_song)
