"""A program's token in a real browser: made, copied while it is shown, gone after that, ended."""

import re

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browsers import Open, fits_and_can_be_used
from tests.support.running_site import Site

pytestmark = pytest.mark.browser
PASSWORD = "a mixture of 4 stems"
TOKEN = re.compile(r"stemsite_[\w-]{43}")


def test_a_token_is_made_copied_and_ended(
    small_site: Site, chromium: Browser, visitors: Open
) -> None:
    page = visitors(permissions=["clipboard-read", "clipboard-write"]).new_page()
    page.goto(small_site.url + "/account/signup")
    page.get_by_label("Username").fill("clara")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password confirmation").fill(PASSWORD)
    page.get_by_role("button", name="Make an account").click()
    page.get_by_role("link", name="Account").click()
    page.get_by_role("link", name="API tokens").click()
    expect(page.get_by_text("There is no token yet.")).to_be_visible()
    page.get_by_label("What is it for?").fill("karaoke machine")
    page.get_by_label("It works for").select_option("30 days")
    page.get_by_role("button", name="Make a token").click()
    shown = page.get_by_label("The new token")
    expect(shown).to_have_value(TOKEN)
    page.get_by_role("button", name="Copy", exact=True).first.click()
    expect(page.get_by_role("button", name="The token was copied.")).to_be_visible()
    token = page.evaluate("navigator.clipboard.readText()")
    assert TOKEN.fullmatch(token)
    assert token not in page.url
    fits_and_can_be_used(page)

    page.reload()  # which sends the form once more
    expect(page.get_by_text("karaoke machine")).to_have_count(1)
    expect(shown).to_have_count(0)
    assert token not in page.content()
    page.go_back()
    assert token not in page.content()
    page.goto(small_site.url + "/account/tokens")

    page.get_by_text("Show the signing secret").click()
    secret = page.get_by_label("Signing secret")
    expect(secret).to_have_value(re.compile(r"whsec_[\w+/]{43}="))
    before = secret.input_value()
    fits_and_can_be_used(page)
    page.get_by_role("button", name="Make a new one").click()
    expect(page.get_by_text("There is a new signing secret.")).to_be_visible()
    assert before not in page.content()

    page.get_by_role("button", name="End the token “karaoke machine”").click()
    expect(page.get_by_text("There is no token yet.")).to_be_visible()
