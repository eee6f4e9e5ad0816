"""The state bank: killed, replaced, damaged or filled twice at once, it holds only the states of its own encoder."""

import copy
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from support.full_disk import full_disk
from support.killed_writes import Killed
from support.random_models import VOCABULARY, randomized, review_encoder
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_training.states import state_bank
from ubert_training.states.state_bank import (
    FILLING,
    StateBank,
    encode_batch,
    encoder_digest,
    fill_bank,
    matching_bank,
)
from ubert_training.states.tokens import TokenizedReviews

REVIEWS, LENGTH, REVIEWS_PER_BATCH = 12, 6, 4
BATCHES = REVIEWS // REVIEWS_PER_BATCH
ENCODERS = {"old": review_encoder(None), "new": randomized(review_encoder(None), seed=1)}
TOKENS = TokenizedReviews(
    ids=np.random.default_rng(0).integers(1, VOCABULARY, REVIEWS * LENGTH, dtype=np.int32),
    starts=np.arange(REVIEWS + 1, dtype=np.int64) * LENGTH,
)


class CountingEncoder:
    """Stands in for ``encode_batch``: counts the batches of a fill, and can kill it before one of them."""

    def __init__(self) -> None:
        self.batches = 0
        self._killed_after: int | None = None

    def __call__(
        self, encoder: ReviewEncoder, tokens: TokenizedReviews, rows: NDArray[np.int64], *, bfloat16: bool
    ) -> list[NDArray[np.float32]]:
        if self.batches == self._killed_after:
            raise Killed
        self.batches += 1
        time.sleep(0.05)  # so that a concurrent fill, if it is not locked out, comes in between
        return encode_batch(encoder, tokens, rows, bfloat16=bfloat16)

    def killed_fill(self, name: str, directory: Path, *, after: int) -> None:
        """Fill a bank in a run that is killed after some batches; then count anew."""
        self.batches, self._killed_after = 0, after
        with pytest.raises(Killed):
            fill(name, directory)
        self.batches, self._killed_after = 0, None


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CountingEncoder:
    """Encodes three batches per bank, each flushed to the disk."""
    monkeypatch.setattr(state_bank, "TOKENS_PER_BATCH", REVIEWS_PER_BATCH * LENGTH)
    monkeypatch.setattr(state_bank, "BATCHES_PER_FLUSH", 1)
    counting = CountingEncoder()
    monkeypatch.setattr(state_bank, "encode_batch", counting)
    return counting


def fill(name: str, directory: Path) -> StateBank:
    return fill_bank(directory, ENCODERS[name], TOKENS, name)


def matching(name: str, directory: Path) -> StateBank | None:
    return matching_bank(directory, ENCODERS[name], TOKENS, name)


def assert_states_of(name: str, bank: StateBank | None) -> None:
    assert bank is not None
    encoded = np.concatenate(
        [
            states
            for rows in TOKENS.length_buckets(np.arange(REVIEWS), REVIEWS_PER_BATCH * LENGTH)
            for states in encode_batch(ENCODERS[name], TOKENS, rows)
        ]
    )
    np.testing.assert_allclose(bank.states, encoded, atol=1e-5)


def bank_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != FILLING)


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_a_bank_killed_while_replacing_another_matches_no_encoder(
    counter: CountingEncoder, tmp_path: Path, batches: int
) -> None:
    fill("old", tmp_path)
    counter.killed_fill("new", tmp_path, after=batches)
    for name in ENCODERS:
        assert matching(name, tmp_path) is None
    assert_states_of("old", fill("old", tmp_path))
    assert counter.batches == BATCHES


def test_a_bank_in_bfloat16_is_near_that_in_fp32(tmp_path: Path) -> None:
    exact = fill("old", tmp_path / "fp32").states
    rounded = fill_bank(tmp_path / "bf16", ENCODERS["old"], TOKENS, "old/bf16", bfloat16=True).states
    assert 0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()


def test_an_open_bank_can_be_read_after_another_encoder_has_replaced_it(
    counter: CountingEncoder, tmp_path: Path
) -> None:
    opened = fill("old", tmp_path), matching("old", tmp_path)
    new = fill("new", tmp_path)
    assert counter.batches == 2 * BATCHES
    for bank in opened:
        assert_states_of("old", bank)
    assert_states_of("new", new)
    assert len(bank_files(tmp_path)) == 2, "the files of the former bank are left on the disk"


