"""The view of one pair: choosing it, its rating, and the problems that prevent one."""

import json
import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Request, Route, expect

from support.console_page import (
    PAIR,
    REVIEW_TEXTS,
    OpenPage,
    choose,
    explanation,
    hold_requests,
    press,
    show,
    shown_rating,
    table_rows,
    wait_for_evidence,
)
from support.tiny_bundle import Corpus, TinyBundle, torch_rating
from ubert_service.client import Client, NotFoundError


def test_a_pair_is_chosen_by_typing_and_rated(open_page: OpenPage, tiny: TinyBundle, corpus: Corpus) -> None:
    page = open_page()
    choose(page, "User", "u0")
    press(page, "Tab")
    choose(page, "Item", "i2")
    press(page, "Enter")
    wait_for_evidence(page)

    expected = torch_rating(tiny, corpus, "u0", "i2")
    assert float(shown_rating(page)) == pytest.approx(expected, abs=0.0051)
    scale = page.locator("#rating [role=img]").get_attribute("aria-label")
    assert scale is not None
    assert re.match(r"\d\.\d\d stars on a scale from 1 to 5, interval \d\.\d\d to \d\.\d\d", scale)
    expect(page.locator("#announcement")).to_contain_text(f"{shown_rating(page)} stars")
    assert page.url.endswith(PAIR)


def test_suggestions_are_selected_and_closed_by_keyboard(open_page: OpenPage) -> None:
    page = open_page()
    field = page.get_by_role("combobox", name="User")
    expect(field).to_be_focused()
    press(page, "ArrowDown")
    options = page.get_by_role("listbox", name="User").get_by_role("option")
    expect(options).to_have_count(5)
    expect(field).to_have_attribute("aria-expanded", "true")
    press(page, "ArrowDown", "ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", str(options.nth(1).get_attribute("id")))
    press(page, "ArrowUp", "ArrowUp")
    expect(options.nth(4)).to_have_attribute("aria-selected", "true")
    press(page, "Escape")
    expect(page.get_by_role("listbox")).to_have_count(0)
    expect(field).to_have_value("")
    expect(field).to_be_focused()


