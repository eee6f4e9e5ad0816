"""`ubert precompute`: what it writes, how shards add up, and what is left when a step fails."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import redis
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from support.redis_server import RedisServer
from support.small_corpus import small_table
from support.store_contents import VERSION, numbered_reviews
from support.tiny_bundle import TinyBundle, states_of_text
from support.waiting import wait_until
from ubert_model.config import RatingScale
from ubert_model.errors import ConfigError, InputError, StoreError
from ubert_model.ids import Identities, IdTable
from ubert_model.review import ReviewEntry, Side
from ubert_model.running.sharding import Shard
from ubert_model.states import FloatMatrix, MaintenanceStore, check_namespace, open_store
from ubert_model.states.records import unpack_line
from ubert_training.cli import make_app
from ubert_training.finetuning.reader_fit import surpluses_of
from ubert_training.reviews.table import ReviewTable, TableMetadata
from ubert_training.states.precompute import (
    PrecomputeWork,
    Written,
    find_work,
    precompute,
    rows_of_shard,
    rows_served,
    write_missing,
)
from ubert_training.states.review_encoders import BankEncoder, BatchEncoder, OnnxEncoder, TorchEncoder, choose_encoder
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
def store(url: str) -> Iterator[MaintenanceStore]:
    with closing(open_store(url)) as opened:
        yield opened


def all_rows(table: ReviewTable) -> NDArray[np.int64]:
    return np.arange(len(table))


def stored_states(store: MaintenanceStore, tiny: TinyBundle, table: ReviewTable) -> list[FloatMatrix | None]:
    codec = tiny.bundle.codec(CODEC)
    payloads = store.states(codec.namespace.version, list(table.review_id))
    return [None if payload is None else codec.decode(payload) for payload in payloads]


def test_stored_states_equal_those_of_each_text_encoded_alone(
    tiny: TinyBundle, table: ReviewTable, store: MaintenanceStore
) -> None:
    report = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
    assert (report.reviews, report.written.reviews, report.already_there) == (len(table), len(table), 0)
    for found, text in zip(stored_states(store, tiny, table), table.text, strict=True):
        expected = states_of_text(tiny, text)
        assert found is not None
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert check_namespace(store, tiny.bundle.manifest.namespace(CODEC)).problems == 0


def test_stored_reviews_have_the_surpluses_that_training_reads_in_them(
    tiny: TinyBundle, table: ReviewTable, store: MaintenanceStore
) -> None:
    precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
    surpluses = surpluses_of(tiny.bundle.text_reader, table, all_rows(table))
    expected = dict(zip(table.review_id, surpluses.tolist(), strict=True))
    version = tiny.bundle.manifest.namespace(CODEC).version
    lists = store.review_lists(version, users=sorted(set(table.user)), items=sorted(set(table.item)))
    for by_entity in lists:
        assert {review.review_id: review.surplus for reviews in by_entity for review in reviews} == expected


def test_texts_are_stored_only_on_request_and_as_far_as_the_encoder_reads_them(
    tiny: TinyBundle, table: ReviewTable, store: MaintenanceStore
) -> None:
    report = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
    names = list(table.review_id)
    assert store.texts(report.version, names) == [None] * len(table)
    tokenizer = tiny.bundle.tokenizer()
    written = write_texts(table, all_rows(table), tokenizer, store, report.version)
    texts = store.texts(report.version, names)
    assert written == sum(text is not None for text in texts) > 0
    for text, whole in zip(texts, table.text, strict=True):
        assert (text is None) == (not whole.strip())
        assert whole.strip().startswith(text or "")
        assert tokenizer.encode([text or ""]) == tokenizer.encode([whole])
    assert check_namespace(store, tiny.bundle.manifest.namespace(CODEC)).problems == 0


def test_texts_are_tokenized_together(
    tiny: TinyBundle, table: ReviewTable, store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, on a single core, tokenizing took nine tenths of the time of storing texts."""
    version = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC).version
    tokenizer = tiny.bundle.tokenizer()
    calls: list[int] = []
    spans_of = tokenizer.character_spans_of

    def counted(texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        calls.append(len(texts))
        return spans_of(texts)

    monkeypatch.setattr(tokenizer, "character_spans_of", counted)
    write_texts(table, all_rows(table), tokenizer, store, version)
    assert calls == [len(table)]


def test_a_run_writes_only_what_the_store_lacks(tiny: TinyBundle, table: ReviewTable, store: MaintenanceStore) -> None:
    precompute(table, all_rows(table)[:50], tiny.bundle, store, codec=CODEC)
    report = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
    assert (report.already_there, report.written.reviews) == (50, len(table) - 50)
    again = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
    assert (again.already_there, again.written) == (len(table), Written())


def test_removed_reviews_stay_out_unless_restored_and_lost_ones_are_written_again(
    tiny: TinyBundle, table: ReviewTable, store: MaintenanceStore
) -> None:
    rows, tokenizer = all_rows(table), tiny.bundle.tokenizer()
    version = precompute(table, rows, tiny.bundle, store, codec=CODEC).version
    removed, lost, cut_short, unlisted = ([row] for row in (3, 5, 8, 11))
    store.delete(version, [table.entry(3, 0)])
    store.delete_states(version, [table.review_id[5]])
    store.delete(version, [table.entry(8, 0)])
    store.put_lines(version, [table.entry(8, 0)])
    remove_from_lists(store, version, table.entry(11, 0))

    work = work_in(table, tiny, store)
    assert (work.removed.tolist(), work.missing.tolist()) == (removed, lost + cut_short + unlisted)
    report = precompute(table, rows, tiny.bundle, store, codec=CODEC)
    assert (report.reviews, report.removed, report.written.reviews) == (len(table) - 1, 1, 3)
    write_texts(table, rows, tokenizer, store, version)
    assert store.texts(version, [table.review_id[3]]) == [None]
    assert len(store.finished_shards(version)) == 1
    shards = [Shard(number=number, shards=3) for number in (1, 2, 3)]
    removed_of = [work_in(table, tiny, store, shard).removed.tolist() for shard in shards]
    assert removed_of == [removed if 3 in rows_of_shard(shard, table, rows) else [] for shard in shards]
    assert find_work(table, rows[:-1], tiny.bundle, store, tiny.bundle.codec(CODEC)).removed.tolist() == []

    restored = find_work(table, rows, tiny.bundle, store, tiny.bundle.codec(CODEC), restore=True)
    assert (restored.removed.tolist(), restored.missing.tolist()) == ([], removed)


def remove_from_lists(store: MaintenanceStore, version: str, entry: ReviewEntry) -> None:
    """Both lists lose the review, which keeps its state."""
    for side in Side:
        entity = side.entity(entry)
        lines = store.lines(version, side, entity).items()
        (name,) = [name for name, line in lines if unpack_line(line, side, entity).review_id == entry.review_id]
        store.remove_lines(version, side, entity, [name])


def test_reviews_of_domains_that_only_pretraining_used_are_not_served(table: ReviewTable) -> None:
    domains = IdTable(table.domains)
    identities = Identities(IdTable(()), IdTable(["item-00"]), domains, {"item-00": "domain-0"}, "domain-0")
    served = rows_served(identities, table)
    assert served.tolist() == [row for row, domain in enumerate(table.domain) if domain == "domain-0"]


def test_reviews_of_a_domain_that_the_bundle_does_not_know_are_served(table: ReviewTable) -> None:
    identities = Identities(IdTable(()), IdTable(["x"]), IdTable(["music"]), {"x": "music"}, "music")
    assert rows_served(identities, table).tolist() == all_rows(table).tolist()


def test_shards_are_disjoint_complete_and_of_similar_size(table: ReviewTable) -> None:
    rows = all_rows(table)[3:]
    shards = [rows_of_shard(Shard(number=number, shards=5), table, rows) for number in range(1, 6)]
    assert np.array_equal(np.sort(np.concatenate(shards)), rows)
    assert all(0.1 < len(shard) / len(rows) < 0.3 for shard in shards)


def test_a_review_stays_in_its_shard_when_the_table_shrinks(table: ReviewTable) -> None:
    fewer = table.subset(all_rows(table)[::3])
    for shard in (Shard(number=number, shards=3) for number in (1, 2, 3)):
        of_fewer, of_all = (
            {reviews.review_id[row] for row in rows_of_shard(shard, reviews, all_rows(reviews)).tolist()}
            for reviews in (fewer, table)
        )
        assert of_fewer <= of_all


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "a/b", "3", "1/2/3", "-1/2", ""])
def test_a_malformed_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="shard"):
        Shard.parse(text)


