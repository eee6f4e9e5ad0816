"""The state of the service: the readiness line above all views, and the status view."""

from playwright.sync_api import Page, Route, expect

from support.console_page import PAIR, OpenPage, Readiness, hold_requests, press, show, table_rows, wait_for_evidence
from support.tiny_bundle import TinyBundle
from ubert_service.schemas import Ready

OLD, NEW = "a" * 64, "b" * 64
UNREACHABLE = "the state store cannot be reached: connection refused"
TIMEOUT_ON_PAGE_CLOCK = """
    AbortSignal.timeout = (after) => {
        const stop = new AbortController();
        setTimeout(() => stop.abort(new DOMException("too late", "TimeoutError")), after);
        return stop.signal;
    };
"""
BAR_LENGTHS = "all => all.map((bar) => parseFloat(bar.style.getPropertyValue('--size')))"


def test_the_status_shows_the_bundle_latencies_predictions_and_store(open_page: OpenPage, tiny: TinyBundle) -> None:
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
    count = {row[0]: int(row[1]) for row in table_rows(latency.locator("table").first)}
    assert count["/predict"] >= 1
    page.get_by_label("Distribution of").select_option("/predict")
    buckets = table_rows(latency.locator("table.bars"))
    assert sum(int(row[2]) for row in buckets) == count["/predict"]
    expect(page.get_by_role("region", name="Predictions")).to_contain_text("both sides’ reviews")
    expect(page.get_by_role("region", name="State store")).to_contain_text("No operation has failed")

    page.get_by_role("button", name="Refresh").focus()
    press(page, "Enter")
    expect(page.locator("#announcement")).to_have_text("Status refreshed")


def test_the_status_line_follows_readiness_and_the_bundle(open_page: OpenPage) -> None:
    readiness = Readiness(bundle=OLD)
    page = open_page("#/status", prepare=readiness.answer)
    line, section = page.locator("#health"), page.get_by_role("region", name="Readiness")
    expect(line).to_have_text(f"● Ready, bundle {OLD}")
    expect(section).to_contain_text("Ready: device, store and states are in place.")

    readiness.ready = Ready(bundle=OLD, status="degraded", detail=UNREACHABLE)
    page.clock.run_for(10_500)
    expect(line).to_have_text(f"◐ Degraded: {UNREACHABLE} Bundle {OLD}")
    expect(line.locator(".trouble")).to_have_css("border-top-style", "dashed")
    expect(section).to_contain_text(f"Degraded: {UNREACHABLE}")
    expect(section).not_to_contain_text("in place")
    expect(page.locator("#announcement")).to_contain_text(f"Degraded: {UNREACHABLE}")

    readiness.ready = Ready(bundle=NEW)
    page.clock.run_for(10_500)
    expect(line).to_have_text(f"● Ready, bundle {NEW}")
    expect(section).to_contain_text("in place")


def test_a_hidden_page_does_not_poll_readiness(open_page: OpenPage) -> None:
    readiness = Readiness(bundle=OLD)
    page = open_page("#/pair", prepare=readiness.answer)
    line = page.locator("#health")
    expect(line).to_contain_text(OLD)

    def set_hidden(hidden: str) -> None:
        page.evaluate(
            f"""() => {{
                Object.defineProperty(document, "hidden", {{ configurable: true, get: () => {hidden} }});
                document.dispatchEvent(new Event("visibilitychange"));
            }}"""
        )

    set_hidden("true")
    asked = readiness.asked
    readiness.ready = Ready(bundle=NEW)
    page.clock.run_for(60_000)
    assert readiness.asked == asked
    expect(line).to_contain_text(OLD)
    set_hidden("false")  # asks at once
    expect(line).to_contain_text(NEW)


def test_an_automatic_refresh_keeps_the_focus_the_selection_and_the_scroll_position(open_page: OpenPage) -> None:
    page = open_page("#/status", prepare=lambda page: page.clock.install(), viewport={"width": 320, "height": 900})
    latency = page.get_by_role("region", name="Requests since the start, by route")
    expect(latency).to_be_visible()
    page.get_by_label("every 5 seconds").check()
    choice = page.get_by_label("Distribution of")
    choice.select_option("/version")
    choice.evaluate("select => { select.focus(); window.same = select; }")
    latency.evaluate("place => { place.scrollLeft = 40; }")

    def wait_for_refresh() -> None:
        with page.expect_response("**/metrics"):
            page.clock.run_for(5_500)
        expect(page.locator("#status")).not_to_have_attribute("aria-busy", "true")

    wait_for_refresh()
    assert page.evaluate("() => document.activeElement === window.same")
    expect(choice).to_have_value("/version")
    assert latency.evaluate("place => place.scrollLeft") == 40
    latency.focus()
    wait_for_refresh()
    expect(latency).to_be_focused()


