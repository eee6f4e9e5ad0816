"""`ubert precompute`: what it writes, how shares add up, and what is left when a step fails."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import redis
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from support.redis_server import RedisServer
from support.small_corpus import small_table
from support.store_contents import VERSION, numbered_reviews
from support.tiny_bundle import TinyBundle, states_of_text
from support.waiting import wait_until
from ubert_model.errors import ConfigError, StoreError
from ubert_model.ids import Identities, IdTable
from ubert_model.running.sharding import Shard
from ubert_model.states import FloatMatrix, StateStore, check_namespace, open_store
from ubert_training.cli import make_app
from ubert_training.reviews.table import ReviewTable
from ubert_training.states.precompute import (
    PrecomputeWork,
    find_work,
    precompute,
    rows_of_shard,
    rows_served,
    write_missing,
)
from ubert_training.states.review_encoders import BatchEncoder, OnnxEncoder, TorchEncoder, choose_encoder
from ubert_training.states.review_texts import write_texts
from ubert_training.states.state_estimate import redis_bytes
from ubert_training.states.token_batches import TokenBatch, token_batches

CODEC = "fp32"


@pytest.fixture(scope="module")
def table() -> ReviewTable:
    return small_table(users=40)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"lmdb:{tmp_path / 'states'}"


@pytest.fixture
def store(url: str) -> Iterator[StateStore]:
    with closing(open_store(url)) as opened:
        yield opened


def all_rows(table: ReviewTable) -> NDArray[np.int64]:
    return np.arange(len(table))


def stored(store: StateStore, tiny: TinyBundle, table: ReviewTable) -> list[FloatMatrix | None]:
    codec = tiny.bundle.codec(CODEC)
    payloads = store.states(codec.namespace.version, list(table.review_id))
    return [None if payload is None else codec.decode(payload) for payload in payloads]


def test_a_stored_state_is_the_models_own_whatever_it_was_batched_with(
    tiny: TinyBundle, table: ReviewTable, store: StateStore
) -> None:
    report = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
    assert (report.reviews, report.written, report.already_there) == (len(table), len(table), 0)
    for found, text in zip(stored(store, tiny, table), table.text, strict=True):
        expected = states_of_text(tiny, text)
        assert found is not None
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert check_namespace(store, tiny.bundle.manifest.namespace(CODEC)).problems == 0


def test_texts_are_kept_as_far_as_they_are_read_and_only_where_they_are_asked_for(
    tiny: TinyBundle, table: ReviewTable, store: StateStore
) -> None:
    report = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
    names = list(table.review_id)
    assert store.texts(report.version, names) == [None] * len(table)
    tokenizer = tiny.bundle.tokenizer()
    kept = write_texts(table, all_rows(table), tokenizer, store, report.version)
    texts = store.texts(report.version, names)
    assert kept == sum(text is not None for text in texts) > 0
    for text, whole in zip(texts, table.text, strict=True):
        assert (text is None) == (not whole.strip())
        assert whole.strip().startswith(text or "")
        assert tokenizer.encode([text or ""]) == tokenizer.encode([whole])
    assert check_namespace(store, tiny.bundle.manifest.namespace(CODEC)).problems == 0


def test_texts_are_read_by_the_tokenizer_together_and_not_one_by_one(
    tiny: TinyBundle, table: ReviewTable, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one they keep a single core busy: of keeping them that was nine tenths of the time."""
    version = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC).version
    tokenizer = tiny.bundle.tokenizer()
    asked: list[int] = []
    spans_of = tokenizer.character_spans_of

    def noted(texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        asked.append(len(texts))
        return spans_of(texts)

    monkeypatch.setattr(tokenizer, "character_spans_of", noted)
    write_texts(table, all_rows(table), tokenizer, store, version)
    assert asked == [len(table)]


def test_a_second_run_finds_nothing_to_write(tiny: TinyBundle, table: ReviewTable, store: StateStore) -> None:
    precompute(table, all_rows(table)[:50], tiny.bundle, store, codec=CODEC)
    report = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
    assert (report.already_there, report.written) == (50, len(table) - 50)
    again = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
    assert (again.already_there, again.written, again.tokens, again.bytes) == (len(table), 0, 0, 0)


def test_a_review_that_was_removed_stays_out_until_it_is_asked_for_and_one_that_is_lost_is_written_again(
    tiny: TinyBundle, table: ReviewTable, store: StateStore
) -> None:
    rows, tokenizer = all_rows(table), tiny.bundle.tokenizer()
    version = precompute(table, rows, tiny.bundle, store, codec=CODEC).version
    removed, lost, cut_short = ([row] for row in (3, 5, 8))
    store.delete(version, [table.entry(3, 0)])
    store.delete_states(version, [table.review_id[5]])
    store.delete(version, [table.entry(8, 0)])
    store.put_lines(version, [table.entry(8, 0)])

    work = find(table, tiny, store, Shard())
    assert (work.removed.tolist(), work.missing.tolist()) == (removed, lost + cut_short)
    report = precompute(table, rows, tiny.bundle, store, codec=CODEC)
    assert (report.reviews, report.removed, report.written) == (len(table) - 1, 1, 2)
    write_texts(table, rows, tokenizer, store, version)
    assert store.texts(version, [table.review_id[3]]) == [None]
    assert len(store.finished_shards(version)) == 1
    assert find(table, tiny, store, Shard(number=2, shards=3)).removed.tolist() in ([], removed)
    assert find_work(table, rows[:-1], tiny.bundle, store, tiny.bundle.codec(CODEC)).removed.tolist() == []

    restored = find_work(table, rows, tiny.bundle, store, tiny.bundle.codec(CODEC), restore=True)
    assert (restored.removed.tolist(), restored.missing.tolist()) == ([], removed)


def test_reviews_of_domains_that_pretraining_has_counted_stay_out(table: ReviewTable) -> None:
    domains = IdTable(table.domains)
    identities = Identities(IdTable(()), IdTable(["item-00"]), domains, {"item-00": "domain-0"}, "domain-0")
    served = rows_served(identities, table)
    assert served.tolist() == [row for row, domain in enumerate(table.domain) if domain == "domain-0"]


def test_reviews_of_a_domain_that_training_never_saw_are_the_targets(table: ReviewTable) -> None:
    identities = Identities(IdTable(()), IdTable(["x"]), IdTable(["music"]), {"x": "music"}, "music")
    assert rows_served(identities, table).tolist() == all_rows(table).tolist()


def test_the_shares_of_a_division_are_disjoint_and_complete(table: ReviewTable) -> None:
    rows = all_rows(table)[3:]
    shares = [rows_of_shard(Shard(number=number, shards=5), table, rows) for number in range(1, 6)]
    assert np.array_equal(np.sort(np.concatenate(shares)), rows)
    assert all(0.1 < len(share) / len(rows) < 0.3 for share in shares)


def test_a_review_keeps_its_share_when_the_table_shrinks(table: ReviewTable) -> None:
    fewer = table.subset(all_rows(table)[::3])
    for shard in (Shard(number=number, shards=3) for number in (1, 2, 3)):
        among_few, among_all = (
            {some.review_id[row] for row in rows_of_shard(shard, some, all_rows(some)).tolist()}
            for some in (fewer, table)
        )
        assert among_few <= among_all


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "a/b", "3", "1/2/3", "-1/2", ""])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="shard"):
        Shard.parse(text)


