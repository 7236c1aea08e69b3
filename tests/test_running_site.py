"""The real web server, queue and engine together, on small models."""

import io
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import soundfile

from tests import sounds
from tests.running_site import Browser, Site, running, until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, small_store: Path) -> Iterator[Site]:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny", "LEASE_SECONDS": "5"}
    with running(tmp_path_factory.mktemp("site"), **settings) as site:
        yield site


@pytest.fixture
def visitor(site: Site) -> Browser:
    return Browser(site)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("songs")


def long_song(folder: Path, seed: int) -> Path:
    """Long enough to be met at work: about a minute of the small model's time."""
    return sounds.encode(folder / f"long{seed}.flac", sounds.music(400.0, seed=seed), "flac")


def ended(site: Site, job: str) -> bool:
    return site.job(job).get("state") in ("done", "failed", "cancelled")


def engines(site: Site) -> list[psutil.Process]:
    children = site.consumer().children(recursive=True)
    return [child for child in children if "separations.engine.process" in child.cmdline()]


def at_work(site: Site, job: str) -> bool:
    now = site.job(job)
    return now["state"] == "running" and now["stage"] == "separate"


def test_an_uploaded_song_comes_back_as_stems(site: Site, visitor: Browser, songs: Path) -> None:
    song = sounds.music(4.0)
    job = visitor.upload(sounds.wav(songs / "Früh am Morgen.wav", song))
    until(lambda: ended(site, job))
    assert site.job(job)["state"] == "done", site.log.read_text()
    page = visitor.get(f"/songs/{job}")
    assert "Früh am Morgen" in page
    assert page.count("<audio") == 4
    for stem in ("drums", "bass", "other", "vocals"):
        data = visitor.fetch(f"/songs/{job}/stems/{stem}")
        assert soundfile.info(io.BytesIO(data)).frames == song.shape[1]
    visitor.post(f"/songs/{job}/delete")
    kept = ("uploads", "results", "staging", "renditions", "incoming")
    files = [path for name in kept for path in (site.data_dir / name).rglob("*") if path.is_file()]
    assert files == []


def test_progress_in_the_database_only_rises(site: Site, visitor: Browser, songs: Path) -> None:
    song = sounds.encode(songs / "a.flac", sounds.music(60.0, seed=3), "flac")
    job = visitor.upload(song)
    seen: list[float] = []

    def watch() -> bool:
        progress = site.job(job)["progress"]
        assert isinstance(progress, float)
        seen.append(progress)
        return ended(site, job)

    until(watch, 120)
    assert seen == sorted(seen)
    assert len(set(seen)) >= 4
    assert seen[-1] == 1.0


def test_a_cancelled_song_stops_the_engine(site: Site, visitor: Browser, songs: Path) -> None:
    job = visitor.upload(long_song(songs, 11))
    until(lambda: at_work(site, job))
    (engine,) = engines(site)
    visitor.post(f"/songs/{job}/cancel")
    psutil.wait_procs([engine], timeout=5)
    assert not engine.is_running()
    assert site.job(job)["state"] == "cancelled"
    visitor.post(f"/songs/{job}/delete")


def test_a_deleted_song_lets_the_next_one_run(site: Site, visitor: Browser, songs: Path) -> None:
    first = visitor.upload(long_song(songs, 12))
    second = visitor.upload(sounds.wav(songs / "next.wav", sounds.music(1.0, seed=5)))
    until(lambda: at_work(site, first))
    assert "1 song before yours." in visitor.get(f"/songs/{second}")
    visitor.post(f"/songs/{first}/delete")
    until(lambda: ended(site, second))
    assert site.job(second)["state"] == "done"
    assert not list((site.data_dir / "staging").iterdir())


def test_a_killed_engine_is_replaced_and_the_song_finished(
    site: Site, visitor: Browser, songs: Path
) -> None:
    job = visitor.upload(sounds.encode(songs / "k.flac", sounds.music(40.0, seed=6), "flac"))
    until(lambda: at_work(site, job))
    engines(site)[0].kill()
    until(lambda: ended(site, job), 120)
    assert (site.job(job)["state"], site.job(job)["attempt"]) == ("done", 2)


def test_a_fault_in_the_engine_reaches_the_page(site: Site, visitor: Browser, songs: Path) -> None:
    job = visitor.upload(sounds.wav(songs / "gone.wav", sounds.music(300.0, seed=7)))
    until(lambda: at_work(site, job))
    other = visitor.upload(sounds.wav(songs / "gone2.wav", sounds.music(1.0, seed=8)))
    for path in (site.data_dir / "uploads").iterdir():
        path.unlink()
    visitor.post(f"/songs/{job}/delete")
    until(lambda: ended(site, other))
    assert site.job(other)["error_code"] == "upload_gone"
    assert "Upload it again" in visitor.get(f"/songs/{other}")


def test_the_processes_stay_light(site: Site) -> None:
    """Neither the web server nor the consumer holds torch."""
    heavy = {}
    for process in psutil.Process(site.process.pid).children(recursive=True):
        command = " ".join(process.cmdline())
        if ("gunicorn" in command or "run_consumer" in command) and "sh -c" not in command:
            heavy[process.pid, command] = process.memory_info().rss / 1e6
    assert len(heavy) >= 3
    assert max(heavy.values()) < 120, heavy


def test_ctrl_c_hands_the_running_song_back(tmp_path: Path, small_store: Path, songs: Path) -> None:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny"}
    with running(tmp_path / "site", **settings) as site:
        visitor = Browser(site)
        job = visitor.upload(long_song(songs, 13))
        until(lambda: at_work(site, job))
        (engine,) = engines(site)
        site.process.send_signal(signal.SIGINT)
        site.process.wait(30)
        assert not engine.is_running()
        assert (site.job(job)["state"], site.job(job)["attempt"]) == ("queued", 0)
        assert not list((site.data_dir / "staging").iterdir())


def test_a_crash_of_one_process_ends_the_other_and_is_said(
    tmp_path: Path, small_store: Path
) -> None:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny"}
    with running(tmp_path / "site", **settings) as site:
        site.consumer().kill()
        assert site.process.wait(30) != 0
        assert "consumer.1 stopped" in site.log.read_text()


def test_a_song_outlives_the_death_of_everything(
    tmp_path: Path, small_store: Path, songs: Path
) -> None:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny", "LEASE_SECONDS": "5"}
    song = sounds.encode(songs / "o.flac", sounds.music(60.0, seed=14), "flac")
    with running(tmp_path / "site", **settings) as site:
        job = Browser(site).upload(song)
        until(lambda: at_work(site, job))
        family = psutil.Process(site.process.pid).children(recursive=True)
        for process in [psutil.Process(site.process.pid), *family]:
            process.kill()
        psutil.wait_procs(family, timeout=10)
    assert site.job(job)["state"] == "running", "nobody could tell the database"
    with running(tmp_path / "site", **settings) as site:
        until(lambda: ended(site, job), 150)
        assert (site.job(job)["state"], site.job(job)["attempt"]) == ("done", 2)
