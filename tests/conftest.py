from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from separations.audio.sandbox.decoder_process import decoder_check
from separations.engine.weights.store import read_model
from separations.errors.fault import Fault
from separations.logs.formatter import request_id
from stemsite import data_folder
from tests.support.disks import FOLDERS, mounted
from tests.support.models_in_small import make_store

# Fixtures that several rooms' tests share.
pytest_plugins = [
    f"tests.support.{name}" for name in ("accounts", "engines", "jobs", "pages", "share_links")
]


# Tests in one process, one after the other: all of a file, and all that kill processes or look for
# processes that were killed for lack of memory.
KILLING = (
    "test_request_reader",
    "test_engine_process",
    "test_faults",
    "test_full_disk",
    "test_resources",
    "test_running_site",
    "test_slow_clients",
)


# Those that take minutes begin first, so that none of them is alone at the end.
LONGEST = ("test_main_job", *KILLING, "test_real_weights", "test_mixer", "test_engine_choice")


@pytest.hookimpl(tryfirst=True)  # xdist's own reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.path.stem
        item.add_marker(pytest.mark.xdist_group("killing" if name in KILLING else name))
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def prepared_site() -> None:
    """The folders, the key and the queue's tables, as every start of the site makes them."""
    data_folder.prepare()


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store of small random-weight models."""
    return make_store(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def real_store() -> Path:
    """The machine's own model store, when it holds htdemucs."""
    from django.conf import settings

    try:
        read_model(settings.MODEL_DIR, "htdemucs")
    except Fault:
        pytest.skip("WITHOUT REAL WEIGHTS: htdemucs is not in the model store")
    return Path(settings.MODEL_DIR)


@pytest.fixture(autouse=True)
def free_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that a test leaves unread hold no place in the next one; servers close them all."""
    from separations.fair_use import concurrency

    monkeypatch.setattr(concurrency, "slots", concurrency.Slots())


@pytest.fixture(autouse=True)
def fresh_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queue positions are not cached: tests see changes at once."""
    from separations.queue import queue_position

    monkeypatch.setattr(queue_position, "FRESH_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def working_decoder() -> None:
    """No self-test is due: decoders are known to work, whatever the test before did to them."""
    decoder_check.record("")


@pytest.fixture(autouse=True)
def no_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of faults begin at zero, and are written only where a test asks for it."""
    from separations.monitoring import fault_counts

    monkeypatch.setattr(fault_counts, "_unwritten", Counter())
    monkeypatch.setattr(fault_counts, "_written", [float("inf")])


@pytest.fixture(autouse=True)
def no_request() -> None:
    """Forget the requests of the tests before: log lines of this test carry no id of theirs."""
    request_id.set("")


@pytest.fixture
def site_settings(settings: Settings, small_store: Path, tmp_path: Path) -> Settings:
    """Settings for pages and services: small models, an empty data folder, plain static files."""
    settings.MODEL_DIR = small_store
    settings.DEFAULT_MODEL = "tiny"
    settings.DATA_DIR = tmp_path
    settings.MIN_FREE_DISK_MB = 0
    for name in FOLDERS:
        folder = tmp_path / "site" / name.lower()
        folder.mkdir(parents=True)
        setattr(settings, name, folder)
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    return settings


@pytest.fixture
def visitor(site_settings: Settings, db: None) -> Client:
    """A visitor with a browser."""
    return Client()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for two megabytes."""
    with mounted(tmp_path / "disk", "2m") as folder:
        yield folder


@pytest.fixture
def site_on_it(site_settings: Settings, small_disk: Path) -> Path:
    """The small disk, on which songs, stems and encodings lie."""
    for name in FOLDERS:
        folder = small_disk / name.lower()
        folder.mkdir()
        setattr(site_settings, name, folder)
    return small_disk


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if any("WITHOUT REAL WEIGHTS" in str(report.longrepr) for report in skipped):
        terminalreporter.section("REAL WEIGHTS", sep="!", red=True, bold=True)
        terminalreporter.line(
            "The tests with the real htdemucs weights were SKIPPED: run manage.py fetch_models."
        )


@pytest.fixture
def kept_files(site_settings: Settings) -> Any:
    """Every file the site holds now, as a function."""

    def files() -> list[Path]:
        root = site_settings.UPLOAD_DIR.parent
        return sorted(path for path in root.rglob("*") if path.is_file())

    return files


@pytest.fixture
def no_queue(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Messages to the queue are counted, not sent: these tests run no consumer."""
    from separations.worker import tasks

    sent: list[None] = []
    monkeypatch.setattr(tasks, "_send", lambda: sent.append(None))
    return sent
