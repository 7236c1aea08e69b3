"""Options are checked against the model, and what is settled for the user is said."""

from pathlib import Path
from typing import Any

import pytest

from separations.engine.options import Options, settle, stem_names
from separations.engine.store import read_model
from separations.faults import Fault


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
