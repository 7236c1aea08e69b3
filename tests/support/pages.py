"""Songs sent through the page's form, up to one that was really separated."""

import io
import threading
from collections.abc import Callable

import pytest
import soundfile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client

from separations.engine.process.engine_process import EngineProcess
from separations.models import Job
from separations.worker import leases
from separations.worker.slots import Slot
from tests.support import sounds

Post = Callable[..., HttpResponse]


@pytest.fixture(scope="module")
def song() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sounds.music(2.0).T, sounds.RATE, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def post(visitor: Client, song: bytes) -> Post:
    def send(*files: tuple[str, bytes], **more: object) -> HttpResponse:
        data = {"file": [SimpleUploadedFile(*file) for file in files or [("a.wav", song)]]}
        headers = more.pop("headers", {})
        return visitor.post("/", data | more, headers=headers)  # type: ignore[return-value, arg-type]

    return send


@pytest.fixture
def finished(post: Post, engine: EngineProcess) -> Job:
    """A job that really ran, through the runner, with a real engine process."""
    post(("한국어 노래.wav", wav_bytes(sounds.music(2.0) * 1.9)))
    job = leases.claim()
    assert job is not None
    Slot(engine, 1, threading.Event()).run(job)
    job.refresh_from_db()
    assert job.state == Job.State.DONE
    return job


def wav_bytes(samples: sounds.Samples) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T, sounds.RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()
