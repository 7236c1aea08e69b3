"""Inputs through the whole site in this process: form, upload handlers, sandbox, rows."""

import logging
import math
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from uuid import UUID

from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import close_old_connections, connection
from django.test import Client
from hypothesis import HealthCheck, given, seed, strategies
from hypothesis import settings as hypothesis_settings

from separations.audio.sandbox import decoder_process
from separations.audio.sandbox.decoder_process import open_song
from separations.errors.fault import Fault
from separations.models import Job, Upload
from tests.fuzz.inputs import Input, inputs
from tests.fuzz.tally import Tally, Watch

SIDE_BY_SIDE = 2
# The sandbox ends what takes this long; beyond it, something hangs.
GRACE_SECONDS = 10
SAID_EVERY = 500  # files; all of them take most of an hour on a slow machine
HTMX = {"HX-Request": "true"}
_now = threading.local()


def limit() -> float:
    cpu = (
        decoder_process.CPU_SECONDS
        + settings.MAX_DURATION_SECONDS / decoder_process.SECONDS_PER_CPU_SECOND
    )
    return math.ceil(cpu) * decoder_process.WALL_FACTOR + GRACE_SECONDS


class _Deaths(logging.Handler):
    """Counts the decoders that did not come to an answer."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        given = getattr(_now, "given", None)
        if given is not None and "Reading a song" in text:
            self._tally.died(given.kind)
            if "answer that cannot be" in text:
                self._tally.blame("wrong", text, given)


def run(
    count: int, first_seed: int, songs: dict[str, bytes], watch: Watch, tally: Tally, until: float
) -> None:
    """Send `count` inputs, two at a time; no more when it is `until`."""
    deaths = _Deaths(tally)
    logger = logging.getLogger("separations.audio.sandbox.decoder_process")
    logger.addHandler(deaths)
    logger.propagate = False
    try:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            waiting = set()
            for sent, given in enumerate(islice(inputs(first_seed, songs, watch.bait), count)):
                if time.monotonic() > until:
                    break
                if sent and sent % SAID_EVERY == 0:
                    print(f"{sent} of {count} files sent within one process", flush=True)
                waiting.add(pool.submit(_send, given, watch, tally))
                if len(waiting) >= 20:
                    done = next(as_completed(waiting))
                    done.result()
                    waiting.remove(done)
            for done in as_completed(waiting):
                done.result()
    finally:
        logger.removeHandler(deaths)
        logger.propagate = True


def _send(given: Input, watch: Watch, tally: Tally) -> None:
    _now.given = given
    close_old_connections()
    # The client raises what would be a page of 500: as an answer, it is counted.
    client = Client(raise_request_exception=False)
    file = SimpleUploadedFile(given.name, given.data, "audio/mpeg")
    before = time.monotonic()
    fields = {"file": file, "model": "tiny", "stems": "all"}
    headers = HTMX if random.random() < 0.8 else {}
    answer = client.post("/", fields, headers=headers)
    seconds = time.monotonic() - before
    for violation in tally.add(given.kind, answer.status_code, seconds, limit()):
        tally.blame(violation, f"status {answer.status_code} after {seconds:.1f} s", given)
    for found in watch.seen():
        tally.blame("outside access", found, given)
    if answer.status_code < 400:
        _decode(given, client.session["visitor"], tally)
    connection.close()


def _decode(given: Input, visitor: str, tally: Tally) -> None:
    """What the engine would do with a song that was taken: it must find as much in it."""
    for job in Job.objects.filter(visitor=visitor).select_related("upload"):
        upload = job.upload
        try:
            with open_song(upload.path, upload.seconds) as song:
                frames = sum(block.shape[1] for block in song.blocks())
        except Fault as fault:
            tally.blame("wrong", f"was taken, and cannot be decoded ({fault})", given)
            continue
        if abs(frames / song.rate - upload.seconds) > 0.001:
            tally.blame("wrong", f"{frames} samples, not {upload.seconds} s", given)


def look_for_files(tally: Tally) -> None:
    """Nothing but songs that have a row may be there."""
    for folder in (settings.FILE_UPLOAD_TEMP_DIR, settings.STAGING_DIR):
        for path in folder.iterdir():
            tally.blame("files left", f"{folder.name}/{path.name}")
    kept = {path.name for path in settings.UPLOAD_DIR.iterdir()}
    known = {UUID(str(key)).hex for key in Upload.objects.values_list("pk", flat=True)}
    for name in kept - known:
        tally.blame("files left", f"uploads/{name} has no row")
    for name in known - kept:
        tally.blame("wrong", f"{name} has no file")


# Names, headers and fields

TEXTS = strategies.text(max_size=40) | strategies.sampled_from(
    (
        *(
            "../../etc/passwd.wav",
            "..",
            ".wav",
            "a\0.wav",
            "C:\\con.wav",
            "a/b\\c.wav",
            "%2e%2e/x.wav",
        ),
        *(
            "\u202ewav.exe",
            "x" * 5000 + ".wav",
            "CON.wav",
            "a\r\nX-Evil: 1.wav",
            "é" * 300 + ".wav",
        ),
        *("\ud800.wav", "{{7*7}}.wav", "<script>.wav", "' OR 1=1 --.wav", "-rf.wav", " .wav"),
    )
)
BYTES = strategies.binary(max_size=60)
NAMES = TEXTS | TEXTS.map(lambda text: text + ".wav")
FIELDS = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(("model", "stems", "file", "csrfmiddlewaretoken")) | TEXTS, TEXTS
    ),
    max_size=6,
)
LINES = strategies.sampled_from(
    (
        *(
            "Content-Type: audio/wav",
            "Content-Type: text/html; charset=nonsense",
            "Content-Length: -1",
        ),
        *(
            "Content-Length: 99999999999999",
            "Content-Transfer-Encoding: base64",
            "X: " + "y" * 9000,
        ),
        *("Content-Transfer-Encoding: \0", "Content-Type: multipart/mixed; boundary=x", ""),
    )
)


def run_forms(examples: int, first_seed: int, song: bytes, tally: Tally) -> None:
    """Forms that no browser sends, made by hypothesis."""

    @seed(first_seed)
    @hypothesis_settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        name=NAMES,
        fields=FIELDS,
        lines=strategies.lists(LINES, max_size=2),
        content=BYTES | strategies.just(song),
        boundary=strategies.sampled_from(("b", "b" * 70, "b b", "", "'", "\u00e9", "b" * 300)),
        copies=strategies.sampled_from((1, 1, 1, 2, 25, 120)),
        end=strategies.booleans(),
        path=strategies.sampled_from(("/", "/", "/", "/demo/x", "/about", "/admin/login/")),
    )
    def send(
        name: str, fields: list[tuple[str, str]], lines: list[str], content: bytes,
        boundary: str, copies: int, end: bool, path: str,
    ) -> None:  # fmt: skip
        def raw(text: str) -> bytes:
            return text.encode("utf-8", "surrogatepass")

        part = b"--" + raw(boundary) + b"\r\n"
        body = b""
        for key, value in fields:
            body += part + b'Content-Disposition: form-data; name="' + raw(key) + b'"\r\n\r\n'
            body += raw(value) + b"\r\n"
        head = b'Content-Disposition: form-data; name="file"; filename="' + raw(name) + b'"\r\n'
        head += b"".join(raw(line) + b"\r\n" for line in lines if line)
        body += (part + head + b"\r\n" + content + b"\r\n") * min(copies, 200)
        body += b"--" + raw(boundary) + b"--\r\n" if end else b""
        client = Client(raise_request_exception=False)
        before = time.monotonic()
        kind = f"multipart/form-data; boundary={boundary}"
        answer = client.generic("POST", path, body, content_type=kind, headers=HTMX)
        seconds = time.monotonic() - before
        form = Input("names, headers, fields", "form.bin", body)
        for violation in tally.add(form.kind, answer.status_code, seconds, limit()):
            tally.blame(violation, f"status {answer.status_code} after {seconds:.1f} s", form)

    send()
