"""The folds: every review tested once, saved for other commands."""

from pathlib import Path

import numpy as np

from support.accuracy_bench import ROWS, TABLE
from ubert_training.accuracy.folds import Fold, make_folds


def test_folds_test_every_review_once_and_count_training_reviews_only(folds: list[Fold]) -> None:
    tested = np.concatenate([fold.split.test for fold in folds])
    assert sorted(tested.tolist()) == ROWS.tolist()
    fold = folds[0]
    row = fold.split.test[0]
    expected = sum(TABLE.user[other] == TABLE.user[row] for other in fold.split.train.tolist())
    assert fold.user_counts[0] == expected


def test_another_number_of_folds_leaves_no_fold_of_the_former_division(tmp_path: Path) -> None:
    make_folds(TABLE, ROWS, "time", 1, tmp_path)
    for count in (4, 2, 3):
        make_folds(TABLE, ROWS, "folds", count, tmp_path)
        expected = {"time-0.parquet", *(f"folds-{number}.parquet" for number in range(count))}
        assert {path.name for path in tmp_path.iterdir()} == expected


def test_a_split_by_time_is_one_fold_whose_test_part_is_the_newest(tmp_path: Path) -> None:
    (fold,) = make_folds(TABLE, ROWS, "time", 5, tmp_path)
    train, validation, test = (TABLE.timestamp[getattr(fold.split, part)] for part in ("train", "validation", "test"))
    assert train.max() <= validation.min() < validation.max() <= test.min()
    assert (tmp_path / "time-0.parquet").is_file()


def test_another_seed_of_the_folds_deals_the_same_pairs_out_anew(tmp_path: Path, folds: list[Fold]) -> None:
    anew, again = (make_folds(TABLE, ROWS, "folds", 3, tmp_path / name, seed=1) for name in ("anew", "again"))
    assert sorted(np.concatenate([fold.split.test for fold in anew])) == sorted(ROWS)
    assert [fold.digests for fold in anew] == [fold.digests for fold in again]
    assert all(one.digests["test"] != other.digests["test"] for one, other in zip(folds, anew, strict=True))
