"""Takes the README's screenshots of the console: ``python tests/e2e/take_screenshots.py ADDRESS USER ITEM``.

The store of the service must hold texts, and the machine must have the font Inter.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Browser, Page, ViewportSize, expect

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.chromium import browser

PICTURES = Path(__file__).with_name("screenshots")
WIDE: ViewportSize = {"width": 1200, "height": 1120}
SMALL: ViewportSize = {"width": 390, "height": 844}
MOST_BYTES = 200_000


@contextmanager
def page_of(chromium: Browser, scheme: str, viewport: ViewportSize) -> Iterator[Page]:
    context = chromium.new_context(
        viewport=viewport, color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
    )
    yield context.new_page()
    context.close()


def show_pair(page: Page, address: str, user: str, item: str) -> None:
    page.goto(f"{address}/#/pair?{urlencode({'user': user, 'item': item})}")
    expect(page.locator("article").first).to_be_visible()


def show_attention(page: Page) -> None:
    page.evaluate("() => document.querySelector('#attention').scrollIntoView()")
    strongest = page.locator("#heat-map td[style*='--weight: 1.000']").first
    strongest.hover()  # so that the line below the grid describes this cell


def show_ranking(page: Page, address: str, user: str) -> None:
    page.goto(f"{address}/#/ranking?{urlencode({'user': user})}")
    page.get_by_role("button", name="Add 50 items").click()
    expect(page.get_by_label("Candidates")).not_to_have_value("")
    page.get_by_label("Show the best").fill("8")
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("table.ranked")).to_be_visible()


def show_status(page: Page, address: str) -> None:
    page.goto(f"{address}/#/status")
    expect(page.locator(".facts").first).to_be_visible()


def save(page: Page, name: str) -> None:
    picture = PICTURES / f"{name}.png"
    size = len(page.screenshot(path=picture))
    if size > MOST_BYTES:
        sys.exit(f"{picture} has {size} bytes, more than {MOST_BYTES}: choose a smaller viewport")
    print(f"{picture}: {size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("address", "user", "item"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with browser() as chromium:
        for scheme in ("light", "dark"):
            with page_of(chromium, scheme, WIDE) as page:
                show_pair(page, arguments.address, arguments.user, arguments.item)
                save(page, f"pair-{scheme}")
                show_attention(page)
                save(page, f"attention-{scheme}")
                show_ranking(page, arguments.address, arguments.user)
                save(page, f"ranking-{scheme}")
                show_status(page, arguments.address)
                save(page, f"status-{scheme}")
        with page_of(chromium, "light", SMALL) as page:
            show_pair(page, arguments.address, arguments.user, arguments.item)
            save(page, "pair-small")


if __name__ == "__main__":
    main()
