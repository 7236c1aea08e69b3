"""The mixer's player in a real browser, on chunks of known samples from a server of its own."""

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

RATE = 44100
CHUNK = 65536
STEP = 2.0**-15  # of 16 bits
STATIC = Path(__file__).resolve().parents[2] / "static"
LAB = Path(__file__).with_name("player_lab.js")
PAGE = b'<!doctype html><title>Player</title><script type="module" src="/lab.js"></script>'
Samples = NDArray[np.float32]


@dataclass
class Song:
    """Stems as the store keeps them, in chunks of 16 bits; long songs repeat what they have."""

    name: str
    stems: dict[str, Samples]
    frames: int = 0
    exponent: int = -2
    reach: int = 1 << 40
    missing: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.frames = self.frames or len(next(iter(self.stems.values())))
        self._encoded: dict[str, bytes] = {}

    def chunk(self, stem: str, index: int) -> bytes | None:
        self.asked.append(f"{stem}/{index}")
        if stem in self.missing or min((index + 1) * CHUNK, self.frames) > self.reach:
            return None
        period = -(-len(self.stems[stem]) // CHUNK)
        key = f"{stem}/{index % period}"
        if key not in self._encoded:
            samples = self.stems[stem][index % period * CHUNK :][:CHUNK]
            flac = io.BytesIO()
            scaled = np.ldexp(samples, self.exponent)
            soundfile.write(flac, scaled, RATE, format="FLAC", subtype="PCM_16")
            self._encoded[key] = flac.getvalue()
        return self._encoded[key]

    def decoded(self, stem: str) -> Samples:
        """What the chunks of a stem say, by another decoder than the browser's."""
        chunks = [self.chunk(stem, index) for index in range(-(-self.frames // CHUNK))]
        parts = [soundfile.read(io.BytesIO(chunk or b""), dtype="float32")[0] for chunk in chunks]
        return np.asarray(np.ldexp(np.concatenate(parts), -self.exponent), np.float32)

    @property
    def mix(self) -> Samples:
        stems = [self.decoded(stem) for stem in self.said["stems"]]
        mixed: Samples = np.sum(stems, axis=0, dtype=np.float32)
        return mixed

    @property
    def said(self) -> dict[str, Any]:
        names = [name for name in self.stems if name != "mixture"]
        return {"name": self.name, "stems": names, "frames": self.frames}


class Lab:
    """The server, and the page that calls the player."""

    def __init__(self) -> None:
        self.songs: dict[str, Song] = {}
        self.taken = b""
        lab = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                exponent = 0
                body: bytes | None = None
                match self.path.split("/")[1:]:
                    case [""]:
                        body, kind = PAGE, "text/html"
                    case ["lab.js"]:
                        body, kind = LAB.read_bytes(), "text/javascript"
                    case ["js", *rest]:
                        body, kind = STATIC.joinpath("js", *rest).read_bytes(), "text/javascript"
                    case ["songs", name, stem, index]:
                        song, kind = lab.songs[name], "audio/flac"
                        body, exponent = song.chunk(stem, int(index)), song.exponent
                    case _:
                        body, kind = b"", "image/x-icon"
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body or b"")))
                self.send_header("X-Exponent", str(exponent))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body or b"")

            def do_POST(self) -> None:
                lab.taken = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the player gave the chunk up

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.page: Page

    def open(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(10_000)
        page.goto(f"http://127.0.0.1:{self.server.server_address[1]}/")
        page.wait_for_function("!!window.render")

    def add(self, song: Song) -> Song:
        self.songs[song.name] = song
        return song

    def render(self, song: Song, **how: Any) -> Samples:
        """The samples (frames, 2) that a player gives when it is rendered offline."""
        self.add(song)
        self.said = self.js(f"render({json.dumps(song.said)}, {json.dumps(how)})")
        return np.frombuffer(self.taken, np.float32).reshape(2, -1).T

    def live(self, song: Song, **options: Any) -> None:
        self.add(song)
        self.js(f"startLive({json.dumps(song.said)}, {json.dumps(options)})")

    def js(self, expression: str) -> Any:
        """The value of an expression, in which `player` is the live one."""
        return self.page.evaluate(
            "async () => { const { player, context, failed } = window.live ?? {};"
            "  const late = (_, no) => setTimeout(() => no(new Error('took too long')), 15_000);"
            f" return await Promise.race([new Promise(late), ({expression})]); }}"
        )

    def until(self, condition: str) -> None:
        """Wait for a condition on the live player."""
        self.js(f"eventually(() => {condition})")

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def lab(chromium: Browser) -> Iterator[Lab]:
    """One page for all: each test has a player of its own."""
    lab = Lab()
    page = chromium.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    lab.open(page)
    yield lab
    page.close()
    lab.close()
    assert complaints == []


def noise(frames: int, seed: int, level: float = 0.4) -> Samples:
    return (np.random.default_rng(seed).normal(0, level, (frames, 2)).clip(-3.9, 3.9)).astype("f4")


def tone(frames: int, hertz: float, level: float = 0.2) -> Samples:
    wave = level * np.sin(2 * np.pi * hertz * np.arange(frames) / RATE)
    return np.stack((wave, wave), axis=1).astype("f4")


@pytest.fixture(scope="module")
def song() -> Song:
    """Four chunks and a bit of noise, louder than full scale here and there."""
    frames = 4 * CHUNK + 20_001
    return Song("noise", {name: noise(frames, seed) for seed, name in enumerate(("a", "b", "c"))})


def near(one: Samples, other: NDArray[np.floating], within: float = 1e-6) -> None:
    """To within rounding and Chromium's decoder, which divides what is positive by 32767."""
    assert one.shape == other.shape
    apart = float(np.abs(one - other).max())
    assert apart <= within + 3 * STEP * max(1.0, float(np.abs(other).max()))


def test_clicks_in_every_stem_come_out_at_the_same_sample(lab: Lab) -> None:
    frames = 3 * CHUNK + 777
    at = [0, 1, 40_000, frames - 1]
    at += [border + by for border in (CHUNK, 2 * CHUNK, 3 * CHUNK) for by in (-2, -1, 0, 1)]
    stems = {name: np.zeros((frames, 2), np.float32) for name in "abcdef"}
    for number, samples in enumerate(stems.values()):
        samples[at] = 2.0 ** -(number + 1)  # what came out says which stems it came from
    out = lab.render(Song("clicks", stems), seconds=frames / RATE + 0.1)
    assert np.flatnonzero(np.abs(out).max(axis=1) > 1e-6).tolist() == sorted(at)
    near(out[at], np.full((len(at), 2), 1 - 2.0**-6, np.float32))


def test_the_sum_of_the_stems_is_gapless(lab: Lab, song: Song) -> None:
    out = lab.render(song, seconds=song.frames / RATE)
    near(out, song.mix)
    original = np.sum([song.stems[stem] for stem in "abc"], axis=0)
    near(out, original, within=3 * STEP * 2.0**-song.exponent)
    assert lab.said["position"] == song.frames / RATE


def test_the_edge_of_what_is_finished_does_not_click(lab: Lab) -> None:
    song = Song("edge", {"a": np.full((3 * CHUNK, 2), 0.5, np.float32)})
    out = lab.render(song, seconds=(CHUNK + 1000) / RATE, reach=CHUNK)
    near(out[: CHUNK - 300], song.mix[: CHUNK - 300])
    assert float(np.abs(np.diff(out[1:], axis=0)).max()) < 0.005
    assert not out[CHUNK:].any()
    assert lab.said["position"] == (CHUNK - 1) / RATE


def test_a_song_shorter_than_a_chunk(lab: Lab) -> None:
    song = Song("short", {"a": noise(5000, 1), "b": noise(5000, 2)})
    out = lab.render(song, seconds=0.2)
    near(out[:5000], song.mix)
    assert not out[5000:].any()


def test_faders_and_pans_do_what_the_server_does(lab: Lab, song: Song) -> None:
    def panned(samples: Samples, pan: float) -> Samples:
        left, right = samples.T
        if pan <= 0:
            x = (pan + 1) * np.pi / 2
            return np.stack((left + right * np.cos(x), right * np.sin(x)), axis=1)
        x = pan * np.pi / 2
        return np.stack((left * np.cos(x), right + left * np.sin(x)), axis=1)

    a, b = (song.decoded(stem)[:20_000] for stem in "ab")
    out = lab.render(song, seconds=20_000 / RATE, mix="a:40:-30,b:100:70,c:80:0:m,master:60")
    near(out, (panned(a, -0.3) / 8 + panned(b, 0.7) * 1.25**3) * 0.75**3)


def test_a_muted_solo_is_not_heard(lab: Lab, song: Song) -> None:
    out = lab.render(song, seconds=20_000 / RATE, mix="a:80:0:ms,c:80:0:s")
    near(out, song.decoded("c")[:20_000])


@pytest.mark.parametrize(
    ("start", "end"),
    [(40_000, 2 * CHUNK + 500), (CHUNK, 3 * CHUNK), (0, 22_050), (CHUNK - 1000, CHUNK + 1205)],
    ids=["over borders", "on borders", "half a second", "50 ms over a border"],
)
def test_a_loop_is_exact_to_the_sample(lab: Lab, song: Song, start: int, end: int) -> None:
    seconds = (end + 3 * max(end - start, 30_000)) / RATE
    out = lab.render(song, seconds=seconds, loop=(start / RATE, end / RATE))
    order = np.concatenate((np.arange(start), start + np.arange(len(out)) % (end - start)))
    near(out, song.mix[order[: len(out)]])


@pytest.fixture(scope="module")
def tones() -> Song:
    frames = 3 * CHUNK
    return Song("tones", {"a": tone(frames, 997.0), "b": tone(frames, 5003.0)})


@pytest.mark.parametrize("rate", [0.8, 0.5, 1.37])
def test_other_speeds_go_over_borders_as_if_there_were_none(
    lab: Lab, tones: Song, rate: float
) -> None:
    out = lab.render(tones, seconds=(tones.frames - 2) / RATE / rate, rate=rate)
    at = np.arange(len(out)) * float(np.float32(rate))
    ideal = [np.interp(at, np.arange(tones.frames), channel) for channel in tones.mix.T]
    near(out, np.stack(ideal, axis=1).astype("f4"))


def test_a_change_of_speed_or_of_the_loop_is_not_heard(lab: Lab) -> None:
    frames = 3 * CHUNK
    song = Song("slow", {"a": tone(frames, 100.0)})
    slope = 0.2 * 2 * np.pi * 100 / RATE
    steps: list[tuple[Any, ...]] = [
        (0.5, "setRate", 0.7),
        (1.0, "setRate", 1),
        (1.5, "setRate", 1.5),
    ]
    steps += [(2.0, "setLoop", 2.0, 3.0), (2.1, "clearLoop")]
    out = lab.render(song, seconds=2.5, steps=steps)
    assert float(np.abs(np.diff(out, 2, axis=0)).max()) < slope
    # A step is heard some frames after it was made.
    assert lab.said["positions"] == pytest.approx([0.5, 0.85, 1.35, 2.1, 2.25], abs=0.06)
    # Back at speed 1, samples are samples again, not something between them.
    part = out[round(1.2 * RATE) :][:441, 0]  # one period
    at = np.lib.stride_tricks.sliding_window_view(song.mix[: 2 * 441, 0], 441)
    assert float(np.abs(at - part).max(axis=1).min()) < 2 * STEP * 2.0**-song.exponent


def test_jumps_and_faders_do_not_click(lab: Lab) -> None:
    song = Song("low", {"a": tone(3 * CHUNK, 60.0, 0.5)})
    steps = [(0.5, "seek", 2.004), (1.0, "pause"), (1.2, "play")]
    out = lab.render(song, seconds=1.5, steps=steps)
    step = 0.5 * 2 * np.pi * 60 / RATE + 0.5 / (0.006 * RATE)  # of the sine and of the fade
    assert float(np.abs(np.diff(out, axis=0)).max()) < 1.1 * step
    assert not out[round(1.1 * RATE) : round(1.19 * RATE)].any()
    assert float(np.abs(out[round(1.3 * RATE) :]).max()) == pytest.approx(0.5, abs=0.01)


def test_a_seek_sounds_within_300_ms(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    song = long_song()
    lab.live(song)
    lab.js("player.play()")
    lab.until("player.level('master').rms > 0.01")
    took = []
    for seconds in (600, 30, 1100.4, 31.485, 900, 5):
        took.append(
            lab.js(
                f"(async () => {{ const start = performance.now(); player.seek({seconds});"
                f" await eventually(() => player.position > {seconds}"
                "  && player.level('master').rms > 0.01);"
                " return performance.now() - start; })()"
            )
        )
    with capsys.disabled():
        print(f" seeks: {', '.join(f'{each:.0f}' for each in took)} ms")
    # Others may keep the machine busy; one of these was there already.
    assert sorted(took)[1] < 300


def test_dragging_through_the_song_loads_only_where_it_ends(lab: Lab) -> None:
    song = long_song()
    lab.live(song)
    lab.js("player.play()")
    lab.until("player.position > 0.1")
    lab.js(
        "(async () => { for (let at = 10; at <= 1000; at += 10) { player.seek(at);"
        " await new Promise((done) => setTimeout(done, 5)); } })()"
    )
    lab.until("player.position > 1000.1")
    assert lab.js("player.position") < 1003
    assert len(lab.js("player.buffered")) < 10
    assert lab.js("failed.length") == 0


def test_stems_stay_in_sync_on_a_machine_that_is_late(lab: Lab, song: Song) -> None:
    lab.live(song)
    lab.js(
        """(() => {
          window.starts = [];
          window.startSource = AudioBufferSourceNode.prototype.start;
          AudioBufferSourceNode.prototype.start = function (when, offset) {
            const from = performance.now();
            while (starts.length < 9 && performance.now() < from + 40);
            starts.push({ when, offset, at: context.currentTime });
            return startSource.call(this, when, offset);
          };
        })()"""
    )
    lab.js("player.play()")
    lab.until("player.position > 0.05")
    starts = lab.js("AudioBufferSourceNode.prototype.start = startSource, starts")
    late = [each for each in starts if each["at"] >= each["when"]]
    assert late, "the machine was late"
    begun = [each for each in starts if each["when"] > late[-1]["when"]][:3]
    assert len({(each["when"], each["offset"]) for each in begun}) == 1
    assert all(each["at"] < each["when"] for each in begun)


def test_memory_is_bounded_however_long_the_song(lab: Lab) -> None:
    song = long_song()
    lab.live(song)
    lab.js(
        "window.most = 0, player.addEventListener('progress', () =>"
        " { most = Math.max(most, player.bufferedBytes); })"
    )
    lab.js("player.setOriginal(true)")
    lab.js("player.play()")
    for seconds in range(50, 1200, 100):
        lab.js(f"player.seek({seconds})")
        lab.until(f"player.position > {seconds}")
    lab.js("player.setLoop(100, 100.4), player.seek(100)")
    lab.until("player.position > 100")
    for seconds in (600, 700, 800):
        lab.js(f"player.seek({seconds})")
        # All that is wanted is there in the end: the store is as full as it gets.
        lab.until(f"player.buffered.some(([from, to]) => from < {seconds} && to > {seconds + 20})")
        lab.until("player.bufferedBytes > 70e6")
    assert lab.js("most") <= 100e6
    held = lab.js("player.buffered")
    assert any(start <= 100 < end for start, end in held), "the loop's start is kept"
    lab.js("player.close()")
    assert lab.js("player.bufferedBytes") == 0


def test_it_waits_at_the_edge_and_goes_on_by_itself(lab: Lab, song: Song) -> None:
    song.reach = CHUNK
    try:
        lab.live(song, reach=0)
        lab.js("player.play()")
        assert lab.js("[player.playing, player.waiting, player.position]") == [True, True, 0]
        assert song.asked == [] or lab.js("player.bufferedBytes") == 0
        lab.js(f"player.setReach({CHUNK})")
        lab.until("!player.waiting")
        lab.until("player.waiting")
        edge = lab.js("player.position")
        assert edge == pytest.approx(CHUNK / RATE, abs=2 / RATE)
        assert lab.js("player.playing")
        assert lab.js("player.level('master').peak") >= 0
        # A reach that the server knows nothing of yet: nothing is skipped.
        lab.js(f"player.setReach({2 * CHUNK})")
        lab.until("failed.length > 0")
        assert lab.js("[player.failing, player.waiting, player.position]") == [True, True, edge]
        song.reach = song.frames
        lab.js(f"player.setReach({song.frames})")
        lab.until(f"player.position > {edge + 0.05}")
        lab.until("!player.failing")
        lab.js("player.seek(player.duration - 0.2)")
        lab.until("!player.playing")
        assert lab.js("player.position === player.duration")
        lab.js("player.play()")
        lab.until("player.position > 0.05 && player.position < 1")
    finally:
        song.reach = song.frames


def test_a_chunk_that_cannot_be_had_is_told_and_tried_again(lab: Lab, song: Song) -> None:
    song.missing = {"b"}
    lab.live(song)
    lab.js("player.play()")
    lab.until("failed.length > 0")
    assert lab.js("failed[0].stem") == "b"
    assert lab.js("[player.waiting, player.position]") == [True, 0]
    song.missing = set()
    lab.until("player.position > 0.05")
    lab.until("!player.failing")


def test_mute_solo_and_the_original_are_heard_as_the_meters_say(lab: Lab) -> None:
    frames = 4 * CHUNK
    levels = {"drums": 0.5, "vocals": 0.25, "mixture": 0.125}
    stems = {name: tone(frames, 441.0, level) for name, level in levels.items()}
    song = Song("levels", stems)
    lab.live(song)
    lab.js("player.setLoop(0.5, 3)")
    lab.js("player.play()")

    def master(peak: float) -> None:
        lab.until(f"Math.abs(player.level('master').peak - {peak}) < 0.01")

    def mix(text: str) -> None:
        lab.js(f"player.setMix(parseMix('{text}', ['drums', 'vocals']))")

    master(0.75)
    lab.until(f"Math.abs(player.level('drums').rms - {0.5 / 2**0.5}) < 0.01")
    mix("drums:80:0:m")
    master(0.25)
    lab.until("player.level('drums').peak < 0.001")
    mix("drums:80:0:s")
    master(0.5)
    mix("drums:80:0:m,vocals:80:0:m")
    master(0)
    mix("drums:80:-100:s")  # one side has it all: a meter of the sum of both would show half
    lab.until("player.level('drums').peak > 0.95")
    mix("")
    assert not [asked for asked in song.asked if asked.startswith("mixture")]
    start = lab.js("context.currentTime")
    lab.js("player.setOriginal(true, 2)")
    assert not lab.js("player.waiting")
    master(0.25)
    assert lab.js("context.currentTime") < start + 5, "what was planned before is planned anew"
    assert lab.js("player.originalHeard")
    before = lab.js("[player.bufferedBytes, player.position]")
    lab.js("player.setOriginal(false)")
    master(0.75)
    asked = len(song.asked)
    lab.js("player.setOriginal(true)")
    master(0.125)
    assert len(song.asked) == asked, "the second time it is there"
    assert before[0] == lab.js("player.bufferedBytes")


def test_the_position_follows_loops_pauses_and_speeds(lab: Lab, song: Song) -> None:
    lab.live(song)
    lab.js("player.setLoop(1, 1.06)")
    lab.js("player.seek(0.95)")
    lab.js("player.play()")
    lab.until("player.position >= 1")
    lab.js(
        "(async () => { window.seen = []; const end = context.currentTime + 0.4;"
        " await eventually(() => { seen.push(player.position);"
        "  return context.currentTime > end; }); })()"
    )
    seen = lab.js("seen")
    assert min(seen) >= 1
    assert max(seen) <= 1.06
    assert sum(later < sooner for sooner, later in pairwise(seen)) >= 4  # rounds
    lab.js("player.clearLoop()")
    lab.until("player.position > 1.2")
    lab.js("player.pause()")
    there = lab.js("player.position")
    lab.until("player.level('master').peak < 1e-6")
    assert lab.js("[player.playing, player.position]") == [False, there]
    lab.js("player.setRate(0.5)")
    lab.js("player.play()")
    lab.until(f"player.position > {there} + 0.1")
    speed = lab.js(
        "(async () => { const [time, position] = [context.currentTime, player.position];"
        " await eventually(() => context.currentTime > time + 0.3);"
        " return (player.position - position) / (context.currentTime - time); })()"
    )
    assert speed == pytest.approx(0.5, abs=0.05)


def test_a_context_that_the_system_suspended_is_resumed(lab: Lab, song: Song) -> None:
    lab.live(song)
    lab.js("player.play()")
    lab.until("player.position > 0.1")
    lab.js("context.suspend()")
    lab.until("context.state === 'running'")
    there = lab.js("player.position")
    lab.until(f"player.position > {there} + 0.1")
    assert not lab.js("player.interrupted")


def long_song() -> Song:
    """Twenty minutes of six stems and the original, which repeat a few seconds."""
    stems = {name: noise(3 * CHUNK, seed, 0.05) for seed, name in enumerate("abcdef")}
    return Song("long", {**stems, "mixture": noise(3 * CHUNK, 9)}, frames=20 * 60 * RATE)
