"""Files that a stranger may send: valid ones of every format, and what can be made of them.

All of it follows from a seed and a number, so that any input can be made again.
"""

import gzip
import io
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import av
import numpy as np
import soundfile

from tests.support import containers, sounds, tagged

CORPUS = Path(__file__).with_name("corpus")
EXTENSIONS = (
    *(".mp3", ".wav", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".aifc", ".caf", ".w64"),
    *(".wma", ".mp4", ".mov", ".3gp", ".mkv", ".mka", ".webm", ".wv"),
)
ODD_NUMBERS = (
    0,
    1,
    2,
    7,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    2**32 - 1,
)
HOURS = 10 * 3600
# Of Matroska: header, segment, tracks, cues, cluster; of ASF: data, properties, index.
BINARY_MARKS = tuple(
    bytes.fromhex(mark)
    for mark in (
        *("1a45dfa3", "18538067", "1654ae6b", "1c53bb6b", "1f43b675"),
        *("3626b2758e66cf11", "a1dcab8c47a9cf11", "90080033b1e5cf11"),
    )
)


@dataclass(frozen=True)
class Input:
    kind: str
    name: str
    data: bytes


@dataclass(frozen=True)
class Bait:
    """What must not be touched: a file, and a server that records who comes."""

    file: Path
    url: str


def valid(folder: Path) -> dict[str, bytes]:
    """A short song in every format that the site takes, by file name."""
    short = sounds.music(0.6)
    sounds.wav(folder / "pcm.wav", short)
    sounds.wav(folder / "float.wav", short, subtype="FLOAT")
    sounds.wav(folder / "six.wav", sounds.music(0.3, channels=6))
    soundfile.write(folder / "vorbis.ogg", short.T, sounds.RATE)
    sounds.encode(folder / "tagged.mp3", short, "libmp3lame", title="A", artist="B")
    sounds.encode(folder / "plain.flac", short, "flac", title="A")
    sounds.encode(folder / "opus.opus", sounds.music(0.6, 48_000), "libopus", 48_000)
    sounds.encode(folder / "aac.m4a", short, "aac", title="A")
    sounds.encode(folder / "alac.m4a", short, "alac")
    sounds.encode(folder / "adts.aac", short, "aac")
    _film(folder / "film.m4a")
    _rarer(folder, short)
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    found["cover.mp3"] = _with_cover(found["tagged.mp3"])
    for kind, name in (("wav", "pcm.wav"), ("flac", "plain.flac"), ("ogg", "vorbis.ogg")):
        found[f"full.{kind}"] = tagged.fully_tagged(kind, found[name])
    for kind, name in (("mp3", "tagged.mp3"), ("m4a", "aac.m4a"), ("opus", "opus.opus")):
        found[f"full.{kind}"] = tagged.fully_tagged(kind, found[name])
    info = {name: f"Caf\xe9 {name}".encode("cp1252") for name in ("INAM", "IART", "IPRD", "ICRD")}
    found["info.wav"] = tagged.riff_info(found["pcm.wav"], **info)
    ape = {"Title": "A", "Artist": "B", "Year": "1999"}
    found["ape.mp3"] = found["tagged.mp3"] + tagged.apev2(ape) + tagged.id3v1(b"A\xe9", b"B")
    found["behind.mp3"] = found["tagged.mp3"] + ape_tag(bytes(range(256)) * 20)
    found["joined.mp3"] = found["cover.mp3"] + found["slow.mp3"]
    found["chained.ogg"] = found["vorbis.ogg"] + found["opus.opus"] + found["flac.oga"]
    return found


