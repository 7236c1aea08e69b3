"""The operator at work: every action of the admin and every button of the control room."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support import running_site, sounds
from tests.support.browsers import fits
from tests.support.running_site import Site, running, until

pytestmark = pytest.mark.browser
PASSWORD = "a long enough one"
LIST = "/admin/separations/job/"
ROOM = "/admin/control/"
SLOW, QUICK = "tiny_ft", "tiny"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, small_store: Path) -> Iterator[Site]:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": QUICK, "SLOTS": "1"}
    with running(tmp_path_factory.mktemp("control"), **settings) as started:
        started.environment["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
        started.manage("createsuperuser", "--noinput", "--username", "boss", "--email", "")
        yield started


@pytest.fixture(scope="module")
def visitor(site: Site) -> running_site.Browser:
    return running_site.Browser(site)


@pytest.fixture
def boss(site: Site, page: Page) -> Page:
    page.goto(site.url + "/admin/")
    page.fill("#id_username", "boss")
    page.fill("#id_password", PASSWORD)
    page.get_by_role("button", name="Log in").click()
    return page


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return sounds.wav(tmp_path / "short.wav", sounds.music(2.0))


@pytest.fixture
def long_song(tmp_path: Path) -> Path:
    return sounds.wav(tmp_path / "long.wav", sounds.music(60.0))


def state(site: Site, job: str) -> str:
    return str(site.job(job).get("state", "gone"))


def becomes(site: Site, job: str, wanted: str) -> None:
    until(lambda: state(site, job) == wanted)


def act(boss: Page, site: Site, action: str, *chosen: str) -> None:
    boss.goto(site.url + LIST)
    for job in chosen:
        boss.locator(f"input.action-select[value='{job}']").check()
    boss.select_option("select[name=action]", action)
    boss.locator(".actions button[type=submit]").click()


def on(site: Site, boss: Page) -> None:
    """Resume the queue after each test."""
    boss.goto(site.url + ROOM)
    button = boss.get_by_role("button", name="Go on")
    if button.count():
        button.click()
    expect(boss.get_by_role("button", name="Pause the queue")).to_be_visible()


def test_a_paused_queue_waits_for_the_operator(
    site: Site, boss: Page, visitor: running_site.Browser, song: Path, keep: Path
) -> None:
    boss.goto(site.url + "/admin/")
    boss.get_by_role("link", name="Control room").click()
    boss.get_by_role("button", name="Pause the queue").click()
    expect(boss.locator(".paused")).to_contain_text("By boss, since")
    first, second = visitor.upload(song, SLOW), visitor.upload(song, QUICK)
    waiting = boss.locator(".figures div", has_text="waiting").locator("dd")
    expect(waiting).to_have_text("2")  # by itself
    boss.screenshot(path=keep / "control-paused.png", full_page=True)
    act(boss, site, "run_first", second)
    expect(boss.locator(".messagelist")).to_contain_text("1 job was moved")
    act(boss, site, "run_last", second)
    act(boss, site, "run_in_turn", second)
    act(boss, site, "run_first", second)
    assert (state(site, first), state(site, second)) == ("queued", "queued")
    on(site, boss)
    becomes(site, first, "done")
    becomes(site, second, "done")
    order = site.rows("SELECT model FROM separations_job ORDER BY started_at")
    assert [model for (model,) in order] == [QUICK, SLOW]
    expect(waiting).to_have_text("0", timeout=10_000)
    boss.set_viewport_size({"width": 1440, "height": 900})
    boss.goto(site.url + LIST)
    too_wide = boss.evaluate(
        "(frame => frame.scrollWidth - frame.clientWidth)(document.querySelector('.results'))"
    )
    assert too_wide <= 2, "the list is read without scrolling sideways"


def test_an_open_front_page_is_told_when_the_queue_goes_on(
    site: Site, boss: Page, chromium: Browser, tmp_path: Path, keep: Path
) -> None:
    boss.goto(site.url + ROOM)
    boss.get_by_role("button", name="Pause the queue").click()
    guest = chromium.new_page(viewport={"width": 1200, "height": 900})
    guest.goto(site.url)
    banner, card = guest.locator("#standstill"), guest.locator(".card")
    expect(banner).to_contain_text("has paused it")
    guest.set_input_files("#file", sounds.wav(tmp_path / "mine.wav", sounds.music(2.0, seed=9)))
    expect(card).to_contain_text("has paused it")
    guest.screenshot(path=keep / "home-paused.png", full_page=True)
    on(site, boss)
    expect(card).to_contain_text("Vocals", timeout=30_000)
    expect(banner).to_be_empty()
    guest.close()


def test_a_running_job_is_watched_cancelled_and_tried_again(
    site: Site, boss: Page, visitor: running_site.Browser, long_song: Path, keep: Path
) -> None:
    job = visitor.upload(long_song, SLOW)
    becomes(site, job, "running")
    boss.goto(site.url + ROOM)
    running_jobs = boss.get_by_role("table", name="Running jobs")
    expect(running_jobs).to_contain_text("long")
    boss.screenshot(path=keep / "control-running.png", full_page=True)
    act(boss, site, "cancel_jobs", job)
    expect(boss.locator(".messagelist")).to_contain_text("1 job was cancelled")
    assert state(site, job) == "cancelled"
    act(boss, site, "retry_jobs", job)
    expect(boss.locator(".messagelist")).to_contain_text("1 job was queued")
    becomes(site, job, "running")
    boss.goto(f"{site.url}{LIST}{job}/change/")
    for told in ("by the staff", "taken by a runner", "asked for again"):
        expect(boss.locator("table", has_text="sent in")).to_contain_text(told)
    boss.get_by_role("button", name="Cancel").click()  # on the job's own page
    assert state(site, job) == "cancelled"


def test_a_log_is_taken_home(
    site: Site, boss: Page, visitor: running_site.Browser, song: Path
) -> None:
    job = visitor.upload(song, QUICK)
    becomes(site, job, "done")
    boss.goto(site.url + LIST)
    boss.locator(f"input.action-select[value='{job}']").check()
    boss.select_option("select[name=action]", "download_log")
    with boss.expect_download() as download:
        boss.locator(".actions button[type=submit]").click()
    text = Path(download.value.path()).read_text()
    assert f"job {job}" in text
    assert "done" in text
    assert download.value.suggested_filename.startswith("jobs-")


def test_a_job_is_deleted_with_its_files_when_that_is_meant(
    site: Site, boss: Page, visitor: running_site.Browser, tmp_path: Path
) -> None:
    job = visitor.upload(sounds.wav(tmp_path / "bad.wav", sounds.music(3.0)), QUICK)
    becomes(site, job, "done")
    ((key,),) = site.rows("SELECT result_key FROM separations_job ORDER BY created_at DESC LIMIT 1")
    folder = site.data_dir / "results" / str(key)[:2] / str(key)
    assert folder.is_dir()
    act(boss, site, "delete_jobs", job)
    boss.get_by_role("link", name="No, go back").click()
    assert state(site, job) == "done"
    act(boss, site, "delete_jobs", job)
    boss.get_by_role("button", name="Delete with all files").click()
    expect(boss.locator(".messagelist")).to_contain_text("1 job and its files were deleted")
    assert state(site, job) == "gone"
    assert not folder.exists()


def test_what_crashes_left_is_shown_and_cleaned_up(site: Site, boss: Page) -> None:
    left = site.data_dir / "staging" / ("0" * 32)
    left.mkdir(parents=True)
    (left / "stem").write_bytes(b"x" * 3_000_000)
    boss.goto(site.url + ROOM)
    boss.get_by_role("link", name="Show what would be deleted").click()
    expect(boss.locator("#waste")).to_contain_text("3.0 MB")
    assert boss.url == site.url + ROOM, "without leaving the page"
    assert left.exists()
    boss.get_by_role("button", name="Clean up now").click()
    expect(boss.locator(".messagelist")).to_contain_text("A consumer is cleaning up now")
    until(lambda: not left.exists(), 30)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_control_room_is_accessible(
    site: Site, boss: Page, scheme: Literal["light", "dark"]
) -> None:
    boss.goto(site.url + ROOM)
    boss.emulate_media(color_scheme=scheme)
    found = Axe().run(boss, context="#content")
    assert found.violations_count == 0, found.generate_report()


def test_the_control_room_fits_a_phone_and_keeps_open_what_was_opened(
    site: Site, boss: Page
) -> None:
    boss.goto(site.url + ROOM)
    boss.set_viewport_size({"width": 390, "height": 800})
    fits(boss, 390)
    table = boss.locator("#day-figures")
    table.locator("summary").click()
    with boss.expect_response(lambda response: response.url.endswith("/control/day")):
        boss.evaluate("htmx.ajax('GET', '/admin/control/day', '#day')")
    expect(table.locator("table")).to_be_visible()  # what is open stays open