def test_suggestions_stay_open_while_their_scrollbar_is_used(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("combobox", name="User").click()
    suggestions = page.get_by_role("listbox", name="User")
    expect(suggestions).to_be_visible()
    suggestions.click(position={"x": 2, "y": 2})  # on the list itself, as on its scrollbar
    expect(page.get_by_role("combobox", name="User")).to_be_focused()
    expect(suggestions).to_be_visible()


def test_contributions_add_up_to_the_rating(open_page: OpenPage) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    rows = table_rows(page.locator("#contributions table"))
    stars = {name: float(value.replace("\u2212", "-")) for name, _, value in rows}
    total = stars.pop("Rating")
    assert f"{total:.2f}" == shown_rating(page)
    assert sum(stars.values()) == pytest.approx(total, abs=0.0031)  # each is rounded to a thousandth
    assert set(stars) >= {
        "Where all ratings start",
        "This user’s ratings",
        "This item’s reviews",
        "Where their reviews meet",
    }


def test_texts_sent_along_rate_an_unknown_user_and_are_stored_nowhere(open_page: OpenPage, address: str) -> None:
    page = open_page("#/pair?user=newcomer&item=i2")
    wait_for_evidence(page)
    without = shown_rating(page)
    page.get_by_text("Add texts by this user").focus()
    press(page, "Enter", "Tab")
    expect(page.get_by_label("Text 1", exact=True)).to_be_focused()
    page.keyboard.type(REVIEW_TEXTS["u0"][0])
    page.get_by_label("Stars of text 1").select_option("5")
    page.get_by_role("button", name="Another text").focus()
    press(page, "Enter")
    expect(page.get_by_label("Text 2", exact=True)).to_be_focused()
    page.keyboard.type(REVIEW_TEXTS["u0"][1])
    page.get_by_role("button", name="Predict").focus()
    press(page, "Enter")

    own = page.get_by_role("region", name="By newcomer")
    expect(own.locator("article")).to_have_count(2)
    assert set(own.locator("article .given").all_inner_texts()) == {"★ 5", "no stars"}
    texts = [{"text": REVIEW_TEXTS["u0"][0], "rating": 5}, {"text": REVIEW_TEXTS["u0"][1]}]
    question = {"pairs": [{"user": "newcomer", "item": "i2"}], "user_texts": texts}
    answer = httpx.post(f"{address}/predict", json=question, timeout=30, trust_env=False).json()
    (rated,) = answer["predictions"]
    assert rated["basis"] == "full"
    expect(page.get_by_role("region", name="Where the two reviews meet")).to_contain_text("The text sent along")
    assert shown_rating(page) == f"{rated['rating']:.2f}" != without
    assert REVIEW_TEXTS["u0"][0] in own.locator(".text").all_inner_texts()
    assert "strings" not in page.evaluate(
        "() => JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])"
    )
    with Client(address) as client, pytest.raises(NotFoundError):
        client.user("newcomer")

    show(page, PAIR)  # the texts are not this user's
    wait_for_evidence(page)
    expect(page.get_by_label("Text 1", exact=True)).to_have_value("")
    expect(page.get_by_role("region", name="By u0").locator("article", has_text="strings")).to_have_count(0)


def test_a_suggestion_for_other_letters_cannot_be_chosen_while_the_next_search_is_under_way(
    open_page: OpenPage,
) -> None:
    page = open_page()
    field = page.get_by_role("combobox", name="Item")
    field.fill("I")
    options = page.get_by_role("listbox", name="Item").get_by_role("option")
    expect(options.first).to_be_visible()
    press(page, "ArrowDown")
    held: list[Route] = []
    page.route("**/items?*", hold_requests(held))
    page.keyboard.type("1")
    assert {identifier[:2] for identifier in options.locator("bdi").all_inner_texts()} == {"i1"}
    expect(field).not_to_have_attribute("aria-activedescendant", re.compile("."))
    page.keyboard.type("z")
    expect(page.get_by_role("listbox")).to_have_count(0)
    expect(field).to_have_attribute("aria-expanded", "false")
    press(page, "Enter")
    expect(field).to_have_value("I1z")


def test_enter_submits_what_was_typed_and_closes_the_suggestions(open_page: OpenPage) -> None:
    page = open_page(prepare=lambda page: page.clock.install())
    expect(page.get_by_role("combobox", name="User")).to_be_focused()
    page.keyboard.type("u0")
    press(page, "Tab")
    page.keyboard.type("i2")
    expect(page.get_by_role("listbox", name="Item")).to_be_visible()
    press(page, "Enter")
    wait_for_evidence(page)
    expect(page.get_by_role("listbox")).to_have_count(0)
    field = page.get_by_role("combobox", name="Item")
    expect(field).to_have_attribute("aria-expanded", "false")

    searches: list[Request] = []
    page.on("request", lambda request: searches.append(request) if "/items?" in request.url else None)
    page.clock.pause_at(page.evaluate("() => Date.now() + 60_000"))
    field.fill("i3")
    press(page, "Enter")  # before the search has begun, so that it must not begin
    page.clock.run_for(300)
    expect(page.get_by_role("region", name="Predicted rating")).to_contain_text("u0 on i3")
    wait_for_evidence(page)
    assert searches == []


def test_a_search_without_results_and_a_failed_one_show_a_hint_below_the_field(open_page: OpenPage) -> None:
    page = open_page()
    field = page.get_by_role("combobox", name="User")
    field.fill("never-heard-of")
    hint = page.locator("#pair-user .combobox .note:visible")
    expect(hint).to_have_text("No suggestions; any identifier may be entered")
    press(page, "Escape")
    expect(hint).to_have_count(0)
    expect(field).to_have_value("never-heard-of")
    page.route("**/users?*", lambda route: route.abort())
    field.fill("u")
    expect(hint).to_have_text("No suggestions: The service cannot be reached")
    press(page, "Tab")
    expect(hint).to_have_count(0)


def test_a_rating_is_shown_again_on_return_and_never_with_another_pair(open_page: OpenPage) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    rating = shown_rating(page)
    expect(page.get_by_role("region", name="Predicted rating")).to_contain_text("u0 on i2")
    assert page.title().startswith("u0, i2")
    page.get_by_role("link", name="Status").click()
    page.get_by_role("link", name="Pair", exact=True).click()
    wait_for_evidence(page)
    assert page.url.endswith(PAIR)
    expect(page.get_by_role("combobox", name="User")).to_have_value("u0")
    assert shown_rating(page) == rating

    show(page, "#/pair?user=u1")
    expect(page.locator("#pair-answer")).to_be_hidden()
    expect(page.get_by_role("combobox", name="User")).to_have_value("u1")
    expect(page.get_by_role("combobox", name="Item")).to_be_focused()


def test_any_pair_of_a_service_without_pairs_shows_a_problem(open_page: OpenPage) -> None:
    page = open_page(prepare=lambda page: page.route("**/users?*", lambda route: route.fulfill(json={"found": []})))
    page.get_by_role("button", name="Any pair").click()
    expect(page.locator("#pair-problem")).to_contain_text("There is no such pair")


def test_a_progress_note_is_visible_until_the_answer_arrives(open_page: OpenPage) -> None:
    page = open_page()
    held: list[Route] = []
    page.route("**/predict", hold_requests(held))
    with page.expect_request("**/predict"):
        show(page, PAIR)
    waiting = page.locator("#pair > .waiting")
    expect(waiting).to_be_visible()
    expect(page.locator("#pair")).to_have_attribute("aria-busy", "true")
    held[0].continue_()
    wait_for_evidence(page)
    expect(waiting).to_be_hidden()


def let_pending_events_run(page: Page) -> None:
    page.wait_for_function("() => new Promise((resolve) => setTimeout(() => resolve(true)))")


def test_an_address_that_changes_while_the_page_starts_is_requested_once(open_page: OpenPage) -> None:
    held: list[Route] = []
    requested: list[str] = []

    def prepare(page: Page) -> None:
        page.route("**/about", hold_requests(held))
        page.on("request", lambda request: requested.append(request.url))

    page = open_page(prepare=prepare)
    expect(page.locator("#health")).to_contain_text("Ready")
    show(page, PAIR)
    let_pending_events_run(page)
    assert not any(url.endswith("/predict") for url in requested)  # the rating scale is not known yet
    for route in held:
        route.continue_()
    wait_for_evidence(page)
    page.evaluate("() => window.dispatchEvent(new HashChangeEvent('hashchange'))")  # as a late one would arrive
    let_pending_events_run(page)
    assert sum(url.endswith("/predict") for url in requested) == 1


def test_an_overloaded_service_is_asked_again_after_retry_after(open_page: OpenPage) -> None:
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if route.request.url in refused:
            route.continue_()
            return
        refused.append(route.request.url)
        refusal = {"type": "urn:u-bert:problem:overloaded", "title": "Too much work is waiting", "detail": "as it is"}
        route.fulfill(status=429, headers={"Retry-After": "1"}, body=json.dumps(refusal))

    page = open_page(PAIR, prepare=lambda page: page.route(re.compile("/(predict|explain)$"), refuse_once))
    wait_for_evidence(page)
    assert len(refused) == 2
    expect(page.locator("#pair-problem")).to_be_empty()


def test_a_refusal_shows_when_to_try_again_and_foreign_html_is_not_shown(open_page: OpenPage) -> None:
    refusal = {"type": "urn:u-bert:problem:overloaded", "title": "Too much work is waiting", "detail": "as it is"}
    reason = {"check": "store", "found": "refused", "remedy": "Start Redis."}
    answers: list[dict[str, Any]] = [
        {"status": 429, "headers": {"Retry-After": "7"}, "body": json.dumps(refusal)},
        {"status": 503, "body": json.dumps({**refusal, "title": "Not ready", "reasons": [reason]})},
        {"status": 502, "body": "<html><body>nginx</body></html>"},
    ]
    page = open_page(PAIR, prepare=lambda page: page.route("**/predict", lambda route: route.fulfill(**answers.pop(0))))
    problem = page.locator("#pair-problem")
    expect(problem).to_contain_text("Too much work is waiting. As it is")
    expect(problem).to_contain_text("Try again in 7 s.")
    page.get_by_role("button", name="Predict").click()
    expect(problem).to_contain_text("store: refused. Start Redis.")
    expect(problem).not_to_contain_text("Try again")
    page.get_by_role("button", name="Predict").click()
    expect(problem).to_contain_text("did not come from the service")
    expect(problem).not_to_contain_text("html")


def test_a_stale_rating_shows_its_age(open_page: OpenPage) -> None:
    def answer_stale(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, headers={**response.headers, "x-stale-seconds": "12.3"})

    page = open_page(PAIR, prepare=lambda page: page.route("**/predict", answer_stale))
    wait_for_evidence(page)
    expect(page.get_by_role("region", name="Predicted rating")).to_contain_text(
        "The store is away: this is as of 12 s ago."
    )
    page.unroute("**/predict")
    with page.expect_response("**/explain"):
        page.get_by_role("button", name="Predict").click()
    wait_for_evidence(page)
    expect(page.get_by_role("region", name="Predicted rating")).not_to_contain_text("away")


def test_a_rating_states_what_its_interval_is_of_and_what_it_rests_on(open_page: OpenPage) -> None:
    def answer_without_states(route: Route) -> None:
        interval = {"low": 2.0, "high": 4.5, "coverage": 0.9}
        prediction = explanation() | {"basis": "bias", "interval": interval}
        route.fulfill(content_type="application/json", body=json.dumps({"predictions": [prediction]}))

    page = open_page(PAIR, prepare=lambda page: page.route("**/predict", answer_without_states))
    rating = page.get_by_role("region", name="Predicted rating")
    expect(rating).to_contain_text("In 90% of cases the rating given is between 2.00 and 4.50.")
    expect(rating).to_contain_text(
        "No reviews to read on one side, so it comes from both sides’ ratings, and from what the item’s texts say "
        "beyond them."
    )


def test_an_error_of_the_service_is_shown_with_its_request_id(open_page: OpenPage) -> None:
    page = open_page(f"#/pair?user={'x' * 5000}&item=i2")
    problem = page.locator("#pair-problem")
    expect(problem).to_contain_text("The request breaks the schema")
    expect(problem).to_contain_text("Request ")


def test_html_in_place_of_an_answer_is_shown_as_a_problem(open_page: OpenPage) -> None:
    page = open_page()
    page.route("**/predict", lambda route: route.fulfill(content_type="text/html", body="<p>Sign in first</p>"))
    show(page, PAIR)
    expect(page.locator("#pair-problem")).to_contain_text(
        "The answer cannot be read. This answer did not come from the service"
    )


def test_a_late_answer_to_any_pair_does_not_replace_the_pair_chosen_since(open_page: OpenPage) -> None:
    page = open_page()
    held: list[Route] = []
    page.route("**/users?prefix=&*", hold_requests(held))
    with page.expect_request("**/users?prefix=&*"):
        page.get_by_role("button", name="Any pair").click()
    show(page, PAIR)
    wait_for_evidence(page)
    found = {"id": "u7", "known": True, "counts": {"reviews": 9, "mean_rating": 4.0}}
    held[0].fulfill(json={"found": [found]})
    let_pending_events_run(page)
    assert page.url.endswith(PAIR)
    expect(page.locator("#pair-problem")).to_be_empty()


def test_a_rating_without_an_explanation_shows_that_it_could_not_be_loaded(open_page: OpenPage) -> None:
    page = open_page(
        PAIR, prepare=lambda page: page.route("**/explain", lambda route: route.fulfill(status=503, body="{}"))
    )
    expect(page.locator("#contributions")).to_have_text("This could not be loaded.")
    expect(page.locator("#evidence-note")).to_have_text("This could not be loaded.")


def test_an_answer_stays_when_the_same_pair_cannot_be_rated_again(open_page: OpenPage) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    rating = shown_rating(page)
    page.get_by_role("combobox", name="Reviewer").fill("someone")
    page.get_by_label("Review", exact=True).fill("the string")
    page.route("**/predict", lambda route: route.abort())
    page.get_by_role("button", name="Predict").click()
    problem = page.locator("#pair-problem")
    expect(problem).to_contain_text("The service cannot be reached")
    expect(problem).to_contain_text("What follows is as of")
    assert shown_rating(page) == rating
    expect(page.locator("#contributions table")).to_be_visible()
    expect(page.locator("#rating-body")).to_have_css("filter", "grayscale(1)")
    expect(page.get_by_role("combobox", name="Reviewer")).to_have_value("someone")
    expect(page.get_by_label("Review", exact=True)).to_have_value("the string")

    show(page, "#/pair?user=u1&item=i3")
    expect(problem).to_contain_text("The service cannot be reached")
    expect(page.locator("#pair-answer")).to_be_hidden()  # it was that of another pair
    expect(problem).not_to_contain_text("What follows")


def test_a_long_wait_is_announced(open_page: OpenPage) -> None:
    held: list[Route] = []
    page = open_page(PAIR, prepare=lambda page: page.route("**/predict", hold_requests(held)))
    announcement = page.locator("#announcement")
    expect(announcement).to_have_text("Waiting for the service…")
    held[0].continue_()
    expect(announcement).to_contain_text(" stars. ")
