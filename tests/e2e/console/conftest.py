"""The console in a real browser: real service, real store, headless Chromium.

After every test, the page must have sent no request to another origin, and the browser's console must hold no error.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from support.chromium import browser, chromium_path
from support.console_page import TIMEOUT_MS, OpenPage, origin, service
from support.tiny_bundle import Corpus, TinyBundle

EXPECTED_ERRORS = re.compile(r"the server responded with a status of (401|403|404|412|422|429|502|503)|net::ERR_FAILED")
"""The browser reports every response that is no success, which some tests provoke."""


@pytest.fixture(scope="module")
def address(tiny: TinyBundle, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with service(tiny, corpus, tmp_path_factory.mktemp("states")) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if chromium_path() is None:
        pytest.skip("no Chromium here: install the package chromium, or set TEST_CHROMIUM to one")
    expect.set_options(timeout=TIMEOUT_MS)
    with browser() as started:
        yield started


@pytest.fixture
def open_page(chromium: Browser, address: str) -> Iterator[OpenPage]:
    """A function that opens a view of the service; on teardown, checks what the module docstring promises."""
    contexts, requests, complaints = [], [], []

    def opened(
        view: str = "", *, at: str = address, prepare: Callable[[Page], object] = lambda page: None, **options: Any
    ) -> Page:
        context = chromium.new_context(**options)
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append((at, request.url)))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type in {"error", "warning"} else None)
        prepare(page)
        page.goto(f"{at}/{view}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert {origin(url) for _, url in requests} <= {origin(at) for at, _ in requests}
    assert [line for line in complaints if not EXPECTED_ERRORS.search(line)] == []
