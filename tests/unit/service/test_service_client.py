"""The course of a call, by a clock that the test turns: no network and no waiting."""

import email.utils
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from ubert_model.errors import ConfigError, InputError
from ubert_service.client import (
    AsyncClient,
    Client,
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
from ubert_service.client.calls import Call
from ubert_service.client.conversation import Conversation, Outcome, Received
from ubert_service.client.errors import problem_error
from ubert_service.schemas import PairRequest, PredictRequest, Version

POLICY = RetryPolicy(attempts=3, deadline_s=10.0, first_pause_s=1.0, longest_pause_s=4.0)
LOST = httpx.ReadError("broken off")


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


def talk(call: Call[Any], clock: Clock | None = None, policy: RetryPolicy = POLICY) -> Conversation[Any]:
    conversation = Conversation(call, policy, clock or Clock())
    conversation.request()
    return conversation


def test_the_client_imports_neither_onnxruntime_nor_the_web_framework() -> None:
    heavy = ["onnxruntime", "fastapi", "starlette", "uvicorn", "torch", "tokenizers"]
    program = f"import sys, ubert_service.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("status", [429, 502, 503])
def test_an_answer_that_may_pass_is_asked_for_again_and_never_sooner_than_retry_after(status: int) -> None:
    conversation = talk(calls.version())
    assert conversation.pause_after(problem(status, retry_after="7")) == 7.0


def test_retry_after_may_be_a_date() -> None:
    date = email.utils.formatdate(time.time() + 6, usegmt=True)
    pause = talk(calls.version()).pause_after(problem(503, retry_after=date))
    assert pause is not None
    assert 4.0 < pause <= 6.0


def test_a_date_without_a_zone_is_utc_wherever_the_client_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        pause = talk(calls.version()).pause_after(problem(503, retry_after=time.asctime(time.gmtime(time.time() + 6))))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert pause is not None
    assert 4.0 < pause <= 6.0


@pytest.mark.parametrize("value", ["soon", "-3", "", "1e3", f"Mon, 01 Jan 2020 00:00:00 +{10**19}"])
def test_a_retry_after_that_says_nothing_leaves_the_pause_of_the_policy(value: str) -> None:
    pause = talk(calls.version()).pause_after(problem(429, retry_after=value))
    assert pause is not None
    assert 0.5 <= pause <= 1.0


def test_pauses_double_up_to_the_longest() -> None:
    for attempt, longest in enumerate([1.0, 2.0, 4.0, 4.0, 4.0], start=1):
        pauses = [POLICY.pause_s(attempt) for _ in range(200)]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest


def test_a_call_may_be_repeated_as_often_as_one_likes() -> None:
    assert RetryPolicy(attempts=10_000).pause_s(9_999) <= 5.0


def test_after_the_last_attempt_the_problem_is_raised_with_all_it_said() -> None:
    conversation = talk(calls.version())
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


def test_a_pause_beyond_the_deadline_is_not_waited_for() -> None:
    with pytest.raises(UnavailableError):
        talk(calls.version()).pause_after(problem(503, retry_after="3600"))
    clock = Clock()
    conversation = talk(calls.version(), clock)
    clock.now += 9.9
    with pytest.raises(DeadlineExceededError) as raised:
        conversation.pause_after(LOST)
    assert isinstance(raised.value.__cause__, ServiceUnreachableError)


def test_no_attempt_begins_after_the_deadline_and_each_is_told_the_time_that_is_left() -> None:
    clock = Clock()
    conversation = Conversation(calls.version(), POLICY, clock)
    clock.now += 4.0
    request = conversation.request()
    assert request["timeout"] == 6.0
    assert request["headers"]["X-Request-Timeout"] == "6.000"
    clock.now += 6.0
    with pytest.raises(DeadlineExceededError, match=r"GET /version.*10 s and 1 attempt"):
        conversation.request()


@pytest.mark.parametrize(("seconds", "told"), [(7200.0, "3600.000"), (3599.5, "3599.500"), (0.002, "0.002")])
def test_the_time_that_is_told_is_one_that_the_service_takes(seconds: float, told: str) -> None:
    conversation = Conversation(calls.version(), RetryPolicy(deadline_s=seconds), Clock())
    assert conversation.request()["headers"]["X-Request-Timeout"] == told


def test_less_time_than_can_be_told_is_none() -> None:
    with pytest.raises(DeadlineExceededError):
        Conversation(calls.version(), RetryPolicy(deadline_s=0.0003), Clock()).request()


def test_a_lost_answer_is_asked_for_again_until_attempts_run_out() -> None:
    conversation = talk(calls.version())
    for _ in range(POLICY.attempts - 1):
        assert conversation.pause_after(LOST) is not None
        conversation.request()
    with pytest.raises(ServiceUnreachableError) as raised:
        conversation.pause_after(LOST)
    assert raised.value.__cause__ is LOST


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 500, 504])
def test_what_another_attempt_cannot_change_is_raised_at_once(status: int) -> None:
    with pytest.raises(ProblemError) as raised:
        talk(calls.version()).pause_after(problem(status))
    assert raised.value.status == status


