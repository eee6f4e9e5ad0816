"""Splits: disjoint, complete, never dividing a pair, reproducible by seed, and tied to their table."""

import functools
import operator
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ubert_model.errors import ConfigError, InputError
from ubert_training.reviews.table import Review, ReviewTable
from ubert_training.splits import METADATA_KEY, PARTS, Split, k_fold_splits, random_split, time_split

Splitter = Callable[[ReviewTable, list[int], int], list[Split]]

SPLITTERS: dict[str, Splitter] = {
    "random": lambda table, rows, seed: [random_split(table, rows, seed)],
    "folds": lambda table, rows, seed: k_fold_splits(table, rows, 3, seed),
    "time": lambda table, rows, seed: [time_split(table, rows)],
}


def table_of(pairs: list[tuple[int, int]], *, day: int = 1) -> ReviewTable:
    return ReviewTable.of(
        Review(
            user=f"u{user}", item=f"i{item}", rating=1 + number % 5, text=f"text {number}", domain="d",
            timestamp=1 + (number * 7919) % 1000 // day,
        )
        for number, (user, item) in enumerate(pairs)
    )  # fmt: skip


many_pairs = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=8, max_size=60
).filter(lambda pairs: len(set(pairs)) >= 6)  # fmt: skip


@pytest.mark.parametrize("kind", SPLITTERS)
@given(pairs=many_pairs, seed=st.integers(0, 2**40), keep=st.integers(0, 1))
def test_parts_are_disjoint_complete_and_never_divide_a_pair(
    kind: str, pairs: list[tuple[int, int]], seed: int, keep: int
) -> None:
    table = table_of(pairs)
    rows = list(range(keep, len(table)))
    for split in SPLITTERS[kind](table, rows, seed):
        parts = [getattr(split, part).tolist() for part in PARTS]
        assert sorted(functools.reduce(operator.iadd, parts, [])) == rows
        pairs_of_parts = [{(table.user[row], table.item[row]) for row in part} for part in parts]
        assert sum(map(len, pairs_of_parts)) == len(set.union(*pairs_of_parts))
        assert all(parts)


@given(pairs=many_pairs, seed=st.integers(0, 2**40), k=st.integers(2, 4))
def test_the_test_parts_of_the_folds_hold_every_row_once(pairs: list[tuple[int, int]], seed: int, k: int) -> None:
    table = table_of(pairs)
    folds = k_fold_splits(table, range(len(table)), k, seed)
    tested = np.sort(np.concatenate([split.test for split in folds]))
    assert tested.tolist() == list(range(len(table)))
    assert [(split.fold, split.folds) for split in folds] == [(fold, k) for fold in range(k)]


def test_the_validation_parts_of_two_folds_share_no_more_reviews_than_by_chance() -> None:
    table = table_of(SINGLE_PAIRS)
    parts = [set(split.validation.tolist()) for split in k_fold_splits(table, range(len(table)), 5, seed=0)]
    shared = [len(one & other) for one, other in combinations(parts, 2)]
    by_chance = len(parts[0]) * (3 / 4) * (1 / 8)  # so many are outside the other's test part, and drawn from there
    assert sum(shared) / len(shared) == pytest.approx(by_chance, rel=0.3)


@given(pairs=many_pairs, seed=st.integers(0, 2**40), day=st.sampled_from([1, 100]))
def test_each_part_of_a_time_split_begins_after_the_part_before_it(
    pairs: list[tuple[int, int]], seed: int, day: int
) -> None:
    """A pair counts at the time of its last review."""
    table = table_of(pairs, day=day)
    last_review = {
        (user, item): when for user, item, when in zip(table.user, table.item, table.timestamp.tolist(), strict=True)
    }
    assume(len(set(last_review.values())) >= len(PARTS))
    split = time_split(table, np.random.default_rng(seed).permutation(len(table)))
    validation_times, test_times = (
        [last_review[table.user[row], table.item[row]] for row in part.tolist()]
        for part in (split.validation, split.test)
    )
    assert table.timestamp[split.train].max() < min(validation_times)
    assert max(validation_times) < min(test_times)


