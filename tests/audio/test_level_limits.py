"""Levels that no sound has: refused with the cause, and never in a row, an answer or a page."""

import io
import json
import math
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from django.apps import apps
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test import Client, RequestFactory
from safetensors import safe_open
from safetensors.torch import save_file

from separations.api.openapi import StrictJson
from separations.audio.level_limits import HIGHEST_LEVEL, HIGHEST_PEAK
from separations.audio.sandbox.decoder_process import probe_isolated
from separations.audio.store.stem_file import StemWriter, read_stem
from separations.engine.process import engine_protocol
from separations.engine.process.engine_process import EngineProcess
from separations.engine.process.engine_protocol import Done, Progress
from separations.errors.fault import Fault
from separations.models import Job, Stem, Upload
from separations.worker import leases
from separations.worker.slots import Slot
from tests.support import sounds
from tests.support.engines import request_for
from tests.support.jobs import Submit, claimed, finished

BEYOND = float(np.float32(3e38))


def floats(path: Path, peak: float, seconds: float = 3.0, subtype: str = "FLOAT") -> Path:
    """A float WAV whose loudest sample is `peak`."""
    song = sounds.music(seconds).astype(np.float64)
    song *= peak / np.abs(song).max()
    soundfile.write(path, song.T, sounds.RATE, subtype)
    return path


def refusal(act: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(Fault) as caught:
        act(*arguments)
    return caught.value.code


# What is taken


@pytest.mark.parametrize("peak", [1.0, 32_768.0, 1e9, 2.0**31, HIGHEST_LEVEL])
def test_float_files_on_the_scale_of_integers_are_taken(tmp_path: Path, peak: float) -> None:
    assert probe_isolated(floats(tmp_path / "a.wav", peak), 60).seconds == 3.0


@pytest.mark.parametrize(
    ("peak", "subtype", "code"),
    [
        (HIGHEST_LEVEL * 1.001, "FLOAT", "too_loud"),
        (BEYOND, "FLOAT", "too_loud"),
        (1e300, "DOUBLE", "too_loud"),
        (math.inf, "FLOAT", "not_finite"),
        (math.nan, "FLOAT", "not_finite"),
        (math.nan, "DOUBLE", "not_finite"),
    ],
)
def test_what_is_louder_or_no_number_is_refused(
    tmp_path: Path, peak: float, subtype: str, code: str
) -> None:
    song = sounds.music(1.0).astype(np.float64)
    song[1, 20_000] = peak
    path = tmp_path / "a.wav"
    soundfile.write(path, song.T, sounds.RATE, subtype)
    assert refusal(probe_isolated, path, 60) == code


def test_surround_is_looked_at_before_it_is_folded_down(tmp_path: Path) -> None:
    song = sounds.music(1.0, channels=6)
    song[3, 20_000] = BEYOND  # the subwoofer, which is left out
    soundfile.write(tmp_path / "a.wav", song.T, sounds.RATE, "FLOAT")
    assert refusal(probe_isolated, tmp_path / "a.wav", 60) == "too_loud"


# The engine


def run(engine: EngineProcess, source: Path, folder: Path, store: Path, **options: Any) -> Done:
    request = request_for(source, folder / "staging", store, **options)
    *_before, done = [message for message in engine.run(request, 60.0) if message]
    assert isinstance(done, Done)
    return done


@pytest.mark.parametrize("peak", [BEYOND, math.inf, math.nan])
def test_the_engine_reads_no_such_song_either(
    engine: EngineProcess, tmp_path: Path, small_store: Path, peak: float
) -> None:
    song = sounds.music(3.0)
    song[:, 50_000] = peak
    source = sounds.wav(tmp_path / "a.wav", song, subtype="FLOAT")
    code = refusal(run, engine, source, tmp_path, small_store)
    assert code == ("too_loud" if peak == BEYOND else "not_finite")


@pytest.mark.parametrize("rate", [sounds.RATE, 48_000])
def test_the_loudest_song_is_separated_like_any_other(
    engine: EngineProcess, tmp_path: Path, small_store: Path, rate: int
) -> None:
    """Every number of the result is that of the same song at full scale, times 2^32."""
    song = sounds.music(3.0, rate)
    song /= np.abs(song).max()
    results = {}
    for exponent in (0, 32):
        folder = tmp_path / str(exponent)
        folder.mkdir()
        loud = np.ldexp(song, exponent)
        source = sounds.wav(folder / "a.wav", loud, rate, subtype="FLOAT")
        results[exponent] = run(engine, source, folder, small_store)
    plain, loud_one = results[0], results[32]
    for low, high in zip(
        (*plain.stems, plain.mixture), (*loud_one.stems, loud_one.mixture), strict=True
    ):
        assert high.peak == pytest.approx(low.peak * 2.0**32, rel=1e-2)
        assert low.loudness is not None
        assert high.loudness == pytest.approx(low.loudness + 32 * 20 * math.log10(2), abs=0.1)
        stored = [
            np.concatenate(list(read_stem(tmp_path / name / "staging" / f"{low.name}.flac"))).T
            for name in ("0", "32")
        ]
        assert sounds.snr(stored[0], np.ldexp(stored[1], -32)) > 40


@pytest.mark.parametrize("value", [math.nan, math.inf, BEYOND])
def test_a_stem_that_is_no_sound_is_not_written(tmp_path: Path, value: float) -> None:
    writer = StemWriter(tmp_path / "vocals.flac")
    song = sounds.music(2.0)
    song[0, 1000] = value
    assert refusal(writer.write, song) == "absurd_stem"
    writer.close()


@pytest.mark.parametrize(
    ("weight", "code"), [(1e20, "absurd_stem"), (3e38, "model_unusable")], ids=["huge", "overflow"]
)
def test_a_model_that_bursts_ends_its_job_with_the_reason(
    tmp_path: Path, small_store: Path, weight: float, code: str
) -> None:
    home = tmp_path / "models" / "tiny"
    shutil.copytree(small_store / "tiny", home)
    (path,) = home.glob("*.safetensors")
    with safe_open(path, "pt") as file:
        about = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    last = max(key for key in tensors if key.startswith("tdecoder") and key.endswith("weight"))
    tensors[last] = torch.full_like(tensors[last], weight)
    save_file(tensors, path, metadata=about)
    source = sounds.wav(tmp_path / "a.wav", sounds.music(3.0))
    with EngineProcess() as engine:
        assert refusal(run, engine, source, tmp_path, home.parent) == code


# What an engine says


def said(**fields: Any) -> str:
    return json.dumps(fields)


def done_with(**stem: Any) -> str:
    plain = {"name": "vocals", "peak": 0.5, "loudness": -20.0}
    stems = [{**plain, **stem}]
    return said(kind="Done", frames=9, stems=stems, mixture=plain, memory=1, engine="torch")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (done_with(peak=math.inf), "absurd_stem"),
        (done_with(peak=math.nan), "absurd_stem"),
        (done_with(peak=-1.0), "absurd_stem"),
        (done_with(peak=HIGHEST_PEAK * 2), "absurd_stem"),
        (done_with(loudness=math.nan), "absurd_stem"),
        (done_with(loudness=-math.inf), "absurd_stem"),
        (said(kind="Progress", stage="decode", fraction=math.nan, remaining=None), "engine_error"),
        (said(kind="Progress", stage="decode", fraction=0.5, remaining=math.inf), "engine_error"),
        (said(kind="Progress", stage="decode", fraction=0.5, remaining=10**40), "engine_error"),
        ('{"kind": "Progress", "stage": "", "fraction": 1e999, "remaining": null}', "engine_error"),
        (said(kind="Failed", code="x", params={"reason": math.inf}, trace=""), "engine_error"),
        (said(kind="Something"), "engine_error"),
        ("[]", "engine_error"),
        ("no json", "engine_error"),
    ],
)
def test_what_an_engine_says_is_checked(line: str, code: str) -> None:
    assert refusal(engine_protocol.read_message, line) == code


