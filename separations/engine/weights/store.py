"""Read the folder of model weights, in the layout of the upstream hub, without torch.

MODEL_DIR/htdemucs/htdemucs.yaml            the bag: which models, their weights, a segment
MODEL_DIR/htdemucs/955717e8.safetensors     one model: weights, and in the header class and
                                            arguments
MODEL_DIR/namespace/name/…                  models of other namespaces on the hub
"""

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from separations.audio.info import CHANNELS, SAMPLE_RATE
from separations.errors.fault import Fault

NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
TAKEN = ("mixture", "master", "speed", "key")  # used for the song itself, and in a mix's text
SIGNATURE = re.compile(r"[A-Za-z0-9][\w.-]*")
LARGEST_HEADER = 10_000_000
# The model classes of Demucs and their default segment in seconds. Others are refused, because the
# header of a file names the class to import.
CLASSES = {
    "demucs.htdemucs.HTDemucs": 10.0,
    "demucs.hdemucs.HDemucs": 40.0,
    "demucs.demucs.Demucs": 40.0,
}
TRANSFORMER = "demucs.htdemucs.HTDemucs"


@dataclass(frozen=True)
class ModelInfo:
    """A bag of models in the store.

    weights: one row a model, one column a source: its share in that source's average.
    classes, segments: for each model its class, and the default seconds of a chunk.
    longest_segment: the most seconds of a chunk, None without a limit.
    """

    name: str
    folder: Path
    signatures: tuple[str, ...]
    classes: tuple[str, ...]
    sources: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    segments: tuple[Fraction, ...]
    longest_segment: float | None
    bytes: int

    @property
    def files(self) -> list[Path]:
        return [self.folder / f"{signature}.safetensors" for signature in self.signatures]

    @property
    def segment(self) -> float:
        """The shortest of `segments`, in seconds."""
        return float(min(self.segments))

    @property
    def passes(self) -> int:
        """How many networks go over a song; 1 is the speed of htdemucs."""
        return len(self.signatures)

    @property
    def digest(self) -> str:
        """SHA-256 over the weights and how they are mixed."""
        segments = [float(segment) for segment in self.segments]
        whole = hashlib.sha256(json.dumps([self.weights, segments]).encode())
        for file in self.files:
            whole.update(file_digest(file).encode())
        return whole.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read once until it changes."""
    return _file_digest(path, _stamp(path))


@lru_cache(maxsize=64)
def _file_digest(path: Path, _stamp: "Stamp") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_name(name: str) -> str:
    """`name`, if it can be the name of a model. Raises Fault("bad_model_name") otherwise."""
    if not NAME.fullmatch(name):
        raise Fault("bad_model_name", model=name)
    return name


def list_models(folder: Path) -> list[ModelInfo]:
    """Every readable model under `folder`, fewest passes first."""
    found = []
    # Models being fetched lie in a folder whose name begins with a dot.
    for bag in sorted([*folder.glob("[!.]*/*.yaml"), *folder.glob("[!.]*/[!.]*/*.yaml")]):
        if bag.stem != bag.parent.name:
            continue
        try:
            found.append(read_model(folder, str(bag.parent.relative_to(folder).as_posix())))
        except Fault:
            continue
    return sorted(found, key=lambda model: (model.passes, len(model.sources), model.name))


def read_model(folder: Path, name: str) -> ModelInfo:
    """Read the description of the model `name`.

    Raises:
        Fault: bad_model_name, model_missing, or model_unusable with the reason.
    """
    home = folder / check_name(name)
    bag_path = home / f"{home.name}.yaml"
    try:
        stamp = _stamp(bag_path)
    except OSError as error:
        raise Fault("model_missing", model=name) from error
    try:
        bag = _bag(bag_path, stamp)
        signatures = tuple(str(signature) for signature in bag["models"])
        if not signatures or not all(SIGNATURE.fullmatch(each) for each in signatures):
            raise ValueError("its bag names no model")
        files = [bag_path.parent / f"{each}.safetensors" for each in signatures]
        stamps = [_stamp(file) for file in files]
        headers = [_header(file, each) for file, each in zip(files, stamps, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise Fault("model_unusable", model=name, reason=str(error)) from error
    sources = headers[0].sources
    weights = bag.get("weights") or [[1.0] * len(sources)] * len(headers)
    if any(header.sources != sources for header in headers) or len(weights) != len(headers):
        raise Fault("model_unusable", model=name, reason="its parts do not fit together")
    segments = [_segment(header, bag.get("segment")) for header in headers]
    limits = [
        segment
        for header, segment in zip(headers, segments, strict=True)
        if header.klass == TRANSFORMER
    ]
    return ModelInfo(
        name=name,
        folder=bag_path.parent,
        signatures=signatures,
        classes=tuple(header.klass for header in headers),
        sources=sources,
        weights=tuple(tuple(float(share) for share in row) for row in weights),
        segments=tuple(segments),
        longest_segment=float(min(limits)) if limits else None,
        bytes=sum(each.size for each in stamps),
    )


class Stamp(NamedTuple):
    """Identifies a version of a file."""

    inode: int
    size: int
    modified: int
    changed: int


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


# Cached, because each page needs the models, and parsing these files takes milliseconds.


@lru_cache(maxsize=256)
def _bag(path: Path, _stamp: Stamp) -> Any:
    return yaml.safe_load(path.read_text())


@lru_cache(maxsize=256)
def _header(path: Path, _stamp: Stamp) -> "Header":
    return read_header(path)


@dataclass(frozen=True)
class Header:
    """The metadata of a model file."""

    klass: str
    sources: tuple[str, ...]
    segment: Fraction


def read_header(path: Path) -> Header:
    """The metadata of a safetensors file, checked.

    Raises:
        ValueError: not a Demucs model, or one that needs a class that is not Demucs'.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        # The format: 8 bytes little-endian length, then that much JSON, then the tensors.
        prefix = file.read(8)
        if len(prefix) < 8 or (length := struct.unpack("<Q", prefix)[0]) > LARGEST_HEADER:
            raise ValueError(f"{path.name} is not a safetensors file")
        header = json.loads(file.read(length))
    tensors = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    if path.stat().st_size != 8 + length + max(tensors, default=0):
        raise ValueError(f"{path.name} is cut off")
    metadata = header.get("__metadata__", {})
    klass = metadata.get("klass", "")
    if klass not in CLASSES:
        raise ValueError(f"{path.name} is of the class {klass or 'unknown'}")
    if "structure" in metadata:
        raise ValueError(f"{path.name} is quantised, which needs a package that is not installed")
    kwargs: dict[str, Any] = json.loads(metadata.get("kwargs", "{}"))
    args: list[Any] = json.loads(metadata.get("args", "[]"))
    sources = kwargs.get("sources") or (args[0] if args else ())
    if not sources or not all(_is_stem_name(str(source)) for source in sources):
        raise ValueError(f"{path.name} does not name its stems")
    if (kwargs.get("samplerate", SAMPLE_RATE), kwargs.get("audio_channels", CHANNELS)) != (
        SAMPLE_RATE,
        CHANNELS,
    ):
        raise ValueError(f"{path.name} is not for 44.1 kHz stereo")
    return Header(klass, tuple(sources), _number(kwargs.get("segment", CLASSES[klass])))


def _segment(header: Header, of_bag: float | None) -> Fraction:
    """The rule of demucs.apply.BagOfModels: a bag may shorten a transformer's segment only."""
    if of_bag is None or (header.klass == TRANSFORMER and of_bag > header.segment):
        return header.segment
    return _number(of_bag)


def _number(value: Any) -> Fraction:
    if isinstance(value, dict):
        return Fraction(value["numerator"], value["denominator"])
    # The same number of samples as in Demucs, which multiplies with the float.
    return Fraction(int(SAMPLE_RATE * float(value)), SAMPLE_RATE)


def _is_stem_name(name: str) -> bool:
    return STEM.fullmatch(name) is not None and name not in TAKEN
