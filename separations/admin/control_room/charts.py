"""Bar charts as rectangles for an SVG; the stylesheet draws them."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 480, 120
GAP = 0.2  # of a column, between two


@dataclass(frozen=True)
class Bar:
    """A rectangle. Its numbers are texts, as SVG has no localized ones."""

    kind: str
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True)
class Chart:
    """highest: the value at the top edge."""

    bars: tuple[Bar, ...]
    highest: float
    width: int = WIDTH
    height: int = HEIGHT


def stacked(kinds: Sequence[str], columns: Sequence[Sequence[float]]) -> Chart:
    """Stacked columns of equal width.

    Args:
        columns: for each column a value of each kind; there may be no columns.
    """
    highest = max(map(sum, columns), default=0.0)
    step = WIDTH / max(1, len(columns))
    bars: list[Bar] = []
    for number, values in enumerate(columns):
        below = 0.0
        for kind, value in zip(kinds, values, strict=True):
            if value <= 0:
                continue
            tall = HEIGHT * value / highest
            below += tall
            left = (number + GAP / 2) * step
            place = (left, HEIGHT - below, step * (1 - GAP), tall)
            x, y, width, height = (f"{each:.1f}" for each in place)
            bars.append(Bar(kind, x, y, width, height))
    return Chart(tuple(bars), highest)