@pytest.mark.parametrize("call", [calls.ready(), calls.promote(None)], ids=["readiness", "a swap of bundles"])
def test_what_a_second_attempt_would_falsify_is_asked_once(call: Call[Any]) -> None:
    for outcome in (problem(503, "not-ready"), LOST):
        with pytest.raises((UnavailableError, ServiceUnreachableError)):
            talk(call).pause_after(outcome)


def test_a_bundle_is_promoted_by_its_name_as_often_as_it_takes() -> None:
    assert talk(calls.promote("b")).pause_after(LOST) is not None


@pytest.mark.parametrize(
    ("removal", "result"),
    [
        (calls.remove_review("r", user="u", item="i"), RemovedReview(read_version=None)),
        (calls.remove_candidate_set("spring"), True),
    ],
    ids=["review", "candidate set"],
)
def test_a_removal_whose_answer_was_lost_has_succeeded_if_nothing_is_there(removal: Call[Any], result: Any) -> None:
    with pytest.raises(NotFoundError):
        talk(removal).pause_after(problem(404))

    for first in (LOST, problem(502), problem(503)):
        conversation = talk(removal)
        assert conversation.pause_after(first) is not None
        conversation.request()
        assert conversation.pause_after(problem(404)) is None
        assert conversation.result() == result


@pytest.mark.parametrize(
    "first",
    [
        problem(429, "overloaded"),
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("late"),
        httpx.PoolTimeout("none is free"),
    ],
    ids=repr,
)
def test_a_removal_that_never_began_is_not_taken_for_the_one_that_left_nothing_to_remove(first: Outcome) -> None:
    conversation = talk(calls.remove_review("r", user="u", item="i"))
    assert conversation.pause_after(first) is not None
    conversation.request()
    with pytest.raises(NotFoundError):
        conversation.pause_after(problem(404))


def test_a_problem_reaches_another_process_as_it_was_raised() -> None:
    body = {"type": "urn:u-bert:problem:not-ready", "reasons": [{"check": "states", "found": "f", "remedy": "r"}]}
    raised = problem_error(503, json.dumps(body).encode(), "R")
    arrived = pickle.loads(pickle.dumps(raised))
    assert type(arrived) is UnavailableError
    assert (str(arrived), vars(arrived)) == (str(raised), vars(raised))
    assert arrived.reasons == body["reasons"]


@pytest.mark.parametrize(
    "call",
    [
        lambda cut: calls.user(cut, limit=None, cursor=None),
        lambda cut: calls.find_items(cut, limit=None),
        lambda cut: calls.remove_review("r", user="u", item=cut),
    ],
    ids=["in the path", "searched for", "in the query"],
)
def test_an_identifier_that_was_cut_within_a_character_is_refused_by_name(call: Callable[[str], Call[Any]]) -> None:
    with pytest.raises(InputError, match=r"identifier 'u\\ud83d' is not valid Unicode"):
        call("u\ud83d")


