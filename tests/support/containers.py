"""Files as people have them, built from samples: odd sizes in headers, joined, marked tracks."""

import struct
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.stream import Disposition

from tests.support.sounds import RATE, Samples

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")


def integers(samples: Samples) -> "np.ndarray[Any, np.dtype[np.int16]]":
    """Interleaved 16-bit samples."""
    return np.round(samples.T * 32767).astype(np.int16)


def wav(
    samples: Samples, data_size: int | None = None, riff_size: int | None = None,
    mark: bytes = b"RIFF", before: bytes = b"", after: bytes = b"",
) -> bytes:  # fmt: skip
    """A WAV file of 16 bits that states the given sizes, the right ones where none is given."""
    order = ">" if mark == b"RIFX" else "<"
    data = integers(samples).astype(order + "i2").tobytes()
    channels = samples.shape[0]
    form = struct.pack(order + "HHIIHH", 1, channels, RATE, RATE * 2 * channels, 2 * channels, 16)
    body = before + b"fmt " + struct.pack(order + "I", 16) + form
    stated = len(data) if data_size is None else data_size
    body += b"data" + struct.pack(order + "I", stated) + data + after
    stated = len(body) + 4 if riff_size is None else riff_size
    return mark + struct.pack(order + "I", stated) + b"WAVE" + body


def rf64(samples: Samples, mark: bytes = b"RF64", data_size: int | None = None) -> bytes:
    """A WAV file whose sizes have 64 bits (EBU Tech 3306; ITU-R BS.2088)."""
    size = integers(samples).nbytes if data_size is None else data_size
    sizes = struct.pack("<QQQI", min(size + 72, 2**64 - 1), size, 0, 0)
    ds64 = b"ds64" + struct.pack("<I", len(sizes)) + sizes
    return wav(samples, 0xFFFFFFFF, 0xFFFFFFFF, mark, before=ds64)


def wav_of_wide_words(samples: Samples, valid: int, bits: int) -> bytes:
    """WAVE_FORMAT_EXTENSIBLE with `valid` bits in words of `bits`."""
    words = integers(samples).astype("<i4").reshape(-1) << (bits - 16)
    data = words.astype("<i4").view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
    form = struct.pack("<HHIIHH", 0xFFFE, 2, RATE, RATE * bits // 4, bits // 4, bits)
    form += struct.pack("<HHI", 22, valid, 3) + PCM_GUID
    body = b"fmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


def film(
    path: Path, tracks: list[tuple[str, Samples]], *, container: str | None = None,
    rate: int = RATE, default: int = 0, pictures: int = 0, **options: str,
) -> Path:  # fmt: skip
    """A container with a track for each (codec, samples), one of them marked, and pictures."""
    given = {name: value for name, value in options.items() if value}
    with av.open(str(path), "w", format=container, options=given) as file:
        if pictures:
            video = file.add_stream("mpeg4", rate=25)
            video.width = video.height = 32
        streams = []
        for number, (codec, samples) in enumerate(tracks):
            layout = LAYOUTS[samples.shape[0]]
            stream = cast(AudioStream, file.add_stream(codec, rate=rate, layout=layout))
            stream.bit_rate = 128_000
            stream.disposition = Disposition.default if number == default else Disposition(0)
            streams.append(stream)
        for shade in range(pictures):
            picture = np.full((32, 32, 3), shade % 256, np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        if pictures:
            file.mux(video.encode(None))
        for stream, (_codec, samples) in zip(streams, tracks, strict=True):
            layout = LAYOUTS[samples.shape[0]]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
            frame.sample_rate, frame.pts = rate, 0
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    return path
