"""Cut what an encoder added to a song's last frame off again, where only the container says so.

FFmpeg itself does this by marks on packets (Opus, Vorbis, MP3 with LAME's header), and at the
front. At the end of an MP4 it leaves the padding: AAC comes in frames of 1024 samples, but the
edit list or the last sample's duration says where the song ends.
"""

from collections.abc import Iterator

import av
import numpy as np
from av.audio.stream import AudioStream

Decoded = tuple["av.Packet[AudioStream]", list[av.AudioFrame]]
EXACT = "mov"  # the containers with a time base in samples


def without_padding(stream: AudioStream, decoded: Iterator[Decoded]) -> Iterator[av.AudioFrame]:
    """The frames of all packets, the last one without the samples behind the stated end."""
    is_exact = stream.container.format.name.startswith(EXACT)
    packet = held = None
    for now, frames in decoded:
        for frame in frames:
            if held is not None:
                yield held
            held, packet = frame, now
    if held is None:
        return
    samples = _true_samples(stream, packet, held) if is_exact and packet else held.samples
    if 0 < samples < held.samples:
        held = _first_samples(held, samples)
    yield held


def _true_samples(
    stream: AudioStream, packet: "av.Packet[AudioStream]", frame: av.AudioFrame
) -> int:
    """How many samples of the last frame belong to the song."""
    tick = stream.time_base and stream.time_base * frame.sample_rate
    if not tick or tick.denominator != 1 or frame.pts is None:
        return frame.samples  # times are rounded to something else than samples
    ends = [frame.samples]
    if packet.duration:
        ends.append(packet.duration * int(tick))
    if stream.duration:
        ends.append(((stream.start_time or 0) + stream.duration - frame.pts) * int(tick))
    # What ends before the frame begins is no statement about it.
    return min(end for end in ends if end > 0)


def _first_samples(frame: av.AudioFrame, samples: int) -> av.AudioFrame:
    channels = frame.layout.nb_channels
    frame.pts = None
    # Packed, because PyAV reads past the last plane of planar frames with eight channels.
    (packed,) = av.AudioResampler("flt", frame.layout, frame.sample_rate).resample(frame)
    layout = {1: "mono", 2: "stereo"}.get(channels, frame.layout.name)
    kept = np.array(packed.to_ndarray()[:, : samples * channels], np.float32)
    cut = av.AudioFrame.from_ndarray(kept, "flt", layout)
    cut.sample_rate = frame.sample_rate
    return cut
