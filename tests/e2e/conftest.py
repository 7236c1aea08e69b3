"""A real browser on the real site."""

import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    sync_playwright,
)

from stemsite.setup.site_files import CHROMIUM
from tests.support.browsers import ARGUMENTS, OUTPUT, REFUSALS, Open
from tests.support.running_site import Site, running


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    # Where the system has none, Playwright starts its own.
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def real_site(tmp_path_factory: pytest.TempPathFactory, real_store: Path) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("real"), MODEL_DIR=str(real_store)) as site:
        yield site


class EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture(scope="session")
def other_origin() -> Iterator[str]:
    """The origin of an empty page, which `small_site` allows to use its API."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def small_site(
    tmp_path_factory: pytest.TempPathFactory, small_store: Path, other_origin: str
) -> Iterator[Site]:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny", "MAX_UPLOAD_MB": "2"}
    settings["CORS_ALLOWED_ORIGINS"] = other_origin
    with running(tmp_path_factory.mktemp("small"), **settings) as site:
        yield site


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page that must not complain: script errors and failed loads fail the test."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and not any(each in message.text for each in REFUSALS):
            complaints.append(message.text)

    opened.on("console", note)
    yield opened
    context.close()
    assert complaints == []


@pytest.fixture
def keep() -> Path:
    """Where screenshots are kept, from run to run."""
    OUTPUT.mkdir(exist_ok=True)
    return OUTPUT


@pytest.fixture
def visitors(chromium: Browser) -> Iterator[Open]:
    """Browsers of their own; none of their pages may complain."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and not any(each in message.text for each in REFUSALS):
            complaints.append(message.text)

    def another(**options: object) -> BrowserContext:
        context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})  # type: ignore[arg-type]
        contexts.append(context)
        context.on("console", note)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        return context

    yield another
    for context in contexts:
        context.close()
    assert complaints == []
