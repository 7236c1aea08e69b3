"""Make the stored data of `tests/data/before_the_move`: what a running site keeps and hands out.

The real services make it, by requests where a visitor makes them, under a secret key used for this
alone. `tests/test_stored_data.py` proves that later versions still take all of it. Never make the
fixture anew to turn a red test green: the files of real sites stay as they are. To see that a
change of the services themselves still fits, write another one and compare:

    .venv/bin/python -m tests.support.make_fixture /tmp/a-new-folder
"""

import json
import os
import shutil
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from tests.support import environment

# The data are those of one key. The limits are on, so that their counts are among the data.
SECRET_KEY = "of-tests/data/before_the_move-and-of-no-site-at-all-0123456789"
os.environ["SECRET_KEY"] = SECRET_KEY
LIMITS = {"LIMIT_LOGINS": "20/15m", "LIMIT_LOGINS_PER_NAME": "30/15m", "LIMIT_API": "1200/10m"}
os.environ.update(LIMITS, DJANGO_SETTINGS_MODULE="stemsite.settings")

import django  # noqa: E402 - after the environment

django.setup()

import numpy as np  # noqa: E402
import soundfile  # noqa: E402
from django.conf import settings  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.files.uploadedfile import SimpleUploadedFile  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import setup_test_environment  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

from separations.access import api_tokens, share_links  # noqa: E402
from separations.accounts import mails  # noqa: E402
from separations.accounts import tasks as mail_tasks  # noqa: E402
from separations.admin import job_history  # noqa: E402
from separations.audio.info import DECODER_VERSION  # noqa: E402
from separations.audio.store.stem_file import StemWriter  # noqa: E402
from separations.delivery import downloads  # noqa: E402
from separations.engine.options import MIXTURE  # noqa: E402
from separations.engine.process.engine_protocol import OUTPUT_VERSION, Done, StemFile  # noqa: E402
from separations.engine.weights import checksums  # noqa: E402
from separations.engine.weights.store import read_model  # noqa: E402
from separations.fair_use import token_bucket  # noqa: E402
from separations.jobs import result_keys  # noqa: E402
from separations.models import IdempotencyKey, Job  # noqa: E402
from separations.webhooks import events  # noqa: E402
from separations.worker import leases, resources, tasks  # noqa: E402

NAMES = ("drums", "bass", "other", "vocals")
FRAMES = 13_230
PASSWORD = "a mixture of 4 stems"
ANNA_AT, VISITOR_AT = "198.51.100.7", "2001:db8:1:2::5"
FAR = "9999-12-31 00:00:00"
MIX = "drums:100:-20,vocals:64:0:m,master:90"
FOLDERS = {"results": "RESULT_DIR", "uploads": "UPLOAD_DIR", "renditions": "RENDITION_DIR"}


def main(target: Path) -> None:
    """Write the fixture into `target`, which must not exist yet."""
    target.mkdir(parents=True)
    setup_test_environment()
    call_command("migrate", verbosity=0)
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}
    make_model(target / "models")
    settings.MODEL_DIR = target / "models"
    settings.DEFAULT_MODEL = "tiny"
    song = make_song(target / "song.wav", 220.0)
    made = {"secret_key": SECRET_KEY, "made_at": int(time.time()), "password": PASSWORD}
    made |= of_anna(song)
    made |= of_a_program(song)
    made |= of_a_browser(make_song(Path(environment.data_dir, "other.wav"), 330.0))
    made |= of_log_ins(made)
    made |= links_in_mails()
    made["messages"] = messages()
    for name, setting in FOLDERS.items():
        shutil.copytree(getattr(settings, setting), target / name)
    (target / "handed_out.json").write_text(json.dumps(made, indent=1) + "\n")
    dump(target / "database.sql")


