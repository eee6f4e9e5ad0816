"""``Client`` and ``AsyncClient`` over real HTTP, against the service and against servers that misbehave."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from support.app_settings import settings_for
from support.running_app import serving
from support.tiny_bundle import Corpus, TinyBundle, torch_rating
from ubert_model.states import MaintenanceStore, open_store
from ubert_service.client import (
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceededError,
    NotAllowedError,
    NotFoundError,
    RetryPolicy,
    ServiceUnreachableError,
    UnavailableError,
    UnexpectedAnswerError,
    conversation,
)
from ubert_service.schemas import ExplainRequest, PairRequest, PredictRequest, RankRequest, ReviewRequest

IMPATIENT = RetryPolicy(attempts=3, deadline_s=60.0, first_pause_s=0.01, longest_pause_s=0.05)


class _Awaited:
    """An ``AsyncClient`` whose methods block, so that each test runs with both clients."""

    def __init__(self, portal: BlockingPortal, client: AsyncClient) -> None:
        self._portal = portal
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *arguments, **options: self._portal.call(partial(method, *arguments, **options))


@contextmanager
def blocking(address: str, policy: RetryPolicy) -> Iterator[Any]:
    with Client(address, policy=policy) as client:
        yield client


@contextmanager
def awaited(address: str, policy: RetryPolicy) -> Iterator[Any]:
    async def opened() -> AsyncClient:
        return AsyncClient(address, policy=policy)

    with start_blocking_portal() as portal:
        client = portal.call(opened)
        try:
            yield _Awaited(portal, client)
        finally:
            portal.call(client.aclose)


Connect = Callable[[str, RetryPolicy], Any]


@pytest.fixture(params=[blocking, awaited], ids=["blocking", "awaited"])
def connect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Connect:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    opened: Connect = request.param
    return opened


@pytest.fixture
def client(connect: Connect, tiny: TinyBundle, filled_store: MaintenanceStore) -> Iterator[Any]:
    with (
        serving(settings_for(tiny.bundle), filled_store) as server,
        connect(str(server.base_url), RetryPolicy()) as client,
    ):
        yield client


def pair(user: str, item: str, **options: Any) -> PredictRequest:
    return PredictRequest(pairs=[PairRequest(user=user, item=item)], **options)


def test_predict_and_rank_return_typed_answers(client: Any, tiny: TinyBundle, corpus: Corpus) -> None:
    answer = client.predict(pair("u0", "i2"))
    assert answer.bundle == tiny.bundle.manifest.bundle_id
    assert answer.predictions[0].rating == pytest.approx(torch_rating(tiny, corpus, "u0", "i2"), abs=1e-4)
    best = client.rank(RankRequest(user="u0", candidates=["i1", "i2", "i3"], top_k=2))
    assert len(best.items) == 2
    assert best.items[0].rating >= best.items[1].rating


def test_a_candidate_set_is_stored_ranked_and_removed(client: Any) -> None:
    assert client.write_candidate_set("spring", ["i1", "i2", "i1"]).items == ["i1", "i2"]
    assert client.candidate_set("spring").items == ["i1", "i2"]
    ranked = client.rank(RankRequest(user="u0", candidate_set="spring"))
    assert {one.item for one in ranked.items} == {"i1", "i2"}
    assert client.candidate_sets() == ["spring"]
    client.remove_candidate_set("spring")
    assert client.candidate_sets() == []
    with pytest.raises(NotFoundError):
        client.remove_candidate_set("spring")


def test_promote_without_permission_raises_not_allowed_error(client: Any) -> None:
    with pytest.raises(NotAllowedError):
        client.promote()


def test_explain_returns_a_typed_answer_whose_contributions_sum_to_the_rating(client: Any) -> None:
    answer = client.explain(ExplainRequest(user="u0", item="i2"))
    parts = answer.contributions.model_dump()
    assert sum(parts.values()) == pytest.approx(answer.rating, abs=1e-4)
    assert {review.side for review in answer.reviews} == {"user", "item"}


def test_a_review_with_reserved_characters_in_its_ids_is_written_listed_and_removed(client: Any) -> None:
    written = client.write_review(ReviewRequest(user="..", item="a/b", rating=4, text="in tune", review_id="100% ?"))
    assert [one.review_id for one in client.user("..").reviews] == ["100% ?"]
    assert client.item("a/b", limit=1).counts.reviews == written.item.reviews == 1
    client.remove_review("100% ?", user="..", item="a/b")
    with pytest.raises(NotFoundError) as raised:
        client.user("..")
    assert raised.value.type == "urn:u-bert:problem:unknown-user"
    assert raised.value.request_id


def test_predict_returns_evidence_only_with_explain(client: Any) -> None:
    evidence = client.predict(pair("u0", "i2", explain=True)).predictions[0].evidence
    assert evidence.contributions == client.explain(ExplainRequest(user="u0", item="i2")).contributions
    assert client.predict(pair("u0", "i2")).predictions[0].evidence is None


def test_a_call_with_after_shows_the_write_on_another_replica(
    connect: Connect, tiny: TinyBundle, filled_redis_store: MaintenanceStore, own_redis_url: str
) -> None:
    settings = settings_for(tiny.bundle, resident_lag=60.0)
    with ExitStack() as stack:
        clients = []
        for store in (filled_redis_store, stack.enter_context(closing(open_store(own_redis_url)))):
            server = stack.enter_context(serving(settings, store))
            clients.append(stack.enter_context(connect(str(server.base_url), RetryPolicy())))
        one, other = clients
        questions = (
            lambda **after: other.predict(pair("u8", "i1"), **after).predictions[0].user_reviews,
            lambda **after: other.rank(RankRequest(user="u8", candidates=["i1"]), **after).items[0].user_reviews,
            lambda **after: other.explain(ExplainRequest(user="u8", item="i1"), **after).user_reviews,
        )
        assert questions[0]() == 0
        for question in questions:
            written = one.write_review(ReviewRequest(user="u8", item="i13", rating=4, text="in tune", review_id="new"))
            assert question(after=written) == 1
            removed = one.remove_review("new", user="u8", item="i13")
            assert question(after=removed) == 0


def test_cursors_lead_through_all_pages_in_order(client: Any, corpus: Corpus) -> None:
    expected = [review.review_id for review in corpus.of_user("u0")]
    read, cursor = [], None
    while True:
        page = client.user("u0", limit=2, cursor=cursor)
        read += [review.review_id for review in page.reviews]
        if (cursor := page.next) is None:
            break
    assert read == expected


def test_health_version_metrics_and_about_return_typed_answers(client: Any, tiny: TinyBundle) -> None:
    assert client.alive().status == "alive"
    assert client.ready().bundle == client.version().bundle == tiny.bundle.manifest.bundle_id
    assert "ubert_requests_total" in client.metrics()
    assert client.about().scale.highest == 5.0


def test_users_and_items_are_found_by_prefix(client: Any) -> None:
    assert [user.id for user in client.users("u", limit=2).found] == ["u0", "u1"]
    assert [item.id for item in client.items("i2").found] == ["i2"]


def test_ready_raises_unavailable_error_with_the_reasons(
    connect: Connect, tiny: TinyBundle, lmdb_store: MaintenanceStore
) -> None:
    with (
        serving(settings_for(tiny.bundle), lmdb_store) as server,
        connect(str(server.base_url), IMPATIENT) as client,
        pytest.raises(UnavailableError) as raised,
    ):
        client.ready()
    assert [reason["check"] for reason in raised.value.reasons] == ["states"]


DRIP = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
DRIPPING_HEAD = b"HTTP/1.1 200 OK\r\nX-Filler: "
ALIVE = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\nConnection: close\r\n\r\n{"status":"alive"}'
BUSY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class ScriptedServer:
    """Answers each connection with the next of the given bytes, and closes it. ``requests`` counts them.

    None: it never answers. ``DRIP`` and ``DRIPPING_HEAD``: it then goes on byte by byte, without end.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = answers
        self.requests = 0

    def __enter__(self) -> "ScriptedServer":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopped = threading.Event()
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        for answer in self._answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                self.requests += 1
                if answer is None:
                    self._stopped.wait(10)
                elif answer in (DRIP, DRIPPING_HEAD):
                    self._drip(connection, answer)
                else:
                    connection.sendall(answer)

    def _drip(self, connection: socket.socket, beginning: bytes) -> None:
        try:
            connection.sendall(beginning)
            while not self._stopped.wait(0.02):
                connection.sendall(b" ")
        except OSError:
            return


