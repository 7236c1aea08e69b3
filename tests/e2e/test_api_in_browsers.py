"""The API in a real browser: the page that lets you try it, and a page of another origin."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support import sounds
from tests.support.browsers import fits
from tests.support.running_site import Site
from tests.support.sounds import ROOT

pytestmark = pytest.mark.browser
EXAMPLE = re.search(r"```js\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)


def test_the_api_can_be_tried_as_it_stands(small_site: Site, page: Page, tmp_path: Path) -> None:
    """Without a session, a token or a value but the file."""
    song = sounds.wav(tmp_path / "a.wav", sounds.music(1.0, seed=71))
    page.goto(small_site.url + "/api/docs")

    def execute(operation: str) -> str:
        block = page.locator(f"#operations-{operation}")
        block.locator(".opblock-summary-control").first.click()
        if operation == "Songs-createSeparation":
            block.locator("input[type=file]").set_input_files(song)
        block.get_by_role("button", name="Execute").click()
        answer = block.locator(".live-responses-table .response-col_status")
        expect(answer.nth(1)).to_have_text(re.compile(r"\d+"), timeout=60_000)
        return answer.nth(1).inner_text().strip()

    assert execute("Songs-createSeparation") == "202"
    for operation in ("Songs-followSeparation", "Downloads-downloadStem"):
        assert execute(operation) == "200", operation
    fits(page, 1200)
    page.set_viewport_size({"width": 360, "height": 740})
    fits(page, 360)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html.dark-mode")).to_be_attached()


def test_a_page_of_an_allowed_origin_uses_the_api_and_no_session(
    small_site: Site, other_origin: str, chromium: Browser, tmp_path: Path
) -> None:
    song = sounds.wav(tmp_path / "a.wav", sounds.music(1.0, seed=72))
    assert EXAMPLE is not None
    script = re.sub(r'const SITE = ".*"', f'const SITE = "{small_site.url}"', EXAMPLE[1])
    context = chromium.new_context()
    page = context.new_page()
    page.goto(small_site.url)
    assert context.cookies(), "which another origin must not use"
    page.goto(other_origin)
    page.set_content("<input type=file>")
    page.locator("input").set_input_files(song)
    found = page.evaluate(
        """async (script) => {
          const { separate } = await import(URL.createObjectURL(
            new Blob([script], { type: "text/javascript" })));
          const heard = [];
          const file = document.querySelector("input").files[0];
          const stem = await separate(file, "vocals", (now) => heard.push(now.status));
          return [heard.at(-1), stem.type, stem.size > 1000];
        }""",
        script,
    )
    assert found == ["completed", "audio/mpeg", True]
    with_cookies = (
        'fetch("%s/api/jobs", { credentials: "include" }).then((it) => it.status, String)'
    )
    assert "Failed to fetch" in page.evaluate(with_cookies % small_site.url)
    context.close()
