"""Storing and deleting a review, and what it does to the rating of the pair."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, Route, expect

from support.app_settings import settings_for
from support.console_page import (
    PAIR,
    OpenPage,
    hold_requests,
    press,
    show,
    shown_rating,
    store_review,
    wait_for_evidence,
)
from support.running_app import serving
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.states import open_store
from ubert_service.client import Client
from ubert_service.schemas import PairRequest, PredictRequest, ReviewRequest

READS = re.compile(r"/(predict|explain|rank)$")


def test_a_stored_review_changes_the_rating_and_its_deletion_restores_it(open_page: OpenPage, address: str) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    before = shown_rating(page)
    page.get_by_role("radio", name="1 ★").focus()
    press(page, "Space", "Tab")
    page.keyboard.type("the string broke")
    press(page, "Tab", "Enter")

    written = page.locator("#written")
    expect(written.locator(".moved")).to_contain_text(f"Review stored: {before} →")
    expect(page.locator("#announcement")).to_contain_text("Review stored")
    with Client(address) as client:
        (served,) = client.predict(PredictRequest(pairs=[PairRequest(user="u0", item="i2")])).predictions
        assert client.item("i2").reviews[0].user == "console-guest"
    assert shown_rating(page) == f"{served.rating:.2f}" != before

    delete = written.get_by_role("button", name="Delete the review of i2 by console-guest")
    delete.focus()
    press(page, "Enter")
    expect(written.locator(".moved")).to_contain_text("Review deleted")
    expect(page.locator("#writing-title")).to_be_focused()
    wait_for_evidence(page)
    assert shown_rating(page) == before
    expect(delete).to_have_count(0)


@pytest.fixture
def replicas(tiny: TinyBundle, corpus: Corpus, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two services over one store. By itself, neither reads the other's writes before the test has ended."""
    url = f"lmdb:{tmp_path / 'states'}"
    store = open_store(url)
    corpus.write(store, tiny.bundle)
    settings = settings_for(tiny.bundle, store=url, resident_lag=60)
    with (
        serving(settings, store) as one,
        serving(settings, store) as other,
    ):
        yield str(one.base_url), str(other.base_url)
    store.close()


def answered_by(replica: str) -> Callable[[Page], object]:
    """Sends reads to ``replica``, as a load balancer would that separates them from writes."""

    def forward(route: Route) -> None:
        path = route.request.url.rpartition("/")[2]
        route.fulfill(response=route.fetch(url=f"{replica}/{path}"))

    return lambda page: page.route(READS, forward)


def recorded_reads(page: Page) -> list[Request]:
    """A list to which every further read of the page is added."""
    reads: list[Request] = []
    page.on("request", lambda request: reads.append(request) if READS.search(request.url) else None)
    return reads


def sent_versions(requests: list[Request]) -> list[tuple[str, str | None]]:
    return [(one.url.rpartition("/")[2], one.headers.get("x-read-version")) for one in requests]


def test_a_stored_review_changes_the_rating_that_another_replica_returns(
    open_page: OpenPage, replicas: tuple[str, str]
) -> None:
    writer, reader = replicas
    page = open_page(PAIR, at=writer, prepare=answered_by(reader))
    wait_for_evidence(page)
    before = shown_rating(page)
    reads = recorded_reads(page)

    with page.expect_response(re.compile("/reviews$")) as written:
        store_review(page)
    expect(page.locator("#written .moved")).to_contain_text(f"Review stored: {before} →")
    wait_for_evidence(page)
    assert shown_rating(page) != before
    version = written.value.json()["read_version"]
    assert sent_versions(reads) == [("predict", None), ("predict", version), ("explain", version)]

    reads.clear()
    with page.expect_response(re.compile("/reviews/")) as removed:
        page.get_by_role("button", name="Delete the review").click()
    expect(page.locator("#written .moved")).to_contain_text("Review deleted")
    wait_for_evidence(page)
    assert shown_rating(page) == before
    before_removal, version = version, removed.value.headers["x-read-version"]
    show(page, "#/ranking?user=u0")
    page.get_by_label("Candidates").fill("i2")
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("table.ranked")).to_be_visible()
    assert sent_versions(reads) == [
        ("predict", before_removal),
        ("predict", version),
        ("explain", version),
        ("rank", version),
    ]


