"""The view of a ranking: choosing candidates, the ranked items, and the link from an item to its pair."""

import re

import httpx
from playwright.sync_api import Page, Route, expect

from support.console_page import (
    OpenPage,
    Readiness,
    choose,
    hold_requests,
    press,
    search,
    show,
    shown_rating,
    table_rows,
    wait_for_evidence,
)
from support.tiny_bundle import Corpus
from ubert_service.client import Client
from ubert_service.schemas import RankRequest, Ready


def test_a_ranking_leads_from_candidates_to_a_pair(open_page: OpenPage) -> None:
    page = open_page("#/ranking")
    page.get_by_role("combobox", name="User").focus()
    choose(page, "User", "u1")
    page.get_by_role("button", name="Add 50 items").focus()
    press(page, "Enter")
    candidates = page.get_by_label("Candidates")
    expect(candidates).to_have_value(re.compile("i0\ni1\n"))
    candidates.focus()
    press(page, "Control+End")
    page.keyboard.type("\nnever-heard-of")
    page.get_by_role("button", name="Rank", exact=True).focus()
    press(page, "Enter")
    table = page.locator("table.ranked")
    expect(table.locator("tbody tr")).to_have_count(8)
    ratings = [float(row[2]) for row in table_rows(table)]
    assert ratings == sorted(ratings, reverse=True)
    grounds = {row[1]: row[5] for row in table_rows(table)}
    assert grounds.pop("never-heard-of") == "one side’s ratings, item not seen in training"
    assert set(grounds.values()) == {"both sides’ reviews"}
    expect(page.locator("#announcement")).to_contain_text("8 items ranked")

    best = table.get_by_role("link").first
    item, rating = best.inner_text(), table_rows(table)[0][2]
    best.focus()
    press(page, "Enter")
    expect(page.locator("#pair-title")).to_be_focused()
    wait_for_evidence(page)
    assert page.url.endswith(f"#/pair?user=u1&item={item}")
    assert shown_rating(page) == rating
    page.go_back()
    expect(table).to_be_visible()


def ranked(page: Page) -> list[str]:
    page.get_by_role("button", name="Rank", exact=True).focus()
    press(page, "Enter")
    expect(page.locator("#ranking")).not_to_have_attribute("aria-busy", "true")
    return [row[1] for row in table_rows(page.locator("table.ranked"))]


def test_back_leads_to_the_row_that_was_opened(open_page: OpenPage) -> None:
    page = open_page("#/ranking?user=u0", viewport={"width": 390, "height": 600})
    page.get_by_label("Candidates").fill("\n".join(f"new{number}" for number in range(40)))
    page.get_by_label("Show the best").fill("40")
    page.get_by_role("button", name="Rank", exact=True).click()
    opened = page.locator("table.ranked").get_by_role("link").nth(30)
    opened.click()
    expect(page.get_by_role("heading", name="What would this user")).to_be_focused()
    wait_for_evidence(page)
    page.go_back()
    expect(opened).to_be_focused()
    expect(opened).to_be_in_viewport()
    page.get_by_role("link", name="Status").click()
    page.get_by_role("link", name="Ranking").click()
    expect(page.get_by_role("heading", name="Which of these")).to_be_focused()


def test_a_click_anywhere_in_a_row_leads_to_the_pair(open_page: OpenPage) -> None:
    page = open_page("#/ranking?user=u0")
    page.get_by_label("Candidates").fill("i2")
    page.get_by_role("button", name="Rank", exact=True).click()
    scale = page.locator("table.ranked .scale").bounding_box()
    assert scale is not None
    page.mouse.click(scale["x"] + scale["width"] / 2, scale["y"] + scale["height"] / 2)
    expect(page.locator("#pair-title")).to_be_focused()
    assert page.url.endswith("#/pair?user=u0&item=i2")
    wait_for_evidence(page)


def test_a_ranking_survives_a_reload_and_another_user_in_its_address_replaces_it(
    open_page: OpenPage, address: str
) -> None:
    with Client(address) as client:
        client.write_candidate_set("spring", ["i4", "i5"])
    page = open_page("#/ranking")
    page.get_by_role("combobox", name="User").fill("u1")
    page.get_by_label("Candidates").fill("i1\ni2\ni3")
    ranked(page)
    assert page.url.endswith("#/ranking?user=u1")
    expect(page).to_have_title("u1 – U-BERT console")
    caption = page.locator("table.ranked caption")
    page.reload()
    expect(caption).to_have_text("3 items of 3 for u1, best first")
    expect(page.get_by_role("combobox", name="User")).to_have_value("u1")

    held: list[Route] = []
    page.route("**/rank", hold_requests(held))
    with page.expect_request("**/rank"):
        show(page, "#/pair?user=u2&item=i4")
        wait_for_evidence(page)
        page.get_by_role("link", name="Ranking").click()
    expect(page.get_by_role("combobox", name="User")).to_have_value("u2")
    expect(caption).to_have_count(0)  # it was the other user's
    held[0].continue_()
    page.unroute("**/rank")
    expect(caption).to_have_text("3 items of 3 for u2, best first")
    page.go_back()
    page.go_back()
    expect(caption).to_have_text("3 items of 3 for u1, best first")

    show(page, "#/ranking?user=u2&set=spring")
    expect(caption).to_have_text("2 items of 2 for u2, best first")
    expect(page.get_by_label("Items from")).to_have_value("spring")
    show(page, "#/pair?user=u3&item=i6")
    wait_for_evidence(page)
    page.get_by_role("link", name="Ranking").click()
    expect(caption).to_have_text("2 items of 2 for u3, best first")
    show(page, "#/ranking?user=u2")
    expect(caption).to_have_text("3 items of 3 for u2, best first")
    show(page, "#/ranking?user=u2&set=autumn")
    expect(page.locator("#ranking-problem")).to_contain_text("No stored set is named autumn.")
    expect(caption).to_have_count(0)
    httpx.delete(f"{address}/candidate-sets/spring", timeout=30, trust_env=False).raise_for_status()


def test_a_stored_set_is_ranked_with_a_minimum_rating_and_without_reviewed_items(
    open_page: OpenPage, address: str, corpus: Corpus
) -> None:
    items = [f"i{number}" for number in range(10)]
    with Client(address) as client:
        client.write_candidate_set("spring", items)
        best = client.rank(RankRequest(user="u1", candidate_set="spring")).items
    reviewed = {entry.item for entry in corpus.of_user("u1")}
    minimum = best[len(best) // 2].rating
    page = open_page("#/ranking?user=u1")
    source = page.get_by_label("Items from")
    expect(source).to_be_visible()
    source.focus()
    page.keyboard.type("spring")
    expect(source).to_have_value("spring")
    expect(page.get_by_label("Candidates, one item per line")).to_be_hidden()
    assert ranked(page) == [one.item for one in best]

    page.get_by_label("Rated at least").fill(str(minimum))
    assert ranked(page) == [one.item for one in best if one.rating >= minimum]

    page.get_by_label("Leave out what the user has reviewed").focus()
    press(page, "Space")
    assert ranked(page) == [one.item for one in best if one.rating >= minimum and one.item not in reviewed]

    page.get_by_label("Rated at least").fill("5.5")
    page.get_by_role("button", name="Rank", exact=True).focus()
    press(page, "Enter")
    expect(page.locator("#ranking-answer")).to_contain_text("is rated that high for u1")
    expect(page.locator("#announcement")).to_contain_text("is rated that high")
    source.select_option("the list below")
    expect(page.get_by_label("Candidates, one item per line")).to_be_visible()
    httpx.delete(f"{address}/candidate-sets/spring", timeout=30, trust_env=False).raise_for_status()


def test_a_candidate_set_chosen_while_the_sets_are_listed_again_stays_chosen(open_page: OpenPage, address: str) -> None:
    with Client(address) as client:
        client.write_candidate_set("spring", ["i1"])
    page = open_page("#/ranking?user=u1")
    source = page.get_by_label("Items from")
    expect(source).to_be_visible()
    held: list[Route] = []
    page.route("**/candidate-sets", hold_requests(held))
    with page.expect_request("**/candidate-sets"):
        show(page, "#/ranking?user=u2")
    source.select_option("spring")
    held[0].continue_()
    expect(page.locator("#ranking")).not_to_have_attribute("aria-busy", "true")
    expect(source).to_have_value("spring")
    expect(page.get_by_label("Candidates, one item per line")).to_be_hidden()
    httpx.delete(f"{address}/candidate-sets/spring", timeout=30, trust_env=False).raise_for_status()


def test_an_item_is_added_to_the_candidates_by_search(open_page: OpenPage) -> None:
    page = open_page("#/ranking")
    page.get_by_role("combobox", name="Add an item").focus()
    choose_and_empty(page, "Add an item", "i3")
    choose_and_empty(page, "Add an item", "i11")
    expect(page.get_by_label("Candidates")).to_have_value("i3\ni11")

    page.keyboard.type("never-heard-of")
    press(page, "Enter")  # adds an unknown item without a search
    expect(page.get_by_label("Candidates")).to_have_value("i3\ni11\nnever-heard-of")
    expect(page.get_by_role("combobox", name="Add an item")).to_have_value("")
    expect(page.locator("#announcement")).to_have_text("3 candidates")
    expect(page.locator("#ranking-problem")).to_be_empty()


def choose_and_empty(page: Page, label: str, typed: str) -> None:
    search(page, label, typed)
    press(page, "ArrowDown", "Enter")
    expect(page.get_by_role("combobox", name=label)).to_have_value("")


def test_a_long_ranking_is_shown_in_pages(open_page: OpenPage) -> None:
    page = open_page("#/ranking?user=u1")
    expect(page.get_by_role("combobox", name="User")).to_have_value("u1")
    items = ["x" * 250, *(f"n{number}" for number in range(449))]
    page.get_by_label("Candidates").evaluate("(field, value) => { field.value = value; }", "\n".join(items))
    page.get_by_label("Show the best").fill("10000")
    page.get_by_role("button", name="Rank", exact=True).click()
    rows = page.locator("table.ranked tbody tr")
    expect(rows).to_have_count(200)
    expect(page.locator("table.ranked caption")).to_have_text("450 items of 450 for u1, best first")
    assert page.locator(".scrolled").evaluate("place => place.scrollWidth <= place.clientWidth")
    more = page.get_by_role("button", name="Show 200 more of 250")
    more.focus()
    press(page, "Enter")
    expect(rows).to_have_count(400)
    expect(rows.nth(200).get_by_role("link")).to_be_focused()
    page.get_by_role("button", name="Show 50 more of 50").click()
    expect(rows).to_have_count(450)
    assert [row[0] for row in table_rows(page.locator("table.ranked"))] == [str(rank + 1) for rank in range(450)]
    expect(page.locator("#ranking-answer > button")).to_be_hidden()

    page.route("**/rank", lambda route: route.fulfill(status=503, body="{}"))
    page.get_by_role("combobox", name="User").fill("u2")
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("#ranking-problem")).not_to_be_empty()
    expect(rows).to_have_count(0)  # they were the answer to another request


def test_a_stale_ranking_shows_its_age(open_page: OpenPage) -> None:
    def answer_stale(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, headers={**response.headers, "x-stale-seconds": "5.2"})

    page = open_page("#/ranking?user=u1", prepare=lambda page: page.route("**/rank", answer_stale))
    page.get_by_label("Candidates").fill("i1")
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("table.ranked")).to_be_visible()
    expect(page.locator("#ranking-answer")).to_contain_text("The store is away: this is as of 5.2 s ago.")


def test_typed_candidates_are_ranked_even_if_the_stored_sets_cannot_be_listed(open_page: OpenPage) -> None:
    refusal = {"title": "The state store cannot be reached", "detail": "it is away", "status": 503}

    def prepare(page: Page) -> None:
        page.route("**/candidate-sets", lambda route: route.fulfill(status=503, json=refusal))

    page = open_page("#/ranking?user=u1", prepare=prepare)
    expect(page.locator("#ranking-problem")).to_contain_text(
        "The stored sets could not be listed: The state store cannot be reached. It is away"
    )
    page.get_by_label("Candidates").fill("i1")
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("table.ranked tbody tr")).to_have_count(1)
    expect(page.locator("#ranking-problem")).to_be_empty()


def test_a_problem_is_visible_to_who_pressed_a_button_at_the_lower_edge(open_page: OpenPage) -> None:
    page = open_page("#/ranking", viewport={"width": 390, "height": 600})
    rank = page.get_by_role("button", name="Rank", exact=True)
    rank.evaluate("button => button.scrollIntoView({ block: 'end' })")
    rank.click()
    problem = page.get_by_role("alert").filter(has_text="Something is missing")
    expect(problem).to_be_in_viewport(ratio=0.9)


def test_a_new_ranking_aborts_the_pending_one(open_page: OpenPage) -> None:
    page = open_page("#/ranking?user=u1")
    expect(page.get_by_role("combobox", name="User")).to_have_value("u1")
    page.get_by_label("Candidates").fill("i1")
    page.evaluate(
        """() => {
            const original = window.fetch;
            window.signals = [];
            window.fetch = (address, options) => {
                if (address === "rank") window.signals.push(options.signal);
                return original(address, options);
            };
        }"""
    )
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/rank", hold_the_first)
    with page.expect_request("**/rank"):
        page.get_by_role("button", name="Rank", exact=True).click()
    page.get_by_label("Candidates").fill("i1\ni2")
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("table.ranked tbody tr")).to_have_count(2)
    assert page.evaluate("() => window.signals.map((signal) => signal?.aborted)") == [True, False]
    expect(page.locator("#ranking")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#ranking-problem")).to_be_empty()


def test_a_ranking_in_a_narrow_window_has_one_line_per_item(open_page: OpenPage) -> None:
    page = open_page("#/ranking?user=u1", viewport={"width": 390, "height": 844})
    page.get_by_role("button", name="Add 50 items").click()
    expect(page.get_by_label("Candidates")).not_to_have_value("")
    page.get_by_role("button", name="Rank", exact=True).click()
    rows = page.locator("table.ranked tbody tr")
    expect(rows.first).to_be_visible()
    heights = rows.evaluate_all("rows => rows.map((row) => row.getBoundingClientRect().height)")
    assert max(heights) < 60, "a row has several lines"


def test_adding_items_by_a_prefix_without_matches_shows_a_problem(open_page: OpenPage) -> None:
    page = open_page("#/ranking")
    page.get_by_role("combobox", name="Add an item").fill("zzz")
    page.get_by_role("button", name="Add 50 items").click()
    expect(page.locator("#ranking-problem")).to_contain_text("begins with zzz")


def test_further_items_are_added_until_there_are_no_more(open_page: OpenPage) -> None:
    def with_smaller_pages(route: Route) -> None:
        route.continue_(url=route.request.url.replace("limit=50", "limit=5"))

    page = open_page("#/ranking", prepare=lambda page: page.route("**/items?*", with_smaller_pages))
    add, candidates = page.get_by_role("button", name="Add 50 items"), page.get_by_label("Candidates")
    total = 0
    for number in (5, 2):
        add.click()
        total += number
        expect(page.locator("#announcement")).to_have_text(f"{total} candidates")
    add.click()
    expect(page.locator("#ranking-problem")).to_contain_text("The store knows no further item.")
    assert len(candidates.input_value().split("\n")) == total
    candidates.fill("")
    add.click()
    expect(candidates).to_have_value(re.compile("^i0\n"))


def test_the_stored_sets_are_listed_once_the_service_is_ready_again(open_page: OpenPage, address: str) -> None:
    with Client(address) as client:
        client.write_candidate_set("spring", ["i0"])
    readiness = Readiness(bundle="a" * 64, status="degraded", detail="the store is away")

    def prepare(page: Page) -> None:
        readiness.answer(page)
        page.route("**/candidate-sets", lambda route: route.fulfill(status=503, body="{}"))

    page = open_page("#/ranking", prepare=prepare)
    problem = page.locator("#ranking-problem")
    expect(problem).to_contain_text("The stored sets could not be listed")
    page.unroute("**/candidate-sets")
    readiness.ready = Ready(bundle="a" * 64)
    page.clock.run_for(10_500)
    expect(page.get_by_label("Items from")).to_be_visible()
    expect(problem).to_be_empty()
    httpx.delete(f"{address}/candidate-sets/spring", timeout=30, trust_env=False).raise_for_status()
