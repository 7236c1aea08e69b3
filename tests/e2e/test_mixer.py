"""The mixer in a song's page, on the real site with small models: what is set is what is heard."""

import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Position, expect

from tests.support import sounds
from tests.support.browsers import fits
from tests.support.running_site import Site

pytestmark = pytest.mark.browser
SECONDS = 20.0
STEMS = ("drums", "bass", "other", "vocals")
LEVEL = "name => document.querySelector(`.strip.${name} .meter`).level ?? 0"
PAGE_BYTES = 150_000


@pytest.fixture(scope="module")
def visit(
    small_site: Site, chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrowserContext]:
    """A visitor with one separated song, which the context's first page shows."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    page = context.new_page()
    folder = tmp_path_factory.mktemp("songs")
    song = sounds.encode(folder / "mixed.mp3", sounds.music(SECONDS, seed=5), "libmp3lame")
    page.goto(small_site.url)
    page.set_input_files("#file", song)
    page.get_by_role("link", name="mixed").click()
    expect(page.locator("#takeaway form")).to_have_count(1, timeout=60_000)
    yield context
    context.close()


@pytest.fixture
def song(visit: BrowserContext) -> Iterator[Page]:
    """The song's page, opened anew, with a mix that changes nothing."""
    page = visit.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.goto(visit.pages[0].url)
    page.evaluate("localStorage.clear()")
    page.reload()
    yield page
    page.close()
    assert complaints == []


def position(page: Page) -> float:
    return float(page.locator("#seek").input_value())


def plays(page: Page) -> None:
    """Wait until sound moves on."""
    start = position(page)
    page.wait_for_function(
        "start => document.getElementById('seek').valueAsNumber !== start", arg=start
    )


def heard(page: Page, name: str) -> None:
    page.wait_for_function(f"name => ({LEVEL})(name) > 0.001", arg=name)


def unheard(page: Page, name: str) -> None:
    page.wait_for_function(f"name => ({LEVEL})(name) < 0.001", arg=name)


def at(lane: Locator, share: float) -> Position:
    box = lane.bounding_box()
    assert box is not None
    return {"x": box["width"] * share, "y": box["height"] / 2}


def test_mute_and_solo_are_heard(song: Page) -> None:
    song.click("#play")
    plays(song)
    for name in STEMS:
        heard(song, name)
    song.get_by_role("button", name="Mute Drums").click()
    unheard(song, "drums")
    heard(song, "bass")
    song.get_by_role("button", name="Solo Vocals").click()
    song.get_by_role("button", name="Solo Other").click()
    unheard(song, "bass")
    heard(song, "vocals")
    heard(song, "other")
    song.locator(".strip.other .volume").fill("0")
    unheard(song, "other")
    expect(song.locator(".strip.other .volume")).to_have_attribute("aria-valuetext", "−∞ dB")
    song.select_option("#preset", label="Everything")
    for name in STEMS:
        heard(song, name)


def test_a_click_goes_there_at_once(song: Page) -> None:
    song.click("#play")
    plays(song)
    for share in (0.8, 0.3):
        lane = song.locator(".strip.bass .wave")
        began = time.monotonic()
        lane.click(position=at(lane, share))
        song.wait_for_function(
            "([from, to]) => { const now = document.getElementById('seek').valueAsNumber;"
            " return now > from && now < to; }",
            arg=[share * SECONDS + 0.02, share * SECONDS + 3],
        )
        print(f"sounds {1000 * (time.monotonic() - began):.0f} ms after the click")
    heard(song, "bass")


def test_a_part_that_is_marked_on_the_ruler_goes_round(song: Page) -> None:
    ruler = song.locator("#ruler")
    box = ruler.bounding_box()
    assert box is not None
    song.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 5)
    song.mouse.down()
    song.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + 9)
    song.mouse.up()
    expect(song.locator("#loop")).to_have_attribute("aria-pressed", "true")
    song.locator("#seek").fill("9.8")
    song.click("#play")
    song.evaluate(
        """() => {
          window.places = [];
          setInterval(() => window.places.push(document.getElementById("seek").valueAsNumber), 20);
        }"""
    )
    song.wait_for_function(
        "() => window.places.filter((now, at, all) => now < all[at - 1]).length > 2"
    )
    places = song.evaluate("window.places")
    assert max(places) < 11.1
    song.click("#marked")
    assert float(song.locator("input[name=from]").input_value()) == pytest.approx(10.0, abs=0.1)
    assert float(song.locator("input[name=to]").input_value()) == pytest.approx(11.0, abs=0.1)


