"""A real browser for tests: what its pages must hold to, and where screenshots go."""

from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page

from tests.support.sounds import ROOT

Open = Callable[..., BrowserContext]
OUTPUT = ROOT / "test-output"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
# A refused song and a deleted one are no faults of the page.
REFUSALS = ("the server responded with a status of 4", "Response Status Error Code 4")


def fits(page: Page, width: int) -> None:
    """The page is no wider than the window, once its waveforms have been drawn anew."""
    page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)


def fits_and_can_be_used(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    size = page.viewport_size
    page.set_viewport_size({"width": 360, "height": 740})
    fits(page, 360)
    assert size is not None
    page.set_viewport_size(size)