def test_two_shards_write_what_one_run_writes_and_the_store_tells_which_are_done(
    tiny: TinyBundle, table: ReviewTable, store: StateStore
) -> None:
    encoder = OnnxEncoder.of(tiny.bundle, 1)
    version = tiny.bundle.manifest.namespace(CODEC).version
    for number, done in ((2, [2]), (1, [1, 2])):
        work = find(table, tiny, store, Shard(number=number, shards=2))
        write_missing(table, work, tiny.bundle, store, tiny.bundle.codec(CODEC), encoder)
        assert [shard.number for shard in store.finished_shards(version)] == done
    assert not [states for states in stored(store, tiny, table) if states is None]
    shards = store.finished_shards(version)
    assert sum(shard.reviews for shard in shards) == len(table)
    assert len({shard.corpus for shard in shards}) == 1
    assert len(find(table, tiny, store, Shard()).missing) == 0


class WaitsToBeHeld:
    """An encoder that begins once the store says that the namespace is in use."""

    def __init__(self, encoder: BatchEncoder, store: StateStore, version: str) -> None:
        self._encoder, self._store, self._version = encoder, store, version

    def states(self, batch: TokenBatch) -> Sequence[FloatMatrix]:
        wait_until(lambda: self._store.holders(self._version), or_fail="nobody holds it")
        return self._encoder.states(batch)


def test_a_namespace_is_held_while_it_is_written(tiny: TinyBundle, table: ReviewTable, store: StateStore) -> None:
    codec = tiny.bundle.codec(CODEC)
    encoder = WaitsToBeHeld(OnnxEncoder.of(tiny.bundle, 1), store, codec.namespace.version)
    write_missing(table, find(table, tiny, store, Shard()), tiny.bundle, store, codec, encoder)
    assert store.holders(codec.namespace.version) == []


class FailsAt:
    """An encoder that breaks at one batch."""

    def __init__(self, encoder: BatchEncoder, batch: int) -> None:
        self._encoder, self._left = encoder, batch

    def states(self, batch: TokenBatch) -> Sequence[FloatMatrix]:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("the encoder broke")
        return self._encoder.states(batch)


