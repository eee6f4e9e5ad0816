"""The attempts, pauses and errors of a call, by a clock that the test sets: no network and no waiting."""

import email.utils
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest

from ubert_model.errors import ConfigError, InputError
from ubert_service.client import (
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceededError,
    NotFoundError,
    OverloadedError,
    ProblemError,
    RemovedReview,
    RetryPolicy,
    ServiceUnreachableError,
    UnavailableError,
    UnexpectedAnswerError,
    calls,
)
from ubert_service.client import conversation as conversation_module
from ubert_service.client.calls import Call, Received
from ubert_service.client.conversation import Conversation, Outcome
from ubert_service.client.errors import problem_error
from ubert_service.schemas import PairRequest, PredictRequest, Version

POLICY = RetryPolicy(attempts=3, deadline_s=10.0, first_pause_s=1.0, longest_pause_s=4.0)
ADDRESS = "http://host:8000"
LOST = httpx.ReadError("connection lost")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def answer(status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> Received:
    return Received(status=status, headers=headers or {}, content=b"" if body is None else json.dumps(body).encode())


def problem(status: int, name: str = "unknown-review", **headers: str) -> Received:
    body = {"type": f"urn:u-bert:problem:{name}", "title": "T", "status": status, "detail": "D", "request_id": "R"}
    return answer(status, body, {key.replace("_", "-"): value for key, value in headers.items()})


def started(call: Call[Any], clock: Clock | None = None) -> Conversation[Any]:
    """A conversation whose first attempt has been sent."""
    conversation = Conversation(call, POLICY, ADDRESS, clock or Clock())
    conversation.request()
    return conversation


def test_the_client_imports_nothing_but_what_its_extra_lists() -> None:
    absent = ["numpy", "safetensors", "redis", "lmdb", "threadpoolctl", "typer"]  # core, and the commands
    absent += ["onnxruntime", "fastapi", "starlette", "uvicorn", "prometheus_client", "tokenizers", "torch"]
    program = f"import sys; sys.modules.update(dict.fromkeys({absent})); import ubert_service.client"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def retried(call: Call[Any], first: Outcome) -> Conversation[Any]:
    """A conversation whose second attempt has been sent, after this outcome of the first."""
    conversation = started(call)
    assert conversation.pause_after(first) is not None
    conversation.request()
    return conversation


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_retryable_status_is_retried_no_sooner_than_retry_after(status: int) -> None:
    conversation = started(calls.version())
    assert conversation.pause_after(problem(status, retry_after="7")) == 7.0


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    """The time of day at which the client reads every date."""
    now = 1_700_000_000.0
    monkeypatch.setattr(conversation_module, "time", SimpleNamespace(time=lambda: now))
    return now


def test_retry_after_may_be_a_date(now: float) -> None:
    date = email.utils.formatdate(now + 6, usegmt=True)
    assert started(calls.version()).pause_after(problem(503, retry_after=date)) == 6.0


def test_a_retry_after_date_without_a_zone_is_utc(now: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        date = time.asctime(time.gmtime(now + 6))
        assert started(calls.version()).pause_after(problem(503, retry_after=date)) == 6.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("value", ["soon", "-3", "", "1e3", f"Mon, 01 Jan 2020 00:00:00 +{10**19}"])
def test_an_invalid_retry_after_leaves_the_pause_of_the_policy(value: str) -> None:
    pause = started(calls.version()).pause_after(problem(429, retry_after=value))
    assert pause is not None
    assert 0.5 <= pause <= 1.0


def test_pauses_double_up_to_the_longest() -> None:
    for attempt, longest in enumerate([1.0, 2.0, 4.0, 4.0, 4.0], start=1):
        pauses = [POLICY.pause_s(attempt) for _ in range(200)]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest


def test_the_pause_after_very_many_attempts_does_not_overflow() -> None:
    assert RetryPolicy(attempts=10_000).pause_s(9_999) <= 5.0


def test_after_the_last_attempt_the_problem_is_raised_with_all_its_fields() -> None:
    conversation = started(calls.version())
    for _ in range(POLICY.attempts - 1):
        assert conversation.pause_after(problem(429, "overloaded")) is not None
        conversation.request()
    with pytest.raises(OverloadedError) as raised:
        conversation.pause_after(problem(429, "overloaded"))
    error = raised.value
    assert (error.type, error.status, error.detail, error.request_id) == (
        "urn:u-bert:problem:overloaded",
        429,
        "D",
        "R",
    )


def test_a_pause_that_would_pass_the_deadline_raises_at_once() -> None:
    with pytest.raises(UnavailableError):
        started(calls.version()).pause_after(problem(503, retry_after="3600"))
    clock = Clock()
    conversation = started(calls.version(), clock)
    clock.now += 9.9
    with pytest.raises(DeadlineExceededError) as raised:
        conversation.pause_after(LOST)
    assert isinstance(raised.value.__cause__, ServiceUnreachableError)


def test_no_attempt_starts_after_the_deadline_and_each_sends_the_time_that_is_left() -> None:
    clock = Clock()
    conversation = Conversation(calls.version(), POLICY, ADDRESS, clock)
    clock.now += 4.0
    request = conversation.request()
    assert request["timeout"] == 6.0
    assert request["headers"]["X-Request-Timeout"] == "6.000"
    clock.now += 6.0
    with pytest.raises(DeadlineExceededError, match=r"GET /version.*10 s and 1 attempt"):
        conversation.request()


@pytest.mark.parametrize(("seconds", "sent"), [(7200.0, "3600.000"), (3599.5, "3599.500"), (0.002, "0.002")])
def test_the_timeout_sent_is_one_that_the_service_accepts(seconds: float, sent: str) -> None:
    conversation = Conversation(calls.version(), RetryPolicy(deadline_s=seconds), ADDRESS, Clock())
    assert conversation.request()["headers"]["X-Request-Timeout"] == sent


def test_a_timeout_too_short_to_be_sent_counts_as_passed() -> None:
    with pytest.raises(DeadlineExceededError):
        Conversation(calls.version(), RetryPolicy(deadline_s=0.0003), ADDRESS, Clock()).request()


def test_a_lost_answer_is_retried_until_the_attempts_run_out() -> None:
    conversation = started(calls.version())
    for _ in range(POLICY.attempts - 1):
        assert conversation.pause_after(LOST) is not None
        conversation.request()
    with pytest.raises(ServiceUnreachableError) as raised:
        conversation.pause_after(LOST)
    assert raised.value.__cause__ is LOST


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 500, 504])
def test_a_status_that_is_not_retryable_is_raised_at_once(status: int) -> None:
    with pytest.raises(ProblemError) as raised:
        started(calls.version()).pause_after(problem(status))
    assert raised.value.status == status


