"""How the pages behave in a browser, on small models."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support import sounds
from tests.support.running_site import Site

pytestmark = pytest.mark.browser


@pytest.fixture
def songs(tmp_path: Path) -> list[Path]:
    return [
        sounds.wav(tmp_path / f"song {number}.wav", sounds.music(2.0, seed=number))
        for number in range(3)
    ]


def test_several_songs_at_once_become_cards_and_errors_stay_beside_the_field(
    small_site: Site, page: Page, songs: list[Path], tmp_path: Path, keep: Path
) -> None:
    words = tmp_path / "words.mp3"
    words.write_text("no music " * 500)
    large = sounds.wav(tmp_path / "large.wav", sounds.music(30.0))
    page.goto(small_site.url)
    page.set_input_files("#file", [songs[0], words, large, songs[1]])
    expect(page.locator("#songs .card")).to_have_count(2, timeout=60_000)
    errors = page.locator("#errors .error")
    expect(errors).to_have_count(2)
    expect(errors.filter(has_text="words.mp3")).to_contain_text("not an audio file")
    expect(errors.filter(has_text="large.wav")).to_contain_text("larger than 2 MB")
    page.screenshot(path=keep / "errors.png", full_page=True)
    # Both cards reach their end by polling alone, and then poll no more.
    expect(page.locator("#songs .card.done")).to_have_count(2, timeout=60_000)
    expect(page.locator("[hx-trigger]")).to_have_count(0)
    page.set_input_files("#file", [songs[2]])
    expect(page.locator("#songs .card")).to_have_count(3)
    expect(errors).to_have_count(0)


def test_the_demo_song_is_separated_with_one_click(small_site: Site, page: Page) -> None:
    page.goto(small_site.url)
    page.get_by_role("button", name="No song at hand?").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Feelings (excerpt)")
    expect(page.locator("audio")).to_have_count(4, timeout=60_000)


def test_a_song_can_be_dropped_on_the_page(small_site: Site, page: Page, songs: list[Path]) -> None:
    page.goto(small_site.url)
    data = page.evaluate_handle(
        """(bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.wav"));
          return transfer;
        }""",
        list(songs[0].read_bytes()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    expect(page.locator("#songs .card")).to_contain_text("dropped")


def test_upload_progress_is_shown(small_site: Site, page: Page, songs: list[Path]) -> None:
    page.goto(small_site.url)
    page.evaluate(
        """() => {
          window.bars = [];
          new MutationObserver(() => {
            const bar = document.querySelector("#transfers progress");
            if (bar) window.bars.push(bar.hasAttribute("value") ? bar.value : "checking");
          }).observe(document.getElementById("transfers"),
                     {childList: true, subtree: true, attributes: true});
        }"""
    )
    page.set_input_files("#file", [songs[0]])
    expect(page.locator("#songs .card")).to_have_count(1)
    bars = page.evaluate("window.bars")
    assert bars[0] == 0
    assert "checking" in bars
    expect(page.locator("#transfers .transfer")).to_have_count(0)


def test_the_song_can_be_cancelled_tried_again_and_deleted(
    small_site: Site, page: Page, tmp_path: Path
) -> None:
    page.goto(small_site.url)
    song = sounds.encode(tmp_path / "long.mp3", sounds.music(60.0), "libmp3lame")
    page.set_input_files("#file", [song])
    page.get_by_role("link", name="long").click()
    page.get_by_role("button", name="Cancel").focus()
    for _ in range(2):  # polls, which replace the button
        page.wait_for_event("response", lambda response: "/status?" in response.url)
        page.wait_for_function("() => document.activeElement.id === 'cancel'")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("Cancelled")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#status progress")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Delete this song").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator(".notice")).to_contain_text("were deleted")
    expect(page.locator("#songs .card")).to_have_count(0)


def test_a_song_deleted_in_another_tab_vanishes(
    small_site: Site, page: Page, tmp_path: Path
) -> None:
    song = sounds.encode(tmp_path / "vanishing.mp3", sounds.music(110.0, seed=9), "libmp3lame")
    page.goto(small_site.url)
    page.set_input_files("#file", [song])
    card = page.locator("#songs .card.running", has_text="vanishing")
    expect(card).to_have_count(1, timeout=20_000)
    other = page.context.new_page()
    other.goto(small_site.url)
    other.get_by_role("link", name="vanishing").click()
    third = page.context.new_page()
    third.goto(other.url)
    other.locator("#status form[action$='/cancel']").evaluate(
        "form => { form.action = form.action.replace('/cancel', '/delete'); form.submit(); }"
    )
    expect(page.locator("#songs .card")).to_have_count(0, timeout=10_000)
    expect(third.get_by_role("heading", level=1)).to_have_text("There is nothing here")


def test_the_same_song_again_with_another_model(
    small_site: Site, page: Page, songs: list[Path]
) -> None:
    page.goto(small_site.url)
    page.set_input_files("#file", [songs[0]])
    page.get_by_role("link", name="song 0").click()
    expect(page.locator("audio")).to_have_count(4, timeout=60_000)
    page.get_by_text("Separate again with another model").click()
    page.get_by_label("tiny_6s").check()
    page.get_by_label("Stems").select_option("vocals")
    page.get_by_role("button", name="Separate again").click()
    expect(page.locator("audio")).to_have_count(2, timeout=60_000)
    expect(page.locator(".stem h3").last).to_have_text("Instrumental")


def test_everything_works_without_javascript(
    small_site: Site, chromium: Browser, songs: list[Path], keep: Path
) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(small_site.url)
    page.set_input_files("#file", [songs[1]])
    page.get_by_role("button", name="Separate", exact=True).click()
    expect(page.locator("audio")).to_have_count(4, timeout=60_000)  # the page refreshes itself
    page.select_option("select[name=format]", "mp3-192")
    with page.expect_download() as started:
        page.get_by_role("button", name="Download Drums").click()
    assert started.value.suggested_filename == "song 1 (Drums) 192 kbps.mp3"
    page.screenshot(path=keep / "no-javascript.png", full_page=True)
    context.close()


def test_the_keyboard_is_enough(small_site: Site, page: Page, keep: Path) -> None:
    page.goto(small_site.url)
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
    assert {"file", "model", "stems"} <= set(reached)
    page.focus("#file")
    page.screenshot(path=keep / "focus.png")
    outline = page.evaluate("getComputedStyle(document.getElementById('drop')).outlineStyle")
    assert outline == "solid"


def test_the_language_switch(small_site: Site, page: Page) -> None:
    page.goto(small_site.url)
    page.get_by_role("button", name="한국어").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("곡을 스템으로 나누세요")
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Split a song into its stems")


def test_the_admin_works_under_the_strict_policy(
    small_site: Site, page: Page, keep: Path, songs: list[Path]
) -> None:
    page.goto(small_site.url)
    page.set_input_files("#file", [songs[0]])
    expect(page.locator("#songs .card.done")).to_have_count(1, timeout=60_000)
    small_site.environment["DJANGO_SUPERUSER_PASSWORD"] = "a long enough one"
    small_site.manage(
        "createsuperuser", "--noinput", "--username", "boss", "--email", "boss@example.invalid"
    )
    page.goto(small_site.url + "/admin/")
    page.fill("#id_username", "boss")
    page.fill("#id_password", "a long enough one")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="Jobs", exact=True).first.click()
    expect(page.locator("#result_list .field-status .state").first).to_be_visible()
    page.screenshot(path=keep / "admin.png", full_page=True)
    page.locator("#result_list tbody tr", has_text="song 0").first.locator("th a").click()
    expect(page.locator("#content")).to_contain_text("vocals", timeout=20_000)


def test_every_part_of_the_admin_does_without_inline_scripts_and_styles(
    small_site: Site, page: Page, keep: Path
) -> None:
    """`page` fails the test for whatever the policy stops: that stands in the browser's console."""
    small_site.environment["DJANGO_SUPERUSER_PASSWORD"] = "a long enough one"
    small_site.manage("createsuperuser", "--noinput", "--username", "head", "--email", "")
    page.goto(small_site.url)
    page.get_by_role("button", name="No song at hand?").click()
    expect(page.locator("audio")).to_have_count(4, timeout=60_000)
    page.goto(small_site.url + "/admin/")
    page.fill("#id_username", "head")
    page.fill("#id_password", "a long enough one")
    page.get_by_role("button", name="Log in").click()
    page.locator(".theme-toggle").first.click()
    # A list: filter, search, an action on a row.
    page.goto(small_site.url + "/admin/separations/job/")
    page.get_by_role("link", name="done", exact=True).click()
    page.fill("#searchbar", "Feelings")
    page.locator("#changelist-search input[type=submit]").click()
    row = page.locator("#result_list tbody tr", has_text="Feelings").first
    row.locator("input.action-select").check()
    page.select_option("select[name=action]", "run_first")
    page.locator(".actions button[type=submit]").click()
    expect(page.locator(".messagelist")).to_contain_text("moved")
    page.locator("#result_list tbody tr", has_text="Feelings").first.locator("th a").click()
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("link", name="No, take me back").click()
    # A form with everything that the admin has: passwords, two lists, calendar and clock.
    page.goto(small_site.url + "/admin/auth/user/add/")
    page.fill("#id_username", "temporary")
    page.fill("#id_password1", "quite a long one")
    page.fill("#id_password2", "quite a long one")
    page.get_by_role("button", name="Save", exact=True).click()
    page.locator("#id_user_permissions_input").fill("session")
    page.locator("#id_user_permissions_add_all, #id_user_permissions_add_all_link").first.click()
    page.locator("#calendarlink0").click()
    expect(page.locator("#calendarbox0")).to_be_visible()
    page.locator("#calendarin0 td a").first.click()
    page.locator("#clocklink0").click()
    expect(page.locator("#clockbox0")).to_be_visible()
    page.screenshot(path=keep / "admin-form.png", full_page=True)
    page.locator("#clockbox0 a").first.click()
    expect(page.locator("#id_date_joined_0")).not_to_have_value("")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".messagelist")).to_contain_text("changed")
    page.locator("#result_list a", has_text="temporary").click()
    page.get_by_role("link", name="History").click()
    page.go_back()
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Yes, I’m sure").click()
    expect(page.locator(".messagelist")).to_contain_text("deleted")