def test_nothing_is_said_that_json_has_no_word_for() -> None:
    with pytest.raises(ValueError, match="JSON"):
        engine_protocol.write_message(Progress("decode", math.nan, None))


@pytest.mark.django_db
@pytest.mark.usefixtures("no_queue")
def test_a_result_without_a_number_fails_its_job_and_is_in_no_row(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit()
    popen = subprocess.Popen
    answer = f"print({done_with(peak=math.inf)!r}, flush=True); input(); input()"
    monkeypatch.setattr(
        subprocess, "Popen", lambda _command, **more: popen([sys.executable, "-c", answer], **more)
    )
    with EngineProcess() as engine:
        Slot(engine, 1, threading.Event()).run(claimed())
        assert engine.pid is None, "such an engine is not used again"
    job.refresh_from_db()
    assert (job.state, job.error_code) == (Job.State.FAILED, "absurd_stem")
    assert job.error_params == {"stem": "vocals"}
    assert not job.stems.exists()


# Rows


@pytest.mark.django_db
@pytest.mark.usefixtures("no_queue")
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -0.1, HIGHEST_PEAK * 2])
@pytest.mark.parametrize(
    ("model", "field"),
    [(Stem, "peak"), (Job, "song_peak"), (Job, "remaining"), (Upload, "seconds")],
)
def test_the_database_takes_no_such_number(
    submit: Submit, model: Any, field: str, value: float
) -> None:
    finished(submit())
    if field == "remaining" and value == HIGHEST_PEAK * 2:
        value = 1e10
    was = list(model.objects.values_list("pk", field))
    try:
        with transaction.atomic():
            model.objects.update(**{field: value})
    except IntegrityError:
        pass
    else:  # SQLite keeps NaN as NULL
        assert math.isnan(value)
        assert set(model.objects.values_list(field, flat=True)) == {None}
        return
    assert list(model.objects.values_list("pk", field)) == was


