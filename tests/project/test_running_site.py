"""The real web server, queue and engine together, on small models."""

import io
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import soundfile

from tests.support import sounds
from tests.support.running_site import Browser, Site, answers, running, until, workers


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
    """Long enough to be met at work: about half a minute of the small model's time."""
    return sounds.encode(folder / f"long{seed}.flac", sounds.music(200.0, seed=seed), "flac")


def ended(site: Site, job: str) -> bool:
    return site.job(job).get("state") in ("done", "failed", "cancelled")


def engines(site: Site) -> list[psutil.Process]:
    children = site.consumer().children(recursive=True)
    return [child for child in children if "separations.engine" in child.cmdline()]


def at_work(site: Site, job: str) -> bool:
    now = site.job(job)
    return now["state"] == "running" and now["stage"] == "separate"


def answers_again(site: Site, dead: list[psutil.Process]) -> bool:
    return not any(each.is_running() for each in dead) and answers(site)


def test_an_uploaded_song_comes_back_as_stems(site: Site, visitor: Browser, songs: Path) -> None:
    (engine,) = until(lambda: engines(site))  # started before there is a song, with the model
    song = sounds.music(4.0)
    job = visitor.upload(sounds.wav(songs / "Früh am Morgen.wav", song))
    until(lambda: ended(site, job))
    assert site.job(job)["state"] == "done", site.log.read_text()
    assert engines(site) == [engine]
    assert "tiny is loaded for the first song" in site.log.read_text()
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
    song = sounds.encode(songs / "a.flac", sounds.music(25.0, seed=3), "flac")
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
    psutil.wait_procs([engine], timeout=2)
    assert not engine.is_running(), "two seconds later it still takes the CPU"
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
    job = visitor.upload(sounds.encode(songs / "k.flac", sounds.music(20.0, seed=6), "flac"))
    until(lambda: at_work(site, job))
    engines(site)[0].kill()
    until(lambda: ended(site, job), 120)
    assert (site.job(job)["state"], site.job(job)["attempt"]) == ("done", 2)


def test_what_dies_alone_comes_back_and_nothing_else_is_disturbed(
    site: Site, visitor: Browser, songs: Path
) -> None:
    job = visitor.upload(sounds.encode(songs / "c.flac", sounds.music(21.0, seed=9), "flac"))
    until(lambda: at_work(site, job))
    consumer, (engine,), servers = site.consumer(), engines(site), workers(site)
    consumer.kill()
    assert psutil.wait_procs([engine], timeout=5)[1] == [], "it separates for nobody"
    until(lambda: site.running_consumer() not in (None, consumer), 20)
    assert workers(site) == servers
    psutil.Process(servers[0].ppid()).kill()  # gunicorn's master: its workers hold the port
    until(lambda: answers_again(site, servers), 30)
    log = site.log.read_text()
    assert "consumer was killed by SIGKILL after" in log
    assert "web was killed by SIGKILL after" in log
    assert "it is started again in 1 s" in log
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


def test_ten_tabs_with_the_same_song_cost_one_separation(site: Site, songs: Path) -> None:
    song = sounds.encode(songs / "ten.flac", sounds.music(45.0, seed=21), "flac")
    before = {path.name for path in (site.data_dir / "results").glob("*/*")}
    visitor = Browser(site)  # who was never here before
    visitor.get("/")
    with ThreadPoolExecutor(10) as pool:
        tabs = list(pool.map(lambda _number: visitor.upload(song), range(10)))
    (runner,) = until(lambda: [tab for tab in tabs if at_work(site, tab)])
    until(lambda: int(site.job(runner)["progress"] * 100) > 10)  # type: ignore[operator]
    for tab in tabs:
        card = visitor.get(f"/songs/{tab}/card")
        if "hx-get" in card:  # it is not done yet
            assert "Separating" in card, "the others show the progress of the one that runs"
    until(lambda: all(ended(site, tab) for tab in tabs), 120)
    jobs = [site.job(tab) for tab in tabs]
    assert {job["state"] for job in jobs} == {"done"}
    assert sum(int(str(job["attempt"])) for job in jobs) == 1
    for tab in tabs:
        visitor.post(f"/songs/{tab}/delete")
    results = {path.name for path in (site.data_dir / "results").glob("*/*")}
    assert results <= before, "the last of them took the files with it"


def test_housekeeping_runs_while_every_slot_is_busy(
    site: Site, visitor: Browser, songs: Path
) -> None:
    job = visitor.upload(long_song(songs, 15))
    until(lambda: at_work(site, job))
    abandoned = site.data_dir / "incoming" / "tmpold.upload.mp3"
    abandoned.write_bytes(b"half of a song")
    os.utime(abandoned, (0, 0))
    code = "from separations.worker.tasks import clean; clean()"
    assert site.manage("shell", "-v0", "-c", code).returncode == 0
    until(lambda: not abandoned.exists(), 20)
    assert site.job(job)["state"] == "running"
    visitor.post(f"/songs/{job}/delete")


def test_a_late_runner_is_told_so_and_stops(site: Site, visitor: Browser, songs: Path) -> None:
    """A consumer is frozen for longer than its lease, while another one is there."""
    song = sounds.encode(songs / "late.flac", sounds.music(40.0, seed=22), "flac")
    job = visitor.upload(song)
    until(lambda: at_work(site, job))
    late = site.consumer()
    with site.another_consumer():
        late.suspend()
        until(lambda: site.job(job)["attempt"] == 2 and at_work(site, job), 60)
        late.resume()
        until(lambda: "no longer ours" in site.log.read_text(), 20)
        until(lambda: ended(site, job), 120)
    assert (site.job(job)["state"], site.job(job)["attempt"]) == ("done", 2)
    assert not list((site.data_dir / "staging").iterdir())
    visitor.post(f"/songs/{job}/delete")


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


def test_a_service_manager_that_signals_every_process_costs_no_attempt(
    tmp_path: Path, small_store: Path, songs: Path
) -> None:
    """systemd does, itself and through the supervisor: the engine may be the first to go."""
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny"}
    with running(tmp_path / "site", **settings) as site:
        job = Browser(site).upload(long_song(songs, 16))
        until(lambda: at_work(site, job))
        (engine,) = engines(site)
        consumer = site.consumer()
        engine.kill()
        for _ in range(300):
            consumer.terminate()
            if psutil.wait_procs([consumer], timeout=0.1)[0]:
                break
        assert not consumer.is_running()
        assert (site.job(job)["state"], site.job(job)["attempt"]) == ("queued", 0)


def test_a_song_outlives_the_death_of_everything(
    tmp_path: Path, small_store: Path, songs: Path
) -> None:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny"}
    song = sounds.encode(songs / "o.flac", sounds.music(35.0, seed=14), "flac")
    with running(tmp_path / "site", **settings) as site:
        job = Browser(site).upload(song)
        until(lambda: at_work(site, job))
        family = psutil.Process(site.process.pid).children(recursive=True)
        for process in [psutil.Process(site.process.pid), *family]:
            process.kill()
        psutil.wait_procs(family, timeout=10)
    assert site.job(job)["state"] == "running", "nobody could tell the database"
    with running(tmp_path / "site", **settings) as site:
        # Within a minute of the death, with the lease of twenty seconds that sites have.
        until(lambda: site.job(job)["attempt"] == 2, 60)
        until(lambda: ended(site, job), 150)
        assert (site.job(job)["state"], site.job(job)["attempt"]) == ("done", 2)
