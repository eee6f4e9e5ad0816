"""What a step of pre-training costs."""

from pathlib import Path

import numpy as np
import pytest

from support.small_corpus import small_table
from ubert_model.config import preset
from ubert_training.loop import LoopOptions
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.pretraining.pretrain import PretrainOptions, pretrain
from ubert_training.splits import random_split
from ubert_training.tokens import TokenizedReviews


def test_a_step_does_not_reckon_the_lengths_of_the_whole_corpus_for_each_review(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else on a corpus of millions of reviews they take more time than the network."""
    reckoned: list[int] = []

    def lengths(tokens: TokenizedReviews) -> np.ndarray:
        reckoned.append(len(tokens))
        return np.diff(tokens.starts)

    monkeypatch.setattr(TokenizedReviews, "lengths", property(lengths))
    table = small_table(users=40)
    split = random_split(table, np.arange(len(table)), seed=0)
    lexicon = Lexicon(words=frozenset({"good", "terrible"}), source="the test")
    loop = LoopOptions(epochs=1, batch_size=16, learning_rate=1e-3)
    pretrain(table, split, preset("tiny"), lexicon, PretrainOptions(corpus="target", loop=loop), tmp_path / "out")
    steps = len(split.train) / loop.batch_size
    assert len(reckoned) < 2 * steps