def test_a_read_version_that_the_store_has_lost_is_dropped_and_the_request_repeated(
    open_page: OpenPage, replicas: tuple[str, str]
) -> None:
    page = open_page(PAIR, at=replicas[0])
    wait_for_evidence(page)
    reads = recorded_reads(page)

    def lose(route: Route) -> None:
        response = route.fetch()
        lost.append(re.sub(r":\d+-", f":{10**15}-", response.headers["x-read-version"]))
        route.fulfill(response=response, headers={**response.headers, "x-read-version": lost[0]})

    lost: list[str] = []
    page.route("**/reviews", lose)
    store_review(page)
    expect(page.locator("#written .moved")).to_contain_text("Review stored")
    wait_for_evidence(page)
    expect(page.locator("#pair-problem")).to_be_empty()
    assert sent_versions(reads) == [("predict", None), ("predict", lost[0]), ("predict", None), ("explain", None)]


@pytest.mark.parametrize(
    ("lowest", "highest", "choices"),
    [
        (1.0, 5.0, "1 2 3 4 5"),
        (0.0, 1.0, "0 0.25 0.5 0.75 1"),
        (0.5, 5.0, "0.5 1 2 3 4 5"),
        (0.0, 10.0, "0 1 2 3 4 5 6 7 8 9 10"),
        (1.0, 100.0, "1 10 20 30 40 50 60 70 80 90 100"),
    ],
)
def test_the_ratings_to_choose_from_are_those_of_the_bundles_scale(
    open_page: OpenPage, lowest: float, highest: float, choices: str
) -> None:
    def rescale(route: Route) -> None:
        response = route.fetch()
        scale = {"lowest": lowest, "highest": highest}
        route.fulfill(response=response, json={**response.json(), "scale": scale})

    page = open_page(PAIR, prepare=lambda page: page.route("**/about", rescale))
    wait_for_evidence(page)
    radios = page.locator("#writing-stars label")
    assert [label.strip() for label in radios.all_inner_texts()] == [f"{one} ★" for one in choices.split()]
    expect(page.locator("#writing-stars input:checked")).to_have_count(0)
    options = page.locator("#own-texts select option")
    assert options.all_text_contents() == ["none", *(f"{one} ★" for one in choices.split())]
    assert page.locator("#rating .tick").all_text_contents() == choices.split()

    second = choices.split()[1]
    with page.expect_request("**/reviews") as sent:
        page.route("**/reviews", lambda route: route.fulfill(status=422, body="{}"))
        store_review(page, stars=f"{second} ★")
    assert json.loads(sent.value.post_data or "")["rating"] == float(second)


def test_a_review_by_the_pairs_own_user_is_refused_because_it_changes_nothing(open_page: OpenPage) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    page.get_by_role("combobox", name="Reviewer").fill("u0")
    store_review(page)
    problem = page.locator("#writing-problem")
    expect(problem).to_contain_text("would change nothing")
    below, above = problem.bounding_box(), page.get_by_role("button", name="Store the review").bounding_box()
    assert below is not None
    assert above is not None
    assert below["y"] >= above["y"] + above["height"] + 8, "the message touches the button"


def test_the_new_rating_is_shown_beside_the_form_and_the_page_does_not_jump(open_page: OpenPage) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    height = page.evaluate("() => document.body.scrollHeight")
    held: list[Route] = []
    page.route("**/explain", hold_requests(held))
    before = shown_rating(page)
    with page.expect_request("**/explain"):
        store_review(page)
    expect(page.locator("#rating .moved")).to_be_visible()
    expect(page.locator("#contributions table")).to_be_visible()
    assert page.evaluate("() => document.body.scrollHeight") >= height - 100
    held[0].continue_()
    scale = page.locator("#written .scale")
    expect(scale).to_be_in_viewport()
    expect(scale.locator(".point.before")).to_have_count(1)
    page.unroute("**/explain")
    show(page, "#/pair?user=u1&item=i3")
    wait_for_evidence(page)
    expect(page.locator("#written .moved")).to_have_count(0)  # it was the other pair's
    page.get_by_role("button", name="Delete the review of i2 by console-guest").click()
    expect(page.locator("#written")).not_to_contain_text("Written from this page")
    show(page, PAIR)
    expect(page.locator("#rating .whose")).to_have_text("u0 on i2")
    assert shown_rating(page) == before


def test_a_stored_review_whose_new_rating_cannot_be_loaded_is_reported_so(open_page: OpenPage) -> None:
    page = open_page("#/pair?user=u2&item=i4")
    wait_for_evidence(page)
    page.route("**/predict", lambda route: route.fulfill(status=503, body="{}"))
    store_review(page)
    expect(page.locator("#written .moved")).to_have_text("Review stored. What it changed could not be loaded.")
    page.unroute("**/predict")
    page.get_by_role("button", name="Delete the review").click()
    expect(page.locator("#written .moved")).to_contain_text("Review deleted")


