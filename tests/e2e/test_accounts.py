"""A song goes into an account, from there to another browser, and by a link to a third one."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.browsers import Open, fits_and_can_be_used
from tests.support.running_site import Site, running, until

pytestmark = pytest.mark.browser
TITLE = "Feelings (excerpt)"
PASSWORD = "a mixture of 4 stems"


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
    assert started.value.suggested_filename == f"{TITLE} (Drums).wav"
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
    # As the site answers where accounts are required; see tests/access/test_permissions.py.
    page.route(small_site.url + "/", lambda route: route.fulfill(**answer))
    song = tmp_path / "a.wav"
    song.write_bytes(b"RIFF")
    page.set_input_files("#file", song)
    expect(page).to_have_url(small_site.url + log_in)


def test_an_address_is_confirmed_by_the_link_that_was_mailed_to_it(
    small_store: Path, visitors: Open, tmp_path: Path, keep: Path
) -> None:
    mails = tmp_path / "mails"
    told = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny", "EMAIL_URL": f"file:///{mails}"}
    address = f"{'a' * 60}@example.org"  # nowhere to break a line

    def link(site: Site, kind: str) -> str:
        def found() -> list[str]:
            texts = [file.read_text() for file in mails.glob("*")]
            return re.findall(rf"{site.url}(/account/{kind}/\S+)", "\n".join(texts))

        until(lambda: bool(found()))
        return found()[0]

    with running(tmp_path / "site", **told) as site:
        page = visitors().new_page()
        page.goto(site.url + "/account/signup")
        fits_and_can_be_used(page)
        page.get_by_label("Username").fill("Anna")
        page.get_by_label("E-mail").fill(address)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_label("Password confirmation").fill(PASSWORD)
        page.get_by_role("button", name="Make an account").click()
        expect(page.locator(".notice")).to_contain_text("A mail is on its way to")
        page.goto(site.url + "/account/")
        expect(page.locator("main")).to_contain_text("No e-mail address")
        page.goto(site.url + link(site, "confirm"))
        fits_and_can_be_used(page)
        page.screenshot(path=keep / "confirm.png", full_page=True)
        page.get_by_role("button", name="Confirm").click()
        expect(page.locator(".notice")).to_have_text("The e-mail address is confirmed.")
        expect(page.locator("main")).to_contain_text(f"E-mail: {address}")
        fits_and_can_be_used(page)
        page.get_by_role("button", name="Log out").click()
        page.goto(site.url + "/account/reset")
        page.get_by_label("Email").fill(address)
        page.get_by_role("button", name="Send the link").click()
        page.goto(site.url + link(site, "reset"))
        expect(page.get_by_role("heading", level=1)).to_have_text("Choose a new password")
        fits_and_can_be_used(page)