def test_a_question_after_a_write_names_its_read_version_and_after_a_lost_answer_none() -> None:
    request = PredictRequest(pairs=[PairRequest(user="u", item="i")])
    removal = talk(calls.remove_review("r", user="u", item="i"))
    assert removal.pause_after(Received(status=204, headers={"x-read-version": "17-3"}, content=b"")) is None
    for write, sent in ((removal.result(), "17-3"), (RemovedReview(read_version=None), None), (None, None)):
        headers = Conversation(calls.predict(request, write), POLICY).request()["headers"]
        assert headers.get("X-Read-Version") == sent


def test_only_what_the_caller_has_set_is_sent() -> None:
    request = PredictRequest(pairs=[PairRequest(user="u", item="i")])
    sent = Conversation(calls.predict(request), POLICY).request()
    assert json.loads(sent["content"]) == {"pairs": [{"user": "u", "item": "i"}]}


@pytest.mark.parametrize("content", [b"<h1>bad gateway</h1>", b'{"message": "bad gateway"}', b'["bad gateway"]'])
def test_an_error_of_something_in_between_is_a_problem_too(content: bytes) -> None:
    with pytest.raises(ProblemError) as raised:
        talk(calls.ready()).pause_after(Received(status=502, headers={"x-request-id": "R"}, content=content))
    error = raised.value
    assert (error.type, error.title, error.status, error.request_id) == ("about:blank", "Bad Gateway", 502, "R")
    assert error.detail == content.decode()


def test_a_key_read_from_a_file_is_sent_without_the_end_of_its_line() -> None:
    assert calls.headers_of("secret\n") == {"Authorization": "Bearer secret"}


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("address", "key", "clue"),
    [
        ("localhost:8000", None, "base_url = 'localhost:8000': write it as http://"),
        ("", None, "base_url = ''"),
        ("http://", None, "base_url = 'http://'"),
        ("https://host:port", None, "base_url = 'https://host:port'"),
        ("http://[::1", None, "base_url = 'http://[::1'"),
        ("http://a..example", None, "base_url = 'http://a..example'"),
        ("ftp://user:secret@host", None, "base_url = 'host'"),
        ("http://user:secret@host", "key", "only one can be sent"),
        ("http://host", "secret\nX-Other: 1", "api_key"),
        ("http://host", "secrét", "api_key"),
    ],
)
def test_an_address_or_a_key_that_nothing_can_be_sent_with_is_refused_at_once_and_not_shown(
    client: type[Client] | type[AsyncClient], address: str, key: str | None, clue: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        client(address, api_key=key)
    assert clue in str(refused.value)
    assert "secr" not in str(refused.value)


@pytest.mark.parametrize("content", [b"<html>", b"{}", b'{"version": 3}'])
def test_an_answer_that_is_not_of_the_contract_is_refused(content: bytes) -> None:
    conversation = talk(calls.version())
    assert conversation.pause_after(Received(status=200, headers={}, content=content)) is None
    with pytest.raises(UnexpectedAnswerError, match=Version.__name__):
        conversation.result()


def test_what_is_no_text_is_no_answer_of_this_service() -> None:
    conversation = talk(calls.metrics())
    assert conversation.pause_after(Received(status=200, headers={}, content=b"\xff")) is None
    with pytest.raises(UnexpectedAnswerError, match="not text"):
        conversation.result()


def test_an_error_of_brackets_in_brackets_is_a_problem_too() -> None:
    assert problem_error(500, b"[" * 100_000, None).type == "about:blank"


def test_an_answer_with_a_field_that_this_client_does_not_know_is_read() -> None:
    conversation = talk(calls.alive())
    assert conversation.pause_after(answer(200, {"status": "alive", "mood": "good"})) is None
    assert conversation.result().status == "alive"


@pytest.mark.parametrize(
    "options", [{"attempts": 0}, {"deadline_s": 0}, {"deadline_s": float("inf")}, {"first_pause_s": -1}]
)
def test_a_policy_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        RetryPolicy(**options)