def test_a_double_click_deletes_once_and_the_focus_stays_in_the_form(open_page: OpenPage) -> None:
    page = open_page("#/pair?user=u2&item=i4")
    wait_for_evidence(page)
    store = page.get_by_role("button", name="Store the review")
    page.get_by_role("radio", name="1 ★").check()
    page.get_by_label("Review", exact=True).fill("the string broke")
    store.focus()
    press(page, "Enter")
    expect(page.locator("#written .moved")).to_contain_text("Review stored")
    expect(store).to_be_focused()

    held: list[Route] = []
    page.route("**/explain", hold_requests(held))
    with page.expect_request("**/explain"):
        page.get_by_role("button", name="Delete the review").dblclick()
    expect(page.locator("#written .moved")).to_contain_text("Review deleted")  # before the explanation has arrived
    expect(page.get_by_role("button", name="Delete the review")).to_have_count(0)
    text = page.get_by_label("Review", exact=True)
    text.focus()
    page.keyboard.type("one ")
    held[0].continue_()
    expect(page.locator("#pair")).not_to_have_attribute("aria-busy", "true")
    page.keyboard.type("more")
    expect(text).to_have_value("one more")
    expect(page.locator("#writing-problem")).to_be_empty()


def test_the_effect_of_a_stored_review_is_not_shown_with_another_pair(open_page: OpenPage) -> None:
    page = open_page("#/pair?user=u2&item=i4")
    wait_for_evidence(page)
    held: list[Route] = []
    page.route("**/explain", hold_requests(held))
    with page.expect_request("**/explain"):
        store_review(page)
    page.unroute("**/explain")
    show(page, "#/pair?user=u1&item=i3")
    wait_for_evidence(page)
    expect(page.locator("#writing")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#written .moved")).to_have_count(0)
    page.get_by_role("button", name="Delete the review of i4 by console-guest").click()
    expect(page.locator("#written")).not_to_contain_text("Written from this page")


def test_a_stored_review_is_credited_with_its_own_effect_alone(open_page: OpenPage, address: str) -> None:
    page = open_page("#/pair?user=u2&item=i4")
    wait_for_evidence(page)
    page.get_by_text("Add texts by this user").click()
    page.get_by_label("Text 1", exact=True).fill("The strings are bright.")  # but not asked about
    with Client(address) as client:

        def rating() -> float:
            pair = PairRequest(user="u2", item="i4")
            return client.predict(PredictRequest(pairs=[pair])).predictions[0].rating

        shown = shown_rating(page)
        other = client.write_review(ReviewRequest(user="another", item="i4", rating=1, text="Not good."))
        before = rating()
        assert f"{before:.2f}" != shown
        store_review(page)
        moved = page.locator("#written .moved")
        expect(moved).to_contain_text("Review stored")
        expect(moved).to_contain_text(f"Review stored: {before:.2f} → {rating():.2f} stars")
        page.get_by_role("button", name="Delete the review").click()
        expect(moved).to_contain_text(f"→ {before:.2f} stars")
        client.remove_review(other.review_id, user="another", item="i4")


def test_an_empty_review_is_not_stored_neither_by_enter_nor_by_the_button(open_page: OpenPage) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    written: list[Request] = []
    page.on("request", lambda request: written.append(request) if request.url.endswith("/reviews") else None)
    reviewer = page.get_by_role("combobox", name="Reviewer")
    reviewer.focus()
    press(page, "Enter")
    expect(reviewer).to_be_focused()
    page.get_by_role("button", name="Store the review").click()
    expect(page.get_by_role("radio", name="1 ★")).to_be_focused()  # where the browser says what is missing
    press(page, "Space")
    page.get_by_role("button", name="Store the review").click()
    expect(page.get_by_label("Review", exact=True)).to_be_focused()
    assert written == []


def test_a_review_stored_before_a_reload_can_still_be_deleted(open_page: OpenPage, address: str) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    delete = page.get_by_role("button", name="Delete the review of i2 by console-guest")
    for stored in (1, 2):
        store_review(page)
        expect(delete).to_have_count(stored)
    assert "string" not in page.evaluate("() => JSON.stringify({...sessionStorage})")
    page.reload()
    wait_for_evidence(page)
    with Client(address) as client:
        deleted_elsewhere = client.item("i2").reviews[0]
        client.remove_review(deleted_elsewhere.review_id, user=deleted_elsewhere.user, item="i2")
    for left in (1, 0):
        delete.first.click()
        expect(delete).to_have_count(left)
        expect(page.locator("#written .moved")).to_contain_text("Review deleted")
    expect(page.locator("#writing-problem")).to_be_empty()
    with Client(address) as client:
        assert "console-guest" not in {review.user for review in client.item("i2").reviews}
