"""The commands of manage.py: their output, errors and exit status."""

import io
import re
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from django.core.management import CommandError, call_command
from pytest_django import Settings

from separations.checks import site_checks
from separations.engine import engine_choice
from separations.engine.engine_choice import FLOAT32, OPENVINO, TORCH, Choice, Plan, Trial
from separations.engine.options import Options
from separations.engine.tuning import tuner
from tests.support import sounds

pytestmark = pytest.mark.usefixtures("site_settings")


def run(*arguments: str) -> tuple[str, str]:
    out, error = io.StringIO(), io.StringIO()
    call_command(*arguments, stdout=out, stderr=error)
    return out.getvalue(), error.getvalue()


def test_separate_writes_a_folder_of_stems(tmp_path: Path) -> None:
    song = sounds.music(2.0)
    source = sounds.wav(tmp_path / "내 노래.wav", song)
    out, _error = run("separate", str(source), "--out", str(tmp_path / "out"))
    assert out.strip() == str(tmp_path / "out" / "내 노래")
    for name in ("drums", "bass", "other", "vocals"):
        info = soundfile.info(tmp_path / "out" / "내 노래" / f"{name}.wav")
        assert (info.frames, info.subtype) == (song.shape[1], "PCM_16")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["내 노래"]


@pytest.mark.parametrize("format", ["float32", "flac", "mp3"])
def test_separate_writes_every_format(tmp_path: Path, format: str) -> None:
    source = sounds.wav(tmp_path / "a.wav", sounds.music(1.5, 48_000), 48_000)
    more = {"mp3": ("--bitrate", "128"), "flac": ("--rate", "song")}.get(format, ())
    run("separate", str(source), "--out", str(tmp_path), "--format", format, *more)
    extension = format if format in ("flac", "mp3") else "wav"
    path = tmp_path / "a" / f"drums.{extension}"
    rate = 48_000 if format == "flac" else sounds.RATE
    assert soundfile.info(path).samplerate == rate
    assert soundfile.info(path).frames == int(1.5 * rate)
    if format == "mp3":
        with av.open(str(path)) as container:
            assert container.bit_rate < 150_000


def test_a_bit_rate_of_another_format_is_refused(tmp_path: Path) -> None:
    source = sounds.wav(tmp_path / "a.wav", sounds.music(0.2))
    with pytest.raises(CommandError, match="128, 192, 256"):
        run("separate", str(source), "--out", str(tmp_path), "--format=m4a", "--bitrate=320")


def test_one_stem_and_the_rest_add_up_to_the_song(tmp_path: Path) -> None:
    song = sounds.music(2.0)
    source = sounds.wav(tmp_path / "a.wav", song, subtype="FLOAT")
    options = ("--stems", "vocals", "--format", "float32", "--shifts", "1", "--overlap", "0.1")
    run("separate", str(source), "--out", str(tmp_path), *options)
    stems = [soundfile.read(tmp_path / "a" / f"{n}.wav")[0].T for n in ("vocals", "instrumental")]
    np.testing.assert_allclose(stems[0] + stems[1], song, atol=1e-5)


