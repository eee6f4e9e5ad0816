"""Cached states of training: killed, taken over or filled by two at once, a bank has its own encoder's states only."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support.full_disk import full_disk
from support.random_models import VOCABULARY, randomized, review_encoder
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_training.states import state_bank
from ubert_training.states.state_bank import FILLING, StateBank, fill_bank, matching_bank
from ubert_training.states.tokens import TokenizedReviews

REVIEWS, LENGTH, A_BATCH = 12, 6, 4
BATCHES = REVIEWS // A_BATCH
ENCODERS = {"old": review_encoder(None), "new": randomized(review_encoder(None), seed=1)}
TOKENS = TokenizedReviews(
    ids=np.random.default_rng(0).integers(1, VOCABULARY, REVIEWS * LENGTH, dtype=np.int32),
    starts=np.arange(REVIEWS + 1, dtype=np.int64) * LENGTH,
)
Encode = Callable[[ReviewEncoder, TokenizedReviews, NDArray[np.int64]], list[NDArray[np.float32]]]


class Killed(BaseException):
    """What no handler of an error catches."""


class Encoding:
    """Counts the batches that are encoded, and ends the work before the one that is to be the last."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self.batches = 0
        self.killed_after = BATCHES

    def __call__(
        self, encoder: ReviewEncoder, tokens: TokenizedReviews, rows: NDArray[np.int64]
    ) -> list[NDArray[np.float32]]:
        if self.batches == self.killed_after:
            raise Killed
        self.batches += 1
        time.sleep(0.05)  # for another thread to come in between, if it may
        return self._encode(encoder, tokens, rows)

    def killed(self, name: str, directory: Path, *, after: int) -> None:
        self.batches, self.killed_after = 0, after
        with pytest.raises(Killed):
            filled(name, directory)
        self.batches, self.killed_after = 0, BATCHES


@pytest.fixture
def encoding(monkeypatch: pytest.MonkeyPatch) -> Encoding:
    monkeypatch.setattr(state_bank, "TOKENS_PER_BATCH", A_BATCH * LENGTH)
    monkeypatch.setattr(state_bank, "BATCHES_PER_FLUSH", 1)
    counted = Encoding(state_bank.encode_batch)
    monkeypatch.setattr(state_bank, "encode_batch", counted)
    return counted


def filled(name: str, directory: Path) -> StateBank:
    return fill_bank(directory, ENCODERS[name], TOKENS, name)


def found(name: str, directory: Path) -> StateBank | None:
    return matching_bank(directory, ENCODERS[name], TOKENS, name)


def assert_states_of(name: str, bank: StateBank | None) -> None:
    assert bank is not None
    encoded = np.concatenate(
        [
            states
            for rows in TOKENS.length_buckets(np.arange(REVIEWS), A_BATCH * LENGTH)
            for states in state_bank.encode_batch(ENCODERS[name], TOKENS, rows)
        ]
    )
    np.testing.assert_allclose(bank.states, encoded, atol=1e-5)


def bank_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != FILLING)


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_a_bank_whose_taking_over_was_killed_never_passes_for_the_former_one(
    encoding: Encoding, tmp_path: Path, batches: int
) -> None:
    filled("old", tmp_path)
    encoding.killed("new", tmp_path, after=batches)
    for name in ENCODERS:
        assert found(name, tmp_path) is None
    encoding.killed_after = 2 * BATCHES
    assert_states_of("old", filled("old", tmp_path))


def test_an_open_bank_stays_as_it_is_when_another_encoder_takes_the_directory_over(
    encoding: Encoding, tmp_path: Path
) -> None:
    opened = filled("old", tmp_path), found("old", tmp_path)
    encoding.killed_after = 2 * BATCHES
    new = filled("new", tmp_path)
    encoding.killed_after = 10 * BATCHES
    for bank in opened:
        assert_states_of("old", bank)
    assert_states_of("new", new)
    assert len(bank_files(tmp_path)) == 2, "the former bank takes room on the disk"


def test_a_killed_filling_continues_where_it_was(encoding: Encoding, tmp_path: Path) -> None:
    encoding.killed("old", tmp_path, after=2)
    assert found("old", tmp_path) is None
    bank = filled("old", tmp_path)
    assert encoding.batches == BATCHES - 2
    encoding.killed_after = 10 * BATCHES
    assert_states_of("old", bank)
    assert_states_of("old", found("old", tmp_path))


@pytest.mark.parametrize("room", [0, 1000])
def test_a_full_disk_is_an_error_that_names_the_file_and_not_the_death_of_the_process(
    encoding: Encoding, tmp_path: Path, room: int
) -> None:
    """Where nothing was taken before, the system ends whoever writes to the mapping (SIGBUS)."""
    with full_disk(room), pytest.raises(OSError, match=r"states-\w+\.f32 cannot be written .*; make room, then run"):
        filled("old", tmp_path)
    assert encoding.batches == 0
    encoding.killed_after = 10 * BATCHES
    assert_states_of("old", filled("old", tmp_path))


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_states_of_a_wrong_size_are_encoded_again(encoding: Encoding, tmp_path: Path, share: float) -> None:
    filled("old", tmp_path)
    (states,) = tmp_path.glob("*.f32")
    os.truncate(states, int(share * states.stat().st_size))
    assert found("old", tmp_path) is None
    encoding.killed_after = 10 * BATCHES
    assert_states_of("old", filled("old", tmp_path))


def test_two_that_fill_one_directory_at_once_each_get_their_own_states_and_none_is_encoded_twice(
    encoding: Encoding, tmp_path: Path
) -> None:
    encoding.killed_after = 10 * BATCHES
    banks: dict[int, StateBank] = {}
    names = ["old", "old", "new", "new"]

    def fill(number: int) -> None:
        banks[number] = filled(names[number], tmp_path)

    for pair in ([0, 1], [2, 3]):
        threads = [threading.Thread(target=fill, args=[number]) for number in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert encoding.batches == 2 * BATCHES
    for number, name in enumerate(names):
        assert_states_of(name, banks[number])


def test_what_is_not_ours_stays(encoding: Encoding, tmp_path: Path) -> None:
    (tmp_path / "states-of-my-own.f32").write_text("{}")
    filled("old", tmp_path)
    assert bank_files(tmp_path)[-1] == "states-of-my-own.f32"
    assert len(bank_files(tmp_path)) == 3


def test_reviews_without_any_text_have_a_bank_without_rows(tmp_path: Path) -> None:
    tokens = TokenizedReviews(ids=np.zeros(0, dtype=np.int32), starts=np.zeros(3, dtype=np.int64))
    for _ in range(2):
        assert not len(fill_bank(tmp_path, ENCODERS["old"], tokens, "old").review(0))
    assert matching_bank(tmp_path, ENCODERS["old"], tokens, "old") is not None