def test_a_killed_fill_continues_after_its_last_batch(counter: CountingEncoder, tmp_path: Path) -> None:
    counter.killed_fill("old", tmp_path, after=2)
    assert matching("old", tmp_path) is None
    assert_states_of("old", fill("old", tmp_path))
    assert counter.batches == BATCHES - 2
    assert_states_of("old", matching("old", tmp_path))


@pytest.mark.parametrize("size", [0, 1000])
def test_a_full_disk_is_an_error_that_names_the_file(counter: CountingEncoder, tmp_path: Path, size: int) -> None:
    """If no room were allocated first, writing to the mapping would kill the process (SIGBUS)."""
    with full_disk(size), pytest.raises(OSError, match=r"states-\w+\.f32 cannot be written .*; make room, then run"):
        fill("old", tmp_path)
    assert counter.batches == 0
    assert_states_of("old", fill("old", tmp_path))


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_states_of_a_wrong_size_are_encoded_again(counter: CountingEncoder, tmp_path: Path, share: float) -> None:
    fill("old", tmp_path)
    (states,) = tmp_path.glob("*.f32")
    os.truncate(states, int(share * states.stat().st_size))
    assert matching("old", tmp_path) is None
    assert_states_of("old", fill("old", tmp_path))
    assert counter.batches == 2 * BATCHES


@pytest.mark.parametrize("progress", ["", "[]", '{"batches": null}'])
def test_states_of_damaged_progress_are_encoded_again(counter: CountingEncoder, tmp_path: Path, progress: str) -> None:
    fill("old", tmp_path)
    (path,) = tmp_path.glob("states-*.json")
    path.write_text(progress)
    assert matching("old", tmp_path) is None
    assert_states_of("old", fill("old", tmp_path))
    assert counter.batches == 2 * BATCHES


def test_concurrent_fills_of_one_directory_encode_each_bank_once(counter: CountingEncoder, tmp_path: Path) -> None:
    banks: dict[int, StateBank] = {}
    names = ["old", "old", "new", "new"]

    def fill_numbered(number: int) -> None:
        banks[number] = fill(names[number], tmp_path)

    for pair in ([0, 1], [2, 3]):
        threads = [threading.Thread(target=fill_numbered, args=[number]) for number in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counter.batches == 2 * BATCHES
    for number, name in enumerate(names):
        assert_states_of(name, banks[number])


def test_other_files_in_the_directory_are_kept(tmp_path: Path) -> None:
    (tmp_path / "states-of-my-own.f32").write_text("{}")
    fill("old", tmp_path)
    assert bank_files(tmp_path)[-1] == "states-of-my-own.f32"
    assert len(bank_files(tmp_path)) == 3


def test_reviews_without_any_text_have_a_bank_without_rows(tmp_path: Path) -> None:
    tokens = TokenizedReviews(ids=np.zeros(0, dtype=np.int32), starts=np.zeros(3, dtype=np.int64))
    for _ in range(2):
        assert not len(fill_bank(tmp_path, ENCODERS["old"], tokens, "old").review(0))
    assert matching_bank(tmp_path, ENCODERS["old"], tokens, "old") is not None


def test_the_encoder_digest_covers_everything_that_determines_a_state() -> None:
    """Law 6. Without the projection only the projection may change, as banks hold unprojected states."""
    encoder = review_encoder(16)

    def changed(name: str) -> ReviewEncoder:
        other = copy.deepcopy(encoder)
        with torch.no_grad():
            other.get_parameter(name).view(-1)[-1] += 1e-3
        return other

    other_projection = changed("projection.weight")
    pooled, other_config = copy.deepcopy(encoder), copy.deepcopy(encoder)
    pooled.tokens_a_row = 2
    other_config.bert.config.layer_norm_eps *= 2
    determined = [
        (encoder, "{}", 128),
        (encoder, "{ }", 128),
        (encoder, "{}", 64),
        (pooled, "{}", 128),
        (other_config, "{}", 128),
        (review_encoder(8), "{}", 128),
        *((changed(f"bert.{name}"), "{}", 128) for name, _ in encoder.bert.named_parameters()),
    ]
    projected = [encoder_digest(*each, projected=True) for each in (*determined, (other_projection, "{}", 128))]
    unprojected = [encoder_digest(*each, projected=False) for each in determined if each[0].dim == encoder.dim]
    assert len({*projected, *unprojected}) == len(projected) + len(unprojected)
    assert encoder_digest(copy.deepcopy(encoder), "{}", 128, projected=True) == projected[0]
    assert encoder_digest(other_projection, "{}", 128, projected=False) == unprojected[0]