def test_two_shards_write_every_review_and_each_is_recorded_as_finished(
    tiny: TinyBundle, table: ReviewTable, store: MaintenanceStore
) -> None:
    encoder = OnnxEncoder.of(tiny.bundle, 1)
    version = tiny.bundle.manifest.namespace(CODEC).version
    for number, finished in ((2, [2]), (1, [1, 2])):
        work = work_in(table, tiny, store, Shard(number=number, shards=2))
        write_missing(table, work, tiny.bundle, store, tiny.bundle.codec(CODEC), encoder)
        assert [shard.number for shard in store.finished_shards(version)] == finished
    assert not [states for states in stored_states(store, tiny, table) if states is None]
    shards = store.finished_shards(version)
    assert sum(shard.reviews for shard in shards) == len(table)
    assert len({shard.corpus for shard in shards}) == 1
    assert len(work_in(table, tiny, store).missing) == 0


class EncoderThatWaitsForALease:
    """Encodes nothing until somebody holds a lease on the namespace."""

    def __init__(self, encoder: BatchEncoder, store: MaintenanceStore, version: str) -> None:
        self._encoder, self._store, self._version = encoder, store, version

    def states(self, batch: TokenBatch) -> list[FloatMatrix]:
        wait_until(lambda: self._store.holders(self._version), or_fail="nobody holds the namespace")
        return self._encoder.states(batch)


