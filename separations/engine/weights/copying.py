"""Copy large files with a progress bar."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm


class SourceFailed(Exception):
    """A source does not have the model, or cannot be reached."""


@contextlib.contextmanager
def bar(label: str, total: int) -> "Iterator[tqdm[Any]]":
    # disable=None: on a terminal only, not in a log.
    with tqdm(desc=label, total=total, unit="B", unit_scale=True, disable=None) as shown:
        yield shown


def copy(source: Any, target: Path, shown: "tqdm[Any]", digest: Any = None) -> None:
    """Copy a stream into the file `target` by way of a partial file; hash it on the way."""
    partial = target.with_name(target.name + ".part")
    with partial.open("wb") as file:
        stream: BinaryIO = source
        while piece := stream.read(1 << 20):
            file.write(piece)
            shown.update(len(piece))
            if digest is not None:
                digest.update(piece)
    partial.replace(target)