def test_the_keyboard_is_enough(song: Page) -> None:
    song.keyboard.press("Space")
    plays(song)
    expect(song.get_by_role("button", name="Pause")).to_be_visible()
    song.keyboard.press("End")
    expect(song.get_by_role("button", name="Play")).to_be_visible()
    song.keyboard.press("Home")
    song.keyboard.press("ArrowRight")
    song.keyboard.press("Shift+ArrowRight")
    song.wait_for_function("() => document.getElementById('seek').valueAsNumber === 6")
    song.keyboard.press("1")
    expect(song.get_by_role("button", name="Mute Drums")).to_have_attribute("aria-pressed", "true")
    song.keyboard.press("Shift+Digit4")
    expect(song.get_by_role("button", name="Solo Vocals")).to_have_attribute("aria-pressed", "true")
    song.keyboard.press("[")
    song.keyboard.press("ArrowRight")
    song.keyboard.press("]")
    song.keyboard.press("l")
    song.click("#marked")
    assert float(song.locator("input[name=from]").input_value()) == 6.0
    assert float(song.locator("input[name=to]").input_value()) == 11.0
    expect(song.locator("#loop")).to_have_attribute("aria-pressed", "true")
    song.keyboard.press("o")
    expect(song.locator("#original")).to_have_attribute("aria-pressed", "true")
    song.keyboard.press("?")
    expect(song.locator("#keys")).to_be_visible()
    song.keyboard.press("Escape")
    expect(song.locator("#keys")).not_to_be_visible()
    # What has keys of its own keeps them.
    song.locator("input[name=from]").fill("")
    song.keyboard.type("1")
    assert song.locator("input[name=from]").input_value() == "1"
    expect(song.get_by_role("button", name="Mute Drums")).to_have_attribute("aria-pressed", "true")


def test_the_mix_is_kept_and_can_be_sent_as_a_link(song: Page, visit: BrowserContext) -> None:
    song.select_option("#preset", label="Karaoke: without vocals")
    song.locator(".strip.bass .pan").fill("-40")
    song.locator("#speed").fill("90")
    song.reload()
    expect(song.locator(".strip.bass .pan")).to_have_value("-40")
    expect(song.get_by_role("button", name="Mute Vocals")).to_have_attribute("aria-pressed", "true")
    expect(song.locator("#speed-now")).to_have_text("90 %")
    song.click("#share")
    assert song.url.endswith("#mix=bass:80:-40,vocals:80:0:m,speed:90")
    other = visit.new_page()
    other.goto(song.url)
    other.evaluate("localStorage.clear()")
    other.reload()
    expect(other.locator(".strip.bass .pan")).to_have_value("-40")
    other.close()


def test_slower_is_slower_at_the_same_pitch(song: Page) -> None:
    song.locator("#speed").fill("50")
    song.click("#play")
    song.wait_for_function("() => document.getElementById('seek').valueAsNumber > 0.3")
    pace = song.evaluate(
        """async () => {
          const seek = document.getElementById("seek");
          const now = () => [performance.now() / 1000, seek.valueAsNumber];
          const [began, from] = now();
          await new Promise((resolve) => {
            const look = () => (now()[1] > from + 1 ? resolve() : requestAnimationFrame(look));
            look();
          });
          const [ended, to] = now();
          return (to - from) / (ended - began);
        }"""
    )
    assert pace == pytest.approx(0.5, abs=0.08)
    heard(song, "drums")


def test_the_mix_that_is_downloaded_is_the_mix_that_is_set(song: Page) -> None:
    """Against the stems as they are downloaded, added up here."""
    song.select_option("select[name=format]", "float32")
    stems = {name: download(song, song.locator(f".stem.{name} button")) for name in STEMS}
    song.locator(".strip.drums .volume").fill("60")
    song.locator(".strip.bass .pan").fill("100")
    song.get_by_role("button", name="Mute Other").click()
    expect(song.locator("#mix-level")).to_contain_text("Peaks at")
    this_mix = song.get_by_role("button", name="This mix", exact=True)
    mix = download(song, this_mix)
    right = stems["bass"].sum(axis=1)
    expected = stems["drums"] * (60 / 80) ** 3 + stems["vocals"]
    expected[:, 1] += right
    np.testing.assert_allclose(mix, expected, atol=1e-5)
    song.locator("input[name=from]").fill("2")
    song.locator("input[name=to]").fill("3.5")
    part = download(song, this_mix)
    np.testing.assert_array_equal(part, mix[2 * sounds.RATE : int(3.5 * sounds.RATE)])


def download(page: Page, button: Locator) -> sounds.Samples:
    with page.expect_download() as started:
        button.click()
    data = Path(started.value.path()).read_bytes()
    samples: sounds.Samples = soundfile.read(io.BytesIO(data), dtype="float32")[0]
    return samples