def _rarer(folder: Path, short: sounds.Samples) -> None:
    """What studios, phones and radio recorders write."""
    for name in ("song.aiff", "song.caf", "song.w64"):
        soundfile.write(folder / name, short.T, sounds.RATE)
    for name, data in {
        "rifx.wav": containers.wav(short, mark=b"RIFX"),
        "rf64.wav": containers.rf64(short),
        "piped.wav": containers.wav(short, 0x7FFFF000, 0x7FFFF024),
        "wide.wav": containers.wav_of_wide_words(short, 24, 32),
    }.items():
        (folder / name).write_bytes(data)
    film, eight = containers.film, sounds.music(0.6, 8_000, channels=1)
    film(folder / "alac.caf", [("alac", short)], container="caf")
    film(folder / "compressed.aifc", [("pcm_alaw", short)], container="aiff")
    film(folder / "old.wma", [("wmav1", short)], container="asf")
    film(folder / "film.wma", [("wmav2", short)], container="asf", pictures=3)
    film(folder / "film.mkv", [("ac3", short), ("aac", short)], default=1, pictures=5)
    film(folder / "sound.mka", [("pcm_s24le", short)], container="matroska")
    film(folder / "opus.webm", [("libopus", sounds.music(0.6, 48_000))], rate=48_000)
    film(folder / "film.mov", [("pcm_s16be", short), ("eac3", short)], pictures=5)
    film(folder / "ima.mov", [("adpcm_ima_qt", short)])
    film(folder / "pieces.mp4", [("aac", short)], movflags="frag_keyframe+empty_moov")
    film(folder / "phone.3gp", [("libopencore_amrnb", eight)], container="3gp", rate=8_000)
    film(folder / "song.wv", [("wavpack", short)])
    film(folder / "flac.oga", [("flac", short)], container="ogg")
    sounds.encode(folder / "slow.mp3", eight[:, :4_000], "libmp3lame", 8_000, "mono")


def _film(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 32
        audio = container.add_stream("aac", rate=sounds.RATE, layout="stereo")
        for shade in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade, np.uint8), "rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(sounds.music(0.3), "fltp", "stereo")
        sound.sample_rate = sounds.RATE
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def ape_tag(picture: bytes) -> bytes:
    """An APEv2 tag with a cover, as it stands behind an MP3's last frame."""
    item = struct.pack("<II", len(picture), 2) + b"Cover Art (Front)\0" + picture
    head = b"APETAGEX" + struct.pack("<IIII", 2_000, len(item) + 32, 1, 0xA0000000) + bytes(8)
    foot = b"APETAGEX" + struct.pack("<IIII", 2_000, len(item) + 32, 1, 0x80000000) + bytes(8)
    return head + item + foot


def _with_cover(mp3: bytes) -> bytes:
    picture = b"\0image/jpeg\0\x03\0" + b"\xff\xd8\xff" + bytes(range(256)) * 8
    frame = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    size = len(frame)
    synchsafe = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + synchsafe + frame + mp3


# Mutations


def _flip(data: bytearray, rng: random.Random, _others: list[bytes]) -> bytes | bytearray:
    for _ in range(rng.choice((1, 3, 10, 100))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _flip_head(data: bytearray, rng: random.Random, _others: list[bytes]) -> bytes | bytearray:
    for _ in range(rng.choice((1, 2, 5))):
        data[rng.randrange(min(200, len(data)))] ^= 1 << rng.randrange(8)
    return data


def _cut(data: bytearray, rng: random.Random, _others: list[bytes]) -> bytes | bytearray:
    return data[: rng.randrange(len(data))]


def _behead(data: bytearray, rng: random.Random, _others: list[bytes]) -> bytes | bytearray:
    return data[rng.randrange(min(400, len(data))) :]


def _wrong_length(data: bytearray, rng: random.Random, _others: list[bytes]) -> bytes | bytearray:
    """A number in a header, a box or a chunk that is not true."""
    heads = [data.find(mark) for mark in (b"fmt ", b"data", b"moov", b"stsz", b"stco", b"mdhd")]
    heads += [data.find(mark) for mark in (b"stts", b"stsd", b"OggS", b"fLaC", b"ID3", b"Xing")]
    heads += [
        data.find(mark) for mark in (b"APIC", b"TIT2", b"APETAGEX", b"covr", b"trkn", b"LIST")
    ]
    heads += [data.find(mark) for mark in (b"COMM", b"SSND", b"desc", b"pakt", b"ds64", b"trun")]
    heads += [data.find(mark) for mark in (b"elst", b"wvpk", b"APETAGEX", *BINARY_MARKS)]
    found = [head for head in heads if head >= 0] or [0]
    place = max(0, rng.choice(found) + rng.randrange(-4, 40))
    order, number = rng.choice("<>"), rng.choice((*ODD_NUMBERS, len(data), len(data) + 1))
    data[place : place + 4] = struct.pack(order + "I", number)
    return data


def _noise(data: bytearray, rng: random.Random, _others: list[bytes]) -> bytes | bytearray:
    start = rng.randrange(len(data))
    length = rng.randrange(1, min(2000, len(data) - start + 1) + 1)
    data[start : start + length] = rng.choice((rng.randbytes(length), bytes(length)))
    return data


def _repeat(data: bytearray, rng: random.Random, _others: list[bytes]) -> bytes | bytearray:
    """A chunk bomb: the same piece a thousand times."""
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((8, 12, 64, 400))]
    return data[:start] + piece * rng.choice((10, 1000)) + data[start:]