def make_model(store: Path) -> None:
    """A model of four stems whose weights are one number: jobs name it, nothing runs it."""
    home = store / "tiny"
    home.mkdir(parents=True)
    kwargs = json.dumps({"sources": NAMES, "segment": 1})
    metadata = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": kwargs}
    save_file({"weight": np.zeros(1, np.float32)}, home / "00000001.safetensors", metadata)
    (home / "tiny.yaml").write_text("models: ['00000001']\n")
    checksums.record(read_model(store, "tiny"), "a fixture", known=True)


def make_song(path: Path, pitch: float) -> bytes:
    samples = 0.5 * np.sin(2 * np.pi * pitch * np.arange(2400) / 8000)
    soundfile.write(path, samples, 8000, "PCM_16")
    return path.read_bytes()


def sent(song: bytes) -> dict[str, Any]:
    return {"file": SimpleUploadedFile("A_song.wav", song)}


def of_anna(song: bytes) -> dict[str, Any]:
    """An account: its session, its API token, a finished job, a share link, a webhook call."""
    browser = Client(REMOTE_ADDR=ANNA_AT)
    form = {"username": "anna", "email": "", "password1": PASSWORD, "password2": PASSWORD}
    assert browser.post("/account/signup", form).status_code == 302
    anna = User.objects.get()
    _row, token = api_tokens.create(anna, "of the fixture", "never")
    events.renew_secret(anna)
    program = Client(
        REMOTE_ADDR=ANNA_AT,
        headers={"Authorization": f"Bearer {token}", "Idempotency-Key": "k" * 20},
    )
    hook = {"webhook_url": "https://receiver.example/hook"}
    assert program.post("/api/separate", {**sent(song), **hook}).status_code == 202
    job = finish()
    link = share_links.create(job, "never")
    delivery = job.deliveries.get()
    place = f"/api/separate/{job.pk}"
    stem = program.get(f"{place}/stems/drums", {"format": "opus", "bitrate": "96"})
    mix = program.get(f"{place}/mixdown", {"mix": MIX, "format": "opus", "bitrate": "96"})
    for answer in (stem, mix):
        answer.getvalue()  # a file is kept once it is read
    return {
        "session": browser.cookies["sessionid"].value,
        "known": browser.cookies["known"].value,
        "job": str(job.pk),
        "api_token": token,
        "share_token": str(share_links.token_of(link)),
        "webhook_secret": events.signing_secret(job.owner),
        "webhook_headers": events.signed_headers(delivery, 1_800_000_000),
        "etags": {"stem": stem.headers["ETag"], "mix": mix.headers["ETag"]},
        "mix": MIX,
        "idempotency": {"key": "k" * 20, "asked": asked(job)},
        "result": of_result(job),
    }


def asked(job: Job) -> list[Any]:
    """What the API hashes of a request with an Idempotency-Key."""
    return [job.upload.file_sha256, job.options, job.webhook_url or None]


def of_result(job: Job) -> dict[str, Any]:
    """What a result's key is made of, and the key for each way to share results."""
    keys = {}
    for share in (result_keys.EVERYBODY, result_keys.OWN, result_keys.NONE):
        settings.SHARE_RESULTS = share
        keys[share] = result_keys.own_key(job)
    settings.SHARE_RESULTS = result_keys.EVERYBODY
    return {
        "model_digest": read_model(settings.MODEL_DIR, "tiny").digest,
        "decoder": DECODER_VERSION,
        "output": OUTPUT_VERSION,
        "encoding": downloads.ENCODING_VERSION,
        "options": job.separation.that_change_samples(),
        "recipe": job.recipe,
        "keys": keys,
    }