def test_a_finger_goes_there_and_still_scrolls(
    visit: BrowserContext, chromium: Browser, small_site: Site
) -> None:
    context = chromium.new_context(
        storage_state=visit.storage_state(),
        viewport={"width": 360, "height": 640},
        has_touch=True,
        is_mobile=True,
    )
    page = context.new_page()
    page.goto(visit.pages[0].url)
    lane = page.locator(".strip.drums .wave")
    lane.tap(position=at(lane, 0.5))
    page.wait_for_function(
        "() => Math.abs(document.getElementById('seek').valueAsNumber - 10) < 0.3"
    )
    # A finger that goes up or down on a waveform scrolls the page and moves nothing else.
    box = lane.bounding_box()
    assert box is not None
    touch = context.new_cdp_session(page)
    x, y = box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2
    touch.send("Input.synthesizeScrollGesture", {"x": x, "y": y, "yDistance": -300})
    page.wait_for_function("() => scrollY > 200")
    assert position(page) == pytest.approx(10, abs=0.3)
    context.close()


def test_a_cancelled_song_takes_its_mixer_away(
    small_site: Site, page: Page, tmp_path: Path
) -> None:
    page.goto(small_site.url)
    song = sounds.encode(tmp_path / "short-lived.mp3", sounds.music(60.0, seed=8), "libmp3lame")
    page.set_input_files("#file", song)
    page.get_by_role("link", name="short-lived").click()
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("() => document.getElementById('seek').valueAsNumber > 0.5")
    other = page.context.new_page()
    other.goto(page.url)
    other.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_contain_text("Cancelled")
    expect(page.locator("#mixer")).to_have_count(0)
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_without_web_audio_the_browsers_own_players_remain(
    visit: BrowserContext, chromium: Browser
) -> None:
    context = chromium.new_context(storage_state=visit.storage_state())
    context.add_init_script("delete window.AudioContext")
    page = context.new_page()
    page.goto(visit.pages[0].url)
    expect(page.locator(".stem.drums audio")).to_be_visible()
    expect(page.locator("#mixer")).to_be_hidden()
    expect(page.get_by_role("button", name="This mix", exact=True)).to_be_hidden()
    context.close()


def test_who_wants_to_is_told_when_the_song_is_done(
    small_site: Site, chromium: Browser, tmp_path: Path
) -> None:
    """The browser's own notification is replaced: there is no desktop to show it on."""
    context = chromium.new_context()
    context.add_init_script(
        """window.told = [];
        window.Notification = class {
          static permission = "default";
          static requestPermission = async () => "granted";
          constructor(title, {body}) { window.told.push([title, body]); }
        };"""
    )
    page = context.new_page()
    page.goto(small_site.url)
    song = sounds.encode(tmp_path / "told.mp3", sounds.music(20.0, seed=6), "libmp3lame")
    page.set_input_files("#file", song)
    page.get_by_role("link", name="told").click()
    page.get_by_role("button", name="Tell me when it is done").click()
    expect(page.locator("#takeaway form")).to_have_count(1, timeout=60_000)
    assert page.evaluate("window.told") == [["told", "The stems are ready."]]
    context.close()


def test_the_page_is_light_and_asks_nobody_else(visit: BrowserContext, small_site: Site) -> None:
    visit.pages[0].evaluate("localStorage.clear()")  # a kept speed would load what changes it
    page = visit.new_page()
    sizes: dict[str, int] = {}
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.on(
        "response",
        lambda response: (
            sizes.update({response.url: len(response.body())})
            if response.url.split("?")[0].endswith((".js", ".css", ".mjs"))
            else None
        ),
    )
    page.goto(visit.pages[0].url)
    page.wait_for_load_state("networkidle")
    print(f"{sum(sizes.values())} bytes of script and style")
    assert len(sizes) > 5
    assert sum(sizes.values()) < PAGE_BYTES
    assert all(address.startswith((small_site.url, "data:")) for address in addresses)
    page.close()


@pytest.mark.parametrize("where", ["home", "about", "song", "songs"])
@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_accessible(
    visit: BrowserContext,
    chromium: Browser,
    small_site: Site,
    keep: Path,
    scheme: str,
    width: int,
    where: str,
) -> None:
    """axe-core finds nothing serious, in both colour schemes and at the width of a phone."""
    context = chromium.new_context(
        storage_state=visit.storage_state(),
        viewport={"width": width, "height": 800},
        color_scheme=scheme,  # type: ignore[arg-type]
        bypass_csp=True,  # for axe itself, which is put into the page as a script
    )
    page = context.new_page()
    paths = {"home": "", "about": "/about", "songs": "/songs"}
    page.goto(visit.pages[0].url if where == "song" else small_site.url + paths[where])
    found = Axe().run(page).response["violations"]
    serious = [
        f"{each['id']}: {node['html']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
    assert serious == []
    fits(page, width)
    if where == "song":
        page.get_by_role("button", name="Mute Bass").click()
        page.screenshot(path=keep / f"mixer-{scheme}-{width}.png", full_page=True)
    context.close()
