"""What tests of the console page do and check on it."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, Route, expect

from support.app_settings import settings_for
from support.running_app import serving
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.states import open_store
from ubert_service.schemas import Ready

PAIR = "#/pair?user=u0&item=i2"
TIMEOUT_MS = 60_000
"""Long, because only a failing test waits for it."""
REVIEW_TEXTS = {
    "u0": ("The strings are bright, my tuner is good.", "A weak cable: it broke in the first week."),
    "i2": ("Solid pedal, great sound; I love it.", "Not good: the stand is too light and a string broke."),
}
"""Texts of reviews by this user, and of this item."""
OpenPage = Callable[..., Page]


@contextmanager
def service(tiny: TinyBundle, corpus: Corpus, folder: Path, **options: Any) -> Iterator[str]:
    url = f"lmdb:{folder}"
    store = open_store(url)
    corpus.write(store, tiny.bundle)
    with serving(settings_for(tiny.bundle, store=url, **options), store) as client:
        yield str(client.base_url)
    store.close()


def origin(url: str) -> str:
    return "/".join(url.split("/")[:3])


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def show(page: Page, address: str) -> None:
    """Go to another view, or other values of one, by the address's fragment."""
    page.evaluate("address => { location.hash = address; }", address)


def choose(page: Page, label: str, typed: str) -> None:
    """Type into the focused search field and accept the only suggestion."""
    field = page.get_by_role("combobox", name=label)
    expect(field).to_be_focused()
    search(page, label, typed)
    press(page, "ArrowDown", "Enter")
    expect(field).to_have_value(typed)


def search(page: Page, label: str, typed: str) -> None:
    """Type a prefix of exactly one identifier. While it is being typed, others may be suggested."""
    page.keyboard.type(typed)
    options = page.get_by_role("listbox", name=label).get_by_role("option")
    expect(options).to_have_count(1)
    expect(options).to_contain_text(typed)


def shown_rating(page: Page) -> str:
    return page.get_by_role("region", name="Predicted rating").locator("strong").inner_text()


def wait_for_evidence(page: Page) -> None:
    expect(page.get_by_role("heading", name="Evidence")).to_be_visible()
    expect(page.locator("#contributions table")).to_be_visible()
    expect(page.locator("#pair")).not_to_have_attribute("aria-busy", "true")  # what is shown may be of a former answer


def table_rows(table: Locator) -> list[list[str]]:
    return [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]


def explanation(**review: Any) -> dict[str, Any]:
    """An answer of ``/explain`` whose one review has a text: these tests are about its words."""
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
        "user_unlisted": 0, "item_unlisted": 0,
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


def store_review(page: Page, text: str = "the string broke", stars: str = "1 ★") -> None:
    page.get_by_role("radio", name=stars, exact=True).check()
    page.get_by_label("Review", exact=True).fill(text)
    page.get_by_role("button", name="Store the review").click()


class Readiness:
    """The answer of ``/readyz`` to a page from now on, and how often the page has asked for it."""

    def __init__(self, **ready: Any) -> None:
        self.ready = Ready(**ready)
        self.asked = 0

    def answer(self, page: Page) -> None:
        page.clock.install()
        page.route("**/readyz", self._fulfil)

    def _fulfil(self, route: Route) -> None:
        self.asked += 1
        route.fulfill(content_type="application/json", body=self.ready.model_dump_json(exclude_none=True))


def hold_requests(held: list[Route]) -> Callable[[Route], None]:
    """A handler that keeps requests in ``held`` until the test answers them."""

    def keep(route: Route) -> None:
        held.append(route)

    return keep


def heat_map_answer(rows: int, columns: int) -> dict[str, Any]:
    """An answer of ``/explain`` with a heat map whose last row and column attend the most."""
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