def table_of_days(*counts: int) -> ReviewTable:
    """``counts`` reviews on each day, each of its own pair."""
    days = [day for day, count in enumerate(counts, start=1) for _ in range(count)]
    return ReviewTable.of(
        Review(user=f"u{number}", item="i", rating=3, text="", domain="d", timestamp=day * 86_400)
        for number, day in enumerate(days)
    )


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [((70, 14, 8, 8), [84, 8, 8]), ((70, 10, 5, 5, 5, 5), [80, 10, 10]), ((1, 98, 1), [1, 98, 1])],
)
def test_a_time_split_divides_no_day_and_gives_the_nearest_possible_shares(
    counts: tuple[int, ...], sizes: list[int]
) -> None:
    assert part_sizes(time_split(table_of_days(*counts), range(100))) == sizes


def part_sizes(split: Split) -> list[int]:
    return [len(getattr(split, part)) for part in PARTS]


@pytest.mark.parametrize("counts", [(100,), (50, 50)])
def test_a_time_split_of_fewer_than_three_days_is_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=rf"of {len(counts)} different times.*needs 3: split them at random"):
        time_split(table_of_days(*counts), range(100))


SINGLE_PAIRS = [(number // 40, number % 40) for number in range(1000)]


def test_parts_have_the_requested_shares_of_the_reviews() -> None:
    table = table_of(SINGLE_PAIRS)
    for split in (random_split(table, range(1000), 3), time_split(table, range(1000))):
        assert part_sizes(split) == [800, 100, 100]
    for fold in k_fold_splits(table, range(1000), 5, 3):
        assert part_sizes(fold) == [700, 100, 200]


@pytest.mark.parametrize("seed", range(5))
def test_folds_have_equally_many_reviews_even_if_one_pair_has_many(seed: int) -> None:
    table = table_of([(0, 0)] * 8 + [(1, item) for item in range(12)])
    assert [len(split.test) for split in k_fold_splits(table, range(20), 2, seed)] == [10, 10]


@pytest.mark.parametrize("kind", ["random", "folds"])
def test_a_split_depends_on_the_seed_and_not_on_the_order_of_the_rows(kind: str) -> None:
    table, rows = table_of(SINGLE_PAIRS), list(range(1000))
    first, again, other = (
        SPLITTERS[kind](table, order, seed)[0].test.tolist() for order, seed in ((rows, 3), (rows[::-1], 3), (rows, 4))
    )
    assert first == again
    assert len(set(first) & set(other)) < 0.5 * len(first)


def test_a_random_split_draws_evenly_over_users_and_times() -> None:
    table = table_of(SINGLE_PAIRS)
    split = random_split(table, range(1000), 0)
    per_user = Counter(table.user[row] for row in split.test.tolist())
    assert len(per_user) >= 24
    assert max(per_user.values()) < 12
    assert abs(table.timestamp[split.test].mean() - table.timestamp.mean()) < 40


def test_a_split_survives_saving_and_loading(tmp_path: Path) -> None:
    table = table_of(SINGLE_PAIRS)
    saved = k_fold_splits(table, range(100, 400), 4, 9)[2]
    saved.save(tmp_path / "split.parquet", table)
    loaded = Split.load(tmp_path / "split.parquet", table)
    for part in PARTS:
        assert getattr(loaded, part).tolist() == getattr(saved, part).tolist()
    assert (loaded.kind, loaded.seed, loaded.fold, loaded.folds) == ("fold", 9, 2, 4)


def test_a_split_is_refused_with_a_table_that_lacks_its_reviews_or_has_extra_ones(tmp_path: Path) -> None:
    table = table_of(SINGLE_PAIRS)
    random_split(table, range(500), 0).save(tmp_path / "split.parquet", table)
    with pytest.raises(InputError, match="1 of its 500 reviews are missing"):
        Split.load(tmp_path / "split.parquet", table.subset(np.arange(1, 1000)))
    with pytest.raises(InputError, match="extra reviews"):
        Split.load(tmp_path / "split.parquet", table_of([*SINGLE_PAIRS, (99, 99)]))


def test_a_file_that_is_not_a_split_is_refused(tmp_path: Path) -> None:
    table = table_of(SINGLE_PAIRS)
    table.save(tmp_path / "table.parquet")
    (tmp_path / "text.parquet").write_text("not Parquet")
    random_split(table, range(500), 0).save(tmp_path / "newer.parquet", table)
    stored = pq.read_table(tmp_path / "newer.parquet")
    newer = {key: value.replace(b'version": 1', b'version": 2') for key, value in stored.schema.metadata.items()}
    pq.write_table(stored.replace_schema_metadata(newer), tmp_path / "newer.parquet")
    pq.write_table(pa.table({"review_id": ["a"]}), tmp_path / "foreign.parquet")
    for name in ("table", "text", "foreign", "absent"):
        with pytest.raises(InputError, match=f"(?s){name}.*give the file that `ubert split` wrote"):
            Split.load(tmp_path / f"{name}.parquet", table)
    with pytest.raises(InputError, match=r"newer.*split again"):
        Split.load(tmp_path / "newer.parquet", table)


@pytest.mark.parametrize("damaged", [b"{", b"[]", b'{"format_version": 1}'])
def test_a_split_with_unreadable_metadata_is_refused(damaged: bytes, tmp_path: Path) -> None:
    table, path = table_of(SINGLE_PAIRS), tmp_path / "split.parquet"
    random_split(table, range(500), 0).save(path, table)
    pq.write_table(pq.read_table(path).replace_schema_metadata({METADATA_KEY: damaged}), path)
    with pytest.raises(InputError, match=r"split\.parquet has unreadable split metadata .*: split again"):
        Split.load(path, table)


def test_a_split_that_names_an_unknown_part_is_refused(tmp_path: Path) -> None:
    table, path = table_of(SINGLE_PAIRS), tmp_path / "split.parquet"
    random_split(table, range(500), 0).save(path, table)
    stored = pq.read_table(path)
    parts = stored["part"].to_pylist()
    parts[7:9] = ["dev", "trian"]
    pq.write_table(stored.set_column(1, stored.schema.field("part"), [parts]), path)
    with pytest.raises(InputError, match=r"names a part 'dev', none of train, validation, test: split again"):
        Split.load(path, table)


TWO_PAIRS = table_of([(0, 0), (0, 0), (0, 0), (1, 1)])


def test_too_few_pairs_for_the_parts_or_folds_are_refused() -> None:
    with pytest.raises(InputError, match=r"2 \(user, item\) pairs cannot fill 3 parts"):
        random_split(TWO_PAIRS, range(4), 0)
    for folds in (2, 5, 10**13):  # refused before anything is as large as the number of folds
        with pytest.raises(InputError, match=rf"2 \(user, item\) pairs cannot be divided into {folds} folds"):
            k_fold_splits(TWO_PAIRS, range(4), folds, 0)


@pytest.mark.parametrize("pairs", [[(0, 0), (1, 1), (2, 2)], [(0, 0)] * 9 + [(1, 1), (2, 2), (3, 3)]])
def test_folds_that_leave_a_single_pair_to_train_and_validate_on_are_refused(pairs: list[tuple[int, int]]) -> None:
    message = rf"{len(set(pairs))} \(user, item\) pairs cannot be divided into 2 folds, each of three parts"
    with pytest.raises(InputError, match=message):
        k_fold_splits(table_of(pairs), range(len(pairs)), 2, 0)


def test_three_pairs_fill_three_folds() -> None:
    folds = k_fold_splits(table_of([(0, 0), (1, 1), (2, 2)]), range(3), 3, 0)
    assert [part_sizes(split) for split in folds] == [[1, 1, 1]] * 3


def test_a_single_fold_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 folds leave nothing to train on"):
        k_fold_splits(TWO_PAIRS, range(4), 1, 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [([0, 0, 1], "one row is named twice"), ([4], "rows 4 to 4 do not fit"), ([-1], "rows -1 to -1 do not fit")],
)
def test_duplicate_rows_and_rows_outside_the_table_are_refused(rows: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        random_split(TWO_PAIRS, rows, 0)


def test_a_time_split_of_reviews_without_a_timestamp_is_refused() -> None:
    table = ReviewTable.of(
        Review(user=f"u{n}", item="i", rating=3, text="", domain="d", timestamp=n) for n in range(10)
    )
    with pytest.raises(InputError, match="1 reviews have no timestamp"):
        time_split(table, range(10))


def test_a_split_whose_parts_share_a_row_is_refused() -> None:
    with pytest.raises(InputError, match="disjoint"):
        Split(train=np.array([0, 1]), validation=np.array([1]), test=np.array([2]), kind="random", seed=0)