def test_two_songs_of_one_name_get_a_folder_each(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    songs = [sounds.wav(tmp_path / name / "01.wav", sounds.music(1.0)) for name in ("one", "two")]
    run("separate", *map(str, songs), "--out", str(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"01", "01 (2)"}


def test_a_clamped_segment_is_said(tmp_path: Path) -> None:
    source = sounds.wav(tmp_path / "a.wav", sounds.music(1.0))
    _out, error = run("separate", str(source), "--out", str(tmp_path), "--segment", "12")
    assert "at most 1.0 seconds; 12.0 was asked for" in error


def test_the_good_files_are_separated_and_the_bad_ones_named(tmp_path: Path) -> None:
    good = sounds.wav(tmp_path / "good.wav", sounds.music(1.0))
    bad = tmp_path / "bad.mp3"
    bad.write_text("words " * 999)
    gone = tmp_path / "gone.mp3"
    error = io.StringIO()
    with pytest.raises(CommandError, match="2 of 3 files"):
        call_command("separate", str(bad), str(good), str(gone), out=tmp_path / "out", stderr=error)
    assert "bad.mp3: This is not an audio file" in error.getvalue()
    assert "gone.mp3: No such file" in error.getvalue()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "nope"}, "The model nope is not installed"),
        ({"model": "../x"}, "cannot be the name of a model"),
        ({"stems": "kazoo"}, "no stem “kazoo”"),
        ({"shifts": 99}, "shifts must be one of or within: 0–10"),
        ({"overlap": 1.5}, "overlap must be"),
    ],
)
def test_a_wrong_option_is_a_sentence(
    tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(CommandError, match=words):
        call_command("separate", "a.wav", out=tmp_path, **options)


def test_models_are_listed(small_store: Path) -> None:
    out, _error = run("models")
    lines = out.splitlines()
    assert lines[0].split() == ["MODEL", "STEMS", "SIZE", "SPEED", "ENGINE", "SHA-256"]
    assert "drums, bass, other, vocals" in lines[1]
    assert "torch float32" in lines[1]  # there is nothing to choose from (support/environment.py)
    assert "4x slower" in lines[4]
    assert str(small_store) in lines[-1]


def test_models_are_listed_with_what_was_measured(
    small_store: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ENGINE = "auto"
    settings.ENGINE_DIR = tmp_path / "engines"
    assert run("models")[0].count("not measured yet") == 3  # of four; one is of an older kind
    settings.MODEL_DIR = tmp_path / "models"
    shutil.copytree(small_store / "tiny", settings.MODEL_DIR / "tiny")
    seconds = iter((1.5, 0.75, 1.5))

    def measure(
        _model: object, _store: object, folder: Path, options: Options, *_others: object
    ) -> Choice:
        """As tests/engine/test_engine_choice.py does for real; that takes half a minute."""
        trials = [
            Trial(Plan(TORCH, FLOAT32), 2.0),
            Trial(Plan(OPENVINO, FLOAT32, 1), next(seconds), 90.0),
        ]
        return engine_choice.write_choice(folder, trials, options)

    monkeypatch.setattr(tuner, "_measure", measure)
    out, _error = run("models", "--measure")
    assert "not measured yet" not in out
    assert re.search(r"tiny on .+, openvino float32: 1\.50? s a chunk, 90 dB from float32", out)
    assert run("models")[0] == out
    with monkeypatch.context() as later:  # a day after a plan failed that may work by now
        later.setattr(engine_choice, "may_pass", lambda _trial: True)
        later.setattr(engine_choice, "TRY_AGAIN_SECONDS", -1)
        assert run("models", "--measure", "--if-missing") == ("", "")
    assert "openvino float32: 0.75 s" in run("models", "--measure")[0], "whatever is known already"
    shutil.rmtree(settings.ENGINE_DIR)
    out, _error = run("models", "tiny", "--measure", "--if-missing")
    assert out == "tiny runs with openvino float32 here\n"
    with pytest.raises(CommandError, match="Not installed: huge"):
        run("models", "huge")


def test_models_are_fetched_from_a_folder(
    tmp_path: Path, small_store: Path, settings: Settings
) -> None:
    settings.MODEL_DIR = tmp_path / "new"
    out, _error = run("fetch_models", "tiny", "tiny_6s", "--from", str(small_store))
    assert "tiny_6s is ready: drums, bass, other, vocals, guitar, piano" in out
    assert "tiny is there already" in run("fetch_models", "tiny")[0]
    assert run("fetch_models", "tiny", "--if-missing") == ("", "")


def test_a_model_that_cannot_be_had_says_what_was_tried(tmp_path: Path, settings: Settings) -> None:
    settings.MODEL_DIR = tmp_path
    with pytest.raises(CommandError, match=r"Tried: the folder .* holds no mdx_extra.yaml"):
        call_command("fetch_models", "mdx_extra", "--from", str(tmp_path))


# System checks


def test_a_missing_default_model_is_warned_of(settings: Settings, tmp_path: Path) -> None:
    assert site_checks.default_model_is_there(None) == []
    settings.MODEL_DIR = tmp_path
    (warning,) = site_checks.default_model_is_there(None)
    assert "fetch_models tiny" in str(warning.hint)


@pytest.mark.parametrize(("name", "value"), [("JOBS", 16), ("THREADS", 5000), ("DEVICE", "tpu")])
def test_a_setting_that_would_fail_every_upload_is_an_error(
    settings: Settings, name: str, value: object
) -> None:
    assert site_checks.settings_fit_the_engine(None) == []
    setattr(settings, name, value)
    (error,) = site_checks.settings_fit_the_engine(None)
    assert error.id == "stemsite.E003"
    assert name.lower() in str(error.msg)


def test_a_torchaudio_that_does_not_fit_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert site_checks.torchaudio_imports(None) == []
    # A copy whose compiled part does not fit, as beside a CPU build of torch.
    broken = tmp_path / "torchaudio"
    (broken / "lib").mkdir(parents=True)
    (broken / "lib" / "_torchaudio.so").write_bytes(b"")
    (broken / "__init__.py").write_text("raise OSError('libc10_cuda.so')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(site_checks, "_torch_has_cuda", lambda: False)
    monkeypatch.delitem(__import__("sys").modules, "torchaudio", raising=False)
    (error,) = site_checks.torchaudio_imports(None)
    assert error.id == "stemsite.E002"
    assert "make setup" in str(error.hint)
