"""What all views share: API keys, focus, accessibility, print, escaping, and the content security policy."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from matplotlib.image import imread
from playwright.sync_api import Locator, Page, Route, expect

from support.api_keys import write_keys
from support.console_page import (
    PAIR,
    OpenPage,
    Readiness,
    heat_map_answer,
    hold_requests,
    press,
    service,
    show,
    store_review,
    wait_for_evidence,
    with_explanation,
)
from support.tiny_bundle import Corpus, TinyBundle
from ubert_service.client import Client


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_degraded_service_that_asks_for_a_key_is_shown_accessibly_in_a_narrow_window(
    open_page: OpenPage, scheme: str
) -> None:
    detail = f"the state store has not answered within 2 s: {'redis-' * 30}"
    readiness = Readiness(bundle="a" * 64, status="degraded", detail=detail)
    refusal = {"type": "urn:u-bert:problem:forbidden", "title": "No", "status": 403, "detail": detail}

    def prepare(page: Page) -> None:
        readiness.answer(page)
        body = json.dumps(refusal)
        page.route("**/predict", lambda route: route.fulfill(status=403, body=body))

    page = open_page(PAIR, prepare=prepare, color_scheme=scheme, viewport={"width": 360, "height": 900})
    expect(page.locator("#health .trouble")).to_be_visible()
    expect(page.locator("#key-problem")).to_contain_text(detail)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360


FOCUS_IS_VISIBLE = """() => {
    const { left, top, width, height } = document.activeElement.getBoundingClientRect();
    const seen = document.elementFromPoint(left + width / 2, top + height / 2);
    return document.activeElement.contains(seen) || seen.contains(document.activeElement);
}"""


def key_field(page: Page) -> Locator:
    return page.get_by_label("This service asks for an API key")


@contextmanager
def service_with_keys(
    tiny: TinyBundle, corpus: Corpus, folder: Path, scopes: Mapping[str, Iterable[str]]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of the service, and a key for each name in ``scopes``, with those scopes."""
    keys = write_keys(folder / "keys.toml", **scopes)
    with service(tiny, corpus, folder / "states", api_keys=folder / "keys.toml") as address:
        yield address, keys


def test_a_key_without_the_scope_to_write_can_be_replaced_by_one_with_it(
    open_page: OpenPage, tiny: TinyBundle, corpus: Corpus, tmp_path: Path
) -> None:
    scopes = {"reader": ["read"], "writer": ["read", "write"]}
    with service_with_keys(tiny, corpus, tmp_path, scopes) as (address, keys):
        page = open_page(PAIR, at=address)
        field = key_field(page)
        field.fill(keys["reader"])
        press(page, "Enter")
        wait_for_evidence(page)
        expect(field).to_be_hidden()

        store_review(page)
        expect(field).to_be_in_viewport()
        expect(page.locator("#key-problem")).to_contain_text("the API key 'reader' lacks the scope 'write'")
        page.get_by_role("button", name="Not now").click()
        expect(field).to_be_hidden()

        store_review(page)
        field.fill(keys["writer"])
        with page.expect_response("**/explain"):  # the pair is requested again, and its answer replaces the one shown
            press(page, "Enter")
        expect(field).to_be_hidden()
        wait_for_evidence(page)
        expect(page.get_by_label("Review", exact=True)).to_have_value("the string broke")  # the typed text is kept
        store_review(page)
        expect(page.locator("#written .moved")).to_contain_text("Review stored")
        wait_for_evidence(page)
        page.close()