def _splice(data: bytearray, rng: random.Random, others: list[bytes]) -> bytes | bytearray:
    other = rng.choice(others)
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def _join(data: bytearray, rng: random.Random, others: list[bytes]) -> bytes | bytearray:
    return data + rng.choice(others)


def _nest(data: bytearray, rng: random.Random, _others: list[bytes]) -> bytes | bytearray:
    """A container in a container, many deep."""
    nested = bytes(data)
    for _ in range(rng.choice((1, 3, 50, 500))):
        how = rng.randrange(4)
        if how == 0:
            nested = b"RIFF" + struct.pack("<I", len(nested) + 4) + b"WAVE" + nested
        elif how == 1:
            box = rng.choice((b"moov", b"trak", b"udta", b"meta", b"mdat", b"free", b"ilst"))
            nested = struct.pack(">I", len(nested) + 8) + box + nested
        elif how == 2:
            nested = b"LIST" + struct.pack("<I", len(nested)) + nested
        else:
            nested = b"ID3\x04\0\0\0\0\0\0" + nested
    return nested


MUTATIONS: dict[str, Callable[[bytearray, random.Random, list[bytes]], bytes | bytearray]] = {
    "bit flips": _flip,
    "flips in headers": _flip_head,
    "cut off": _cut,
    "beheaded": _behead,
    "wrong length": _wrong_length,
    "noise": _noise,
    "chunk bomb": _repeat,
    "spliced": _splice,
    "joined": _join,
    "nested": _nest,
}


# Made by hand


def _wav_header(
    rng: random.Random, tag: int = 1, channels: int = 2, rate: int = 44_100, bits: int = 16,
    size: int | None = None, body: bytes | None = None,
) -> bytes:  # fmt: skip
    body = rng.randbytes(40_000) if body is None else body
    align = max(0, channels * bits // 8) & 0xFFFF
    fmt = struct.pack("<HHIIHH", tag, channels, rate, (rate * align) & 0xFFFFFFFF, align, bits)
    size = len(body) if size is None else size
    chunks = b"fmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", size) + body
    return b"RIFF" + struct.pack("<I", min(size + 36, 0xFFFFFFFF)) + b"WAVE" + chunks


def _odd_wav(rng: random.Random, _songs: dict[str, bytes], _bait: Bait) -> tuple[str, bytes]:
    rates = (0, 1, 44_100, 192_000, 384_000, 2**31, 2**32 - 1)
    tags = (0, 1, 2, 3, 6, 7, 0x11, 0x50, 0x55, 0xFF, 0x161, 0xFFFE, rng.randrange(65536))
    data = _wav_header(
        rng,
        tag=rng.choice(tags),
        channels=rng.choice((0, 1, 2, 8, 9, 255, 65535)),
        rate=rng.choice(rates),
        bits=rng.choice((0, 1, 7, 8, 16, 24, 32, 64, 65535)),
        size=rng.choice((None, 0, HOURS * 44_100 * 2, 2**32 - 1)),
    )
    return "odd.wav", data


