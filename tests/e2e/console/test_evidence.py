"""The evidence of a rating: reviews with their effects, marked words, and the heat map of attention."""

import io
import math
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from matplotlib.image import imread
from playwright.sync_api import Locator, Page, expect

from support.console_page import (
    PAIR,
    REVIEW_TEXTS,
    OpenPage,
    explanation,
    heat_map_answer,
    press,
    service,
    show,
    wait_for_evidence,
    with_explanation,
)
from support.tiny_bundle import Corpus, TinyBundle
from ubert_service.client import Client
from ubert_service.schemas import ReviewRequest

FAINTEST = 0.2
"""The smallest weight that the page marks."""
FULL_MARK_STARS = 0.02
"""What a word contributes at least to be marked as strongly as a word can be."""


def explain(address: str) -> dict[str, Any]:
    """The service's own explanation of the pair that these tests open."""
    pair = {"user": "u0", "item": "i2"}
    answer: dict[str, Any] = httpx.post(f"{address}/explain", json=pair, timeout=30, trust_env=False).json()
    return answer


def open_details(page: Page) -> None:
    page.locator("#evidence details").evaluate_all("all => all.forEach((one) => { one.open = true; })")


def test_each_review_is_shown_with_its_effect_from_explain(open_page: OpenPage, address: str) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    open_details(page)
    reviews = explain(address)["reviews"]
    for side, name in [("user", "By u0"), ("item", "About i2")]:
        shown = page.get_by_role("region", name=name).locator("article .effect").all_inner_texts()
        of_side = [one for one in reviews if one["side"] == side]
        of_side.sort(key=lambda one: (not one["token_contributions"], -abs(one["effect"])))
        effects = [one["effect"] for one in of_side]
        assert len(shown) == len(effects) > 0
        for text, effect in zip(shown, effects, strict=True):
            rounded = f"{abs(effect):.3f}"
            verb = "no effect" if rounded == "0.000" else f"{'raises' if effect > 0 else 'lowers'} by {rounded}"
            assert verb in text


def test_words_are_marked_by_sign_and_strength_also_next_to_emoji_and_markup(open_page: OpenPage) -> None:
    page = open_page()
    with_explanation(
        page, explanation(text="Tune🎸 n <b>x", token_spans=[[0, 0], [0, 2], [2, 4], [6, 7], [8, 12], [0, 0]])
    )
    review = page.get_by_role("region", name="By u0").locator("article")
    assert review.locator(".text").inner_text().replace("\n", "") == "Tune🎸 n <b>x"
    raised, lowered = review.locator(".word.raises"), review.locator(".word.lowers")
    # The two tokens of one word have one mark, with their sum.
    expect(raised).to_have_text("Tune")
    expect(raised).to_have_attribute("title", "+0.0800 stars")
    expect(raised).to_have_attribute("data-sign", "+")
    expect(lowered).to_have_text("<b>x")
    expect(lowered).to_have_attribute("data-sign", "\u2212")
    assert float(raised.evaluate("mark => mark.style.getPropertyValue('--weight')")) == 1.0
    expect(review.locator(".note").last).to_have_text(
        "Where the reviews meet: raised by tune (+0.0800 stars); lowered by <b>x (\u22120.0600 stars)."
    )
    note = page.locator("#evidence-note")
    # Most of a review's effect may be that of its stars, and all marks may be tiny: both are said.
    expect(note).to_contain_text("raise or lower “Where their reviews meet”, by 0.0800 stars at most")
    expect(note.locator(".word.raises")).to_have_text("raise")
    expect(note.locator(".word.lowers")).to_have_text("lower")


def test_a_text_is_shown_as_unavailable_while_the_store_is_away(open_page: OpenPage) -> None:
    page = open_page()
    with_explanation(page, {**explanation(text=None, token_spans=None), "texts_unavailable": True})
    expect(page.locator("article").first).to_contain_text("The store, which may have its text, is away.")


def test_a_review_without_a_text_and_one_that_was_not_read_are_labelled_so(open_page: OpenPage) -> None:
    page = open_page()
    with_explanation(page, explanation(text=None, token_spans=None))
    expect(page.locator("article").first).to_contain_text("The store keeps no texts")
    expect(page.locator("#evidence-note .word")).to_have_count(0)
    other = open_page()
    with_explanation(other, explanation(token_contributions=[], matching=0.0))
    expect(other.locator("article").first).to_contain_text("only its rating counts")
    expect(other.locator("article").last).to_contain_text("its rating counts, and what its words say beyond that")