@pytest.mark.parametrize(
    "call", [calls.ready(), calls.promote(None)], ids=["readiness", "promotion of an unnamed bundle"]
)
def test_a_call_that_is_not_repeatable_is_attempted_once(call: Call[Any]) -> None:
    for outcome in (problem(503, "not-ready"), LOST):
        with pytest.raises((UnavailableError, ServiceUnreachableError)):
            started(call).pause_after(outcome)


def test_the_promotion_of_a_named_bundle_is_repeatable() -> None:
    assert started(calls.promote("b")).pause_after(LOST) is not None


REVIEW_REMOVAL = calls.remove_review("r", user="u", item="i")
NO_REVIEW = problem(404, "unknown-review", x_read_version="v:17")
PROXY_503 = answer(503, {"type": "error", "status": 503})


@pytest.mark.parametrize(
    ("removal", "absent", "result"),
    [
        (REVIEW_REMOVAL, NO_REVIEW, RemovedReview(read_version="v:17")),
        (calls.remove_candidate_set("spring"), problem(404, "unknown-candidate-set"), True),
    ],
    ids=["review", "candidate set"],
)
@pytest.mark.parametrize(
    "first",
    [
        LOST,
        answer(502),
        PROXY_503,
        problem(502, "replica-lost"),
        problem(503, "store-unavailable"),
        problem(503, "write-unconfirmed"),
    ],
)
def test_a_removal_that_may_be_done_succeeds_if_the_retry_finds_nothing(
    removal: Call[Any], absent: Received, result: Any, first: Outcome
) -> None:
    with pytest.raises(NotFoundError):
        started(removal).pause_after(absent)
    conversation = retried(removal, first)
    assert conversation.pause_after(absent) is None
    assert conversation.result() == result