@pytest.mark.django_db
@pytest.mark.usefixtures("no_queue")
def test_time_left_and_progress_stay_within_their_range(submit: Submit) -> None:
    submit()
    job = claimed()
    for fraction, remaining in ((-1.0, -5.0), (7.0, 1e17)):
        assert leases.heartbeat(job, Progress("separate", fraction, remaining))
        job.refresh_from_db()
        assert 0.0 <= job.progress <= 1.0
        assert job.remaining is not None
        assert 0.0 <= job.remaining <= 1e9


@pytest.fixture
def unchecked(db: None) -> Iterator[None]:
    """A database of an earlier version, which took any number."""
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite can be told to look away")
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA ignore_check_constraints = 1")
        yield
        cursor.execute("PRAGMA ignore_check_constraints = 0")


@pytest.mark.usefixtures("no_queue", "unchecked")
@pytest.mark.parametrize(
    "broken",
    [
        lambda job: job.stems.filter(name="bass").update(peak=math.inf),
        lambda job: job.stems.filter(name="bass").update(loudness=math.inf),
        lambda job: Job.objects.filter(pk=job.pk).update(song_peak=math.inf),
        lambda job: Job.objects.filter(pk=job.pk).update(song_loudness=-math.inf),
    ],
    ids=["peak", "loudness", "song's peak", "song's loudness"],
)
def test_results_of_before_that_are_no_sound_are_expired(
    submit: Submit, visitor: Client, broken: Callable[[Job], int]
) -> None:
    sound, job = finished(submit()), finished(submit(shifts=1))
    assert broken(job) == 1
    session = visitor.session
    session["visitor"] = job.visitor
    session.save()
    import_module("separations.migrations.0012_levels_are_numbers").expire_what_is_no_sound(
        apps, None
    )
    for one, is_expired in ((sound, False), (job, True)):
        one.refresh_from_db()
        assert one.is_expired is is_expired
        page = visitor.get(f"/songs/{one.pk}")
        assert page.status_code == 200
        assert ("no longer kept" in page.content.decode()) is is_expired
    assert visitor.get("/").status_code == 200
    told = visitor.get(f"/api/separate/{job.pk}")
    assert told.status_code == 200
    strict(told.content)


def strict(content: bytes) -> Any:
    """JSON as browsers read it."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(content, parse_constant=refuse)


# Pages, the API, the command line


def sent(path: Path) -> SimpleUploadedFile:
    return SimpleUploadedFile("loud.wav", path.read_bytes())


@pytest.mark.usefixtures("no_queue")
def test_too_loud_is_said_where_the_song_was_sent(
    visitor: Client, tmp_path: Path, kept_files: Callable[[], list[Path]]
) -> None:
    path = floats(tmp_path / "a.wav", BEYOND)
    cause = "levels that no sound has, more than 193 dB above full scale. Export it again"
    page = visitor.post("/", {"file": [sent(path)]})
    assert page.status_code == 422
    assert cause in page.content.decode()
    answer = visitor.post("/api/separate", {"file": sent(path)})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_loud")
    assert cause in answer.json()["detail"]
    error = io.StringIO()
    with pytest.raises(CommandError):
        call_command("separate", str(path), "--out", str(tmp_path / "out"), stderr=error)
    assert cause in error.getvalue()
    assert not Upload.objects.exists()
    assert not kept_files()
    korean = visitor.post("/", {"file": [sent(path)]}, headers={"Accept-Language": "ko"})
    assert "193dB" in korean.content.decode()


@pytest.mark.usefixtures("no_queue")
def test_a_very_loud_song_is_shown_told_played_and_taken_home(
    visitor: Client, engine: EngineProcess, tmp_path: Path
) -> None:
    path = floats(tmp_path / "a.wav", 1e9)
    visitor.post("/", {"file": [sent(path)]})
    Slot(engine, 1, threading.Event()).run(claimed())
    job = Job.objects.get()
    assert job.state == Job.State.DONE
    assert job.song_peak == pytest.approx(1e9, rel=1e-6)
    page = visitor.get(f"/songs/{job.pk}").content.decode()
    assert "turned down together" in page
    assert visitor.get("/").status_code == 200
    told = strict(visitor.get(f"/api/separate/{job.pk}").content)
    assert max(stem["peak"] for stem in told["stems"]) > 1e7
    for address in ("stems/vocals/chunks/0", "stems/vocals/peaks", "mix/level?mix=master:100"):
        assert visitor.get(f"/songs/{job.pk}/{address}").status_code == 200, address
    for address in (f"/songs/{job.pk}/mix?mix=master:100", f"/songs/{job.pk}/stems/vocals"):
        answer = visitor.get(address, {"format": "float32"})
        data, _rate = soundfile.read(io.BytesIO(b"".join(answer.streaming_content)))  # type: ignore[attr-defined]
        assert np.isfinite(data).all()
        assert np.abs(data).max() > 1e6


def test_the_api_writes_no_number_that_json_has_not() -> None:
    with pytest.raises(ValueError, match="JSON"):
        StrictJson().render(RequestFactory().get("/"), {"peak": math.inf}, response_status=200)
