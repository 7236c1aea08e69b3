"""What a clean-up would delete, as sums by kind."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WasteSummary:
    """The number and bytes of one kind of waste."""

    kind: str
    count: int
    bytes: int


def summarize(found: Iterable[Any]) -> tuple[WasteSummary, ...]:
    """Sums of what `worker.retention.clean` found, by kind, the largest first."""
    count: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for waste in found:
        count[waste.kind] += 1
        taken[waste.kind] += waste.bytes
    kinds = sorted(count, key=lambda kind: (-taken[kind], kind))
    return tuple(WasteSummary(kind, count[kind], taken[kind]) for kind in kinds)