@pytest.mark.parametrize(
    "first",
    [
        problem(429, "overloaded"),
        answer(429),
        problem(503, "not-ready"),
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("late"),
        httpx.PoolTimeout("none is free"),
    ],
    ids=repr,
)
def test_a_removal_whose_first_attempt_never_began_fails_if_the_retry_finds_nothing(first: Outcome) -> None:
    with pytest.raises(NotFoundError):
        retried(REVIEW_REMOVAL, first).pause_after(NO_REVIEW)


@pytest.mark.parametrize("absent", [answer(404), problem(404, "not-found")], ids=["of a proxy", "of no route"])
def test_a_404_that_is_not_about_the_review_never_passes_for_its_removal(absent: Received) -> None:
    with pytest.raises(NotFoundError):
        retried(REVIEW_REMOVAL, LOST).pause_after(absent)


@pytest.mark.parametrize("received", [answer(200), problem(404)], ids=["at once", "in a retry"])
def test_a_removal_without_a_read_version_is_refused(received: Received) -> None:
    conversation = retried(REVIEW_REMOVAL, LOST)
    assert conversation.pause_after(received) is None
    with pytest.raises(UnexpectedAnswerError, match="X-Read-Version"):
        conversation.result()


def test_a_problem_survives_pickling() -> None:
    body = {"type": "urn:u-bert:problem:not-ready", "reasons": [{"check": "states", "found": "f", "remedy": "r"}]}
    raised = problem_error(503, json.dumps(body).encode(), "R")
    arrived = pickle.loads(pickle.dumps(raised))
    assert type(arrived) is UnavailableError
    assert (str(arrived), vars(arrived)) == (str(raised), vars(raised))
    assert arrived.reasons == body["reasons"]


@pytest.mark.parametrize(
    "call",
    [
        lambda identifier: calls.user(identifier, limit=None, cursor=None),
        lambda identifier: calls.find_items(identifier, limit=None, cursor=None),
        lambda identifier: calls.remove_review("r", user="u", item=identifier),
    ],
    ids=["in the path", "in a search", "in the query"],
)
def test_an_identifier_with_half_a_surrogate_pair_is_refused_by_name(call: Callable[[str], Call[Any]]) -> None:
    with pytest.raises(InputError, match=r"identifier 'u\\ud83d' is not valid Unicode"):
        call("u\ud83d")


def test_a_read_after_a_write_sends_its_read_version() -> None:
    request = PredictRequest(pairs=[PairRequest(user="u", item="i")])
    removal = started(REVIEW_REMOVAL)
    assert removal.pause_after(Received(status=204, headers={"x-read-version": "17-3"}, content=b"")) is None
    for write, sent in ((removal.result(), "17-3"), (None, None)):
        headers = Conversation(calls.predict(request, write), POLICY, ADDRESS).request()["headers"]
        assert headers.get("X-Read-Version") == sent


def test_only_the_fields_that_the_caller_has_set_are_sent() -> None:
    request = PredictRequest(pairs=[PairRequest(user="u", item="i")])
    sent = Conversation(calls.predict(request), POLICY, ADDRESS).request()
    assert json.loads(sent["content"]) == {"pairs": [{"user": "u", "item": "i"}]}