def test_figures_are_marked_as_old_when_the_service_cannot_be_reached(open_page: OpenPage) -> None:
    page = open_page("#/status")
    readiness = page.get_by_role("region", name="Readiness")
    expect(readiness).to_contain_text("in place")
    page.route("**/version", lambda route: route.abort())
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator("#status-problem")).to_contain_text("cannot be reached")
    expect(readiness).to_contain_text("What follows is as of")
    expect(readiness).not_to_contain_text("in place")
    expect(page.locator("#announcement")).not_to_have_text("Status refreshed")
    expect(readiness.locator(".trouble")).to_have_css("border-top-style", "dashed")
    page.unroute("**/version")
    page.get_by_role("button", name="Refresh").click()
    expect(readiness).to_contain_text("in place")


def test_figures_are_marked_as_old_when_the_service_does_not_answer(open_page: OpenPage) -> None:
    def prepare(page: Page) -> None:
        page.clock.install()
        page.add_init_script(TIMEOUT_ON_PAGE_CLOCK)

    page = open_page("#/status", prepare=prepare)
    readiness = page.get_by_role("region", name="Readiness")
    expect(readiness).to_contain_text("in place")
    held: list[Route] = []
    page.route("**/metrics", hold_requests(held))
    with page.expect_request("**/metrics"):
        page.get_by_role("button", name="Refresh").click()
    page.clock.run_for(11_000)
    expect(readiness).to_contain_text("What follows is as of")
    expect(page.locator("#status-problem")).to_contain_text("does not answer")


def test_a_prediction_without_an_answer_times_out(open_page: OpenPage) -> None:
    held: list[Route] = []

    def prepare(page: Page) -> None:
        page.clock.install()
        page.add_init_script(TIMEOUT_ON_PAGE_CLOCK)
        page.route("**/predict", hold_requests(held))

    page = open_page(prepare=prepare)
    with page.expect_request("**/predict"):
        show(page, PAIR)
    page.clock.run_for(61_000)
    expect(page.locator("#pair-problem")).to_contain_text("The service does not answer")
    expect(page.locator("#pair > .waiting")).to_be_hidden()


def test_a_bar_of_the_latency_distribution_is_as_long_as_its_share_of_requests(open_page: OpenPage) -> None:
    name, route = "ubert_request_seconds", 'route="/predict"'
    buckets = {"0.01": 3, "0.02": 4, "+Inf": 4}
    lines = [f'{name}_bucket{{{route},le="{up_to}"}} {below}' for up_to, below in buckets.items()]
    body = "\n".join([*lines, f"{name}_count{{{route}}} 4", f"{name}_sum{{{route}}} 0.04", ""])
    page = open_page("#/status", prepare=lambda page: page.route("**/metrics", lambda route: route.fulfill(body=body)))
    bars = page.get_by_role("region", name="Latency by route").locator("table.bars .bar")
    expect(bars).to_have_count(3)
    assert bars.evaluate_all(BAR_LENGTHS) == [75, 25, 0]


def test_durations_are_shown_in_a_fitting_unit(open_page: OpenPage) -> None:
    name = "ubert_store_seconds"
    lines = []
    for operation, seconds in {"claim": 0.0000026, "ping": 0.00024, "states": 0.002, "texts": 3.25}.items():
        of = f'operation="{operation}"'
        lines += [f'{name}_bucket{{{of},le="+Inf"}} 1', f"{name}_count{{{of}}} 1", f"{name}_sum{{{of}}} {seconds}"]
    body = "\n".join([*lines, ""])
    page = open_page("#/status", prepare=lambda page: page.route("**/metrics", lambda route: route.fulfill(body=body)))
    table = page.get_by_role("region", name="State store").locator("table")
    expect(table).to_be_visible()
    assert {row[0]: row[2] for row in table_rows(table)} == {
        "texts": "3.3 s",
        "states": "2 ms",
        "ping": "240 µs",
        "claim": "2.6 µs",
    }


def test_a_narrow_window_has_two_facts_in_a_row(open_page: OpenPage) -> None:
    page = open_page("#/status", viewport={"width": 360, "height": 844})
    facts = page.locator(".facts > div")
    expect(facts.first).to_be_visible()
    first, second = (facts.nth(index).bounding_box() for index in (0, 1))
    assert first is not None
    assert second is not None
    assert first["y"] == second["y"]


def test_the_accuracy_of_u_bert_comes_first_and_then_that_of_the_best(open_page: OpenPage) -> None:
    def answer(route: Route) -> None:
        response = route.fetch()
        scores = {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in ("mse", "rmse", "mae")}
        accuracy = [{"model": name, "pairs": 9, **scores} for name in ("bias", "U-BERT", "mean")]
        route.fulfill(response=response, json={**response.json(), "accuracy": accuracy})

    page = open_page("#/status", prepare=lambda page: page.route("**/about", answer))
    models = page.get_by_role("region", name="Accuracy on the test part").get_by_role("rowheader")
    expect(models).to_have_text(["U-BERT", "bias", "mean"])
