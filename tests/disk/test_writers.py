"""Every place of the site's code that writes a file, and what keeps it from filling the disk."""

import ast
from collections.abc import Iterator

from tests.support.sounds import ROOT

GATED = {
    "separations/audio/encoding/encoder.py": "encodings: `downloads` checks before each block",
    "separations/audio/encoding/render.py": "the same",
    "separations/audio/encoding/flac.py": "the same",
    "separations/audio/encoding/tag_blocks.py": "the same; room for the cover is part of it",
    "separations/audio/store/player_chunks.py": "in memory: a piece of a stem",
    "separations/audio/store/stem_file.py": "stems: `check` before each cell",
    "separations/engine/process/song_file.py": "the decoded song: `on_frames` after each block",
    "separations/engine/tuning/tuner.py": "`wait` looks before a network is compiled and meanwhile",
    "separations/engine/tuning/benchmark.py": "a process of tuning's",
    "separations/engine/tuning/trial_process.py": "the answer of that process, a short text",
    "separations/uploads/song_files.py": "the demo, and covers: `require_room`",
    "separations/fair_use/incoming_uploads.py": "uploads: `handlers` check before each piece",
    "separations/delivery/encoding_jobs.py": "begins the empty file of an encoding",
    "separations/delivery/archives.py": "a number for each stem: `check_next`",
}
BOUNDED = {
    "separations/audio/sandbox/decoder_slots.py": "one line for each decoder of the machine",
    "separations/audio/sandbox/decoder_check.py": "a tiny song, in memory but where there is none",
    "separations/disk/disk_space.py": "one number",
    "separations/disk/reservations.py": "a number for each consumer",
    "separations/monitoring/multiprocess.py": "files of a fixed size, one of each kind a process",
    "separations/engine/engine_choice.py": "a short text a model",
    "separations/engine/memory.py": "no disk: /proc",
    "separations/engine/priority.py": "no disk: /proc",
    "separations/audio/child_process.py": "no disk: the pipe to the parent process",
    "stemsite/secret_key.py": "the secret key, once",
    "stemsite/supervisor/runs.py": "a few numbers about this run",
}
OPERATORS = {
    "separations/engine/weights/copying.py": "fetch_models",
    "separations/engine/weights/fetch.py": "fetch_models",
    "separations/engine/weights/npm.py": "fetch_models",
    "separations/engine/weights/checksums.py": "fetch_models",
    "separations/management/commands/separate.py": "separate",
    "stemsite/setup/packages.py": "make",
    "stemsite/setup/torch_build.py": "make",
    "stemsite/setup/dependencies.py": "make",
    "stemsite/setup/lock.py": "make",
    "stemsite/setup/steps.py": "make",
    "stemsite/setup/virtual_environment.py": "make",
    "stemsite/setup/messages.py": "make",
}
WRITING = (
    *("write_text", "write_bytes", "touch", "copyfile", "copy", "copy2", "copytree"),
    *("mkstemp", "mkdtemp", "TemporaryFile", "NamedTemporaryFile", "TemporaryDirectory"),
)
MAY_WRITE = ("open", "fdopen", "SoundFile")  # in a mode that says so


OF_LIBRARIES = (
    ("soundfile", "write"),
    ("np", "save"),
    ("json", "dump"),
    ("pickle", "dump"),
    ("mp4", "save"),
)


def _writes(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if (getattr(getattr(call.func, "value", None), "id", ""), name) in OF_LIBRARIES:
        return True
    if name in WRITING:
        # `copy` of dicts and querysets takes no arguments.
        return bool(call.args or call.keywords) or name in ("touch", "mkdtemp", "mkstemp")
    texts = [each.value for each in call.args if isinstance(each, ast.Constant)]
    texts += [each.value.value for each in call.keywords if isinstance(each.value, ast.Constant)]
    modes = [text for text in texts if isinstance(text, str) and len(text) <= 3]
    makes = any(
        isinstance(each, ast.Attribute) and each.attr == "O_CREAT" for each in ast.walk(call)
    )
    return name in MAY_WRITE and (makes or any(set("wax+") & set(mode) for mode in modes))


def _writers() -> Iterator[str]:
    for path in sorted((*ROOT.glob("separations/**/*.py"), *ROOT.glob("stemsite/**/*.py"))):
        calls = [
            each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Call)
        ]
        if any(map(_writes, calls)):
            yield str(path.relative_to(ROOT))


def test_all_code_that_writes_files_is_behind_the_gate_or_bounded() -> None:
    """A new place that writes comes into one of these lists, with what holds it."""
    assert set(_writers()) == {*GATED, *BOUNDED, *OPERATORS}
