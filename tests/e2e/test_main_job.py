"""The main job: a song goes into the page, its stems come out, made by the real model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect

from separations.audio.song_reader import decode
from tests.support import sounds
from tests.support.browsers import fits
from tests.support.running_site import Site

pytestmark = [pytest.mark.browser, pytest.mark.weights]
STEMS = ("drums", "bass", "other", "vocals")
# What a listener would notice: where the sound is, what the tab says, and whether the page jumps.
WATCH = """() => {
  window.watched = {places: [], titles: [], shift: 0, moved: []};
  setInterval(() => {
    window.watched.places.push(document.getElementById("seek").valueAsNumber);
    window.watched.titles.push(document.title);
  }, 50);
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      if (entry.hadRecentInput) continue;  // a screenshot makes the window as tall as the page
      window.watched.shift += entry.value;
      for (const {node, previousRect, currentRect} of entry.sources) {
        const name = node?.id || node?.className || node?.nodeName;
        window.watched.moved.push(`${name}: ${previousRect.y} to ${currentRect.y}`);
      }
    }
  }).observe({type: "layout-shift"});
}"""
LOOK = """() => ({
  percent: document.querySelector("#status progress")?.value ?? null,
  reach: Number(document.getElementById("reach").value),
  position: document.getElementById("seek").valueAsNumber,
  level: document.getElementById("meter-master").level ?? 0,
})"""


def centroid(samples: sounds.Samples) -> float:
    """Mean frequency of a sound, in Hz, weighted by its spectrum."""
    spectrum = np.abs(np.fft.rfft(samples[0]))
    return float((spectrum * np.linspace(0, sounds.RATE / 2, len(spectrum))).sum() / spectrum.sum())


def test_a_song_is_dropped_watched_played_and_downloaded(
    real_site: Site, page: Page, chromium: Browser, keep: Path, tmp_path: Path
) -> None:
    song, title = sounds.DEMO, "Feelings (excerpt)"
    page.goto(real_site.url)
    page.screenshot(path=keep / "home.png", full_page=True)
    page.set_input_files("#file", song)
    page.get_by_role("link", name=title).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(title)

    # Progress rises by itself, without a reload, and never falls. What is finished is heard at
    # once, and the sound goes on as more comes, to the end and beyond the end of the job.
    page.evaluate(WATCH)
    seen: list[int] = []
    reached: list[int] = []
    heard_while_running = 0.0
    page.get_by_role("button", name="Play", exact=True).click()
    while not page.locator("#takeaway form").count():
        status = page.evaluate(LOOK)
        if status["percent"] is not None and (not seen or seen[-1] != status["percent"]):
            seen.append(status["percent"])
        if not reached or reached[-1] != status["reach"]:
            reached.append(status["reach"])
        if status["percent"] is not None and status["position"] > 1 and not heard_while_running:
            heard_while_running = status["position"]
            assert status["level"] > 0.001
            page.screenshot(path=keep / "separating.png", full_page=True)
        page.wait_for_timeout(200)
    assert seen == sorted(seen)
    assert len(seen) >= 4
    assert heard_while_running
    assert reached == sorted(reached)
    assert len(reached) >= 4
    assert page.title() == f"{title} – Stemsite"
    expect(page.locator("#announcement")).to_have_text("The stems are ready.")
    expect(page.locator("#level-drums")).to_contain_text("LUFS")
    watched = page.evaluate("window.watched")
    assert any(" %" in each for each in watched["titles"])
    assert watched["shift"] < 0.05, f"parts moved while the page was polled: {watched['moved']}"
    # Nothing jumped or began anew.
    length = len(np.concatenate(list(decode(song)), axis=1)[0]) / sounds.RATE
    page.wait_for_function(
        "end => document.getElementById('seek').valueAsNumber >= end", arg=length
    )
    places = page.evaluate("window.watched.places")
    assert places == sorted(places)
    assert max(np.diff(places)) < 1.0
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
    page.screenshot(path=keep / "stems.png", full_page=True)

    # What is downloaded is the song: its stems add up to it again.
    mixture = np.concatenate(list(decode(song)), axis=1)
    total = np.zeros_like(mixture)
    centroids: dict[str, float] = {}
    page.select_option("select[name=format]", "float32")
    for stem in STEMS:
        with page.expect_download() as started:
            page.locator(f".stem.{stem}").get_by_role("button").click()
        path = tmp_path / started.value.suggested_filename
        assert path.name == f"{title} ({stem.capitalize()}) 32-bit float.wav"
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
    assert started.value.suggested_filename == f"{title} (Stems) 32-bit float.zip"

    # The same page on a phone, in the dark, in Korean.
    views: dict[str, dict[str, Any]] = {
        "phone": {"viewport": {"width": 360, "height": 740}, "has_touch": True},
        "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
        "korean": {"viewport": {"width": 1200, "height": 900}, "locale": "ko-KR"},
    }
    for name, options in views.items():
        other = chromium.new_context(storage_state=page.context.storage_state(), **options)
        view = other.new_page()
        for address, shot in ((page.url, "stems"), (real_site.url, "home")):
            view.goto(address)
            view.screenshot(path=keep / f"{shot}-{name}.png", full_page=True)
            fits(view, options["viewport"]["width"])
        other.close()