def test_a_key_is_asked_for_used_and_stored_nowhere(
    open_page: OpenPage, tiny: TinyBundle, corpus: Corpus, tmp_path: Path
) -> None:
    with service_with_keys(tiny, corpus, tmp_path, {"console": ["read"]}) as (address, keys):
        page = open_page(PAIR, at=address)
        field = key_field(page)
        expect(field).to_be_visible()
        expect(page.get_by_role("alert")).to_contain_text("API key")
        field.focus()
        page.keyboard.type(keys["console"])
        press(page, "Enter")
        wait_for_evidence(page)
        expect(field).to_be_hidden()
        expect(field).to_have_value("")
        stored = page.evaluate(
            "() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        )
        assert keys["console"] not in stored
        page.reload()
        expect(field).to_be_visible()
        page.close()  # before the service ends, which the page asks for its readiness every few seconds


def test_a_wrong_key_is_refused_with_its_reason_and_the_field_is_focused(
    open_page: OpenPage, tiny: TinyBundle, corpus: Corpus, tmp_path: Path
) -> None:
    with service_with_keys(tiny, corpus, tmp_path, {"console": ["read"]}) as (address, keys):
        page = open_page(at=address)  # without a pair, so that the view itself takes the focus, too
        field = key_field(page)
        expect(page.locator("#key-problem")).to_have_text("The request needs a valid API key: none has been entered")
        field.fill("wrong")
        press(page, "Enter")
        expect(page.locator("#key-problem")).to_contain_text("the API key is not known")
        expect(page.locator("#announcement")).to_contain_text("the API key is not known")
        expect(field).to_be_focused()
        page.keyboard.type(keys["console"])
        press(page, "Enter")
        expect(field).to_be_hidden()
        page.close()


def test_a_late_refusal_of_a_request_without_a_key_does_not_ask_for_the_key_again(
    open_page: OpenPage, tiny: TinyBundle, corpus: Corpus, tmp_path: Path
) -> None:
    with service_with_keys(tiny, corpus, tmp_path, {"console": ["read"]}) as (address, keys):
        without_key: list[Route] = []
        with_key: list[Route] = []

        def hold_without_key(route: Route) -> None:
            if "authorization" in route.request.headers:
                route.continue_()
            else:
                without_key.append(route)

        page = open_page(PAIR, at=address, prepare=lambda page: page.route("**/predict", hold_without_key))
        field = key_field(page)
        expect(page.locator("#pair > .waiting")).to_be_visible()
        page.route("**/about", hold_requests(with_key))
        field.fill(keys["console"])
        with page.expect_request("**/about"):
            press(page, "Enter")
        with page.expect_response("**/predict"):
            without_key[0].continue_()
        with_key[0].continue_()
        wait_for_evidence(page)
        expect(field).to_be_hidden()
        page.close()


def test_a_table_is_focusable_only_where_it_must_be_scrolled(open_page: OpenPage) -> None:
    page = open_page("#/status")
    expect(page.locator(".facts").first).to_be_visible()
    expect(page.locator(".scrolled[tabindex]")).to_have_count(0)
    page.set_viewport_size({"width": 320, "height": 900})
    scrolled = page.get_by_role("region", name="Requests since the start, by route")
    expect(scrolled).to_have_attribute("tabindex", "0")


@pytest.mark.parametrize("down", [0.25, 0.75])
def test_a_table_that_fits_has_no_shade_wherever_it_stands(open_page: OpenPage, down: float) -> None:
    page = open_page(PAIR, viewport={"width": 375, "height": 900}, device_scale_factor=2)
    wait_for_evidence(page)
    table = page.locator("#contributions .scrolled")
    table.evaluate("(place, down) => { place.style.marginTop = `${down}px`; }", down)
    left = imread(io.BytesIO(table.screenshot()), format="png")[:, 2, :3]
    assert np.ptp(left[[0, 1, 2, -3, -2, -1]], axis=0).max() < 0.01


def test_the_caption_of_a_scrolled_table_fits_its_region(open_page: OpenPage) -> None:
    page = open_page("#/status", viewport={"width": 320, "height": 900})
    table = page.get_by_role("region", name="Requests since the start, by route")
    caption, place = table.locator("caption").bounding_box(), table.bounding_box()
    assert caption is not None
    assert place is not None
    assert caption["width"] <= place["width"]


def test_the_focused_element_is_never_hidden_by_the_form_that_asks_for_a_key(open_page: OpenPage) -> None:
    page = open_page(PAIR, viewport={"width": 360, "height": 700})
    wait_for_evidence(page)
    page.route(
        "**/reviews", lambda route: route.fulfill(status=403, body='{"title": "No", "detail": "no", "status": 403}')
    )
    store_review(page)
    expect(page.locator("#key")).to_be_in_viewport()
    for _ in range(8):
        press(page, "Shift+Tab")
        assert page.evaluate(FOCUS_IS_VISIBLE)


def test_a_printed_page_holds_the_whole_answer_and_no_forms(open_page: OpenPage) -> None:
    page = open_page()
    answer = heat_map_answer(60, 60)
    answer["reviews"] += [answer["reviews"][0] | {"review_id": f"further-{number}"} for number in range(4)]
    with_explanation(page, answer)
    page.emulate_media(media="print")
    expect(page.get_by_role("navigation")).to_be_hidden()
    expect(page.locator("#writing-form")).to_be_hidden()
    expect(page.locator("#rating strong")).to_be_visible()
    further = page.locator("#evidence details article")
    assert {box is not None and box["height"] > 0 for box in (one.bounding_box() for one in further.all())} == {True}
    assert page.locator(".heat").evaluate("place => place.scrollHeight <= place.clientHeight")


def test_identifiers_in_an_address_never_become_markup(open_page: OpenPage) -> None:
    page = open_page("#/pair?user=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&item=%3Cb%3Ei2")
    wait_for_evidence(page)
    expect(page.get_by_role("heading", name="By <img src=x onerror=alert(1)>")).to_be_visible()
    assert page.locator("#evidence img, #evidence b, #pair-form img").count() == 0


@pytest.mark.parametrize("view", ["constructor", "toString", "__proto__"])
def test_an_address_of_an_unknown_view_shows_the_first_view(open_page: OpenPage, view: str) -> None:
    page = open_page(f"#/{view}")
    expect(page.locator("#pair-title")).to_be_visible()


def test_a_bidirectional_override_in_an_identifier_is_isolated(open_page: OpenPage) -> None:
    page = open_page("#/pair?user=u0%E2%80%AE&item=i2")
    wait_for_evidence(page)
    expect(page.locator("#rating .whose")).to_have_text("\u2068u0\u202e\u2069 on i2")


def test_a_key_with_characters_that_no_header_can_carry_is_refused_by_its_field(
    open_page: OpenPage, tiny: TinyBundle, corpus: Corpus, tmp_path: Path
) -> None:
    with service_with_keys(tiny, corpus, tmp_path, {"console": ["read"]}) as (address, keys):
        page = open_page(PAIR, at=address)
        field = key_field(page)
        field.fill(f"“{keys['console']}”")
        press(page, "Enter")
        assert field.evaluate("field => field.validity.patternMismatch")
        expect(field).to_be_visible()
        field.fill(f" {keys['console']} ")
        press(page, "Enter")
        wait_for_evidence(page)
        page.close()


def test_the_skip_link_is_first_and_leads_to_the_content(open_page: OpenPage) -> None:
    page = open_page("#/status")
    expect(page.locator(".facts").first).to_be_visible()
    press(page, "Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    press(page, "Enter")
    expect(page.locator("main")).to_be_focused()
    assert page.url.endswith("#/status")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_no_violation_in_any_view_and_none_is_wider_than_its_window(
    open_page: OpenPage, address: str, scheme: str, width: int
) -> None:
    page = open_page(PAIR, color_scheme=scheme, reduced_motion="reduce", viewport={"width": width, "height": 900})
    wait_for_evidence(page)
    page.get_by_text("Add texts by this user").click()
    with Client(address) as client:
        client.write_candidate_set("spring", ["i0"])
    for view in ("pair", "ranking", "status"):
        if view == "ranking":
            show(page, "#/ranking?user=u0")
            page.get_by_role("button", name="Add 50 items").click()
            expect(page.get_by_label("Candidates")).not_to_have_value("")
            page.get_by_role("button", name="Rank", exact=True).click()
            expect(page.locator("table.ranked")).to_be_visible()
            expect(page.get_by_label("Items from")).to_be_visible()
        elif view == "status":
            show(page, "#/status")
            expect(page.locator(".facts").first).to_be_visible()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_every_file_of_the_page_has_the_content_security_policy_and_no_other_is_served(address: str) -> None:
    for path in ("/", "/console/main.js", "/console/console.css", "/console/icon.svg"):
        answer = httpx.get(f"{address}{path}", timeout=30, trust_env=False).raise_for_status()
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("/console/__init__.py", "/console/..%2F__init__.py", "/console/%2e%2e%2fapp.py", "/console/"):
        assert httpx.get(f"{address}{path}", timeout=30, trust_env=False).status_code == 404


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_while_an_answer_is_outdated(open_page: OpenPage, scheme: str) -> None:
    page = open_page(PAIR, color_scheme=scheme, reduced_motion="reduce")
    wait_for_evidence(page)
    held: list[Route] = []
    for path, outdated in (("predict", True), ("explain", False)):
        page.route(f"**/{path}", hold_requests(held))
        with page.expect_request(f"**/{path}"):
            page.get_by_role("button", name="Predict").click()
        for part in ("#rating-body", "#contributions", "#evidence", "#heat-map"):
            drained = outdated or part != "#rating-body"
            expect(page.locator(part)).to_have_css("filter", "grayscale(1)" if drained else "none")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        held.pop().continue_()
        page.unroute(f"**/{path}")
        expect(page.locator("#pair")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#evidence")).to_have_css("filter", "none")
