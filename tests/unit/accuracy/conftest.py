"""Folds of a small table, and where models of them are trained."""

from pathlib import Path

import pytest

from support.accuracy_bench import LEXICON, ROWS, TABLE
from ubert_training.accuracy.folds import Fold, make_folds
from ubert_training.recipes.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(directory=tmp_path, lexicon=LEXICON, only_measured=True)


@pytest.fixture(scope="session")
def folds(tmp_path_factory: pytest.TempPathFactory) -> list[Fold]:
    return make_folds(TABLE, ROWS, "folds", 3, tmp_path_factory.mktemp("splits"))
