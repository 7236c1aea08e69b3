"""The API of a running site: events, the documents' examples, and what schemathesis thinks of.

API_EXAMPLES: of each operation, for schemathesis; `make fuzz` takes many.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support import generated_clients, sounds
from tests.support.running_site import Site, raw, running, until
from tests.support.sounds import ROOT

pytestmark = pytest.mark.xdist_group("api")
DOCUMENT = (ROOT / "docs" / "api.md").read_text()
LONG = "API_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("API_EXAMPLES", "5"))  # of each operation
METRICS_TOKEN = "d3b07384d113edec49eaa6238ad5ff00c157a671"
EVENT = re.compile(r"id: (\w+)\ndata: (.+)\n\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, small_store: Path) -> Iterator[Site]:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny"}
    settings["METRICS_TOKEN"], settings["MAX_UPLOAD_MB"] = METRICS_TOKEN, "5"
    with running(tmp_path_factory.mktemp("api"), **settings) as site:
        yield site


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("songs")


class Program:
    """A visitor with a token, and the task of their first song."""

    def __init__(self, site: Site, song: Path, **form: str) -> None:
        self.api = requests.Session()
        with song.open("rb") as file:
            answer = self.api.post(f"{site.url}/api/separate", files={"file": file}, data=form)
        assert answer.status_code == 202, answer.text
        self.task: dict[str, Any] = answer.json()
        self.token = self.task["token"]
        self.api.headers["Authorization"] = f"Bearer {self.token}"

    def status(self) -> str:
        return str(self.api.get(self.task["links"]["self"]).json()["status"])

    def events(self, seen: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        headers = {"Last-Event-ID": seen} if seen else {}
        with self.api.get(
            self.task["links"]["progress"], stream=True, headers=headers, timeout=60
        ) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            text = ""
            for piece in answer.iter_content(None):
                text += piece.decode()
                while found := EVENT.search(text):
                    yield found[1], json.loads(found[2])
                    text = text[found.end() :]


# The documents' examples


def test_the_curl_lines_of_the_documents_do_what_they_say(
    site: Site, songs: Path, tmp_path: Path
) -> None:
    block = re.search(r"```bash\n(SITE=.*\n(?:.*\n)+?)```", DOCUMENT)
    assert block is not None
    script = re.sub(r"^SITE=.*", f"SITE={site.url}", block[1])
    script = script.replace("model=htdemucs", "model=tiny").replace("curl ", "curl --fail ")
    sounds.encode(tmp_path / "song.mp3", sounds.music(3.0, seed=21), "mp3")
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert script.count("curl ") == 8
    assert '"status":"completed"' in done.stdout
    names = {path.name for path in tmp_path.iterdir()}
    assert {"song (Vocals).mp3", "song (Stems) FLAC.zip", "song (Without vocals).wav"} <= names
    jobs = json.loads(done.stdout[done.stdout.rindex('{"items"') :])
    assert jobs["items"][0]["status"] == "completed"
    answer = requests.get(f"{site.url}/api/separate/{jobs['items'][0]['task_id']}", timeout=30)
    assert answer.status_code == 401


def test_the_python_lines_of_the_documents_do_what_they_say(
    site: Site, songs: Path, tmp_path: Path
) -> None:
    found = re.search(r"```python\nimport json\nimport requests\n(?:.*\n)+?```", DOCUMENT)
    assert found is not None
    lines = found[0].removeprefix("```python\n").removesuffix("```")
    script = re.sub(r'SITE = ".*"', f'SITE = "{site.url}"', lines)
    sounds.encode(tmp_path / "song.mp3", sounds.music(3.0, seed=22), "mp3")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "completed 100 None None"
    for name in ("vocals", "instrumental"):
        assert (tmp_path / f"{name}.flac").read_bytes().startswith(b"fLaC")


def test_only_a_trusted_proxy_tells_of_https(site: Site, songs: Path) -> None:
    song = sounds.wav(songs / "p.wav", sounds.music(1.0, seed=23))
    with song.open("rb") as file:
        answer = requests.post(
            f"{site.url}/api/separate",
            files={"file": file},
            headers={"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "on"},
            timeout=30,
        )
    assert answer.json()["links"]["self"].startswith("http://")


# Generated clients


@pytest.fixture(scope="module")
def description(songs: Path) -> Path:
    return generated_clients.write_description(songs / "openapi.json")


def test_a_generated_python_client_sends_follows_and_fetches_a_song(
    site: Site, songs: Path, description: Path, tmp_path: Path
) -> None:
    song = sounds.wav(songs / "py.wav", sounds.music(1.0, seed=24))
    with generated_clients.python_client(description, tmp_path) as ours:
        client, models = ours("client"), ours("models")
        file = ours("types").File(song.open("rb"), "Sent from Python.wav", "audio/wav")
        asked = models.SeparationRequest(file=file, shifts=1, split=True)
        sent = ours("api.songs.create_separation").sync(client=client.Client(site.url), body=asked)
        mine = client.AuthenticatedClient(site.url, sent.token, timeout=60)
        heard = ours("api.songs.follow_separation").sync(sent.task_id, client=mine)
        assert '"status":"completed"' in EVENT.findall(heard)[-1][1]
        task = ours("api.songs.get_separation").sync(sent.task_id, client=mine)
        assert (task.status, task.title) == (models.Status.COMPLETED, "Sent from Python")
        fetch = ours("api.downloads.download_stem").sync
        stem = fetch(task.task_id, "vocals", client=mine, format_=models.Format.FLAC, to="0.5")
        assert stem.payload.read(4) == b"fLaC"
        wanted = [models.Status.COMPLETED]
        completed = ours("api.lists.list_jobs").sync(client=mine, status=wanted)
        assert [item.task_id for item in completed.items] == [task.task_id]
        problem = fetch(task.task_id, "trumpet", client=mine)
        assert problem.code is models.FaultCode.NOT_FOUND
        deleted = ours("api.songs.delete_separation").sync_detailed(task.task_id, client=mine)
        assert deleted.status_code == 204


def test_a_generated_typescript_client_sends_follows_and_fetches_a_song(
    site: Site, songs: Path, description: Path, tmp_path: Path
) -> None:
    song = sounds.wav(songs / "ts.wav", sounds.music(1.0, seed=25))
    script = "tests/js/generated_client.js"
    done = generated_clients.run_node(script, description, tmp_path / "client", site.url, song)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("last")["status"] == "completed"
    assert found == {
        "title": "Sent from TypeScript",
        "stem": ["audio/mpeg", "ID3"],
        "listed": [True],
        "code": "not_found",
        "deleted": 204,
    }


# Bodies without a length


def in_chunks(song: bytes) -> tuple[dict[str, str], Iterator[bytes]]:
    """The head and the body of a form with a song, a piece at a time."""
    prepared = requests.Request("POST", "http://x", files={"file": ("c.wav", song)}).prepare()
    assert isinstance(prepared.body, bytes)
    body = prepared.body
    pieces = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
    return {"Content-Type": str(prepared.headers["Content-Type"])}, pieces


def test_a_song_may_come_in_chunks_of_unknown_length(site: Site, songs: Path) -> None:
    """As a program sends what it makes or reads from elsewhere meanwhile."""

    def send(song: bytes, **more: str) -> requests.Response:
        headers, pieces = in_chunks(song)
        address = f"{site.url}/api/separate"
        return requests.post(address, data=pieces, headers={**headers, **more}, timeout=30)

    song = sounds.wav(songs / "c.wav", sounds.music(3.0, seed=51)).read_bytes()
    answer = send(song)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["title"], answer.json()["duration"]) == ("c", 3.0)
    too_large = send(bytes(7_000_000))
    assert (too_large.status_code, too_large.json()["code"]) == (413, "too_large")
    token = {"Authorization": f"Bearer {answer.json()['token']}"}
    cancel = answer.json()["links"]["cancel"]
    refused = requests.post(cancel, data=iter([b"x"]), headers=token, timeout=30)
    assert (refused.status_code, refused.json()["code"]) == (411, "length_required")


@pytest.mark.parametrize(
    "chunks",
    [b"5\r\nabcde\r\nzz\r\n", b"5\r\nabcdefgh\r\n", b"0\r\nBad Name: x\r\n\r\n"],
    ids=["no length", "another length", "a bad trailer"],
)
def test_behind_malformed_chunks_no_request_is_read(site: Site, chunks: bytes) -> None:
    head = b"POST /api/separate HTTP/1.1\r\nHOST\r\nTransfer-Encoding: chunked\r\n"
    head += b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    hidden = b"GET /about HTTP/1.1\r\nHOST\r\n\r\n"
    answer = raw(site, head + chunks + hidden)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert b"About" not in answer


# Events


def test_events_tell_what_changes_and_end_with_the_song(site: Site, songs: Path) -> None:
    program = Program(site, sounds.wav(songs / "e.wav", sounds.music(20.0, seed=31)))
    heard = list(program.events())
    told = [data for _id, data in heard]
    assert told[0]["status"] == "queued"
    assert told[-1] == {
        "status": "completed",
        "progress": 100,
        "stage": None,
        "eta": None,
        "queue_position": None,
        "error": None,
    }
    assert any(data["stage"] == "separate" and 0 < data["progress"] < 100 for data in told)
    shares = [data["progress"] for data in told]
    assert shares == sorted(shares)
    assert all(a != b for a, b in pairwise(heard)), "each tells something new"
    # Whoever comes again after the end is told to stay away; whoever missed it hears it.
    last = heard[-1][0]
    ended = program.api.get(program.task["links"]["progress"], headers={"Last-Event-ID": last})
    assert ended.status_code == 204
    assert list(program.events(seen=heard[-2][0])) == [heard[-1]]


def test_a_stream_that_broke_off_goes_on_where_it_was(site: Site, songs: Path) -> None:
    with site.stilled():
        program = Program(site, sounds.wav(songs / "r.wav", sounds.music(2.0, seed=32)))
        stream = program.events()
        last, data = next(stream)
        assert data["status"] == "queued"
        stream.close()  # type: ignore[attr-defined]
        with program.api.get(
            program.task["links"]["progress"],
            headers={"Last-Event-ID": last},
            stream=True,
            timeout=30,
        ) as again:
            lines = again.iter_lines(decode_unicode=True)
            quiet = [next(lines) for _ in range(3)]
        assert quiet == ["retry: 2000", *[": still here"] * 2], "nothing is told twice"
        waiting = program.events(seen=last)
        program.api.post(program.task["links"]["cancel"])
        assert [data["status"] for _id, data in waiting] == ["cancelled"]


def test_a_song_that_is_deleted_ends_its_streams(site: Site, songs: Path) -> None:
    with site.stilled():
        program = Program(site, sounds.wav(songs / "d.wav", sounds.music(2.0, seed=33)))
        stream = program.events()
        next(stream)
        program.api.delete(program.task["links"]["self"])
        assert list(stream) == []


class Listener:
    """A client with an address of its own that opens a stream and may vanish without a word."""

    def __init__(self, site: Site, program: Program, number: int) -> None:
        port = int(site.url.rsplit(":", 1)[1])
        path = program.task["links"]["progress"].removeprefix(site.url)
        self.connection = socket.create_connection(
            ("127.0.0.1", port), 30, (f"127.2.0.{number + 1}", 0)
        )
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {program.token}"
        self.connection.sendall(f"{head}\r\n\r\n".encode())

    def answer(self) -> tuple[int, str]:
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.connection.recv(4096)
        return int(head[9:12]), head.decode()


def test_clients_that_vanish_give_their_threads_back(site: Site, songs: Path) -> None:
    with site.stilled():
        program = Program(site, sounds.wav(songs / "v.wav", sounds.music(2.0, seed=34)))
        until(lambda: _nobody_vanished(site), 20)
        listeners = [Listener(site, program, number) for number in range(50)]
        answers = [listener.answer() for listener in listeners]
        # A quarter of the threads; the others are told when to come again.
        assert sum(status == 200 for status, _head in answers) == 16
        refused = [head for status, head in answers if status == 503]
        assert len(refused) == 34
        assert all("Retry-After: 10" in head for head in refused)
        started = time.monotonic()
        assert requests.get(f"{site.url}/", timeout=30).status_code == 200
        assert time.monotonic() - started < 3
        for listener in listeners:
            listener.connection.close()
        until(lambda: _nobody_vanished(site), 10)
        assert _statuses(site, program, range(100, 116)) == [200] * 16, "all threads are free again"
        until(lambda: _nobody_vanished(site), 10)
        assert _statuses(site, program, [70] * 9) == [200] * 4 + [429] * 5, "one has its share"


def _nobody_vanished(site: Site) -> bool:
    """Whether the web server has noticed of all who went away that they did."""
    headers = {"Authorization": f"Bearer {METRICS_TOKEN}"}
    found = requests.get(f"{site.url}/metrics", headers=headers, timeout=30)
    values = re.findall(r"^stemsite_http_requests_in_flight ([\d.]+)", found.text, re.MULTILINE)
    return [float(value) for value in values] == [1.0]  # the one that asks


def _statuses(site: Site, program: Program, numbers: Iterable[int]) -> list[int]:
    listeners = [Listener(site, program, number) for number in numbers]
    try:
        return sorted(listener.answer()[0] for listener in listeners)
    finally:
        for listener in listeners:
            listener.connection.close()


# Whatever there is


@pytest.mark.parametrize(
    "known",
    [
        True,
        pytest.param(False, marks=pytest.mark.skipif(not LONG, reason="that is for make fuzz")),
    ],
    ids=["a finished song", "whatever ids"],
)
def test_nothing_that_schemathesis_sends_finds_a_fault(
    site: Site, songs: Path, tmp_path: Path, known: bool
) -> None:
    """Answers are as described, for what fits the description and for what does not."""
    program = Program(site, sounds.wav(songs / "x.wav", sounds.music(1.0, seed=41)))
    until(lambda: program.status() == "completed")
    # Bytes that are no song fit the description and are refused all the same.
    fine = '"2xx", 304, 400, 401, 403, 404, 409, 410, 413, 415, 416, 422, 429, 503'
    config = f"[checks]\npositive_data_acceptance.expected-statuses = [{fine}]\n"
    if known:
        names = {"path.task_id": program.task["task_id"], "path.stem_name": "drums"}
        config += "[parameters]\n" + "".join(f'"{k}" = "{v}"\n' for k, v in names.items())
    (tmp_path / "schemathesis.toml").write_text(config)
    command = [
        *("st", "--config-file", str(tmp_path / "schemathesis.toml"), "run"),
        *(f"{site.url}/api/openapi.json", "--header", f"Authorization: Bearer {program.token}"),
        *("--max-examples", str(EXAMPLES), "--request-timeout", "30", "--no-color"),
        *("--continue-on-failure", "--seed", os.environ.get("API_SEED", "1")),
        *(["--exclude-method", "DELETE"] if known else []),
    ]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "API_SONG": str(songs / "x.wav"),
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    told = "\n".join(line[:300] for line in done.stdout.splitlines())  # songs make long ones
    assert done.returncode == 0, told
    assert "Tested: 1" in done.stdout
    if known:  # else its own song may be deleted, with what came of it
        visitor = program.token.removeprefix("stemsite_visitor_").partition(".")[0]
        query = f"SELECT count(*) FROM separations_job WHERE visitor = '{visitor}'"
        assert int(str(site.rows(query)[0][0])) > 1, "songs were taken as well"
    assert "Traceback" not in site.log.read_text()
