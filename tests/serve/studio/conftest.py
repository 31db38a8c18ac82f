"""A studio with a small network, and pages of it in a browser that fail on any error."""

import contextlib
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
import uvicorn
from starlette.testclient import TestClient

from tests.serve.conftest import wait_until
from unpool.serve.app import make_app
from unpool.serve.studio.studio import Settings

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@contextlib.contextmanager
def served(models, settings=None, port=0, **options):
    """The address of a studio that is ready, served by a thread of this process."""
    app = make_app(models, load=models.segmenter, studio=settings or Settings(), **options)
    config = uvicorn.Config(
        app, port=port, log_level="warning", ws="none", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started and app.service.engine.ready)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def address(models):
    """The address of a studio with a small network."""
    torch.set_num_threads(1)
    with served(models) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """Chromium of the system; for one module, since no other event loop can run meanwhile."""
    if not CHROMIUM:
        message = "no Chromium; install it (apt-get install chromium), or name it in CHROMIUM"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address, request):
    """Opens pages, which fail on errors of scripts, failed requests, and those to other origins."""
    wrong, contexts = [], []
    expected = request.node.get_closest_marker("refused")  # Chromium logs each answer of 4xx

    def watch(page, origin):
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        page.on(
            "console",
            lambda said: (
                wrong.append(f"console: {said.text}")
                if said.type == "error" and not (expected and "Failed to load" in said.text)
                else None
            ),
        )
        # a stream of events that is closed, and a request that was overtaken, count as failed
        page.on(
            "requestfailed",
            lambda failed: (
                None
                if expected or failed.failure == "net::ERR_ABORTED"
                else wrong.append(f"failed: {failed.url} {failed.failure}")
            ),
        )
        page.on(
            "request",
            lambda sent: (
                None
                if sent.url.startswith((origin, "blob:", "data:"))
                else wrong.append(f"foreign: {sent.url}")
            ),
        )

    def start(path="/", origin=address, **options):
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 800}, "locale": "en-US", **options}
        )
        contexts.append(context)
        context.set_default_timeout(40_000)
        page = context.new_page()
        watch(page, origin)
        page.goto(origin + path)
        return page

    yield start
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for n, page in enumerate(p for context in contexts for p in context.pages):
            name = "".join(c if c.isalnum() or c in "-_" else "-" for c in request.node.name)
            page.screenshot(path=Path(folder, f"{name}-{n}.png"))
    for context in contexts:
        context.close()
    assert not wrong, wrong


@pytest.fixture
def page(open_page):
    """The first page of the studio."""
    return open_page()


@pytest.fixture(scope="session")
def studio(models):
    """A client of a studio that is ready."""
    app = make_app(models, load=models.segmenter, studio=Settings())
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        wait_until(lambda: app.service.engine.ready)
        yield client
