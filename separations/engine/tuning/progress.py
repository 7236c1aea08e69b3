"""How far measuring is: the share that is done, the time that is left, and how both are shown."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

# Called with the share that is done, 0 to 1, and the seconds that are left.
Report = Callable[[float, float], None]
MOST_OF_A_STEP = 0.95  # while it is not done, however long it takes
LINE_SHARE = 0.2  # in a log: a line for each fifth


class Clock:
    """The progress of steps that usually take so many seconds, on a machine of unknown speed."""

    def __init__(self, usual: float, report: Report) -> None:
        """usual: seconds of all steps together, elsewhere."""
        self._usual, self._report = max(usual, 1.0), report
        self._done = self._step = self._took = self._share = 0.0
        self._began = time.monotonic()

    def begin(self, usual: float) -> None:
        """A step begins that usually takes so many seconds."""
        self._step, self._began = usual, time.monotonic()
        self.tick()

    def end(self) -> None:
        """That step is done."""
        self._took += time.monotonic() - self._began
        self._done += self._step
        self._step = 0.0
        self.tick()

    def tick(self) -> None:
        """Report; the share never falls, whatever is found of this machine's speed."""
        pace = self._took / self._done if self._done else 1.0  # seconds for a usual second
        within = (time.monotonic() - self._began) / pace if self._step and pace else 0.0
        done = self._done + min(within, MOST_OF_A_STEP * self._step)
        self._share = max(self._share, min(1.0, done / self._usual))
        self._report(self._share, max(0.0, self._usual - done) * pace)


def in_words(seconds: float) -> str:
    """Remaining time, about: "less than a minute left"."""
    minutes = round(seconds / 60)
    if seconds < 10:
        return "a few seconds left"
    if seconds < 55:
        return f"about {round(seconds, -1):.0f} seconds left"
    return "about a minute left" if minutes <= 1 else f"about {minutes} minutes left"


@contextmanager
def shown(label: str, stream: TextIO | None = None) -> Iterator[Report]:
    """Show progress: a bar on a terminal; in a log a line now and then."""
    stream = stream or sys.stderr
    last = -LINE_SHARE
    form = "{desc}: |{bar:30}| {percentage:3.0f}%{postfix}"  # which begins with a comma
    with tqdm(desc=label, total=1.0, bar_format=form, file=stream, disable=None) as bar:

        def report(share: float, seconds: float) -> None:
            nonlocal last
            if not bar.disable:
                bar.set_postfix_str(in_words(seconds), refresh=False)
                bar.update(share - bar.n)
                bar.refresh()
            elif share >= last + LINE_SHARE:
                last = share
                stream.write(f"{label}: {share:.0%}, {in_words(seconds)}\n")
                stream.flush()

        yield report