def _no_numbers(rng: random.Random, _songs: dict[str, bytes], _bait: Bait) -> tuple[str, bytes]:
    values = np.zeros(20_000, np.float32)
    strange = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40)
    for _ in range(rng.choice((1, 100))):
        values[rng.randrange(len(values))] = rng.choice(strange)
    return "nan.wav", _wav_header(rng, tag=3, bits=32, body=values.tobytes())


def _ten_hours(rng: random.Random, songs: dict[str, bytes], _bait: Bait) -> tuple[str, bytes]:
    """Small files that claim to be very long."""
    name = rng.choice(("plain.flac", "tagged.mp3", "aac.m4a", "vorbis.ogg", "opus.opus"))
    data = bytearray(songs[name])
    if name == "plain.flac":  # STREAMINFO: rate, channels, depth, samples in 64 bits
        rate, channels = rng.choice((0, 1, 44_100, 384_000, 655_350)), rng.choice((1, 2, 8))
        depth, samples = rng.choice((3, 15, 23, 31)), rng.choice((0, 2**36 - 1, HOURS * 44_100))
        packed = rate << 44 | (channels - 1) << 41 | depth << 36 | samples
        data[18:26] = packed.to_bytes(8, "big")
    elif name == "tagged.mp3":
        place = max(data.find(b"Info"), data.find(b"Xing"))
        data[place + 8 : place + 12] = struct.pack(">I", HOURS * 38)
    elif name == "aac.m4a":
        for box in (b"mvhd", b"mdhd", b"tkhd", b"stts"):
            place = data.find(box)
            data[place + 16 : place + 24] = struct.pack(">II", 44_100, HOURS * 44_100)
    else:  # the granule of the last page
        place = data.rfind(b"OggS")
        data[place + 6 : place + 14] = struct.pack("<Q", rng.choice((HOURS * 48_000, 2**63 - 1)))
    return name, bytes(data)


def _odd_adts(rng: random.Random, songs: dict[str, bytes], _bait: Bait) -> tuple[str, bytes]:
    data = bytearray(songs["adts.aac"])
    places = [i for i in range(len(data) - 7) if data[i] == 0xFF and data[i + 1] & 0xF6 == 0xF0]
    for place in rng.sample(places, min(len(places), rng.choice((1, 5, 50)))):
        data[place + 2] = rng.randrange(256)
        data[place + 3] = rng.choice((data[place + 3], rng.randrange(256)))
    return "odd.aac", bytes(data)


def _playlist(rng: random.Random, _songs: dict[str, bytes], bait: Bait) -> tuple[str, bytes]:
    file, url = bait.file.as_uri(), bait.url + "/song.mp3"
    target = rng.choice((file, str(bait.file), url, url.replace("http", "tcp")))
    port = bait.url.rsplit(":", 1)[1]
    texts = (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
        f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:1,\n{target}\n',
        f"ffconcat version 1.0\nfile '{target}'\nduration 5\n",
        f"concat:{target}|{target}",
        f"[playlist]\nFile1={target}\nNumberOfEntries=1\nVersion=2\n",
        f'FILE "{target}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        f'<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
        f'<?xml version="1.0"?><MPD><Period><BaseURL>{target}</BaseURL></Period></MPD>',
        f'<!DOCTYPE a [<!ENTITY b SYSTEM "{target}">]><playlist><track>&b;</track></playlist>',
        f"v=0\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 0\n",
        f"RTSPtext\n{target}\n",
        f"[Reference]\nRef1={target}\n",
    )
    name = "list" + rng.choice(EXTENSIONS)
    return name, rng.choice(texts).encode() * rng.choice((1, 100))


