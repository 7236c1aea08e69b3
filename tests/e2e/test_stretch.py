"""Pitch shifting as the mixer has it: the collected files, the site's CSP, a real browser."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page

from tests.support import sounds
from tests.support.running_site import Site

pytestmark = pytest.mark.browser

Sound = NDArray[np.float32]
# A sound played at a speed, as the player plays it, and shifted; and the same sound not shifted.
# Samples pass in base64: lists of numbers take ten times as long.
RENDER = """async ([url, text, speed, semitones]) => {
  const samples = new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const { createPitchShifter } = await import(url);
  const rate = 44100;
  const frames = Math.floor(samples.length / speed);
  const render = async (semitones) => {
    const context = new OfflineAudioContext(2, frames, rate);
    const buffer = new AudioBuffer({ length: samples.length, sampleRate: rate });
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(context, { buffer, playbackRate: speed });
    let latency = 0;
    if (semitones === null) source.connect(context.destination);
    else {
      const stretch = await createPitchShifter(context);
      await stretch.setSemitones(semitones);
      source.connect(stretch.input);
      stretch.output.connect(context.destination);
      latency = stretch.latency;
    }
    source.start();
    const rendered = await context.startRendering();
    const bytes = new Uint8Array(rendered.getChannelData(0).buffer);
    let packed = "";
    for (const byte of bytes) packed += String.fromCharCode(byte);
    return [btoa(packed), latency];
  };
  const [shifted, latency] = await render(semitones);
  return { shifted, latency, plain: (await render(null))[0] };
}"""


def address(site: Site, name: str) -> str:
    """The address of a module of the mixer."""
    manifest = json.loads((site.data_dir / "static" / "staticfiles.json").read_text())
    return f"{site.url}/static/{manifest['paths'][f'js/mixer/{name}']}"


@pytest.fixture
def module(small_site: Site, page: Page) -> str:
    """A page of the site is open; the address of the pitch shifter's module."""
    page.goto(f"{small_site.url}/about")
    return address(small_site, "pitch_shifter.js")


@dataclass
class Rendered:
    shifted: Sound
    plain: Sound
    latency: float


Render = Callable[[Sound, float, float], Rendered]


@pytest.fixture
def render(module: str, page: Page) -> Render:
    def rendered(samples: Sound, speed: float, semitones: float) -> Rendered:
        text = base64.b64encode(samples.tobytes()).decode()
        found = page.evaluate(RENDER, [module, text, speed, semitones])
        shifted, plain = (
            np.frombuffer(base64.b64decode(found[name]), np.float32)
            for name in ("shifted", "plain")
        )
        return Rendered(shifted, plain, found["latency"])

    return rendered


def pitch(samples: Sound) -> float:
    """The frequency of the strongest partial, Hz, to a fraction of a cent of a steady tone."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * len(samples)))
    top = int(spectrum.argmax())
    below, here, above = np.log(spectrum[top - 1 : top + 2])
    offset = 0.5 * (below - above) / (below - 2 * here + above)
    return float((top + offset) * sounds.RATE / (8 * len(samples)))


def loudness(samples: Sound) -> float:
    """dB of the mean power."""
    return float(10 * np.log10(np.mean(samples**2)))


@pytest.mark.parametrize(("speed", "key"), [(0.5, 0), (0.75, 0), (1.5, 0), (1, 12), (1, -12)])
def test_pitch_is_kept_at_any_speed_and_moved_by_the_key(
    render: Render, speed: float, key: int
) -> None:
    tone = sounds.sine(2.0, sounds.RATE, pitch=660.0)[0]
    heard = render(tone, speed, key - 12 * np.log2(speed)).shifted[sounds.RATE // 2 :]
    assert abs(1200 * np.log2(pitch(heard) / 660.0) - 100 * key) < 5
    assert abs(loudness(heard) - loudness(tone)) < 1


@pytest.mark.parametrize(("speed", "semitones"), [(0.75, 4.98), (1, -7), (1, 0)])
def test_music_comes_whole_as_loud_as_it_was_and_as_late_as_was_said(
    render: Render, speed: float, semitones: float
) -> None:
    found = render(sounds.music(3.0)[0], speed, semitones)
    late = round(found.latency * sounds.RATE)
    shifted, plain = found.shifted[late:], found.plain[:-late]
    assert np.isfinite(shifted).all()
    assert abs(loudness(shifted) - loudness(plain)) < 0.75
    # Every twentieth of a second has about the energy it had: no gap, and no beat out of its place.
    size = sounds.RATE // 20
    power = [
        np.mean(each[: len(each) // size * size].reshape(-1, size) ** 2, axis=1)
        for each in (shifted, plain)
    ]
    assert np.all(power[0] > 0.1 * power[1])
    assert np.corrcoef(power[0], power[1])[0, 1] > 0.9


def test_what_went_in_before_a_pause_comes_out_and_no_more(module: str, page: Page) -> None:
    """Nothing is connected any more, which the library takes for a wish to play its own store."""
    powers = page.evaluate(
        """async (url) => {
          const { createPitchShifter } = await import(url);
          const context = new OfflineAudioContext(1, 3 * 44100, 44100);
          const stretch = await createPitchShifter(context);
          await stretch.setSemitones(3);
          stretch.output.connect(context.destination);
          const tone = new OscillatorNode(context);
          tone.connect(stretch.input);
          tone.start();
          context.suspend(1).then(() => (tone.disconnect(), context.resume()));
          context.suspend(2).then(() => (tone.connect(stretch.input), context.resume()));
          const sound = (await context.startRendering()).getChannelData(0);
          const power = (from, to) => {
            const part = sound.subarray(from * 44100, to * 44100);
            return part.reduce((sum, each) => sum + each * each, 0) / part.length;
          };
          return [power(0.4, 1), power(1.05, 1.15), power(1.4, 2), power(2.4, 3)];
        }""",
        module,
    )
    before, held, pause, after = powers
    assert min(before, held, after) > 0.45
    assert pause < 1e-6


def test_pitch_can_be_shifted_where_there_is_an_audio_worklet(small_site: Site, page: Page) -> None:
    page.goto(f"{small_site.url}/about")
    can_shift = """async (url) => {
      const { canShiftPitch } = await import(url);
      return [canShiftPitch(new OfflineAudioContext(1, 1, 44100)), canShiftPitch({})];
    }"""
    assert page.evaluate(can_shift, address(small_site, "pitch_output.js")) == [True, False]
