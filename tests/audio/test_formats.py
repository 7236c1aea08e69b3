"""A download format is one entry of one table: page, API and command line follow from it."""

import ast
import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import av
import pytest
import soundfile
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone, translation

from separations.access import api_tokens
from separations.api.urls import api
from separations.audio.encoding.formats import (
    FORMATS,
    FFmpegFile,
    Flac,
    Format,
    format_choices,
    read_format,
    read_format_choice,
)
from separations.audio.store.stem_file import StemWriter
from separations.delivery.downloads import of_stem
from separations.errors.fault import Fault
from separations.models import Job, Stem, Upload
from separations.web.presenters.downloads import download_choices
from tests.support import sounds

FRAMES = 22_050
NEW = {
    "alac": Format(
        "alac",
        "Apple Lossless",
        "m4a",
        "audio/mp4",
        FFmpegFile("ipod", "alac", moves_back=True),
    ),
    "flac16": Format("flac16", "FLAC 16-bit", "flac", "audio/flac", Flac(16)),
    "webm": Format(
        "webm",
        "WebM (Opus)",
        "webm",
        "audio/webm",
        FFmpegFile("webm", "libopus", (48_000,)),
        (112, 224),
    ),
}


@pytest.fixture(params=NEW)
def new(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Format:
    """A format more than the site has."""
    format = NEW[request.param]
    monkeypatch.setitem(FORMATS, format.name, format)
    monkeypatch.setattr(api, "_described", {})  # as a new process has it
    return format


@pytest.fixture
def anna(site_settings: Any, db: None) -> User:
    return User.objects.create_user("anna")


@pytest.fixture
def job(anna: User) -> Job:
    """A finished song of Anna's with one stem."""
    upload = Upload.objects.create(
        title="a", artist="누구", bytes=1, seconds=0.5, sample_rate=sounds.RATE, channels=2
    )
    now = timezone.now()
    job = Job.objects.create(
        upload=upload,
        user=anna,
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
    job.result_folder.mkdir(parents=True)
    writer = StemWriter(job.result_folder / "drums.flac")
    writer.write(sounds.music(0.5))
    writer.finish()
    Stem.objects.create(job=job, name="drums", position=0, peak=0.5)
    return job


def check_file(data: bytes, format: Format) -> None:
    """See that a downloaded or written file is in the format, with the samples and tags."""
    encoder = format.encoder
    codec, rate = "flac", sounds.RATE
    if isinstance(encoder, FFmpegFile):
        codec, rate = encoder.codec.removeprefix("lib"), encoder.rates[0]
    with av.open(io.BytesIO(data), "r") as container:
        (stream,) = container.streams.audio
        tags = {name.lower(): text for name, text in (container.metadata | stream.metadata).items()}
        assert (stream.codec_context.name, stream.codec_context.sample_rate) == (codec, rate)
        frames = sum(frame.samples for frame in container.decode(stream))
        padding = 2000 if format.bit_rates else 0
        assert 0 <= frames - FRAMES * rate / sounds.RATE <= padding
        assert tags["title"] == "a (drums)"
    if format.encoder == Flac(16):
        assert soundfile.info(io.BytesIO(data)).subtype == "PCM_16"


# One entry


def test_the_page_offers_and_sends_a_new_format(new: Format, job: Job, anna: User) -> None:
    browser = Client()
    browser.force_login(anna)
    page = browser.get(f"/songs/{job.pk}").content.decode()
    for rate in new.bit_rates or (0,):
        value = f"{new.name}-{rate}" if rate else new.name
        label = f"{new.label} {rate} kbit/s" if rate else new.label
        waits = "" if new.grows else " data-waits"
        assert f'<option value="{value}"{waits}>{label}</option>' in page
        response = browser.get(f"/songs/{job.pk}/stems/drums?format={value}&download=1")
        assert response.headers["Content-Type"] == new.content_type
        disposition = unquote(response.headers["Content-Disposition"])
        which = {"alac": " alac", "flac16": " 16-bit", "webm": ""}[new.name]
        which += " 112 kbps" if rate == 112 else ""
        assert f"누구 - a (Drums){which}.{new.extension}" in disposition
        check_file(b"".join(response), new)


def test_programs_are_told_of_a_new_format_and_get_it(new: Format, job: Job, anna: User) -> None:
    path = "/api/separate/{task_id}/stems/{stem_name}"
    parameters = api.get_openapi_schema()["paths"][path]["get"]["parameters"]
    (format,) = (each["schema"] for each in parameters if each["name"] == "format")
    assert format["enum"] == list(FORMATS)
    _token, text = api_tokens.create(anna, "test", "30")
    program = Client(headers={"Authorization": f"Bearer {text}"})
    at = f"/api/separate/{job.pk}/stems/drums"
    response = program.get(f"{at}?format={new.name}")
    assert response.headers["Content-Type"] == new.content_type
    check_file(b"".join(response), new)
    refused = program.get(f"{at}?format={new.name}&bitrate=1")
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_option")


def test_the_command_line_writes_a_new_format(
    new: Format, site_settings: Any, tmp_path: Path
) -> None:
    source = sounds.wav(tmp_path / "a.wav", sounds.music(0.5))
    call_command("separate", str(source), "--out", str(tmp_path), "--format", new.name)
    check_file((tmp_path / "a" / f"drums.{new.extension}").read_bytes(), new)


def test_encodings_of_one_extension_are_kept_apart(job: Job, new: Format) -> None:
    stem = job.stems.get()
    kept = [
        of_stem(stem, format, rate)._cached
        for _value, format, rate in format_choices()
        if format.wav is None
    ]
    assert len(set(kept)) == len(kept)


def test_encodings_on_the_disk_keep_their_names(job: Job) -> None:
    stem = job.stems.get()
    names = [
        of_stem(stem, format, rate)._cached.name
        for _value, format, rate in format_choices()
        if format.wav is None
    ]
    rates = {"mp3": (320, 256, 192, 128), "m4a": (256, 192, 128), "opus": (192, 128, 96)}
    wanted = [f"drums-{rate}-4.{name}" for name, each in rates.items() for rate in each]
    assert names == ["drums-4.flac", *wanted]


# One reader of choices


@pytest.mark.parametrize(
    ("text", "name", "rate"),
    [("wav", "wav", 0), ("mp3", "mp3", 320), ("mp3-128", "mp3", 128), ("flac", "flac", 0)],
)
def test_without_a_bit_rate_it_is_the_highest(text: str, name: str, rate: int) -> None:
    assert read_format_choice(text) == (FORMATS[name], rate)
    assert read_format(name, rate or None) == (FORMATS[name], rate)


@pytest.mark.parametrize("text", ["", "ogg", "mp3-999", "wav-", "wav-0", "mp3-0128", "mp3-320-1"])
def test_what_is_no_format_is_refused_in_words(text: str) -> None:
    with pytest.raises(Fault) as caught:
        read_format_choice(text)
    assert caught.value.code == "bad_option"
    assert "wav24" in caught.value.params["allowed"]


@pytest.mark.parametrize(("name", "rate"), [("aiff", None), ("wav", 128), ("mp3", 129)])
def test_the_command_line_refuses_the_same_in_words(
    site_settings: Any, tmp_path: Path, name: str, rate: int | None
) -> None:
    with pytest.raises(Fault):
        read_format(name, rate)
    with pytest.raises(CommandError, match="must be one of"):
        call_command("separate", "a.wav", out=tmp_path, format=name, bitrate=rate)


def test_labels_are_translated() -> None:
    with translation.override("ko"):
        assert download_choices(sounds.RATE)[0].label == "WAV 16비트"
    with translation.override("en"):
        assert download_choices(sounds.RATE)[0].label == "WAV 16-bit"


def test_the_user_guide_names_every_format() -> None:
    guide = (sounds.ROOT / "docs" / "user-guide.md").read_text()
    table = guide.partition("\n## Downloads\n")[2].partition("\n## ")[0]
    for format in FORMATS.values():
        assert [word for word in format.label.split() if word not in table] == [], format.name


# No other list

WORDS = {each.name for each in FORMATS.values()} | {each.extension for each in FORMATS.values()}
ELSEWHERE = {
    "audio/encoding/formats.py",  # the table
    "audio/encoding/mp3.py",  # FFmpeg's name of the one format this file writes
    "audio/decoding/allowed_codecs.py",  # what is read
    "audio/decoding/parts.py",
    "audio/decoding/source.py",
    "audio/decoding/tag_formats.py",  # which tags each kind of file has
}


def test_no_other_list_of_formats_exists() -> None:
    found = set()
    for path in (sounds.ROOT / "separations").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in WORDS - {"float32"}:  # a dtype
                found.add(str(path.relative_to(sounds.ROOT / "separations")))
    assert found - ELSEWHERE == set()
    pages = [*(sounds.ROOT / "templates").rglob("*.html"), *_scripts()]
    words = re.compile(rf"""["'](?:{"|".join(WORDS)})\b""")
    assert [path.name for path in pages if words.search(path.read_text())] == []


def _scripts() -> list[Path]:
    scripts = (sounds.ROOT / "static" / "js").rglob("*.js")
    return [path for path in scripts if "vendor" not in path.parts]