@pytest.mark.parametrize("batch", [0, 2])
def test_a_failing_encoder_is_told_and_what_was_written_is_whole(
    tiny: TinyBundle, table: ReviewTable, store: StateStore, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ubert_training.states.token_batches.TOKENS_PER_BATCH", 256)
    work = find(table, tiny, store, Shard())
    failing = FailsAt(OnnxEncoder.of(tiny.bundle, 1), batch)
    with pytest.raises(RuntimeError, match="the encoder broke"):
        write_missing(table, work, tiny.bundle, store, tiny.bundle.codec(CODEC), failing)
    namespace = tiny.bundle.manifest.namespace(CODEC)
    assert store.finished_shards(namespace.version) == []
    check = check_namespace(store, namespace)
    assert check.problems == 0
    assert bool(check.reviews) == bool(batch)
    assert precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC).already_there == check.reviews


def test_a_store_that_dies_midway_is_told_and_the_rest_is_written_once_it_is_back(
    tiny: TinyBundle, table: ReviewTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ubert_training.states.token_batches.TOKENS_PER_BATCH", 256)
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        with closing(open_store(server.url)) as store:
            work = find(table, tiny, store, Shard())
            killer = KillsServer(OnnxEncoder.of(tiny.bundle, 1), server)
            with pytest.raises(StoreError, match="cannot be reached"):
                write_missing(table, work, tiny.bundle, store, tiny.bundle.codec(CODEC), killer)
        server.start()
        with closing(open_store(server.url)) as store:
            report = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
            assert report.already_there > 0
            assert report.written > 0
            assert check_namespace(store, tiny.bundle.manifest.namespace(CODEC)).problems == 0


class KillsServer:
    """An encoder at whose eighth batch the store's server dies."""

    def __init__(self, encoder: BatchEncoder, server: RedisServer) -> None:
        self._encoder, self._server, self._batches = encoder, server, 0

    def states(self, batch: TokenBatch) -> Sequence[FloatMatrix]:
        self._batches += 1
        if self._batches == 8:
            self._server.kill()
        return self._encoder.states(batch)


def test_a_dry_run_says_exactly_how_much_and_writes_nothing(
    tiny: TinyBundle, table: ReviewTable, url: str, tmp_path
) -> None:
    table.save(tmp_path / "reviews.parquet")
    flags = [
        "--reviews",
        str(tmp_path),
        "--bundle",
        str(tiny.bundle.path),
        "--store",
        url,
        "--codec",
        CODEC,
        "--threads",
        "1",
    ]
    dry = CliRunner().invoke(make_app(["precompute"]), ["precompute", *flags, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    with closing(open_store(url)) as store:
        assert store.namespaces() == []
        estimate = find(table, tiny, store, Shard()).estimate
        assert str(estimate) in " ".join(dry.stdout.split())
        report = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
    assert (estimate.reviews, estimate.tokens, estimate.state_bytes) == (len(table), report.tokens, report.bytes)


def test_the_memory_that_redis_takes_is_the_estimated_within_a_sixth() -> None:
    with RedisServer() as server, closing(open_store(server.url)) as store, redis.Redis.from_url(server.url) as client:
        before = client.info("memory")["used_memory"]
        store.put(VERSION, numbered_reviews(5_000, size=1_500))
        used = client.info("memory")["used_memory"] - before
    assert redis_bytes(5_000, 5_000 * 1_500) == pytest.approx(used, rel=1 / 6)


def test_torch_and_onnx_runtime_encode_alike_and_bfloat16_nearly(tiny: TinyBundle, table: ReviewTable, store) -> None:
    assert isinstance(choose_encoder(tiny.bundle, "cpu", "fp32", 1), OnnxEncoder)
    exact = TorchEncoder(tiny.model.review_encoder, torch.device("cpu"), bfloat16=False)
    rough = TorchEncoder(tiny.model.review_encoder, torch.device("cpu"), bfloat16=True)
    work = find(table, tiny, store, Shard())
    batches = list(token_batches(table.text, work.missing, tiny.bundle.tokenizer()))
    for batch in batches:
        for onnx, torch_, half in zip(
            *(one.states(batch) for one in (OnnxEncoder.of(tiny.bundle, 1), exact, rough)), strict=True
        ):
            np.testing.assert_allclose(onnx, torch_, atol=1e-5)
            assert half.dtype == np.float32
            if len(half):
                assert 0 < np.abs(half - torch_).max() < 0.05 * np.abs(torch_).max()


def find(table: ReviewTable, tiny: TinyBundle, store: StateStore, shard: Shard) -> PrecomputeWork:
    return find_work(table, all_rows(table), tiny.bundle, store, tiny.bundle.codec(CODEC), shard=shard)