def _reference(rng: random.Random, songs: dict[str, bytes], bait: Bait) -> tuple[str, bytes]:
    """An MP4 whose samples lie in another file, or on another server."""
    target = rng.choice((bait.file.as_uri(), str(bait.file), bait.url + "/song.m4a")).encode()
    if rng.random() < 0.3:
        rdrf = _box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(target)) + target)
        movie = _box(b"moov", _box(b"rmra", _box(b"rmda", rdrf)))
        return "reference.m4a", _box(b"ftyp", b"qt  " + bytes(4) + b"qt  ") + movie
    data = songs["aac.m4a"]
    kind = rng.choice((b"url ", b"alis", b"urn "))
    content = bytes(4) + target + b"\0"
    if kind == b"alis":  # an alias record: version, its length, names of volume and file
        alias = bytearray(150)
        alias[10 : 10 + 28] = b"\x05drive".ljust(28, b"\0")
        name = bait.file.name.encode()[:63]
        alias[50 : 50 + 64] = (bytes([len(name)]) + name).ljust(64, b"\0")
        path = str(bait.file).encode()
        path += bytes(len(path) % 2)
        alias += struct.pack(">HH", 2, len(path)) + path + struct.pack(">HH", 0xFFFF, 0)
        content = bytes(4) + alias
    entry = _box(kind, content)
    return "reference.m4a", _replace_entry(data, entry)


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


def _replace_entry(data: bytes, entry: bytes) -> bytes:
    """`data` with another entry in its dref, and the sizes of what is around it put right."""
    place = data.index(b"dref") + 12  # after the name, version, flags and count
    old = int.from_bytes(data[place : place + 4], "big")
    changed = bytearray(data[:place] + entry + data[place + old :])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        size = changed.index(name) - 4
        stated = int.from_bytes(changed[size : size + 4], "big")
        changed[size : size + 4] = struct.pack(">I", stated + len(entry) - old)
    return bytes(changed)


