"""Cut what an encoder added to a song's last frame off again, where only the container says so.

FFmpeg itself does this by marks on packets (Opus, Vorbis, MP3 with LAME's header), and at the
front. At the end of an MP4 it leaves the padding: AAC comes in frames of 1024 samples, but iTunes'
tag, the last sample's duration or the edit list says where the song ends.
"""

from collections.abc import Iterator

import av
import numpy as np
from av.audio.stream import AudioStream

Decoded = tuple["av.Packet[AudioStream]", list[av.AudioFrame]]
EXACT = "mov"  # the container with a time base in samples
# Edit lists count in milliseconds, mostly; what is left off by less is their rounding.
ROUNDED_SECONDS = 0.002
GAPLESS_TAG = "iTunSMPB"  # hexadecimal: 0, samples in front, samples behind, samples of the song


def without_padding(stream: AudioStream, decoded: Iterator[Decoded]) -> Iterator[av.AudioFrame]:
    """The frames of all packets, the last one without the samples behind the stated end."""
    packet = held = None
    before = 0  # samples of the frames before the held one
    for now, frames in decoded:
        for frame in frames:
            if held is not None:
                before += held.samples
                yield held
            held, packet = frame, now
    if held is None:
        return
    if packet is not None and stream.container.format.name.startswith(EXACT):
        samples = _stated_total(stream) - before
        if not 0 < samples < held.samples:
            samples = _true_samples(stream, packet, held)
        if samples < held.samples:
            held = _first_samples(held, samples)
    yield held


def _stated_total(stream: AudioStream) -> int:
    """Samples of the song by iTunes' tag, 0 without one."""
    fields = stream.container.metadata.get(GAPLESS_TAG, "").split()
    try:
        return int(fields[3], 16)
    except (IndexError, ValueError):
        return 0


def _true_samples(
    stream: AudioStream, packet: "av.Packet[AudioStream]", frame: av.AudioFrame
) -> int:
    """How many samples of the last frame belong to the song, by its duration and the edit list."""
    tick = stream.time_base and stream.time_base * frame.sample_rate
    if not tick or tick.denominator != 1 or frame.pts is None:
        return frame.samples  # times are rounded to something else than samples
    samples = frame.samples
    if packet.duration:
        samples = min(samples, packet.duration * int(tick))
    if stream.duration:
        end = ((stream.start_time or 0) + stream.duration - frame.pts) * int(tick)
        # What ends before the frame begins is no statement about it.
        if 0 < end < samples - ROUNDED_SECONDS * frame.sample_rate:
            samples = end
    return samples


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