@pytest.mark.parametrize(
    "content",
    [
        b"<h1>bad gateway</h1>",
        b'{"message": "bad gateway"}',
        b'["bad gateway"]',
        b'{"type": "error", "title": [], "reasons": 5}',
    ],
)
def test_an_error_of_a_proxy_is_a_problem_too(content: bytes) -> None:
    with pytest.raises(ProblemError) as raised:
        started(calls.ready()).pause_after(Received(status=502, headers={"x-request-id": "R"}, content=content))
    error = raised.value
    assert (error.type, error.title, error.status, error.request_id) == ("about:blank", "Bad Gateway", 502, "R")
    assert (error.detail, error.reasons) == (content.decode(), ())


def test_an_api_key_is_sent_without_its_line_break() -> None:
    assert calls.headers_of("secret\n") == {"Authorization": "Bearer secret"}


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("base_url", "key", "reason"),
    [
        ("localhost:8000", None, "base_url = 'localhost:8000': write it as http://"),
        ("", None, "base_url = ''"),
        ("http://", None, "base_url = 'http://'"),
        ("https://host:port", None, "base_url = 'https://host:port'"),
        ("http://[::1", None, "base_url = 'http://[::1'"),
        ("http://a..example", None, "base_url = 'http://a..example'"),
        ("http://a b", None, "base_url = 'http://a b'"),
        ("http://host:65536", None, "base_url = 'http://host:65536'"),
        ("http://host:0", None, "base_url = 'http://host:0'"),
        ("ftp://user:secret@host", None, "base_url = 'host'"),
        ("http://host?key=secret", None, "base_url = 'http://host'"),
        ("http://host/#secret", None, "without ?, # and spaces"),
        ("http://user:secret@host", "key", "only one can be sent"),
        ("http://host", "secret\nX-Other: 1", "api_key"),
        ("http://host", "secrét", "api_key"),
        ("http://host", " \n", "api_key: it is empty"),
    ],
)
def test_an_unusable_base_url_or_api_key_is_refused_without_showing_the_secret(
    client: type[Client] | type[AsyncClient], base_url: str, key: str | None, reason: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        client(base_url, api_key=key)
    assert reason in str(refused.value)
    assert "secr" not in str(refused.value)


def test_a_closed_client_says_so() -> None:
    async def closed_and_used() -> None:
        async with AsyncClient(ADDRESS) as client:
            pass
        await client.alive()

    with Client(ADDRESS) as client:
        pass
    for use in (client.alive, lambda: anyio.run(closed_and_used)):
        with pytest.raises(ClientError, match="closed"):
            use()


@pytest.mark.parametrize("content", [b"<html>", b"{}", b'{"version": 3}'])
def test_an_answer_that_breaks_its_schema_is_refused(content: bytes) -> None:
    conversation = started(calls.version())
    assert conversation.pause_after(Received(status=200, headers={}, content=content)) is None
    with pytest.raises(UnexpectedAnswerError, match=Version.__name__):
        conversation.result()


def test_metrics_that_are_not_text_are_refused() -> None:
    conversation = started(calls.metrics())
    assert conversation.pause_after(Received(status=200, headers={}, content=b"\xff")) is None
    with pytest.raises(UnexpectedAnswerError, match="not text"):
        conversation.result()


def test_a_deeply_nested_error_body_is_a_problem_too() -> None:
    assert problem_error(500, b"[" * 100_000, None).type == "about:blank"


def test_an_unknown_field_of_an_answer_is_ignored() -> None:
    conversation = started(calls.alive())
    assert conversation.pause_after(answer(200, {"status": "alive", "mood": "good"})) is None
    assert conversation.result().status == "alive"


@pytest.mark.parametrize(
    "options", [{"attempts": 0}, {"deadline_s": 0}, {"deadline_s": float("inf")}, {"first_pause_s": -1}]
)
def test_a_retry_policy_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        RetryPolicy(**options)