def _links(rng: random.Random, songs: dict[str, bytes], bait: Bait) -> tuple[str, bytes]:
    """Tags that point elsewhere."""
    url = rng.choice((bait.file.as_uri(), bait.url)).encode()
    frames = b""
    for name in (b"WXXX", b"LINK", b"WOAF", b"APIC", b"GEOB"):
        content = b"\0-->\0\x03\0" + url
        frames += name + struct.pack(">IH", len(content), 0) + content
    size = bytes((len(frames) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return "links.mp3", b"ID3\x03\0\0" + size + frames + songs["tagged.mp3"]


def _hostile_tags(rng: random.Random, songs: dict[str, bytes], _bait: Bait) -> tuple[str, bytes]:
    """Bombs, nests and lies in tags."""
    kind, make = tagged.HOSTILE[rng.choice(sorted(tagged.HOSTILE))]
    return f"tags.{kind}", make(songs[f"full.{kind}"])


def _polyglot(rng: random.Random, songs: dict[str, bytes], bait: Bait) -> tuple[str, bytes]:
    name = rng.choice(sorted(songs))
    song = songs[name]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../evil.mp3", song)
        file.writestr("zeros", bytes(5_000_000))
    page = f"<html><script src='{bait.url}/x.js'></script><!--".encode()
    choices = (
        song + archive.getvalue(),
        archive.getvalue() + song,
        archive.getvalue(),
        page + song,
        song + page,
        b"%PDF-1.7\n" + song,
        b"#!/bin/sh\ntouch /tmp/evil\n" + song,
        gzip.compress(bytes(20_000_000)),
        gzip.compress(song),
        b"\x7fELF" + song,
        b"MZ" + song,
    )
    return rng.choice((name, "x" + rng.choice(EXTENSIONS))), rng.choice(choices)


def _empty(rng: random.Random, _songs: dict[str, bytes], _bait: Bait) -> tuple[str, bytes]:
    length = rng.choice((0, 1, 3, 12, 44, 100, 5000))
    return "x" + rng.choice(EXTENSIONS), rng.choice((bytes(length), rng.randbytes(length)))


def _long(rng: random.Random, songs: dict[str, bytes], _bait: Bait) -> tuple[str, bytes]:
    """Much sound in few bytes."""
    if rng.random() < 0.5:
        return "long.mp3", songs["tagged.mp3"] * 200
    rate, channels = rng.choice((8_000, 96_000, 192_000)), rng.choice((1, 2, 8))
    packed = io.BytesIO()
    silence = np.zeros((rate * 20, channels), np.int16)
    soundfile.write(packed, silence, rate, format="FLAC")
    return "long.flac", packed.getvalue()


def _index_bomb(rng: random.Random, songs: dict[str, bytes], _bait: Bait) -> tuple[str, bytes]:
    """Indexes with more entries than any song has, or than the file has bytes."""
    many = rng.choice((100_000, 2**31 - 1, 2**63 - 1))
    how = rng.randrange(4)
    if how == 0:  # the sizes of a CAF's packets
        pakt = struct.pack(">QQII", many, many, 0, 0) + rng.randbytes(1) * 200_000
        chunk = b"pakt" + struct.pack(">Q", len(pakt)) + pakt
        data = songs["alac.caf"]
        place = data.index(b"data")
        return "index.caf", data[:place] + chunk + data[place:]
    if how == 1:  # Matroska's cues: a time and a place each
        cue = bytes.fromhex("bb8bb38101b786f78101f18101")
        cues = cue * 50_000
        size = (1 << 56 | len(cues)).to_bytes(8, "big")
        data = songs["film.mkv"]
        place = data.index(bytes.fromhex("1f43b675"))
        return "index.mkv", data[:place] + bytes.fromhex("1c53bb6b") + size + cues + data[place:]
    if how == 2:  # fragments of an MP4
        place = songs["pieces.mp4"].index(b"moof") - 4
        data = songs["pieces.mp4"]
        return "index.mp4", data[:place] + data[place:] * 200
    size = struct.pack("<Q", many)  # an ASF's index
    index = bytes.fromhex("90080033b1e5cf1189f400a0c90349cb") + size + rng.randbytes(20_000)
    return "index.wma", songs["film.wma"] + index


def _changing(rng: random.Random, songs: dict[str, bytes], _bait: Bait) -> tuple[str, bytes]:
    """Files joined of many, each with another rate, other channels or another codec."""
    if rng.random() < 0.5:
        names = [rng.choice(("tagged.mp3", "slow.mp3", "behind.mp3")) for _ in range(30)]
        return "changing.mp3", b"".join(songs[name] for name in names)
    names = [rng.choice(("vorbis.ogg", "opus.opus", "flac.oga")) for _ in range(20)]
    links = [songs[name][: rng.choice((None, None, 3_000))] for name in names]
    return "changing.ogg", b"".join(links)


MADE: dict[str, Callable[[random.Random, dict[str, bytes], Bait], tuple[str, bytes]]] = {
    "odd WAV header": _odd_wav,
    "NaN and infinity": _no_numbers,
    "10-hour header": _ten_hours,
    "odd ADTS header": _odd_adts,
    "playlist": _playlist,
    "reference": _reference,
    "tag with a link": _links,
    "hostile tags": _hostile_tags,
    "polyglot or bomb": _polyglot,
    "next to nothing": _empty,
    "long": _long,
    "index bomb": _index_bomb,
    "changing": _changing,
}


def inputs(seed: int, songs: dict[str, bytes], bait: Bait) -> Iterator[Input]:
    """What was found to do harm once, then without end what the seed says."""
    files = sorted(path for path in CORPUS.iterdir() if path.suffix in EXTENSIONS)
    kept = (Input("corpus", path.name, path.read_bytes()) for path in files)
    yield from chain(kept, (_input(seed, number, songs, bait) for number in count()))


def _input(seed: int, number: int, songs: dict[str, bytes], bait: Bait) -> Input:
    rng = random.Random(f"{seed}/{number}")
    # Each kind in turn, mutations of files twice as often as what is made by hand.
    kinds = [*MUTATIONS, *MUTATIONS, *MADE]
    kind = kinds[number * 7 % len(kinds)]
    if kind in MADE:
        name, data = MADE[kind](rng, songs, bait)
    else:
        name = rng.choice(sorted(songs))
        data = bytes(MUTATIONS[kind](bytearray(songs[name]), rng, list(songs.values())))
        if rng.random() < 0.2:
            data = bytes(_flip(bytearray(data or b"x"), rng, []))
    if rng.random() < 0.2:
        name = Path(name).stem + rng.choice(EXTENSIONS)
    return Input(kind, name, data)
