"""Write the head of an MP3 file beforehand: ID3 tags, and the Info frame with the length.

FFmpeg goes back to write that frame when all is encoded. At a constant bit rate all of its content
is known before: see `CbrMp3`.
"""

import struct

from separations.audio.encoding.formats import MP3_RATES
from separations.audio.encoding.tag_blocks import id3
from separations.audio.info import Tags

FRAME = 1152  # samples: MPEG-1 layer III
SAMPLE_RATES = MP3_RATES  # in the order of their index
RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # kbit/s, from index 1 on
DELAY = 576  # samples that LAME puts before the song; decoders add 529 and know about those
SIDE_INFORMATION = 32  # bytes, of two channels
INFO_ALL = 0xF  # number of frames, of bytes, table and quality follow
CBR = 0x01  # revision 0, constant bit rate


class CbrMp3:
    """An MP3 file of `frames` samples at `rate` (Hz) and a constant `bit_rate` (kbit/s), by LAME.

    head: the bytes before the first frame of sound. The frame of information at their end is that
        of the LAME tag (Mp3 Info Tag, revision 1); its checksum of the sound stays 0.
    size: of the whole file in bytes.
    """

    def __init__(self, frames: int, rate: int, tags: Tags, bit_rate: int) -> None:
        self.rate, self.bit_rate = rate, bit_rate
        count = -(-frames // FRAME) + 1  # one more for the delays
        slots = 144_000 * bit_rate
        # Frames differ by a byte; LAME fills them up once it is behind by a byte, not sooner.
        filled = -(-(count - 1) * (slots % rate) // rate)
        music = count * (slots // rate) + filled
        info = _info(count, music, count * FRAME - DELAY - frames, rate, bit_rate)
        self.head = id3(tags) + info
        self.size = len(self.head) + music


def _info(count: int, music: int, padding: int, rate: int, bit_rate: int) -> bytes:
    """The Info frame, without sound: it states that `count` frames in `music` bytes follow."""
    size = 144_000 * bit_rate // rate
    rates = (RATES.index(bit_rate) + 1) << 4 | SAMPLE_RATES.index(rate) << 2
    header = bytes((0xFF, 0xFB, rates, 0x44))
    table = bytes(256 * percent // 100 for percent in range(100))
    frame = header + bytes(SIDE_INFORMATION) + b"Info"
    frame += struct.pack(">III", INFO_ALL, count, size + music) + table + bytes(4)
    frame += b"LAME3.100" + bytes((CBR,)) + bytes(1 + 4 + 2 + 2 + 1) + bytes((min(bit_rate, 255),))
    frame += (DELAY << 12 | padding).to_bytes(3, "big") + bytes(1 + 1 + 2)
    frame += struct.pack(">IH", size + music, 0)
    return (frame + struct.pack(">H", _crc16(frame))).ljust(size, b"\0")


def _crc16(data: bytes) -> int:
    """CRC-16 as LAME computes it: polynomial 0x8005, lowest bit first."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc
