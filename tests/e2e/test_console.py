"""The console in a real browser, by keyboard: real service, real store, headless Chromium.

In every test: nothing is asked of another origin, and the browser's console stays without an error.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install '.[dev]'")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Request, Route, expect

from support.app_settings import settings_for
from support.chromium import browser, chromium_path
from support.running_app import running
from support.tiny_bundle import Corpus, TinyBundle, random_corpus, torch_rating, write_tiny_bundle
from ubert_model.states import open_store
from ubert_service.access import new_key
from ubert_service.app import create_app
from ubert_service.client import Client, NotFoundError
from ubert_service.schemas import PairRequest, PredictRequest, RankRequest, Ready, ReviewRequest
from ubert_service.serving.served import ServedBundle

pytestmark = pytest.mark.skipif(
    chromium_path() is None, reason="no Chromium here: install the package chromium, or set TEST_CHROMIUM to one"
)

PAIR = "#/pair?user=u0&item=i2"
PATIENCE_MS = 20_000
"""Only ever waited out by a test that fails."""
FAINTEST = 0.2
"""The least weight that is marked, as the page has it."""
EXPECTED_ERRORS = re.compile(r"the server responded with a status of (401|403|404|412|422|429|502|503)|net::ERR_FAILED")
"""The browser itself reports every answer that is no success; those are what some tests are about."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("console") / "bundle")


@pytest.fixture(scope="module")
def corpus(tiny: TinyBundle) -> Corpus:
    return random_corpus(tiny.model, users=8, items=12, reviews=48)


@contextmanager
def service(tiny: TinyBundle, corpus: Corpus, folder: Path, **options: Any) -> Iterator[str]:
    url = f"lmdb:{folder}"
    store = open_store(url)
    corpus.write(store, tiny.bundle)
    settings = settings_for(tiny.bundle, store=url, **options)
    with running(create_app(settings, ServedBundle.load(settings, store))) as client:
        yield str(client.base_url)
    store.close()


@pytest.fixture(scope="module")
def address(tiny: TinyBundle, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with service(tiny, corpus, tmp_path_factory.mktemp("states")) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with browser() as started:
        yield started


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser, address: str) -> Iterator[OpenPage]:
    """Opens a view of the service; afterwards, what the law of this module forbids must not have happened."""
    contexts, asked, complaints = [], [], []

    def opened(
        view: str = "", *, at: str = address, prepare: Callable[[Page], object] = lambda page: None, **options: Any
    ) -> Page:
        context = chromium.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append((at, request.url)))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type in {"error", "warning"} else None)
        prepare(page)
        page.goto(f"{at}/{view}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert {origin(url) for _, url in asked} <= {origin(at) for at, _ in asked}
    assert [line for line in complaints if not EXPECTED_ERRORS.search(line)] == []


def origin(url: str) -> str:
    return "/".join(url.split("/")[:3])


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def choose(page: Page, label: str, typed: str) -> None:
    """Type into the focused search field and take the first suggestion."""
    field = page.get_by_role("combobox", name=label)
    expect(field).to_be_focused()
    page.keyboard.type(typed)
    expect(page.get_by_role("listbox", name=label).get_by_role("option").first).to_contain_text(typed)
    press(page, "ArrowDown", "Enter")
    expect(field).to_have_value(typed)


def shown_rating(page: Page) -> str:
    return page.get_by_role("region", name="Predicted rating").locator("strong").inner_text()


def wait_for_evidence(page: Page) -> None:
    expect(page.get_by_role("heading", name="Evidence")).to_be_visible()
    expect(page.locator("#contributions table")).to_be_visible()


def figures(table: Locator) -> list[list[str]]:
    return [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]


def test_a_pair_is_found_by_typing_and_rated(open_page: OpenPage, tiny: TinyBundle, corpus: Corpus) -> None:
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


def test_suggestions_are_walked_through_and_left_by_keyboard(open_page: OpenPage) -> None:
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


def test_contributions_add_up_to_the_rating(open_page: OpenPage) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    rows = figures(page.locator("#contributions table"))
    stars = {name: float(value.replace("\u2212", "-")) for name, _, value in rows}
    total = stars.pop("Rating")
    assert total == float(shown_rating(page))
    assert sum(stars.values()) == pytest.approx(total, abs=0.02)
    assert set(stars) >= {
        "Mean of all ratings",
        "This user's ratings",
        "This item's ratings",
        "Where their reviews meet",
    }


def test_each_review_is_shown_with_the_effect_that_the_service_computed(open_page: OpenPage, address: str) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    page.locator("#evidence details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    explained = httpx.post(f"{address}/explain", json={"user": "u0", "item": "i2"}, trust_env=False).json()
    for side, name in [("user", "By u0"), ("item", "About i2")]:
        shown = page.get_by_role("region", name=name).locator("article .effect").all_inner_texts()
        mine = [one for one in explained["reviews"] if one["side"] == side]
        mine.sort(key=lambda one: (not one["token_contributions"], -abs(one["effect"])))
        effects = [one["effect"] for one in mine]
        assert len(shown) == len(effects) > 0
        for text, effect in zip(shown, effects, strict=True):
            rounded = f"{abs(effect):.3f}"
            verb = "no effect" if rounded == "0.000" else f"{'raises' if effect > 0 else 'lowers'} by {rounded}"
            assert verb in text


def explanation(**review: Any) -> dict[str, Any]:
    """An answer of ``/explain`` whose one review has a text: the words are what these tests are about."""
    spans, text = [[0, 0], [0, 2], [2, 4], [5, 6], [7, 12], [0, 0]], "Tuner 🎸 <b>x"
    of_review = {
        "review_id": "r", "side": "user", "user": "u0", "item": "i9", "rating": 5.0, "timestamp": 1_400_000_000,
        "tokens": 6, "effect": 0.25, "matching": 0.05, "text": text, "token_spans": spans,
        "token_contributions": [0.0, 0.05, 0.03, 0.0, -0.06, 0.0], **review,
    }  # fmt: skip
    parts = {"mean": 4.0, "user_bias": 0.5, "item_bias": -0.1, "identity_and_summary": 0.0, "matching": 0.1}
    return {
        "bundle": "b", "codec": "fp32", "user": "u0", "item": "i2", "rating": 4.5, "basis": "full", "reasons": [],
        "interval": {"low": 3.5, "high": 5.0, "coverage": 0.9}, "user_reviews": 1, "item_reviews": 1,
        "missing_states": 0, "user_known": True, "item_known": True, "contributions": {**parts, "clipped": 0.0},
        "reviews": [of_review, {**of_review, "review_id": "s", "side": "item", "user": "u9", "item": "i2"}],
        "heat_map": None,
    }  # fmt: skip


def with_explanation(page: Page, answer: dict[str, Any]) -> None:
    def fulfil(route: Route) -> None:
        route.fulfill(content_type="application/json", body=json.dumps(answer))

    page.route("**/explain", fulfil)
    page.evaluate(f"() => {{ location.hash = '{PAIR}'; }}")
    wait_for_evidence(page)


def test_words_are_marked_by_sign_and_strength_whatever_script_they_stand_among(open_page: OpenPage) -> None:
    page = open_page()
    with_explanation(
        page, explanation(text="Tune🎸 n <b>x", token_spans=[[0, 0], [0, 2], [2, 4], [6, 7], [8, 12], [0, 0]])
    )
    review = page.get_by_role("region", name="By u0").locator("article")
    assert review.locator(".text").inner_text().replace("\n", "") == "Tune🎸 n <b>x"
    raised, lowered = review.locator(".word.raises"), review.locator(".word.lowers")
    # Two tokens of one word are one mark with the sum of both.
    expect(raised).to_have_text("Tune")
    expect(raised).to_have_attribute("title", "+0.0800 stars")
    expect(raised).to_have_attribute("data-sign", "+")
    expect(lowered).to_have_text("<b>x")
    expect(lowered).to_have_attribute("data-sign", "\u2212")
    assert float(raised.evaluate("mark => mark.style.getPropertyValue('--weight')")) == 1.0
    expect(review.locator(".note").last).to_have_text("Raise the rating: tune. Lower it: <b>x.")


def test_a_review_without_text_and_one_that_was_not_read_say_so(open_page: OpenPage) -> None:
    page = open_page()
    with_explanation(page, explanation(text=None, token_spans=None))
    expect(page.locator("article").first).to_contain_text("The store keeps no texts")
    page.unroute("**/explain")
    other = open_page()
    with_explanation(other, explanation(token_contributions=[], matching=0.0))
    expect(other.locator("article").first).to_contain_text("it counts by its rating")


SAID = {
    "u0": ("The strings are bright, my tuner is good.", "A weak cable: it broke in the first week."),
    "i2": ("Solid pedal, great sound; I love it.", "Not good: the stand is too light and a string broke."),
}


@pytest.fixture(scope="module")
def texts_address(tiny: TinyBundle, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that keeps texts: those of two reviews by ``u0`` and of two about ``i2``."""
    with service(tiny, corpus, tmp_path_factory.mktemp("texts"), texts=True) as address, Client(address) as client:
        for number, (by_user, of_item) in enumerate(zip(*SAID.values(), strict=True)):
            client.write_review(ReviewRequest(user="u0", item=f"other-{number}", rating=4, text=by_user, timestamp=90))
            client.write_review(ReviewRequest(user=f"guest-{number}", item="i2", rating=2, text=of_item, timestamp=90))
        yield address


def shares_of_words(review: dict[str, Any]) -> dict[str, float]:
    """What the tokens of each word contribute together, as ``/explain`` answered; tokens of one word touch."""
    found: list[tuple[int, int, float]] = []
    for (start, end), share in zip(review["token_spans"], review["token_contributions"], strict=True):
        if start == end:
            continue
        if found and found[-1][1] == start and review["text"][start - 1 : start + 1].isalnum():
            found[-1] = (found[-1][0], end, found[-1][2] + share)
        else:
            found.append((start, end, share))
    shares: dict[str, float] = {}
    for start, end, share in found:
        assert shares.setdefault(review["text"][start:end], share) == share, "a word twice in one text tells nothing"
    return shares


def test_words_of_stored_texts_are_marked_as_strongly_as_their_share_in_the_rating(
    open_page: OpenPage, texts_address: str
) -> None:
    page = open_page(PAIR, at=texts_address)
    wait_for_evidence(page)
    page.locator("#evidence details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    explained = httpx.post(f"{texts_address}/explain", json={"user": "u0", "item": "i2"}, trust_env=False).json()
    shown = [one for one in explained["reviews"] if one["text"] and one["token_contributions"]]
    assert sorted(one["text"] for one in shown) == sorted(text for said in SAID.values() for text in said)
    shares = {one["text"]: shares_of_words(one) for one in shown}
    strongest = max(abs(share) for words in shares.values() for share in words.values())
    assert strongest > 0
    marks = 0
    for text, words in shares.items():
        marked = {
            mark.inner_text(): mark for mark in page.locator("article", has_text=text).locator(".text .word").all()
        }
        weights = {word: math.sqrt(abs(share) / strongest) for word, share in words.items()}
        assert marked.keys() == {word for word, weight in weights.items() if weight >= FAINTEST}
        marks += len(marked)
        for word, mark in marked.items():
            drawn = float(mark.evaluate("mark => mark.style.getPropertyValue('--weight')"))
            assert drawn == pytest.approx(weights[word], abs=0.002)
            assert ("raises" in str(mark.get_attribute("class"))) == (words[word] > 0)
            told = str(mark.get_attribute("title")).removesuffix(" stars").replace("\u2212", "-")
            assert float(told) == pytest.approx(words[word], abs=0.00006)
    assert marks >= 3, "too few to tell that they follow the shares"


def test_texts_that_are_brought_along_rate_a_newcomer_and_are_kept_nowhere(open_page: OpenPage, address: str) -> None:
    page = open_page("#/pair?user=newcomer&item=i2")
    wait_for_evidence(page)
    without = shown_rating(page)
    page.get_by_text("Bring texts of this user").focus()
    press(page, "Enter", "Tab")
    expect(page.get_by_label("Text 1", exact=True)).to_be_focused()
    page.keyboard.type(SAID["u0"][0])
    page.get_by_label("Stars of text 1").select_option("5")
    page.get_by_role("button", name="Another text").focus()
    press(page, "Enter")
    expect(page.get_by_label("Text 2", exact=True)).to_be_focused()
    page.keyboard.type(SAID["u0"][1])
    page.get_by_role("button", name="Predict").focus()
    press(page, "Enter")

    own = page.get_by_role("region", name="By newcomer")
    expect(own.locator("article")).to_have_count(2)
    assert set(own.locator("article .given").all_inner_texts()) == {"★ 5", "no stars"}
    texts = [{"text": SAID["u0"][0], "rating": 5}, {"text": SAID["u0"][1]}]
    question = {"pairs": [{"user": "newcomer", "item": "i2"}], "user_texts": texts}
    answer = httpx.post(f"{address}/predict", json=question, trust_env=False).json()
    (rated,) = answer["predictions"]
    assert rated["basis"] == "full"
    expect(page.get_by_role("region", name="Where the two reviews meet")).to_contain_text("The text brought along")
    assert shown_rating(page) == f"{rated['rating']:.2f}" != without
    assert SAID["u0"][0] in own.locator(".text").all_inner_texts()
    assert "strings" not in page.evaluate(
        "() => JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])"
    )
    with Client(address) as client, pytest.raises(NotFoundError):
        client.user("newcomer")

    page.evaluate(f"() => {{ location.hash = '{PAIR}'; }}")  # another user: what was brought along is not theirs
    wait_for_evidence(page)
    expect(page.get_by_label("Text 1", exact=True)).to_have_value("")
    expect(page.get_by_role("region", name="By u0").locator("article", has_text="strings")).to_have_count(0)


def test_the_attention_of_two_reviews_is_walked_through_by_arrow_keys(open_page: OpenPage, address: str) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    grid = page.get_by_role("grid")
    cells = grid.get_by_role("gridcell")
    heat = httpx.post(f"{address}/explain", json={"user": "u0", "item": "i2"}, trust_env=False).json()["heat_map"]
    rows, columns = len(heat["user_attention"]), len(heat["user_attention"][0])
    expect(cells).to_have_count(rows * columns)
    cells.first.focus()
    press(page, "ArrowRight", "ArrowDown")
    walked_to = cells.nth(columns + 1)
    expect(walked_to).to_be_focused()
    expected = f"{heat['user_attention'][1][1] * 100:.1f}%"
    expect(walked_to).to_have_attribute("aria-label", re.compile(rf"{re.escape(expected)}$"))
    expect(page.locator(".readout")).to_have_text(str(walked_to.get_attribute("aria-label")))
    press(page, "ArrowUp", "ArrowUp")  # the edge holds
    expect(cells.nth(1)).to_be_focused()

    page.get_by_role("radio", name="Each passage of the user").focus()
    press(page, "ArrowDown")  # the other direction: its rows are columns here
    expected = f"{heat['item_attention'][2][1] * 100:.1f}%"
    expect(cells.nth(columns + 2)).to_have_attribute("aria-label", re.compile(rf"{re.escape(expected)}$"))


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
    ratings = [float(row[2]) for row in figures(table)]
    assert ratings == sorted(ratings, reverse=True)
    expect(page.locator("#announcement")).to_contain_text("8 items ranked")

    best = table.get_by_role("link").first
    item, rating = best.inner_text(), figures(table)[0][2]
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
    return [row[1] for row in figures(page.locator("table.ranked"))]


def test_a_stored_set_is_ranked_down_to_a_rating_and_without_what_the_user_has_reviewed(
    open_page: OpenPage, address: str, corpus: Corpus
) -> None:
    items = [f"i{number}" for number in range(10)]
    with Client(address) as client:
        client.write_candidate_set("spring", items)
        best = client.rank(RankRequest(user="u1", candidate_set="spring")).items
    reviewed = {entry.item for entry in corpus.of_user("u1")}
    least = best[len(best) // 2].rating
    page = open_page("#/ranking?user=u1")
    source = page.get_by_label("Items from")
    expect(source).to_be_visible()
    source.focus()
    page.keyboard.type("spring")
    expect(source).to_have_value("spring")
    expect(page.get_by_label("Candidates, one item a line")).to_be_hidden()
    assert ranked(page) == [one.item for one in best]

    page.get_by_label("Rated at least").fill(str(least))
    assert ranked(page) == [one.item for one in best if one.rating >= least]

    page.get_by_label("Leave out what the user has reviewed").focus()
    press(page, "Space")
    assert ranked(page) == [one.item for one in best if one.rating >= least and one.item not in reviewed]

    page.get_by_label("Rated at least").fill("5.5")
    page.get_by_role("button", name="Rank", exact=True).focus()
    press(page, "Enter")
    expect(page.locator("#ranking-answer")).to_contain_text("is rated so high for u1")
    expect(page.locator("#announcement")).to_contain_text("is rated so high")
    source.select_option("the list below")
    expect(page.get_by_label("Candidates, one item a line")).to_be_visible()
    httpx.delete(f"{address}/candidate-sets/spring", trust_env=False).raise_for_status()


def test_an_item_is_added_to_the_candidates_by_search(open_page: OpenPage) -> None:
    page = open_page("#/ranking")
    page.get_by_role("combobox", name="Add an item").focus()
    choose_and_empty(page, "Add an item", "i3")
    choose_and_empty(page, "Add an item", "i11")
    expect(page.get_by_label("Candidates")).to_have_value("i3\ni11")


def choose_and_empty(page: Page, label: str, typed: str) -> None:
    page.keyboard.type(typed)
    expect(page.get_by_role("listbox", name=label).get_by_role("option").first).to_contain_text(typed)
    press(page, "ArrowDown", "Enter")
    expect(page.get_by_role("combobox", name=label)).to_have_value("")


def test_a_written_review_moves_the_rating_and_its_deletion_moves_it_back(open_page: OpenPage, address: str) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    before = shown_rating(page)
    page.get_by_role("radio", name="5 ★").focus()
    press(page, *["ArrowLeft"] * 4)
    expect(page.get_by_role("radio", name="1 ★")).to_be_checked()
    press(page, "Tab")
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


@pytest.fixture(scope="module")
def replicas(tiny: TinyBundle, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two services over one store. Neither looks for the other's writes before this module is over."""
    url = f"lmdb:{tmp_path_factory.mktemp('replicas')}"
    store = open_store(url)
    corpus.write(store, tiny.bundle)
    settings = settings_for(tiny.bundle, store=url, resident_lag=60)
    with (
        running(create_app(settings, ServedBundle.load(settings, store))) as one,
        running(create_app(settings, ServedBundle.load(settings, store))) as other,
    ):
        yield str(one.base_url), str(other.base_url)
    store.close()


QUESTIONS = re.compile(r"/(predict|explain|rank)$")


def answered_by(replica: str) -> Callable[[Page], object]:
    """As a balancer does that sends questions elsewhere than writes."""

    def pass_on(route: Route) -> None:
        path = route.request.url.rpartition("/")[2]
        route.fulfill(response=route.fetch(url=f"{replica}/{path}"))

    return lambda page: page.route(QUESTIONS, pass_on)


def store_review(page: Page, text: str = "the string broke", stars: str = "1 ★") -> None:
    page.get_by_role("radio", name=stars, exact=True).check()
    page.get_by_label("Review", exact=True).fill(text)
    page.get_by_role("button", name="Store the review").click()


def sent_versions(requests: list[Request]) -> list[tuple[str, str | None]]:
    return [(one.url.rpartition("/")[2], one.headers.get("x-read-version")) for one in requests]


def test_a_written_review_moves_the_rating_that_another_replica_answers(
    open_page: OpenPage, replicas: tuple[str, str]
) -> None:
    writer, reader = replicas
    page = open_page(PAIR, at=writer, prepare=answered_by(reader))
    wait_for_evidence(page)
    before = shown_rating(page)
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if QUESTIONS.search(request.url) else None)

    with page.expect_response(re.compile("/reviews$")) as written:
        store_review(page)
    expect(page.locator("#written .moved")).to_contain_text(f"Review stored: {before} →")
    wait_for_evidence(page)
    assert shown_rating(page) != before
    version = written.value.json()["read_version"]
    assert sent_versions(asked) == [("predict", version), ("explain", version)]

    asked.clear()
    with page.expect_response(re.compile("/reviews/")) as removed:
        page.get_by_role("button", name="Delete the review").click()
    expect(page.locator("#written .moved")).to_contain_text("Review deleted")
    wait_for_evidence(page)
    assert shown_rating(page) == before
    version = removed.value.headers["x-read-version"]
    page.evaluate("() => { location.hash = '#/ranking?user=u0'; }")
    page.get_by_label("Candidates").fill("i2")
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("table.ranked")).to_be_visible()
    assert sent_versions(asked) == [("predict", version), ("explain", version), ("rank", version)]


def test_a_write_that_the_store_has_lost_is_forgotten_and_the_question_asked_once_more(
    open_page: OpenPage, replicas: tuple[str, str]
) -> None:
    page = open_page(PAIR, at=replicas[0])
    wait_for_evidence(page)
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if QUESTIONS.search(request.url) else None)

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
    assert sent_versions(asked) == [("predict", lost[0]), ("predict", None), ("explain", None)]


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
def test_the_stars_to_choose_from_are_those_of_the_bundles_scale(
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
    expect(page.get_by_role("radio", name=f"{highest:g} ★", exact=True)).to_be_checked()
    options = page.locator("#own-texts select option")
    assert options.all_text_contents() == ["none", *(f"{one} ★" for one in choices.split())]
    assert page.locator("#rating .tick").all_text_contents() == choices.split()

    second = choices.split()[1]
    with page.expect_request("**/reviews") as asked:
        page.route("**/reviews", lambda route: route.fulfill(status=422, body="{}"))
        page.get_by_role("radio", name=f"{second} ★", exact=True).check()
        page.get_by_role("button", name="Store the review").click()
    assert json.loads(asked.value.post_data or "")["rating"] == float(second)


def test_the_pairs_own_review_is_not_offered_as_one_that_would_move_its_rating(open_page: OpenPage) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    page.get_by_role("combobox", name="Reviewer").fill("u0")
    page.get_by_role("button", name="Store the review").focus()
    press(page, "Enter")
    expect(page.locator("#writing-problem")).to_contain_text("would move nothing")


def test_status_tells_what_runs_and_how_it_has_been_doing(open_page: OpenPage, tiny: TinyBundle) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    page.get_by_role("link", name="Status").focus()
    press(page, "Enter")
    expect(page.locator("#status-title")).to_be_focused()
    expect(page.get_by_role("region", name="Readiness")).to_contain_text("Ready")
    facts = page.get_by_role("region", name="Bundle", exact=True)
    expect(facts).to_contain_text(tiny.bundle.manifest.bundle_id)
    expect(facts).to_contain_text("lmdb")
    latency = page.get_by_role("region", name="Latency by route")
    count = {row[0]: int(row[1]) for row in figures(latency.locator("table").first)}
    assert count["/predict"] >= 1
    page.get_by_label("Distribution of").select_option("/predict")
    buckets = figures(latency.locator("table.bars"))
    assert sum(int(row[2]) for row in buckets) == count["/predict"]
    expect(page.get_by_role("region", name="Predictions")).to_contain_text("full")
    expect(page.get_by_role("region", name="State store")).to_contain_text("No operation has failed")

    page.get_by_role("button", name="Refresh").focus()
    press(page, "Enter")
    expect(page.locator("#announcement")).to_have_text("Status refreshed")


class Readiness:
    """What ``/readyz`` answers a page from now on, and how often the page has asked."""

    def __init__(self, **ready: Any) -> None:
        self.ready = Ready(**ready)
        self.asked = 0

    def answer(self, page: Page) -> None:
        page.clock.install()
        page.route("**/readyz", self._fulfil)

    def _fulfil(self, route: Route) -> None:
        self.asked += 1
        route.fulfill(content_type="application/json", body=self.ready.model_dump_json(exclude_none=True))


OLD, NEW = "a" * 64, "b" * 64
AWAY = "the state store cannot be reached: connection refused"


def test_a_degraded_service_is_called_so_for_as_long_as_it_is_and_a_new_bundle_is_named(open_page: OpenPage) -> None:
    readiness = Readiness(bundle=OLD)
    page = open_page("#/status", prepare=readiness.answer)
    line, section = page.locator("#health"), page.get_by_role("region", name="Readiness")
    expect(line).to_have_text(f"● Ready, bundle {OLD}")
    expect(section).to_contain_text("Ready: device, store and states are in place.")

    readiness.ready = Ready(bundle=OLD, status="degraded", detail=AWAY)
    page.clock.run_for(10_500)
    expect(line).to_have_text(f"◐ Degraded: {AWAY} Bundle {OLD}")
    expect(line.locator(".degraded")).to_have_css("border-top-style", "dashed")
    expect(section).to_contain_text(f"Degraded: {AWAY}")
    expect(section).not_to_contain_text("in place")
    expect(page.locator("#announcement")).to_contain_text(f"Degraded: {AWAY}")

    readiness.ready = Ready(bundle=NEW)
    page.clock.run_for(10_500)
    expect(line).to_have_text(f"● Ready, bundle {NEW}")
    expect(section).to_contain_text("in place")


def test_a_page_that_nobody_sees_does_not_ask_how_the_service_is(open_page: OpenPage) -> None:
    readiness = Readiness(bundle=OLD)
    page = open_page("#/pair", prepare=readiness.answer)
    line = page.locator("#health")
    expect(line).to_contain_text(OLD)

    def turn(hidden: str) -> None:
        page.evaluate(
            f"""() => {{
                Object.defineProperty(document, "hidden", {{ configurable: true, get: () => {hidden} }});
                document.dispatchEvent(new Event("visibilitychange"));
            }}"""
        )

    turn("true")
    asked = readiness.asked
    readiness.ready = Ready(bundle=NEW)
    page.clock.run_for(60_000)
    assert readiness.asked == asked
    expect(line).to_contain_text(OLD)
    turn("false")  # and is told at once when it looks again
    expect(line).to_contain_text(NEW)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_neither_a_degraded_service_nor_one_that_asks_for_a_key_puts_up_a_barrier(
    open_page: OpenPage, scheme: str
) -> None:
    detail = f"the state store has not answered within 2 s: {'redis-' * 30}"
    readiness = Readiness(bundle=OLD, status="degraded", detail=detail)
    refusal = {"type": "urn:u-bert:problem:forbidden", "title": "No", "status": 403, "detail": detail}

    def prepare(page: Page) -> None:
        readiness.answer(page)
        body = json.dumps(refusal)
        page.route("**/predict", lambda route: route.fulfill(status=403, body=body))

    page = open_page(PAIR, prepare=prepare, color_scheme=scheme, viewport={"width": 360, "height": 900})
    expect(page.locator("#health .degraded")).to_be_visible()
    expect(page.locator("#key-problem")).to_contain_text(detail)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360


def test_a_key_that_does_not_allow_writing_can_be_replaced_by_one_that_does(
    open_page: OpenPage, tiny: TinyBundle, corpus: Corpus, tmp_path: Path
) -> None:
    reading, reading_table = new_key("looker", ["read"])
    writing, writing_table = new_key("writer", ["read", "write"])
    (tmp_path / "keys.toml").write_text(reading_table + writing_table, encoding="utf-8")
    with service(tiny, corpus, tmp_path / "states", api_keys=tmp_path / "keys.toml") as address:
        page = open_page(PAIR, at=address)
        field = page.get_by_label("This service asks for an API key")
        field.fill(reading)
        press(page, "Enter")
        wait_for_evidence(page)
        expect(field).to_be_hidden()

        store_review(page)
        expect(field).to_be_in_viewport()
        expect(page.locator("#key-problem")).to_contain_text("the API key 'looker' lacks the scope 'write'")
        page.get_by_role("button", name="Not now").click()
        expect(field).to_be_hidden()

        store_review(page)
        field.fill(writing)
        press(page, "Enter")
        expect(field).to_be_hidden()
        wait_for_evidence(page)
        expect(page.get_by_label("Review", exact=True)).to_have_value("the string broke")  # what was typed stays
        store_review(page)
        expect(page.locator("#written .moved")).to_contain_text("Review stored")
        wait_for_evidence(page)
        page.close()


def test_a_key_is_asked_for_used_and_kept_nowhere(
    open_page: OpenPage, tiny: TinyBundle, corpus: Corpus, tmp_path: Path
) -> None:
    key, table = new_key("console", ["read"])
    (tmp_path / "keys.toml").write_text(table, encoding="utf-8")
    with service(tiny, corpus, tmp_path / "states", api_keys=tmp_path / "keys.toml") as address:
        page = open_page(PAIR, at=address)
        field = page.get_by_label("This service asks for an API key")
        expect(field).to_be_visible()
        expect(page.get_by_role("alert")).to_contain_text("API key")
        field.focus()
        page.keyboard.type(key)
        press(page, "Enter")
        wait_for_evidence(page)
        expect(field).to_be_hidden()
        expect(field).to_have_value("")
        kept = page.evaluate(
            "() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        )
        assert key not in kept
        page.reload()
        expect(field).to_be_visible()
        page.close()  # before the service: the page asks it every few seconds how it is


def test_enter_asks_for_what_was_typed_and_leaves_no_list_over_the_answer(open_page: OpenPage) -> None:
    page = open_page()
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

    found: list[Request] = []
    page.on("request", lambda request: found.append(request) if "/items?" in request.url else None)
    field.fill("i3")
    press(page, "Enter")  # before the search began: it must not begin after all
    wait_for_evidence(page)
    page.wait_for_timeout(300)
    assert found == []


def test_a_search_without_a_hit_and_one_that_fails_say_so_below_the_field(open_page: OpenPage) -> None:
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


def test_the_rating_of_a_pair_is_come_back_to_and_never_stands_below_other_names(open_page: OpenPage) -> None:
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

    page.evaluate("() => { location.hash = '#/pair?user=u1'; }")
    expect(page.locator("#pair-answer")).to_be_hidden()
    expect(page.get_by_role("combobox", name="User")).to_have_value("u1")
    expect(page.get_by_role("combobox", name="Item")).to_be_focused()


def test_a_service_that_has_no_pair_to_show_says_so(open_page: OpenPage) -> None:
    page = open_page(prepare=lambda page: page.route("**/users?*", lambda route: route.fulfill(json={"found": []})))
    page.get_by_role("button", name="Any pair").click()
    expect(page.locator("#pair-problem")).to_contain_text("There is no such pair")


def hold(held: list[Route]) -> Callable[[Route], None]:
    """Requests stay unanswered until the test answers what it finds in ``held``."""

    def keep(route: Route) -> None:
        held.append(route)

    return keep


def test_a_wait_is_visible_until_the_answer_comes(open_page: OpenPage) -> None:
    held: list[Route] = []
    page = open_page(PAIR, prepare=lambda page: page.route("**/predict", hold(held)))
    waiting = page.locator("#pair > .waiting")
    expect(waiting).to_be_visible()
    expect(page.locator("#pair")).to_have_attribute("aria-busy", "true")
    held[0].continue_()
    wait_for_evidence(page)
    expect(waiting).to_be_hidden()


def test_an_address_changed_while_the_page_starts_is_shown_once(open_page: OpenPage) -> None:
    held: list[Route] = []
    asked: list[str] = []

    def prepare(page: Page) -> None:
        page.route("**/about", hold(held))
        page.on("request", lambda request: asked.append(request.url))

    page = open_page(prepare=prepare)
    expect(page.locator("#health")).to_contain_text("Ready")
    page.evaluate(f"() => {{ location.hash = '{PAIR}'; }}")
    page.wait_for_function("() => new Promise((resolve) => setTimeout(() => resolve(true)))")  # after hashchange
    assert not any(url.endswith("/predict") for url in asked)  # the scale it would be drawn on is not known yet
    for route in held:
        route.continue_()
    wait_for_evidence(page)
    assert sum(url.endswith("/predict") for url in asked) == 1


def test_a_refusal_says_when_to_try_again_and_a_strangers_page_is_not_read_out(open_page: OpenPage) -> None:
    refusal = {"type": "urn:u-bert:problem:overloaded", "title": "Too much work is waiting", "detail": "as it is"}
    obstacle = {"check": "store", "found": "refused", "remedy": "Start Redis."}
    answers: list[dict[str, Any]] = [
        {"status": 429, "headers": {"Retry-After": "7"}, "body": json.dumps(refusal)},
        {"status": 503, "body": json.dumps({**refusal, "title": "Not ready", "reasons": [obstacle]})},
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
    expect(problem).to_contain_text("not the service's own")
    expect(problem).not_to_contain_text("html")


def test_a_review_moves_the_rating_below_the_writers_eyes_without_a_jump_of_the_page(open_page: OpenPage) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    height = page.evaluate("() => document.body.scrollHeight")
    held: list[Route] = []
    page.route("**/explain", hold(held))
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
    page.evaluate("() => { location.hash = '#/pair?user=u1&item=i3'; }")
    wait_for_evidence(page)
    expect(page.locator("#written .moved")).to_have_count(0)  # that was another pair's
    page.get_by_role("button", name="Delete the review of i2 by console-guest").click()
    expect(page.locator("#written")).not_to_contain_text("Written from this page")
    page.evaluate(f"() => {{ location.hash = '{PAIR}'; }}")
    expect(page.locator("#rating .whose")).to_have_text("u0 on i2")
    assert shown_rating(page) == before


def test_a_stored_review_whose_effect_could_not_be_had_is_not_said_to_have_moved_nothing(open_page: OpenPage) -> None:
    page = open_page("#/pair?user=u2&item=i4")
    wait_for_evidence(page)
    page.route("**/predict", lambda route: route.fulfill(status=503, body="{}"))
    store_review(page)
    expect(page.locator("#written .moved")).to_have_text("Review stored. What the rating is now could not be had.")
    page.unroute("**/predict")
    page.get_by_role("button", name="Delete the review").click()
    expect(page.locator("#written .moved")).to_contain_text("Review deleted")


def heat(rows: int, columns: int) -> dict[str, Any]:
    """An answer with a heat map whose last row and column attend the most."""
    text = " ".join(f"w{number}" for number in range(max(rows, columns)))
    spans = [[found.start(), found.end()] for found in re.finditer("[^ ]+", text)]
    answer = explanation(text=text, token_spans=spans, token_contributions=[0.01] * len(spans))
    for review, length in zip(answer["reviews"], (rows, columns), strict=True):
        review.update(token_spans=spans[:length], token_contributions=[0.01] * length)
    answer["heat_map"] = {
        "user_review_id": "r",
        "item_review_id": "s",
        "user_attention": [[(row + column + 1) / (rows + columns) for column in range(columns)] for row in range(rows)],
        "item_attention": [[0.1] * rows for _ in range(columns)],
    }
    return answer


UNCOVERED = """cell => {
    const { left, top, width, height } = cell.getBoundingClientRect();
    return document.elementFromPoint(left + width / 2, top + height / 2) === cell;
}"""


@pytest.mark.parametrize("width", [1280, 360])
def test_the_cell_with_the_focus_is_never_hidden_by_the_labels_beside_it(open_page: OpenPage, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 900})
    with_explanation(page, heat(60, 60))
    cells = page.get_by_role("gridcell")
    cells.first.focus()
    focused = page.locator("[role=gridcell]:focus")
    for key, at in [("Control+End", -1), ("Home", -60), ("Control+Home", 0), ("End", 59)]:
        press(page, key)
        expect(cells.nth(at)).to_be_focused()
        assert focused.evaluate(UNCOVERED), key
    press(page, "Control+End")
    for key in ["ArrowUp"] * 45 + ["ArrowLeft"] * 45:
        press(page, key)
        assert focused.evaluate(UNCOVERED), key
    cells.nth(61).click()  # from now on this is where the tab key leads
    expect(page.locator("[role=gridcell][tabindex='0']")).to_have_count(1)
    expect(cells.nth(61)).to_have_attribute("tabindex", "0")


def test_the_attention_of_long_passages_is_seen_in_a_narrow_window(open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 360, "height": 900})
    answer = heat(2, 2)
    text = f". {'a passage of a few words ' * 4}. Then comes {'another of as many words ' * 4}"
    middle = text.index("Then")
    for review in answer["reviews"]:
        review.update(text=text, token_spans=[[0, middle], [middle, len(text)]])
    with_explanation(page, answer)
    page.locator(".heat").evaluate("place => place.scrollIntoView()")
    for cell in page.get_by_role("gridcell").all():
        expect(cell).to_be_in_viewport(ratio=1)
    first = page.locator(".strongest li").last.inner_text()
    assert first.startswith("a passage")  # without the full stop of the passage before
    notes = page.get_by_role("region", name="By u0").locator("article > .note").all_inner_texts()
    assert notes == [f"Raise the rating: “{text[2 : middle - 2].strip()}”, “{text[middle:].strip()}”."]


def test_of_very_long_reviews_the_strongest_attention_is_shown(open_page: OpenPage) -> None:
    page = open_page()
    with_explanation(page, heat(512, 300))
    expect(page.get_by_role("gridcell")).to_have_count(100 * 100)
    expect(page.locator("#heat-map")).to_contain_text(
        "the 100 of 512 rows and 100 of 300 columns where it is strongest"
    )
    expect(page.get_by_role("rowheader").last).to_have_text("w511")
    expect(page.locator(".strongest li").first).to_contain_text("w511")


def test_a_text_written_from_right_to_left_and_an_endless_one_are_laid_out_for_reading(open_page: OpenPage) -> None:
    page = open_page()
    hebrew, name = "הגיטרה מצוינת!", "משתמש"
    with_explanation(page, explanation(text=hebrew, token_spans=[[0, 0]] * 6, user=name) | {"user": name})
    text = page.get_by_role("region", name="By").locator(".text")
    assert text.evaluate("text => getComputedStyle(text).direction") == "rtl"
    expect(page.locator("#evidence h3").first).to_have_text(f"By \u2068{name}\u2069")

    other = open_page()
    with_explanation(other, explanation(text="Tuner good " + "and so on " * 5000))
    article = other.locator("article").first
    expect(article.get_by_text("further characters, which were not read")).to_be_visible()
    box = article.bounding_box()
    assert box is not None
    assert box["height"] < 600


def test_a_long_ranking_is_shown_by_portions(open_page: OpenPage) -> None:
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
    assert [row[0] for row in figures(page.locator("table.ranked"))] == [str(rank + 1) for rank in range(450)]
    expect(page.locator("#ranking-answer > button")).to_be_hidden()

    page.route("**/rank", lambda route: route.fulfill(status=503, body="{}"))
    page.get_by_role("combobox", name="User").fill("u2")
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("#ranking-problem")).not_to_be_empty()
    expect(rows).to_have_count(0)  # those were of another question


def test_the_last_of_two_rankings_is_the_one_that_stays(open_page: OpenPage) -> None:
    page = open_page("#/ranking?user=u1")
    expect(page.get_by_role("combobox", name="User")).to_have_value("u1")
    page.get_by_label("Candidates").fill("i1")
    page.evaluate(
        """() => {
            const ask = window.fetch;
            window.signals = [];
            window.fetch = (address, options) => {
                if (address === "rank") window.signals.push(options.signal);
                return ask(address, options);
            };
        }"""
    )
    held: list[Route] = []
    page.route("**/rank", hold(held))
    with page.expect_request("**/rank"):
        page.get_by_role("button", name="Rank", exact=True).click()
    page.unroute("**/rank")
    page.get_by_label("Candidates").fill("i1\ni2")
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("table.ranked tbody tr")).to_have_count(2)
    assert page.evaluate("() => window.signals.map((signal) => signal?.aborted)") == [True, False]
    expect(page.locator("#ranking")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#ranking-problem")).to_be_empty()


def test_a_table_is_a_stop_of_the_tab_key_only_where_it_has_to_be_scrolled(open_page: OpenPage) -> None:
    page = open_page("#/status")
    expect(page.locator(".facts").first).to_be_visible()
    expect(page.locator(".scrolled[tabindex]")).to_have_count(0)
    page.set_viewport_size({"width": 320, "height": 900})
    scrolled = page.get_by_role("region", name="Requests since the start, by route")
    expect(scrolled).to_have_attribute("tabindex", "0")


def test_a_status_that_follows_keeps_the_focus_the_choice_and_the_scroll(open_page: OpenPage) -> None:
    page = open_page("#/status", prepare=lambda page: page.clock.install(), viewport={"width": 320, "height": 900})
    latency = page.get_by_role("region", name="Requests since the start, by route")
    expect(latency).to_be_visible()
    page.get_by_label("every 5 seconds").check()
    choice = page.get_by_label("Distribution of")
    choice.select_option("/version")
    choice.evaluate("select => { select.focus(); window.same = select; }")
    latency.evaluate("place => { place.scrollLeft = 40; }")

    def again() -> None:
        with page.expect_response("**/metrics"):
            page.clock.run_for(5_500)
        expect(page.locator("#status")).not_to_have_attribute("aria-busy", "true")

    again()
    assert page.evaluate("() => document.activeElement === window.same")
    expect(choice).to_have_value("/version")
    assert latency.evaluate("place => place.scrollLeft") == 40
    latency.focus()
    again()
    expect(latency).to_be_focused()


def test_figures_of_a_service_that_is_gone_are_said_to_be_old(open_page: OpenPage) -> None:
    page = open_page("#/status")
    readiness = page.get_by_role("region", name="Readiness")
    expect(readiness).to_contain_text("in place")
    page.route("**/version", lambda route: route.abort())
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator("#status-problem")).to_contain_text("cannot be reached")
    expect(readiness).to_contain_text("What follows was true at")
    expect(readiness).not_to_contain_text("in place")
    expect(page.locator("#announcement")).not_to_have_text("Status refreshed")
    page.unroute("**/version")
    page.get_by_role("button", name="Refresh").click()
    expect(readiness).to_contain_text("in place")