@pytest.fixture(scope="module")
def texts_address(tiny: TinyBundle, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that stores texts, with those of two reviews by ``u0`` and of two about ``i2``."""
    with service(tiny, corpus, tmp_path_factory.mktemp("texts"), texts=True) as address, Client(address) as client:
        for number, (by_user, of_item) in enumerate(zip(*REVIEW_TEXTS.values(), strict=True)):
            client.write_review(ReviewRequest(user="u0", item=f"other-{number}", rating=4, text=by_user, timestamp=90))
            client.write_review(ReviewRequest(user=f"guest-{number}", item="i2", rating=2, text=of_item, timestamp=90))
        yield address


def shares_of_words(review: dict[str, Any]) -> dict[str, float]:
    """The contribution of each word: the sum over its tokens, which are adjacent, from an answer of ``/explain``."""
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
        assert shares.setdefault(review["text"][start:end], share) == share, "the text has a word twice: choose another"
    return shares


def test_words_of_stored_texts_are_marked_by_their_share_of_the_rating(open_page: OpenPage, texts_address: str) -> None:
    page = open_page(PAIR, at=texts_address)
    wait_for_evidence(page)
    open_details(page)
    shown = [one for one in explain(texts_address)["reviews"] if one["text"] and one["token_contributions"]]
    assert sorted(one["text"] for one in shown) == sorted(text for said in REVIEW_TEXTS.values() for text in said)
    shares = {one["text"]: shares_of_words(one) for one in shown}
    full_mark = max(FULL_MARK_STARS, *(abs(share) for words in shares.values() for share in words.values()))
    marks = 0
    for text, words in shares.items():
        marked = {
            mark.inner_text(): mark for mark in page.locator("article", has_text=text).locator(".text .word").all()
        }
        weights = {word: math.sqrt(abs(share) / full_mark) for word, share in words.items()}
        assert marked.keys() == {word for word, weight in weights.items() if weight >= FAINTEST}
        marks += len(marked)
        for word, mark in marked.items():
            drawn = float(mark.evaluate("mark => mark.style.getPropertyValue('--weight')"))
            assert drawn == pytest.approx(weights[word], abs=0.002)
            assert ("raises" in str(mark.get_attribute("class"))) == (words[word] > 0)
            title = str(mark.get_attribute("title")).removesuffix(" stars").replace("\u2212", "-")
            assert float(title) == pytest.approx(words[word], abs=0.00006)
    assert marks >= 3, "too few marked words to compare"
    expect(page.locator("#evidence-note")).to_contain_text("as far as they are read")


def test_arrow_keys_move_through_the_heat_map_of_either_direction(open_page: OpenPage, address: str) -> None:
    page = open_page(PAIR)
    wait_for_evidence(page)
    grid = page.get_by_role("grid")
    cells = grid.get_by_role("gridcell")
    attention = explain(address)["heat_map"]
    rows, columns = len(attention["user_attention"]), len(attention["user_attention"][0])
    expect(cells).to_have_count(rows * columns)
    cells.first.focus()
    press(page, "ArrowRight", "ArrowDown")
    second_diagonal = cells.nth(columns + 1)
    expect(second_diagonal).to_be_focused()
    expected = f"{attention['user_attention'][1][1] * 100:.1f}%"
    # By their numbers, because this store has no texts.
    expect(second_diagonal).to_have_attribute("aria-label", f"#2, #2: {expected}")
    expect(page.locator(".readout")).to_have_text(str(second_diagonal.get_attribute("aria-label")))
    press(page, "ArrowUp", "ArrowUp")  # the second press stops at the edge
    expect(cells.nth(1)).to_be_focused()

    page.get_by_role("radio", name="Each part of the user").focus()
    press(page, "ArrowDown")  # the other direction, transposed: its rows are columns here
    expected = f"{attention['item_attention'][2][1] * 100:.1f}%"
    expect(cells.nth(columns + 2)).to_have_attribute("aria-label", re.compile(rf"{re.escape(expected)}$"))


IS_UNCOVERED = """cell => {
    const { left, top, width, height } = cell.getBoundingClientRect();
    return document.elementFromPoint(left + width / 2, top + height / 2) === cell;
}"""


@pytest.mark.parametrize("width", [1280, 360])
def test_the_focused_cell_is_never_hidden_by_the_labels_of_the_heat_map(open_page: OpenPage, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 900})
    with_explanation(page, heat_map_answer(60, 60))
    cells = page.get_by_role("gridcell")
    cells.first.focus()
    focused = page.locator("[role=gridcell]:focus")
    for key, at in [("Control+End", -1), ("Home", -60), ("Control+Home", 0), ("End", 59)]:
        press(page, key)
        expect(cells.nth(at)).to_be_focused()
        assert focused.evaluate(IS_UNCOVERED), key
    press(page, "Control+End")
    for key in ["ArrowUp"] * 45 + ["ArrowLeft"] * 45:
        press(page, key)
        assert focused.evaluate(IS_UNCOVERED), key
    cells.nth(61).click()  # which makes it the one cell that the tab key reaches
    expect(page.locator("[role=gridcell][tabindex='0']")).to_have_count(1)
    expect(cells.nth(61)).to_have_attribute("tabindex", "0")


def test_the_heat_map_of_long_passages_fits_a_narrow_window(open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 360, "height": 900})
    answer = heat_map_answer(2, 2)
    text = f". {'a passage of a few words ' * 4}. Then comes {'another of as many words ' * 4}"
    middle = text.index("Then")
    for review in answer["reviews"]:
        review.update(text=text, token_spans=[[0, middle], [middle, len(text)]])
    with_explanation(page, answer)
    expect(page.locator("#heat-map")).to_contain_text("Each passage of the user’s review")
    expect(page.locator("#heat-map")).not_to_contain_text("[CLS]")
    expect(page.locator("#heat-map")).to_contain_text("of all the attention that a passage pays to the other side’s")
    expect(page.locator(".strongest")).to_contain_text("Strongest between passages:")
    page.locator(".heat").evaluate("place => place.scrollIntoView()")
    for cell in page.get_by_role("gridcell").all():
        expect(cell).to_be_in_viewport(ratio=1)
    first = page.locator(".strongest li").last.inner_text()
    assert first.startswith("a passage")  # without the full stop of the passage before
    for label in page.get_by_role("grid").get_by_role("columnheader").all():  # each two lines of several words
        box = label.bounding_box()
        assert box is not None
        assert box["width"] > 30
        assert box["height"] > 120
    by_user = page.get_by_role("region", name="By u0")
    # Marked from the first letter on. The list of marked passages is for screen readers only: it would repeat the text.
    assert by_user.locator("article .word").all_inner_texts() == [text[2:middle], text[middle:].strip()]
    assert by_user.locator("article > .note").count() == 0
    expect(by_user.locator("article > .unseen")).to_have_text(
        f"Where the reviews meet: raised by “{text[2 : middle - 2].strip()}” (+0.0100 stars), "
        f"“{text[middle:].strip()}” (+0.0100 stars)."
    )


def test_the_strongest_pair_of_words_has_the_same_share_in_the_list_and_the_legend(open_page: OpenPage) -> None:
    page = open_page()
    with_explanation(page, heat_map_answer(7, 9))
    expect(page.locator("#heat-map")).to_contain_text("Each word of the user’s review looks at the item’s")
    expect(page.locator(".strongest")).to_contain_text("Strongest between words:")
    expect(page.locator(".strongest li").first).to_have_text("w6 → w8 93.8%")
    expect(page.locator(".legend")).to_contain_text("93.8%, the strongest cell")


def test_words_that_all_but_ignore_each_other_do_not_meet(open_page: OpenPage) -> None:
    page = open_page()
    answer = heat_map_answer(2, 2)
    for review in answer["reviews"]:
        review.update(token_spans=[[0, 0], [0, 2]])
    answer["heat_map"]["user_attention"] = [[0.9, 0.0], [0.0, 0.0004]]
    with_explanation(page, answer)
    expect(page.locator("#heat-map")).to_contain_text("No words meet.")
    expect(page.locator(".strongest")).to_have_count(0)
    expect(page.locator("#heat-map")).to_contain_text("[CLS] marks where a review begins.")
    expect(page.locator("#heat-map")).not_to_contain_text("[SEP]")


def test_the_colour_of_a_cell_is_that_of_its_share_in_the_legend(open_page: OpenPage) -> None:
    page = open_page()
    answer = heat_map_answer(1, 5)
    answer["heat_map"]["user_attention"] = [[0.8, 0.6, 0.4, 0.2, 0.05]]
    with_explanation(page, answer)
    ramp = page.locator(".ramp")
    for cell, share in zip(page.get_by_role("gridcell").all(), [1.0, 0.75, 0.5, 0.25, 0.0625], strict=True):
        assert colour_at(ramp, share) == pytest.approx(colour_at(cell, 0.5), abs=0.03)


def colour_at(place: Locator, along: float) -> tuple[float, ...]:
    """Red, green and blue (0 to 1) at half the height, at the fraction ``along`` of the width."""
    picture = imread(io.BytesIO(place.screenshot()), format="png")
    height, width, _ = picture.shape
    return tuple(picture[height // 2, 2 + round(along * (width - 5)), :3].tolist())


def test_the_heat_map_of_very_long_reviews_is_limited_to_the_strongest_rows_and_columns(open_page: OpenPage) -> None:
    page = open_page()
    with_explanation(page, heat_map_answer(512, 300))
    expect(page.get_by_role("gridcell")).to_have_count(100 * 100)
    expect(page.locator("#heat-map")).to_contain_text(
        "the 100 of 512 rows and 100 of 300 columns where it is strongest"
    )
    expect(page.get_by_role("rowheader").last).to_have_text("w511")
    expect(page.locator(".strongest li").first).to_contain_text("w511")


@pytest.mark.parametrize("width", [1280, 360])
def test_identifiers_of_the_greatest_length_fit_their_window(open_page: OpenPage, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 900})
    answer = heat_map_answer(2, 2)
    user, item = "u" * 256, "i" * 256
    for review in answer["reviews"]:
        review.update(user=user, item=item)
    with_explanation(page, answer | {"user": user, "item": item})
    expect(page.locator("#heat-map")).to_contain_text(f"The user’s review on {item} (rows)")
    show(page, f"#/pair?user={user}&item={item}")
    expect(page.locator("#rating")).to_contain_text(user)
    wait_for_evidence(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_words_that_contribute_next_to_nothing_are_marked_faintly_or_not_at_all(open_page: OpenPage) -> None:
    page = open_page()
    with_explanation(page, explanation(token_contributions=[0.0, 0.003, 0.0015, 0.0, -0.0002, 0.0]))
    (mark,) = page.get_by_role("region", name="By u0").locator("article .word").all()
    assert float(mark.evaluate("mark => mark.style.getPropertyValue('--weight')")) == pytest.approx(0.474, abs=0.001)
    expect(mark).not_to_have_attribute("data-sign", "+")
    other = open_page()
    with_explanation(other, explanation(token_contributions=[0.0, 0.0003, 0.0, 0.0, -0.0002, 0.0]))
    expect(other.locator("#evidence-note")).to_contain_text("No word contributes more than 0.0003 stars")
    expect(other.locator(".word")).to_have_count(0)


def test_reviews_that_count_without_being_listed_are_counted(open_page: OpenPage) -> None:
    page = open_page()
    with_explanation(page, explanation() | {"item_unlisted": 83})
    expect(page.locator("#evidence-note")).to_contain_text("2 of the 85 reviews that count, strongest first.")
    expect(page.get_by_role("region", name="About i2")).to_contain_text("Not listed: 83 older reviews")
    expect(page.get_by_role("region", name="By u0")).not_to_contain_text("Not listed")


@pytest.mark.parametrize(
    ("read", "order"),
    [
        ([True, True], ", strongest first."),
        ([False, False], ", strongest first."),
        ([True, False], ": first those that"),
    ],
)
def test_the_note_distinguishes_reviews_that_were_not_read_only_where_there_are_both(
    open_page: OpenPage, read: list[bool], order: str
) -> None:
    page = open_page()
    answer = explanation()
    for review, was_read in zip(answer["reviews"], read, strict=True):
        review["token_contributions"] = review["token_contributions"] if was_read else []
    with_explanation(page, answer)
    expect(page.locator("#evidence-note")).to_contain_text(f"2 reviews{order}")


def test_the_note_on_one_review_mentions_no_order_and_a_side_without_reviews_is_labelled_so(
    open_page: OpenPage,
) -> None:
    page = open_page()
    answer = explanation(text=None, token_spans=None)
    with_explanation(page, answer | {"reviews": answer["reviews"][:1]})
    expect(page.locator("#evidence-note")).to_contain_text("1 review. A review’s effect is")
    # "By another user", because the pair's own review, which no rating of the pair reads, may exist.
    expect(page.get_by_role("region", name="About i2")).to_contain_text("This item has no review by another user.")


def test_a_hebrew_text_and_name_are_laid_out_from_right_to_left(open_page: OpenPage) -> None:
    page = open_page()
    hebrew, name = "הגיטרה מצוינת!", "משתמש"
    with_explanation(page, explanation(text=hebrew, token_spans=[[0, 0]] * 6, user=name) | {"user": name})
    text = page.get_by_role("region", name="By").locator(".text")
    assert text.evaluate("text => getComputedStyle(text).direction") == "rtl"
    expect(page.locator("#evidence h3").first).to_have_text(f"By \u2068{name}\u2069")


def test_a_very_long_text_is_cut(open_page: OpenPage) -> None:
    page = open_page()
    text = "x" * 50_000  # one token
    with_explanation(page, explanation(text=text, token_spans=[[0, 0], [0, len(text)], *[[0, 0]] * 4]))
    article = page.locator("article").first
    expect(article.locator(".word")).to_have_text("x" * 3_000)
    expect(article).to_contain_text("47,000 further characters are not shown.")
