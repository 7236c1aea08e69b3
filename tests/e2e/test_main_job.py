"""The main job: a song goes into the page, its stems come out, made by the real model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect

from separations.audio.decode import decode
from tests import sounds
from tests.running_site import Site

pytestmark = [pytest.mark.browser, pytest.mark.weights]
STEMS = ("drums", "bass", "other", "vocals")
MINUTES = 60_000.0  # ms


def centroid(samples: sounds.Samples) -> float:
    """Mean frequency of a sound, in Hz, weighted by its spectrum."""
    spectrum = np.abs(np.fft.rfft(samples[0]))
    return float((spectrum * np.linspace(0, sounds.RATE / 2, len(spectrum))).sum() / spectrum.sum())


def test_a_song_is_dropped_watched_played_and_downloaded(
    real_site: Site, page: Page, chromium: Browser, keep: Path, tmp_path: Path
) -> None:
    try:
        song = sounds.shared("war-of-freedom-30s.mp3")
        title = "War of freedom (excerpt)"
    except pytest.skip.Exception:
        song, title = sounds.DEMO, "Feelings (excerpt)"

    page.goto(real_site.url)
    page.screenshot(path=keep / "home.png", full_page=True)
    page.set_input_files("#file", song)
    page.get_by_role("link", name=title).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(title)

    # Progress rises by itself, without a reload, and never falls.
    page.evaluate("window.sameDocument = true")
    seen: list[int] = []
    player = page.locator("audio").first
    while not player.count():
        bar = page.locator("#status progress")
        value = bar.get_attribute("value", timeout=5_000) if bar.count() else None
        if value is not None and (not seen or seen[-1] != int(value)):
            seen.append(int(value))
            if seen[-1] > 30:
                page.screenshot(path=keep / "separating.png", full_page=True)
        page.wait_for_timeout(200)
    assert seen == sorted(seen)
    assert len(seen) >= 4
    assert page.evaluate("window.sameDocument")
    expect(page.locator("#announcement")).to_have_text("The stems are ready.")
    page.screenshot(path=keep / "stems.png", full_page=True)

    # Every stem plays, one at a time.
    for stem in STEMS:
        audio = page.locator(f".stem.{stem} audio")
        audio.focus()
        page.keyboard.press("Space")  # play, as the browser's own controls have it
        page.wait_for_function(
            "name => document.querySelector(`.stem.${name} audio`).currentTime > 0.3", arg=stem
        )
        playing = page.evaluate(
            "[...document.querySelectorAll('audio')].filter((audio) => !audio.paused).length"
        )
        assert playing == 1
    last = page.locator(".stem.vocals audio")
    last.evaluate("audio => { audio.currentTime = 15 }")
    page.wait_for_function("() => document.querySelector('.stem.vocals audio').currentTime > 15.2")

    # What is downloaded is the song: its stems add up to it again.
    mixture = np.concatenate(list(decode(song)), axis=1)
    total = np.zeros_like(mixture)
    centroids: dict[str, float] = {}
    page.select_option("select[name=format]", "float32")
    for stem in STEMS:
        with page.expect_download() as started:
            page.locator(f".stem.{stem}").get_by_role("button").click()
        path = tmp_path / started.value.suggested_filename
        assert path.name == f"{title} - {stem}.wav"
        started.value.save_as(path)
        samples = soundfile.read(path, dtype="float32")[0].T
        assert samples.shape == mixture.shape
        assert np.abs(samples).max() > 1e-3
        total += samples
        centroids[stem] = centroid(samples)
    assert sounds.snr(mixture, total) > 10
    assert min(centroids, key=lambda stem: centroids[stem]) == "bass"
    with page.expect_download() as started:
        page.get_by_role("button", name="All stems (ZIP)").click()
    assert started.value.suggested_filename == f"{title} - stems.zip"

    # The same page on a phone, in the dark, in Korean.
    views: dict[str, dict[str, Any]] = {
        "phone": {"viewport": {"width": 360, "height": 740}},
        "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
        "korean": {"viewport": {"width": 1200, "height": 900}, "locale": "ko-KR"},
    }
    for name, options in views.items():
        other = chromium.new_context(storage_state=page.context.storage_state(), **options)
        view = other.new_page()
        for address, shot in ((page.url, "stems"), (real_site.url, "home")):
            view.goto(address)
            view.screenshot(path=keep / f"{shot}-{name}.png", full_page=True)
            width = view.evaluate("document.documentElement.scrollWidth")
            assert width <= options["viewport"]["width"]
        other.close()


def test_the_demo_song_is_separated_with_one_click(real_site: Site, page: Page) -> None:
    page.goto(real_site.url)
    page.get_by_role("button", name="No song at hand?").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Feelings (excerpt)")
    expect(page.locator("audio")).to_have_count(4, timeout=5 * MINUTES)
