"""Options are declared once, checked against the model, and what was changed is noted."""

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from separations.engine.options import (
    BY_OPERATOR,
    BY_SENDER,
    DECLARED,
    Options,
    settle,
    stem_names,
)
from separations.engine.process.engine_protocol import Request, read_request, write_request
from separations.engine.weights.store import read_model
from separations.errors.fault import Fault
from tests.support.sounds import ROOT


@pytest.mark.parametrize(
    "bad",
    [
        {"shifts": -1},
        {"shifts": 11},
        {"overlap": -0.1},
        {"overlap": 1.0},
        {"overlap": float("nan")},
        {"segment": 0.0},
        {"segment": float("inf")},
        {"jobs": -1},
        {"device": "tpu"},
        {"rest": "guess"},
    ],
)
def test_impossible_values_are_refused_by_name(small_store: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(Fault) as caught:
        settle(Options(model="tiny", **bad), read_model(small_store, "tiny"))
    assert caught.value.code == "bad_option"
    assert caught.value.params["option"] == next(iter(bad))


def test_a_stem_the_model_does_not_have_is_refused(small_store: Path) -> None:
    with pytest.raises(Fault) as caught:
        settle(Options(model="tiny", stems="piano"), read_model(small_store, "tiny"))
    assert caught.value.code == "no_such_stem"
    settle(Options(model="tiny_6s", stems="piano"), read_model(small_store, "tiny_6s"))


def test_a_segment_beyond_the_model_is_clamped_and_said(small_store: Path) -> None:
    model = read_model(small_store, "tiny")
    options, notes = settle(Options(model="tiny", segment=12.0), model)
    assert options.segment is None
    assert [(note.code, note.params) for note in notes] == [
        ("segment_clamped", {"asked": 12.0, "used": 1.0})
    ]
    assert (
        settle(Options(model="tiny_mdx", segment=12.0), read_model(small_store, "tiny_mdx"))[1]
        == []
    )


def test_a_transformer_cannot_take_a_song_whole(small_store: Path) -> None:
    options, notes = settle(Options(model="tiny", split=False), read_model(small_store, "tiny"))
    assert options.split
    assert [note.code for note in notes] == ["split_needed"]
    older, notes = settle(Options(split=False), read_model(small_store, "tiny_mdx"))
    assert (older.split, notes) == (False, [])


def test_stems_are_named_for_what_is_in_them(small_store: Path) -> None:
    model = read_model(small_store, "tiny")
    assert stem_names(Options(), model) == ["drums", "bass", "other", "vocals"]
    assert stem_names(Options(stems="vocals"), model) == ["vocals", "instrumental"]
    assert stem_names(Options(stems="bass"), model) == ["bass", "no_bass"]


# Declared once

# All that follows from a declaration, told by a process whose `Options` have one field more.
FOLLOWS = """
import json, os, sys, types
from pathlib import Path
source = Path("separations/engine/options.py")
field = "    warmth: float = option(0.5, 'Warmth.', lowest=0, highest=2)"
text = source.read_text().replace("    split: bool", field + "\\n    split: bool")
sys.path.insert(0, os.getcwd())
import separations.engine
options = types.ModuleType("separations.engine.options")
sys.modules[options.__name__] = options
exec(compile(text, str(source), "exec"), vars(options))
import django
django.setup()
from separations.api.schemas import Asked, UsedOptions
from separations.engine.process.engine_protocol import Request, read_request, write_request
from separations.management.commands.separate import Command
asked = options.Options(warmth=1.5)
request = Request("", "", "", "", asked, 0)
flags = Command().create_parser("manage.py", "separate").parse_args(["a", "--out=b", "--warmth=1"])
print(json.dumps({
    "key": asked.that_change_samples()["warmth"],
    "form": Asked.model_json_schema()["properties"]["warmth"],
    "answer": UsedOptions.model_validate(asked.as_dict()).warmth,
    "engine": read_request(write_request(request)).options.warmth,
    "flag": flags.warmth,
}))
"""


def test_a_new_option_is_one_field() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", FOLLOWS],
        cwd=ROOT,
        env=django_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    form = {
        "default": 0.5,
        "description": "Warmth.",
        "minimum": 0,
        "maximum": 2,
        "title": "Warmth",
        "type": "number",
    }
    wanted = {"key": 1.5, "form": form, "answer": 1.5, "engine": 1.5, "flag": 1.0}
    assert json.loads(answer.stdout) == wanted


def django_environment() -> dict[str, str]:
    import os

    return {**os.environ, "DJANGO_SETTINGS_MODULE": "stemsite.settings"}


def test_the_key_of_a_result_keeps_its_bytes() -> None:
    """Another key, and no song that was separated before is found again."""
    text = json.dumps(Options().that_change_samples(), sort_keys=True)
    assert text == (
        '{"engine": "auto", "overlap": 0.25, "precision": "auto", "rest": "mixture", '
        '"segment": null, "shifts": 0, "split": true, "stems": "all"}'
    )


def test_songs_that_differ_in_passes_run_on_the_same_networks() -> None:
    song = Options(stems="vocals", rest="sum", shifts=2, overlap=0.1, split=False)
    assert song.of_networks() == Options()
    for name, value in {"segment": 1.5, "jobs": 2, "threads": 3, "engine": "torch"}.items():
        other: Options = replace(Options(), **{name: value})  # type: ignore[arg-type]
        assert other.of_networks() == other


def test_options_reach_the_engine_as_they_are() -> None:
    asked = Options(model="tiny", stems="vocals", segment=1.5, split=False, jobs=3, threads=2)
    request = Request("a", "b", "c", "d", asked, 1)
    assert read_request(write_request(request)) == request


def test_settings_offer_what_the_operators_options_allow() -> None:
    assert {*BY_SENDER, *BY_OPERATOR} == set(DECLARED)
    offered = {}
    for node in ast.walk(ast.parse((ROOT / "stemsite" / "settings.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            words = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if node.func.id in ("envchoice", "envint") and words:
                offered[str(words[0])] = tuple(words[1:])
    for name in BY_OPERATOR:
        declared = DECLARED[name]
        assert name.upper() in offered
        if declared.choices:
            assert offered[name.upper()] == declared.choices