def test_a_namespace_is_held_while_it_is_written(tiny: TinyBundle, table: ReviewTable, store: MaintenanceStore) -> None:
    codec = tiny.bundle.codec(CODEC)
    encoder = EncoderThatWaitsForALease(OnnxEncoder.of(tiny.bundle, 1), store, codec.namespace.version)
    write_missing(table, work_in(table, tiny, store), tiny.bundle, store, codec, encoder)
    assert store.holders(codec.namespace.version) == []


class EncoderThatFails:
    """Raises instead of encoding batch ``batch``, counted from 0."""

    def __init__(self, encoder: BatchEncoder, batch: int) -> None:
        self._encoder, self._left = encoder, batch

    def states(self, batch: TokenBatch) -> list[FloatMatrix]:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("the encoder failed")
        return self._encoder.states(batch)


@pytest.mark.parametrize("batch", [0, 2])
def test_an_error_of_the_encoder_is_raised_and_the_batches_before_it_are_complete(
    tiny: TinyBundle, table: ReviewTable, store: MaintenanceStore, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ubert_training.states.token_batches.TOKENS_PER_BATCH", 256)
    work = work_in(table, tiny, store)
    failing = EncoderThatFails(OnnxEncoder.of(tiny.bundle, 1), batch)
    with pytest.raises(RuntimeError, match="the encoder failed"):
        write_missing(table, work, tiny.bundle, store, tiny.bundle.codec(CODEC), failing)
    namespace = tiny.bundle.manifest.namespace(CODEC)
    assert store.finished_shards(namespace.version) == []
    check = check_namespace(store, namespace)
    assert check.problems == 0
    assert bool(check.reviews) == bool(batch)
    assert precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC).already_there == check.reviews


class EncoderThatKillsTheServer:
    """Kills the store's server before it encodes its eighth batch."""

    def __init__(self, encoder: BatchEncoder, server: RedisServer) -> None:
        self._encoder, self._server, self._batches = encoder, server, 0

    def states(self, batch: TokenBatch) -> list[FloatMatrix]:
        self._batches += 1
        if self._batches == 8:
            self._server.kill()
        return self._encoder.states(batch)


def test_a_run_that_lost_its_store_raises_and_the_next_one_writes_the_rest(
    tiny: TinyBundle, table: ReviewTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ubert_training.states.token_batches.TOKENS_PER_BATCH", 256)
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        with closing(open_store(server.url)) as store:
            work = work_in(table, tiny, store)
            killing = EncoderThatKillsTheServer(OnnxEncoder.of(tiny.bundle, 1), server)
            with pytest.raises(StoreError, match="cannot be reached"):
                write_missing(table, work, tiny.bundle, store, tiny.bundle.codec(CODEC), killing)
        server.start()
        with closing(open_store(server.url)) as store:
            report = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
            assert report.already_there > 0
            assert report.written.reviews > 0
            assert check_namespace(store, tiny.bundle.manifest.namespace(CODEC)).problems == 0


def test_reviews_on_another_rating_scale_are_refused_before_the_store_is_opened(
    tiny: TinyBundle, table: ReviewTable, url: str, tmp_path: Path
) -> None:
    replace(table, metadata=TableMetadata(scale=RatingScale(lowest=0, highest=10))).save(tmp_path / "reviews.parquet")
    paths = ["--reviews", str(tmp_path), "--bundle", str(tiny.bundle.path), "--store", url]
    result = CliRunner().invoke(make_app(["precompute"]), ["precompute", *paths])
    assert isinstance(result.exception, InputError)
    assert "the reviews have the rating scale 0:10, the bundle" in str(result.exception)
    assert "has 1:5: give reviews that were imported with --scale 1:5" in str(result.exception)
    assert not (tmp_path / "states").exists()


def test_a_dry_run_prints_the_exact_estimate_and_writes_nothing(
    tiny: TinyBundle, table: ReviewTable, url: str, tmp_path: Path
) -> None:
    table.save(tmp_path / "reviews.parquet")
    paths = ["--reviews", str(tmp_path), "--bundle", str(tiny.bundle.path), "--store", url]
    dry_run = ["precompute", *paths, "--codec", CODEC, "--threads", "1", "--dry-run"]
    result = CliRunner().invoke(make_app(["precompute"]), dry_run)
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "states").exists()
    with closing(open_store(url)) as store:
        assert store.namespaces() == []
        estimate = work_in(table, tiny, store).estimate
        assert str(estimate) in " ".join(result.stdout.split())
        report = precompute(table, all_rows(table), tiny.bundle, store, codec=CODEC)
    written = report.written
    assert (estimate.reviews, estimate.tokens, estimate.state_bytes) == (len(table), written.tokens, written.bytes)