def test_what_is_printed_is_the_answer_whole_and_without_forms(open_page: OpenPage) -> None:
    page = open_page()
    with_explanation(page, heat(60, 60))
    page.emulate_media(media="print")
    expect(page.get_by_role("navigation")).to_be_hidden()
    expect(page.locator("#writing-form")).to_be_hidden()
    expect(page.locator("#rating strong")).to_be_visible()
    assert page.locator(".heat").evaluate("place => place.scrollHeight <= place.clientHeight")


def test_what_an_address_or_an_identifier_says_never_becomes_markup(open_page: OpenPage) -> None:
    page = open_page("#/pair?user=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&item=%3Cb%3Ei2")
    wait_for_evidence(page)
    expect(page.get_by_role("heading", name="By <img src=x onerror=alert(1)>")).to_be_visible()
    assert page.locator("#evidence img, #evidence b, #pair-form img").count() == 0


def test_an_error_of_the_service_is_shown_with_its_request(open_page: OpenPage) -> None:
    page = open_page(f"#/pair?user={'x' * 5000}&item=i2")
    problem = page.locator("#pair-problem")
    expect(problem).to_contain_text("The request breaks the schema")
    expect(problem).to_contain_text("Request ")


def test_the_skip_link_comes_first_and_leads_to_the_content(open_page: OpenPage) -> None:
    page = open_page("#/status")
    expect(page.locator(".facts").first).to_be_visible()
    press(page, "Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    press(page, "Enter")
    expect(page.locator("main")).to_be_focused()
    assert page.url.endswith("#/status")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_no_view_has_a_barrier_that_axe_finds_or_is_wider_than_its_window(
    open_page: OpenPage, address: str, scheme: str, width: int
) -> None:
    page = open_page(PAIR, color_scheme=scheme, reduced_motion="reduce", viewport={"width": width, "height": 900})
    wait_for_evidence(page)
    page.get_by_text("Bring texts of this user").click()
    with Client(address) as client:
        client.write_candidate_set("spring", ["i0"])
    for view in ("pair", "ranking", "status"):
        if view == "ranking":
            page.evaluate("() => { location.hash = '#/ranking?user=u0'; }")
            page.get_by_role("button", name="Add 50 items").click()
            expect(page.get_by_label("Candidates")).not_to_have_value("")
            page.get_by_role("button", name="Rank", exact=True).click()
            expect(page.locator("table.ranked")).to_be_visible()
            expect(page.get_by_label("Items from")).to_be_visible()
        elif view == "status":
            page.evaluate("() => { location.hash = '#/status'; }")
            expect(page.locator(".facts").first).to_be_visible()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_every_file_of_the_page_is_under_the_content_policy_and_nothing_else_is_served(address: str) -> None:
    for path in ("/", "/console/main.js", "/console/console.css", "/console/icon.svg"):
        answer = httpx.get(f"{address}{path}", trust_env=False).raise_for_status()
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("/console/__init__.py", "/console/..%2F__init__.py", "/console/%2e%2e%2fapp.py", "/console/"):
        assert httpx.get(f"{address}{path}", trust_env=False).status_code == 404
