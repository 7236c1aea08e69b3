"""A song goes into an account, from there to another browser, and by a link to a third one."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from tests.e2e.conftest import REFUSALS, fits
from tests.running_site import Site

pytestmark = pytest.mark.browser
TITLE = "Feelings (excerpt)"
PASSWORD = "a mixture of 4 stems"
Open = Callable[..., BrowserContext]


@pytest.fixture
def visitors(chromium: Browser) -> Iterator[Open]:
    """Browsers of their own; none of their pages may complain."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and not any(each in message.text for each in REFUSALS):
            complaints.append(message.text)

    def another(**options: object) -> BrowserContext:
        context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})  # type: ignore[arg-type]
        contexts.append(context)
        context.on("console", note)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        return context

    yield another
    for context in contexts:
        context.close()
    assert complaints == []


def fits_and_can_be_used(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    size = page.viewport_size
    page.set_viewport_size({"width": 360, "height": 740})
    fits(page, 360)
    assert size is not None
    page.set_viewport_size(size)


def test_a_song_goes_into_an_account_and_out_by_a_link(
    small_site: Site, visitors: Open, keep: Path
) -> None:
    # Somebody separates a song and only then makes an account.
    first = visitors().new_page()
    first.goto(small_site.url)
    first.get_by_role("button", name="No song at hand?").click()
    expect(first.locator("audio")).to_have_count(4, timeout=60_000)
    song = first.url
    first.get_by_role("link", name="Log in").click()
    fits_and_can_be_used(first)
    first.get_by_role("link", name="Make an account").click()
    first.get_by_label("Username").fill("anna")
    first.get_by_label("Password", exact=True).fill("short")
    first.get_by_label("Password confirmation").fill("short")
    first.get_by_role("button", name="Make an account").click()
    expect(first.locator(".line .error")).to_contain_text("too short")
    fits_and_can_be_used(first)
    first.get_by_label("Password", exact=True).fill(PASSWORD)
    first.get_by_label("Password confirmation").fill(PASSWORD)
    first.get_by_role("button", name="Make an account").click()
    expect(first.locator(".notice")).to_contain_text("1 song of this browser is in your account")
    expect(first.locator("#songs .card")).to_have_count(1)
    first.get_by_role("link", name="Account").click()
    fits_and_can_be_used(first)
    first.get_by_role("link", name="Delete my account").click()
    expect(first.get_by_label("Delete my account too")).to_be_checked()
    fits_and_can_be_used(first)
    first.get_by_role("link", name="Keep them").click()
    first.get_by_role("link", name="Account").click()
    first.get_by_role("button", name="Log out").click()
    expect(first.locator("#songs .card")).to_have_count(0)
    first.goto(song)
    expect(first.get_by_role("heading", level=1)).to_have_text("There is nothing here")

    # On another device the account has the song, and its owner makes a link to it.
    second = visitors(permissions=["clipboard-read", "clipboard-write"]).new_page()
    second.goto(song)
    second.get_by_role("link", name="Log in, if it is yours").click()
    second.get_by_label("Username").fill("anna")
    second.get_by_label("Password").fill(PASSWORD)
    second.get_by_role("button", name="Log in").click()
    expect(second).to_have_url(song)
    second.get_by_text("Share this song").click()
    second.get_by_label("The link works for").select_option("30 days")
    second.get_by_role("button", name="Make a link").click()
    second.get_by_role("button", name="Copy", exact=True).click()
    expect(second.locator(".links .copy")).to_have_text("The link was copied.")
    link = second.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(re.escape(small_site.url) + r"/s/[\w-]{43}", link)
    second.screenshot(path=keep / "share.png", full_page=True)
    fits_and_can_be_used(second)

    # Somebody else hears it by the link, mixes, takes it home, and changes nothing.
    third = visitors(accept_downloads=True).new_page()
    third.goto(link)
    expect(third.get_by_role("heading", level=1)).to_have_text(TITLE)
    third.get_by_role("button", name="Play", exact=True).click()
    third.wait_for_function("() => document.getElementById('seek').valueAsNumber > 0.5")
    third.wait_for_function("() => document.getElementById('meter-master').level > 0.001")
    third.get_by_role("button", name="Mute Vocals").click()
    third.get_by_role("button", name="Copy a link to this mix").click()
    third.wait_for_url(re.compile(r"#mix="))
    assert third.url.startswith(f"{link}#mix=")
    with third.expect_download() as started:
        third.get_by_role("button", name="Download Drums").click()
    assert started.value.suggested_filename == f"{TITLE} - drums.wav"
    expect(third.locator("form[method=post]")).to_have_count(0)
    third.screenshot(path=keep / "shared.png", full_page=True)
    fits_and_can_be_used(third)

    second.get_by_role("button", name="End this link").click()
    expect(second.locator(".links")).to_have_count(0)
    third.goto("about:blank")
    third.goto(link)
    expect(third.get_by_role("heading", level=1)).to_have_text("There is nothing here")


def test_a_song_sent_after_the_session_ended_leads_to_the_log_in(
    small_site: Site, visitors: Open, tmp_path: Path
) -> None:
    page = visitors().new_page()
    page.goto(small_site.url)
    log_in = "/account/login?next=/"
    answer = {"status": 200, "headers": {"HX-Redirect": log_in}}
    # As the site answers where accounts are required; see tests/test_access.py.
    page.route(small_site.url + "/", lambda route: route.fulfill(**answer))
    song = tmp_path / "a.wav"
    song.write_bytes(b"RIFF")
    page.set_input_files("#file", song)
    expect(page).to_have_url(small_site.url + log_in)