def finish() -> Job:
    """Give the job that waits stems as the engine leaves them, of steps that FLAC makes small."""
    resources.HOST = "machine"  # not the name of the one that this is made on
    job = leases.claim()
    assert job is not None
    job.staging_folder.mkdir()
    for name in (MIXTURE, *NAMES):
        writer = StemWriter(job.staging_folder / f"{name}.flac")
        steps = np.repeat(np.linspace(-0.25, 0.25, 6, dtype=np.float32), FRAMES // 6)
        writer.write(np.stack([steps, -steps]))
        writer.finish()
    stems = [StemFile(name, 0.25, -20.0) for name in NAMES]
    done = Done(FRAMES, stems, StemFile(MIXTURE, 0.25, -14.0), 900_000_000, "torch float32")
    assert leases.finish(job, done, job.staging_folder)
    return Job.objects.get(pk=job.pk)


def of_a_program(song: bytes) -> dict[str, Any]:
    """A program without an account: a token of one task, and one of all that it sends."""
    program = Client(REMOTE_ADDR=VISITOR_AT)
    key = "v" * 20
    by_key = program.post("/api/separate", sent(song), headers={"Idempotency-Key": key}).json()
    hook = {"webhook_url": "https://receiver.example/hook"}
    without = program.post("/api/separate", {**sent(song), **hook}).json()
    job = Job.objects.get(pk=by_key["task_id"])
    settings.SHARE_RESULTS = result_keys.OWN
    own_key = result_keys.own_key(job)
    settings.SHARE_RESULTS = result_keys.EVERYBODY
    return {
        "visitor_result_key": own_key,
        "newcomer": {"key": key, "visitor": job.visitor, "asked": asked(job)},
        "task_token": by_key["token"],
        "task": by_key["task_id"],
        "visitor_token": without["token"],
        "visitor_task": without["task_id"],
        "visitor_secret": without["webhook_secret"],
        "visitor_tag": job_history.visitor_tag(job.visitor),
    }


def of_a_browser(song: bytes) -> dict[str, Any]:
    """A visitor's browser: the cookie from its first look, and the session of what it sent."""
    browser = Client(REMOTE_ADDR=VISITOR_AT)
    browser.get("/")
    introduced = browser.cookies["visitor"].value
    assert browser.post("/", sent(song)).status_code == 302
    job = Job.objects.get(state="queued")
    return {
        "visitor_cookie": introduced,
        "visitor_session": browser.cookies["sessionid"].value,
        "visitor": job.visitor,
        "waiting_job": str(job.pk),
        "client": "2001:db8:1:2::/64",
    }


def of_log_ins(made: dict[str, Any]) -> dict[str, Any]:
    """Counts of guessed passwords, and how the keys of all counts are made."""
    stranger, known = Client(REMOTE_ADDR=VISITOR_AT), Client(REMOTE_ADDR=ANNA_AT)
    known.cookies["known"] = made["known"]
    for browser in (stranger, known):
        browser.post("/account/login", {"username": "anna", "password": "a wrong one"})
    browser_id = made["known"].partition(":")[0].partition(".")[2]
    texts = (
        f"known:{browser_id}",
        f"name:{token_bucket.name_hash('account anna')}",
        "login:client 2001:db8:1:2::/64",
        "login:client 2001:db8:1::/48",
    )
    hashes = {text: token_bucket.name_hash(text) for text in texts}
    return {"buckets": hashes, "known_bucket": hashes[texts[0]]}


def links_in_mails() -> dict[str, str]:
    """Made last: a log-in would end the link to a new password."""
    anna = User.objects.get()
    anna.email = "anna@example.org"
    anna.save()
    mails.revoke_links(anna)
    return {
        "confirmation": mails.confirmation_token(anna, "anna@example.net"),
        "reset_path": mails._reset_path(anna),
    }


def messages() -> dict[str, str]:
    """A message of each kind as it lies in the queue."""
    site = "https://stems.example.org"
    calls = (
        tasks.work.s(),
        tasks.clean.s(),
        mail_tasks.mail_confirmation.s(1, "anna@example.net", "en", site),
        mail_tasks.mail_reset_links.s("anna@example.org", "en", site, "0" * 64),
    )
    return {type(call).__name__: settings.HUEY.serialize_task(call).decode() for call in calls}


def dump(file: Path) -> None:
    """The database as SQL. Its sessions end in ages."""
    assert IdempotencyKey.objects.count() == 2
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_session SET expire_date = %s", [FAR])
    connection.close()
    with sqlite3.connect(settings.DATABASES["default"]["NAME"]) as database:
        file.write_text("\n".join(database.iterdump()) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