def test_a_retry_waits_as_long_as_retry_after_says(connect: Connect) -> None:
    with ScriptedServer(BUSY, ALIVE) as server, connect(server.address, IMPATIENT) as client:
        started = time.monotonic()
        assert client.alive().status == "alive"
        assert time.monotonic() - started >= 1.0
    assert server.requests == 2


def test_a_call_over_a_broken_connection_is_retried(connect: Connect) -> None:
    with ScriptedServer(b"", b"", ALIVE) as server, connect(server.address, IMPATIENT) as client:
        assert client.alive().status == "alive"
    assert server.requests == 3


def test_a_call_that_is_not_repeatable_is_sent_once(connect: Connect) -> None:
    with (
        ScriptedServer(b"", ALIVE) as server,
        connect(server.address, IMPATIENT) as client,
        pytest.raises(ServiceUnreachableError, match=r"GET /readyz: \w+; is the service up at http://"),
    ):
        client.ready()
    assert server.requests == 1


@pytest.mark.parametrize(
    "answer", [None, DRIP, DRIPPING_HEAD], ids=["no answer", "a body byte by byte", "a head byte by byte"]
)
def test_the_deadline_ends_a_call_whose_answer_is_never_complete(connect: Connect, answer: bytes | None) -> None:
    policy = RetryPolicy(deadline_s=0.3)
    with (
        ScriptedServer(answer) as server,
        connect(server.address, policy) as client,
        pytest.raises(DeadlineExceededError),
    ):
        client.alive()


def test_an_answer_that_is_too_large_once_decompressed_is_refused(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "MAX_ANSWER_BYTES", 1_000_000)
    compressed = gzip.compress(b" " * 10_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(compressed)
    with (
        ScriptedServer(head + compressed) as server,
        connect(server.address, IMPATIENT) as client,
        pytest.raises(UnexpectedAnswerError, match="more than 1000000 bytes"),
    ):
        client.alive()


def test_the_error_of_an_unreachable_service_names_the_call_and_not_the_password(connect: Connect) -> None:
    with connect("http://name:password@127.0.0.1:1", IMPATIENT) as client, pytest.raises(ClientError) as raised:
        client.predict(pair("u0", "i0"))
    assert "POST /predict" in str(raised.value)
    assert "password" not in str(raised.value)