def test_a_dry_run_counts_only_what_the_store_lacks(
    tiny: TinyBundle, table: ReviewTable, url: str, tmp_path: Path
) -> None:
    table.save(tmp_path / "reviews.parquet")
    with closing(open_store(url)) as store:
        precompute(table, all_rows(table)[:50], tiny.bundle, store, codec=CODEC)
        work = work_in(table, tiny, store)
    assert len(work.missing) == len(table) - 50
    arguments = ["--reviews", str(tmp_path), "--bundle", str(tiny.bundle.path), "--store", url, "--codec", CODEC]
    result = CliRunner().invoke(make_app(["precompute"]), ["precompute", *arguments, "--dry-run"])
    assert str(work.estimate) in " ".join(result.stdout.split())


def test_it_says_whether_cached_states_are_used_and_refuses_another_precision_for_them(
    tiny: TinyBundle, table: ReviewTable, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = OnnxEncoder.of(tiny.bundle, 1)
    monkeypatch.setattr(BankEncoder, "find", lambda folder, *_: encoder if folder.name == "fitting" else None)
    table.save(tmp_path / "reviews.parquet")
    arguments = ["--reviews", str(tmp_path), "--bundle", str(tiny.bundle.path), "--store", url, "--codec", CODEC]

    def run(folder: str, *flags: str) -> Result:
        states = ["--states", str(tmp_path / folder), *flags]
        return CliRunner().invoke(make_app(["precompute"]), ["precompute", *arguments, "--threads", "1", *states])

    refused = run("fitting", "--precision", "bf16")
    assert isinstance(refused.exception, ConfigError)
    assert "precision = 'bf16'" in str(refused.exception)
    assert not (tmp_path / "states").exists()
    for folder, said in (("fitting", "no review is encoded"), ("absent", "they are encoded")):
        result = run(folder)
        assert result.exit_code == 0, result.output
        assert said in " ".join(result.stdout.split())


def test_the_estimate_of_redis_memory_is_right_within_a_sixth() -> None:
    with RedisServer() as server, closing(open_store(server.url)) as store, redis.Redis.from_url(server.url) as client:
        before = client.info("memory")["used_memory"]
        store.put(VERSION, numbered_reviews(5_000, size=1_500))
        used = client.info("memory")["used_memory"] - before
    assert redis_bytes(5_000, 5_000 * 1_500) == pytest.approx(used, rel=1 / 6)


def test_torch_equals_onnx_runtime_in_fp32_and_is_close_in_bfloat16(
    tiny: TinyBundle, table: ReviewTable, store: MaintenanceStore
) -> None:
    assert isinstance(choose_encoder(tiny.bundle, "cpu", "fp32", 1), OnnxEncoder)
    onnx = OnnxEncoder.of(tiny.bundle, 1)
    fp32 = TorchEncoder(tiny.model.review_encoder, torch.device("cpu"), bfloat16=False)
    bfloat16 = TorchEncoder(tiny.model.review_encoder, torch.device("cpu"), bfloat16=True)
    work = work_in(table, tiny, store)
    batches = list(token_batches(table.text, work.missing, tiny.bundle.tokenizer()))
    for batch in batches:
        encoded = (encoder.states(batch) for encoder in (onnx, fp32, bfloat16))
        for by_onnx, by_torch, rounded in zip(*encoded, strict=True):
            np.testing.assert_allclose(by_onnx, by_torch, atol=1e-5)
            assert rounded.dtype == np.float32
            if len(rounded):
                assert 0 < np.abs(rounded - by_torch).max() < 0.05 * np.abs(by_torch).max()


def work_in(
    table: ReviewTable, tiny: TinyBundle, store: MaintenanceStore, shard: Shard | None = None
) -> PrecomputeWork:
    return find_work(table, all_rows(table), tiny.bundle, store, tiny.bundle.codec(CODEC), shard=shard)
