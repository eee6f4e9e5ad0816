"""`ubert bench accuracy`: cells computed once, fair differences, and a report that says what came out."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import ubert_model
import ubert_training
from support.small_corpus import small_table
from ubert_model.config import RatingScale
from ubert_model.errors import BaselineError, ConfigError, UbertError
from ubert_training.accuracy import bench
from ubert_training.accuracy.bench import compute_cells, ordered_cells
from ubert_training.accuracy.cells import CELL, CLAIMS, Cell, CellRatings, CellStore, Contender
from ubert_training.accuracy.distortions import ONE_WORD, Distortion, distorted
from ubert_training.accuracy.folds import Fold, make_folds
from ubert_training.accuracy.provenance import code_digest
from ubert_training.accuracy.report import markdown, write_report
from ubert_training.accuracy.summary import AccuracyReport, PlantedTruth, summarise
from ubert_training.accuracy.variants import (
    NO_TEXT,
    REST,
    SHUFFLED,
    SLOW,
    UBERT,
    VARIANTS,
    MeasuredBaseline,
    MeasuredVariant,
    choose_contenders,
)
from ubert_training.baselines.surprise_models import surprise_baselines
from ubert_training.cli import make_app
from ubert_training.commands.bench_accuracy import read_recipe
from ubert_training.evaluation.metrics import HISTORY_SLICES
from ubert_training.pretraining.corpus_rows import target_rows
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.recipes.recipe import READ_BY_PRETRAINING, Recipe
from ubert_training.recipes.workspace import Job, Workspace
from ubert_training.reviews.table import ReviewTable, TableMetadata

TABLE = small_table(users=40)
ROWS = np.arange(len(TABLE))
MEAN, BIAS = surprise_baselines()[:2]
MEASURED_MEAN = MeasuredBaseline(baseline=MEAN, round=0)
VARIANT = {variant.name: variant for variant in VARIANTS}


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> list[Fold]:
    return make_folds(TABLE, ROWS, "folds", 3, tmp_path_factory.mktemp("splits"))


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A contender whose squared errors are the mean baseline's, moved by a constant and by so much a seed."""

    name: str
    above: float = 0.0
    a_seed: float = 0.0
    round: int = 0
    seeded: bool = True
    fails: bool = False
    rewritten: bool = False
    covers: float = 1.0

    def inputs(self, fold: Fold, seed: int) -> Mapping[str, Any]:
        return {"planted": self.name}

    def rate(self, fold: Fold, seed: int) -> CellRatings:
        if self.fails:
            raise BaselineError("the library is missing")
        squared = np.square(fold.truth - float(TABLE.rating[fold.split.train].mean(dtype=np.float64)))
        wiggle = np.random.default_rng([seed, fold.number]).normal(0, 0.01, len(squared))
        return CellRatings(
            squared_errors=squared + self.above + seed * self.a_seed + wiggle,
            covered=np.arange(len(squared)) < self.covers * len(squared),
            bias_squared_errors=squared + 1.0,
            code=f"code {seed}" if self.rewritten else "code",
        )


def computed(tmp_path: Path, folds: list[Fold], *contenders: Contender) -> tuple[list[Cell], CellStore]:
    store = CellStore(tmp_path / "cells")
    cells = ordered_cells(folds, [0, 1], [MEASURED_MEAN, *contenders])
    compute_cells(cells, store, until=float("inf"), began=lambda _: None, ended=lambda _: None)
    return cells, store


def report_of(tmp_path: Path, folds: list[Fold], *contenders: Contender) -> AccuracyReport:
    return summarise(*computed(tmp_path, folds, *contenders), "folds", None)


@pytest.mark.parametrize(("error", "said"), [(0.0, "+0.00%"), (0.5, "+inf%")])
def test_a_best_baseline_without_any_error_is_reported_like_others(
    error: float, said: str, tmp_path: Path, folds: list[Fold]
) -> None:
    """As where all ratings are the same."""
    store, cells = CellStore(tmp_path / "cells"), ordered_cells(folds, [0], [Planted(name=UBERT), MEASURED_MEAN])
    for cell in cells:
        errors = np.full(len(cell.fold.truth), error if cell.contender.name == UBERT else 0.0)
        ratings = CellRatings(squared_errors=errors, covered=errors < 1, bias_squared_errors=errors)
        store.save(cell, ratings, seconds=0)
    report = summarise(cells, store, "folds", None)
    assert f"its MSE differs by {said}" in markdown(report)
    path, *_ = write_report(report, tmp_path)
    assert "Infinity" not in path.read_text(encoding="utf-8")


def test_every_review_is_tested_once_and_histories_leave_the_test_part_out(folds: list[Fold]) -> None:
    tested = np.concatenate([fold.split.test for fold in folds])
    assert sorted(tested.tolist()) == ROWS.tolist()
    fold = folds[0]
    row = fold.split.test[0]
    expected = sum(TABLE.user[other] == TABLE.user[row] for other in fold.split.train.tolist())
    assert fold.user_counts[0] == expected


def test_cells_that_the_first_paragraph_needs_come_first_and_fold_by_fold(folds: list[Fold]) -> None:
    contenders: list[Contender] = [
        Planted(name="late", round=2),
        Planted(name=UBERT),
        Planted(name="steady", seeded=False),
    ]
    cells = ordered_cells(folds[:2], [0, 1], contenders)
    assert [(cell.contender.name, cell.seed, cell.fold.number) for cell in cells] == [
        (UBERT, 0, 0),
        ("steady", 0, 0),
        (UBERT, 0, 1),
        ("steady", 0, 1),
        (UBERT, 1, 0),
        (UBERT, 1, 1),
        *[("late", seed, fold) for seed in (0, 1) for fold in (0, 1)],
    ]


def test_ablations_and_slow_baselines_get_fewer_seeds_where_that_is_asked(folds: list[Fold]) -> None:
    contenders: list[Contender] = [
        Planted(name=UBERT),
        Planted(name="slow", round=SLOW),
        Planted(name="rest", round=REST),
    ]
    cells = ordered_cells(folds[:1], [3, 4, 5], contenders, ablation_seeds=2)
    assert [(cell.contender.name, cell.seed) for cell in cells] == [
        *[(UBERT, seed) for seed in (3, 4, 5)],
        *[(name, seed) for name in ("slow", "rest") for seed in (3, 4)],
    ]


def test_a_model_of_fewer_seeds_is_compared_with_u_bert_of_the_same_seeds(tmp_path: Path, folds: list[Fold]) -> None:
    uneven, ablation = Planted(name=UBERT, a_seed=0.1), Planted(name="ablation", round=REST)
    store = CellStore(tmp_path)
    cells = ordered_cells(folds, [0, 1], [MEASURED_MEAN, uneven, ablation], ablation_seeds=1)
    compute_cells(cells, store, until=float("inf"), began=lambda _: None, ended=lambda _: None)
    differences = {model.name: model.difference for model in summarise(cells, store, "folds", None).models}
    assert differences["ablation"] is not None
    assert differences["ablation"].value == pytest.approx(0.0, abs=0.003)
    assert differences[MEAN.name] is not None
    assert differences[MEAN.name].value == pytest.approx(0.05, abs=0.003)


def test_a_finished_cell_is_never_computed_again(tmp_path: Path, folds: list[Fold]) -> None:
    cells, store = computed(tmp_path, folds, Planted(name=UBERT))
    begun: list[Cell] = []
    compute_cells(cells, CellStore(store.directory), until=float("inf"), began=begun.append, ended=lambda _: None)
    assert not begun
    other = replace(cells[0], seed=7, contender=Planted(name=UBERT))
    compute_cells([*cells, other], store, until=float("inf"), began=begun.append, ended=lambda _: None)
    assert begun == [other]


def test_a_cell_killed_while_it_was_written_is_computed_again(tmp_path: Path, folds: list[Fold]) -> None:
    cells, store = computed(tmp_path, folds, Planted(name=UBERT))
    (store.directory / cells[1].fingerprint / CELL).unlink()  # written last
    begun: list[Cell] = []
    compute_cells(cells, store, until=float("inf"), began=begun.append, ended=lambda _: None)
    assert begun == [cells[1]]


@pytest.mark.parametrize("computed_there", [True, False])
def test_what_another_process_is_busy_with_is_passed_over_until_it_is_done_or_gives_up(
    tmp_path: Path, folds: list[Fold], monkeypatch: pytest.MonkeyPatch, computed_there: bool
) -> None:
    monkeypatch.setattr(bench, "POLL_SECONDS", 0.0)
    store, there = CellStore(tmp_path), CellStore(tmp_path)
    cells = ordered_cells(folds, [0], [Planted(name=UBERT)])
    busy, *free = cells
    begun: list[Cell] = []
    with ExitStack() as other:
        assert other.enter_context(there.claim(busy.fingerprint))

        def ended(cell: Cell) -> None:
            if cell is free[-1]:
                if computed_there:
                    there.save(busy, busy.contender.rate(busy.fold, busy.seed), seconds=0.0)
                other.close()

        compute_cells(cells, store, until=float("inf"), began=begun.append, ended=ended)
    assert begun == (free if computed_there else [*free, busy])


def test_no_cell_begins_after_the_time_limit_and_the_report_counts_what_is_missing(
    tmp_path: Path, folds: list[Fold]
) -> None:
    store = CellStore(tmp_path)
    cells = ordered_cells(folds, [0], [Planted(name=UBERT)])
    compute_cells(cells, store, until=0.0, began=lambda _: pytest.fail("begun"), ended=lambda _: None)
    report = summarise(cells, store, "folds", None)
    (path, *_) = write_report(report, tmp_path)
    json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (report.missing, report.planned) == (3, 3)
    assert "3 of 3 cells are missing" in markdown(report)


@pytest.mark.parametrize(
    ("above", "verdict"), [(-0.1, "U-BERT beats"), (0.0, "U-BERT cannot be told from"), (0.1, "U-BERT loses to")]
)
def test_the_first_paragraph_says_whether_u_bert_beats_the_best_baseline(
    tmp_path: Path, folds: list[Fold], above: float, verdict: str
) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT, above=above))
    assert report.best_baseline == "mean"
    assert report.difference is not None
    assert report.difference.value == pytest.approx(above, abs=0.003)
    assert verdict in markdown(report).split("\n")[0]


@pytest.mark.parametrize(
    ("above", "verdict"), [(0.1, "It does read"), (0.0, "it scores the same"), (-0.1, "it scores better")]
)
def test_the_first_paragraph_says_whether_shuffled_reviews_score_the_same(
    tmp_path: Path, folds: list[Fold], above: float, verdict: str
) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT), Planted(name=SHUFFLED, above=above))
    said = markdown(report).split("\n")[0]
    assert verdict in said
    assert report.shuffled is not None
    assert f"(its own MSE minus that: {report.shuffled.signed()})" in said


def test_u_bert_is_held_against_the_baseline_of_least_error_whatever_was_measured_first(
    tmp_path: Path, folds: list[Fold]
) -> None:
    def fixed(value: float) -> MeasuredBaseline:
        named = {"name": f"always {value:g}", "grid": ({"value": value},)}
        prepare = lambda _, __: lambda settings, _: lambda rows: np.full(len(rows), settings["value"])  # noqa: E731
        return MeasuredBaseline(baseline=replace(MEAN, prepare=prepare, **named), round=0)

    report = report_of(tmp_path, folds, fixed(1.0), fixed(5.0), Planted(name=UBERT, above=-0.1))
    assert report.best_baseline == MEAN.name
    ranked = [(model.name, model.mse) for model in report.models]
    assert ranked == sorted(ranked, key=lambda model: model[1])
    assert ranked[0][0] == UBERT
    assert report.difference is not None
    assert report.relative == pytest.approx(report.difference.value / dict(ranked)[MEAN.name])
    assert f"its MSE differs by {report.difference.value / dict(ranked)[MEAN.name]:+.2%}, " in markdown(report)


def test_a_slice_holds_the_errors_of_its_own_pairs_and_a_row_says_them(tmp_path: Path, folds: list[Fold]) -> None:
    planted = Planted(name=UBERT, above=-0.1, covers=0.5)
    cells, store = computed(tmp_path, folds, planted)
    report = summarise(cells, store, "folds", None)
    assert report.coverage == pytest.approx(0.5, abs=0.02)
    ubert, mean, covered, counts = [], [], [], {"user": [], "item": []}
    for fold in folds:
        of_seeds = [planted.rate(fold, seed) for seed in (0, 1)]
        ubert += [*np.mean([ratings.squared_errors for ratings in of_seeds], axis=0)]
        mean += [*MEASURED_MEAN.rate(fold, 0).squared_errors]
        covered += [*of_seeds[0].covered]
        for side, names in (("user", TABLE.user), ("item", TABLE.item)):
            known = [names[row] for row in fold.split.train.tolist()]
            counts[side] += [known.count(names[row]) for row in fold.split.test.tolist()]
    bounds = {name: (least, most) for name, least, most in HISTORY_SLICES}
    for entry in report.slices:
        least, most = bounds[entry.reviews]
        own = [n for n, count in enumerate(counts[entry.side]) if least <= count and (most is None or count <= most)]
        assert entry.pairs == len(own)
        of_ubert, of_mean = np.mean(np.array(ubert)[own]), np.mean(np.array(mean)[own])
        assert entry.ubert.value == pytest.approx(of_ubert)
        assert entry.baseline.value == pytest.approx(of_mean)
        assert entry.difference.value == pytest.approx(of_ubert - of_mean)
        assert entry.coverage == pytest.approx(np.mean(np.array(covered)[own]))
        row = f"| {entry.side}: {entry.reviews} | {len(own):,} | {of_ubert:.4f} | {of_mean:.4f} | "
        assert f"{row}{entry.difference.signed()} | {entry.coverage:.1%} |" in markdown(report)


def test_a_cell_is_another_one_wherever_its_ratings_come_from_something_else(tmp_path: Path, folds: list[Fold]) -> None:
    workspace = Workspace(directory=tmp_path, lexicon=Lexicon(words=frozenset({"good"}), source="the test"))
    other_words = replace(workspace, lexicon=Lexicon(words=frozenset({"bad"}), source="the test"))
    recipe = Recipe.of_preset("tiny", RatingScale())
    ubert = MeasuredVariant(variant=VARIANT[UBERT], recipe=recipe, workspace=workspace)
    moved = replace(folds[0], table=replace(TABLE, domain=["one"] * len(TABLE)))
    parted = replace(folds[0], split=replace(folds[0].split, train=folds[0].split.train[1:]))
    bias = MeasuredBaseline(baseline=BIAS, round=0)
    cells = [
        *(Cell(fold=fold, seed=0, contender=one) for fold in (*folds[:2], moved, parted) for one in (ubert, bias)),
        Cell(fold=folds[0], seed=1, contender=ubert),
        *(
            Cell(fold=folds[0], seed=0, contender=one)
            for one in (
                replace(ubert, variant=VARIANT[SHUFFLED]),
                replace(ubert, recipe=recipe.varied(learning_rate=1.0)),
                replace(ubert, workspace=other_words),
                replace(bias, baseline=replace(BIAS, version=lambda: "another")),
                replace(bias, baseline=replace(BIAS, grid=BIAS.grid[1:])),
            )
        ),
    ]
    assert len({cell.fingerprint for cell in cells}) == len(cells)
    plain = replace(ubert, variant=VARIANT["u-bert without pre-training"])
    for fewer in (bias, replace(plain, seeded=False)):
        assert replace(cells[0], contender=fewer).inputs["seed"] is None
    without = (replace(plain, workspace=place) for place in (workspace, other_words))
    assert len({replace(cells[0], contender=one).fingerprint for one in without}) == 1, "what reads no opinion words"


@pytest.mark.parametrize(
    ("corpus", "domains", "told"),
    [
        ("both", True, True),
        ("other-domains", True, True),
        ("target", True, False),
        (None, True, False),
        ("both", False, False),
    ],
)
def test_u_bert_is_compared_with_baselines_that_were_told_as_much(
    corpus: str | None, tmp_path: Path, *, domains: bool, told: bool
) -> None:
    recipe = Recipe.of_preset("tiny", RatingScale()).varied(
        pretraining={"corpus": corpus}, pretrained=corpus is not None
    )
    workspace = Workspace(directory=tmp_path, lexicon=Lexicon(words=frozenset({"good"}), source="the test"))
    contenders = choose_contenders("default", recipe, workspace, other_domains=domains)
    names = {contender.name for contender in contenders if isinstance(contender, MeasuredBaseline)}
    quick = [*(baseline.name for baseline in surprise_baselines()), "PMF", "biased MF"]
    expected = {f"{name} with other domains" for name in quick}
    assert {name for name in names if "with other domains" in name} == (expected if told else set())


def test_encoder_states_are_shared_exactly_by_those_that_read_the_same_texts_alike(
    tmp_path: Path, folds: list[Fold]
) -> None:
    workspace = Workspace(directory=tmp_path, lexicon=Lexicon(words=frozenset({"good"}), source="the test"))
    plain = Recipe.of_preset("tiny", RatingScale()).varied(pretrained=False)

    def states(recipe: Recipe, *, name: str = UBERT, fold: int = 0, seed: int = 0) -> Path:
        measured = MeasuredVariant(variant=VARIANT[name], recipe=recipe, workspace=workspace)
        return workspace.states(measured.job(folds[fold], seed))

    assert states(plain) == states(plain, fold=1, seed=1) == states(plain.varied(model={"match_pooling": "max"}))
    others = [
        states(plain),
        states(plain, name=NO_TEXT),
        *(states(plain, name=SHUFFLED, seed=seed) for seed in (0, 1)),
        states(plain, name="50% of the reviews"),
        *(states(plain.varied(model=changed)) for changed in ({"max_length": 8}, {"tokens_a_row": 2})),
        states(plain.varied(model={"encoder_layers": 1})),
        states(Recipe.of_preset("tiny", RatingScale())),
    ]
    assert len(set(others)) == len(others)


def test_the_program_that_computed_a_cell_is_known_by_the_code_that_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in (ubert_model, ubert_training):
        monkeypatch.setattr(package, "__file__", str(tmp_path / "ubert_model" / "__init__.py"))

    def digest(changed: str | None = None, to: str = "X = 2") -> str:
        for name in ("atomic.py", "nn/layer.py", "accuracy/report.py"):
            path = tmp_path / "ubert_model" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(to if name == changed else "X = 1")
        return code_digest.__wrapped__()

    assert digest("accuracy/report.py") == digest()
    assert digest("atomic.py", '"""Words."""\n\nX = (  # more words\n    1\n)\n"""Words on X."""\n') == digest()
    assert len({digest(), digest("nn/layer.py"), digest("atomic.py"), digest("atomic.py", "X = '1'")}) == 4


def test_a_baseline_that_lacks_a_fold_of_u_bert_is_not_said_to_share_none(tmp_path: Path, folds: list[Fold]) -> None:
    store = CellStore(tmp_path)
    cells = ordered_cells(folds, [0], [Planted(name=UBERT), MEASURED_MEAN])
    done = [cell for cell in cells if cell.contender is not MEASURED_MEAN or cell.fold is folds[0]]
    compute_cells(done, store, until=float("inf"), began=lambda _: None, ended=lambda _: None)
    said = markdown(summarise(cells, store, "folds", None)).split("\n")[0]
    assert "U-BERT and a baseline have to be measured on the same folds first" in said


def test_cells_of_an_older_program_are_told(tmp_path: Path, folds: list[Fold]) -> None:
    one = report_of(tmp_path / "one", folds, Planted(name=UBERT))
    assert "versions of this program" not in markdown(one)
    assert one.bias_part is not None
    assert one.bias_part.value == pytest.approx(-1.0, abs=0.01)
    two = report_of(tmp_path / "two", folds, Planted(name=UBERT, rewritten=True))
    assert "come from 2 versions of this program's code" in markdown(two)


def test_a_split_by_time_is_one_fold_whose_test_part_is_the_newest(tmp_path: Path) -> None:
    (fold,) = make_folds(TABLE, ROWS, "time", 5, tmp_path)
    train, validation, test = (TABLE.timestamp[getattr(fold.split, part)] for part in ("train", "validation", "test"))
    assert train.max() <= validation.min() < validation.max() <= test.min()
    assert (tmp_path / "time-0.parquet").is_file()


def test_coverage_is_judged_only_in_slices_that_are_large_enough(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT))
    assert report.coverage == 1.0
    for coverage, kept in ((1.0, "outside"), (0.91, "within"), (0.89, "within"), (0.88, "outside")):
        said = f"hold {coverage:.1%} of the ratings, {kept} 90 ± 1.5%"
        assert said in markdown(replace(report, coverage=coverage))
    sized = {pairs: [replace(entry, pairs=pairs) for entry in report.slices[:1]] for pairs in (199, 200)}
    assert "no slice has the 200 pairs" in markdown(replace(report, slices=sized[199]))
    assert "outside 90 ± 4%: user" in markdown(replace(report, slices=sized[200]))
    for coverage in (0.87, 0.93):
        kept = [replace(entry, coverage=coverage) for entry in sized[200]]
        assert "each of the 1 slices of 200 pairs or more is within 90 ± 4%" in markdown(replace(report, slices=kept))
    low = [replace(entry, coverage=0.85) for entry in sized[200]]
    assert f"outside 90 ± 4%: user {low[0].reviews} (85.0%)" in markdown(replace(report, slices=low))


def test_slices_hold_every_pair_once_a_side(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT))
    for side in ("user", "item"):
        assert sum(entry.pairs for entry in report.slices if entry.side == side) == len(TABLE)


def test_a_baseline_that_cannot_be_had_is_named_with_its_error_and_tried_again(
    tmp_path: Path, folds: list[Fold]
) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT), Planted(name="absent", fails=True))
    assert (report.failed, report.missing) == (6, 0)
    assert "- absent: the library is missing" in markdown(report)
    again = report_of(tmp_path, folds, Planted(name=UBERT), Planted(name="absent"))
    assert (again.failed, again.missing) == (0, 0)


def test_the_share_of_the_gain_is_1_at_the_floor_and_0_at_the_best_biases(tmp_path: Path, folds: list[Fold]) -> None:
    truth = PlantedTruth(best_with_text=0.4, best_with_biases=0.6)
    assert [truth.share_of_gain(mse) for mse in (0.4, 0.6, 0.7)] == pytest.approx([1.0, 0.0, -0.5])
    report = summarise(*computed(tmp_path, folds, Planted(name=UBERT)), "folds", truth)
    ubert = report.model(UBERT)
    assert ubert is not None
    assert f"It gets {truth.share_of_gain(ubert.mse):.0%} of the gain that the planted text allows" in markdown(report)
    assert f"| {ubert.mse:.4f} ± {ubert.spread:.4f} | " in markdown(report)
    written = write_report(report, tmp_path)
    assert json.loads(written[0].read_text(encoding="utf-8"))["truth"]["best_with_text"] == 0.4
    assert all(path.stat().st_size > 0 for path in written)


def test_shuffling_moves_texts_within_a_domain_and_no_rating(folds: list[Fold]) -> None:
    table, split = distorted(TABLE, folds[0].split, Distortion(texts="shuffled"), seed=0)
    assert split is folds[0].split
    np.testing.assert_array_equal(table.rating, TABLE.rating)
    for domain in TABLE.domains:
        rows = TABLE.rows_of_domains(domain).tolist()
        assert sorted(table.text[row] for row in rows) == sorted(TABLE.text[row] for row in rows)
    assert np.mean([a == b for a, b in zip(table.text, TABLE.text, strict=True)]) < 0.2
    silent, _ = distorted(TABLE, folds[0].split, Distortion(texts="one word"), seed=0)
    assert set(silent.text) == {ONE_WORD}


def test_who_is_to_read_no_text_reads_none_of_the_test_part_either(tmp_path: Path, folds: list[Fold]) -> None:
    lexicon = Lexicon(words=frozenset({"good"}), source="the test")
    recipe = (
        Recipe.of_preset("tiny", RatingScale())
        .shortened(pretrain_epochs=None, finetune_epochs=1)
        .varied(pretrained=False)
    )
    rewritten = replace(TABLE, text=[" ".join(reversed(text.split())) or "new" for text in TABLE.text])

    def squared_errors(variant: str, table: ReviewTable, name: str) -> NDArray[np.float64]:
        workspace = Workspace(directory=tmp_path / name, lexicon=lexicon)
        measured = MeasuredVariant(variant=VARIANT[variant], recipe=recipe, workspace=workspace)
        return measured.rate(replace(folds[0], table=table), 0).squared_errors

    same = [squared_errors(NO_TEXT, table, f"none-{number}") for number, table in enumerate((TABLE, rewritten))]
    np.testing.assert_array_equal(*same)
    read = [squared_errors(UBERT, table, f"read-{number}") for number, table in enumerate((TABLE, rewritten))]
    assert (read[0] != read[1]).any()


def test_fewer_reviews_leave_the_evaluated_pairs_as_they_are(tmp_path: Path, folds: list[Fold]) -> None:
    split = folds[0].split
    table, smaller = distorted(TABLE, split, Distortion(share=0.5), seed=0)
    for part in ("validation", "test"):
        before = [TABLE.review_id[row] for row in getattr(split, part).tolist()]
        assert [table.review_id[row] for row in getattr(smaller, part).tolist()] == before
    kept = {table.review_id[row] for row in smaller.train.tolist()}
    assert kept < {TABLE.review_id[row] for row in split.train.tolist()}
    assert len(kept) == round(0.5 * len(split.train))
    target = make_folds(TABLE, target_rows(TABLE, ["domain-0"]), "folds", 3, tmp_path)[0].split
    table, _ = distorted(TABLE, target, Distortion(share=0.5), seed=0)
    others = len(TABLE.rows_of_domains("domain-1"))
    assert len(table.rows_of_domains("domain-1")) == round(0.5 * others), "what pre-training reads is as much less"


def test_variants_share_pre_training_exactly_if_it_would_be_the_same(tmp_path: Path, folds: list[Fold]) -> None:
    workspace = Workspace(directory=tmp_path, lexicon=Lexicon(words=frozenset({"good"}), source="the test"))
    recipe = Recipe.of_preset("tiny", RatingScale())

    def pretrained(name: str, *, seed: int = 0, **model: object) -> Path | None:
        variant = replace(VARIANT[name], **({"model": model} if model else {}))
        measured = MeasuredVariant(variant=variant, recipe=recipe, workspace=workspace)
        return workspace.pretrained(measured.job(folds[0], seed))

    assert pretrained(UBERT) == pretrained(UBERT, match_pooling="mean") == pretrained(UBERT, history_ratings=False)
    other = {
        "backbone": "paper",
        "encoder_layers": 1,
        "pretrain_max_length": 9,
        "state_dim": 8,
        "dropout": 0.3,
        "id_embeddings": "none",
        "scale": RatingScale(lowest=0, highest=5),
    }
    assert other.keys() == set(READ_BY_PRETRAINING)
    for name, value in other.items():
        assert pretrained(UBERT, **{name: value}) != pretrained(UBERT), name
    assert pretrained("u-bert without pre-training") is None
    assert pretrained("no review text") is None
    places = [pretrained(name) for name, variant in VARIANT.items() if variant.pretrained]
    assert len(set(places)) == len(places)
    assert pretrained(UBERT, seed=1) != pretrained(UBERT)


def test_seeds_share_pre_training_where_that_is_asked(tmp_path: Path, folds: list[Fold]) -> None:
    workspace = Workspace(directory=tmp_path, lexicon=Lexicon(words=frozenset({"good"}), source="the test"))
    recipe = Recipe.of_preset("tiny", RatingScale())
    names = f"{UBERT},{SHUFFLED},u-bert without pre-training"
    cells = ordered_cells(folds[:1], [0, 1, 2, 3], choose_contenders(names, recipe, workspace, [0, 1]))
    for name in (UBERT, SHUFFLED):
        of_name = [(cell, cell.contender) for cell in cells if cell.contender.name == name]
        jobs = [it.job(cell.fold, cell.seed) for cell, it in of_name if isinstance(it, MeasuredVariant)]
        places = [(workspace.pretrained(job), workspace.states(job)) for job in jobs]
        assert places[2:] == places[:2]
        assert places[0] != places[1]
        assert [job.recipe.finetuning.loop.seed for job in jobs] == [0, 1, 2, 3]
    assert len({cell.fingerprint for cell in cells}) == len(cells), "what is shared is not the cell"
    report = markdown(summarise(cells, CellStore(tmp_path / "cells"), "folds", None))
    assert "seeds 0, 1, 2, 3 (pre-training by 0, 1 only)" in report


def test_folds_share_pre_training_in_other_domains_and_no_other(tmp_path: Path) -> None:
    folds = make_folds(TABLE, target_rows(TABLE, ["domain-0"]), "folds", 3, tmp_path)
    workspace = Workspace(directory=tmp_path, lexicon=Lexicon(words=frozenset({"good"}), source="the test"))
    for corpus, places in (("other-domains", 1), ("target", len(folds)), ("both", len(folds))):
        recipe = Recipe.of_preset("tiny", RatingScale()).varied(pretraining={"corpus": corpus})
        measured = MeasuredVariant(variant=VARIANT[UBERT], recipe=recipe, workspace=workspace)
        assert len({workspace.pretrained(measured.job(fold, 0)) for fold in folds}) == places
        assert len({workspace.states(measured.job(fold, 0)) for fold in folds}) == places


def test_benches_on_other_folds_in_one_place_train_under_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two at once would find another run at work."""
    names: list[str] = []

    def note(_: Workspace, __: Job, name: str) -> Path:
        names.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Workspace, "run", note)
    workspace = Workspace(directory=tmp_path, lexicon=Lexicon(words=frozenset({"good"}), source="the test"))
    measured = MeasuredVariant(
        variant=VARIANT[UBERT], recipe=Recipe.of_preset("tiny", RatingScale()), workspace=workspace
    )
    for fold in (make_folds(TABLE, ROWS, by, 3, tmp_path)[0] for by in ("folds", "time")):
        with pytest.raises(KeyboardInterrupt):
            measured.rate(fold, 0)
    assert len(set(names)) == 2


def test_variants_that_change_nothing_of_the_recipe_are_left_out(tmp_path: Path) -> None:
    workspace = Workspace(directory=tmp_path, lexicon=Lexicon(words=frozenset({"good"}), source="the test"))
    whole = Recipe.of_preset("tiny", RatingScale())
    assert {variant.name for variant in VARIANTS} <= {c.name for c in choose_contenders("all", whole, workspace)}
    names = {c.name for c in choose_contenders("all", whole.varied(pretrained=False), workspace)}
    assert {UBERT, SHUFFLED, "paper options", "25% of the reviews"} <= names
    assert not {"u-bert without pre-training", "without task 1", "25% of the pre-training reviews"} & names


def test_the_bench_continues_and_ends_in_the_same_report(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "reviews.parquet")
    arguments = ["bench", "accuracy", "--reviews", str(tmp_path), "--folds", "2", "--seeds", "0", "--preset", "tiny"]
    arguments += ["--finetune-epochs", "1", "--target", "domain-0", "--out", str(tmp_path / "out")]
    arguments += ["--variants", f"{UBERT},u-bert without pre-training,{BIAS.name}"]

    def invoke(*more: str) -> str:
        app = make_app(["bench"])
        done = CliRunner().invoke(app, [*arguments, *more], env={"COLUMNS": "240"}, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "6 of 6 cells are missing" in invoke("--minutes", "0")
    first = invoke()
    assert "are missing" not in first
    report = (tmp_path / "out" / "accuracy.json").read_bytes()
    assert not list((tmp_path / "out" / "states").iterdir())
    assert not list((tmp_path / "out" / "runs").iterdir())
    again = invoke()
    assert "fold 0" not in again
    assert (tmp_path / "out" / "accuracy.json").read_bytes() == report


def test_two_processes_share_the_cells_and_write_the_report_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes in once the first is at work on a cell."""
    monkeypatch.setattr(bench, "POLL_SECONDS", 0.05)
    TABLE.save(tmp_path / "reviews.parquet")

    given = ["bench", "accuracy", "--reviews", str(tmp_path), "--preset", "tiny", "--finetune-epochs", "1"]
    given += ["--folds", "2", "--seeds", "0", "--variants", f"{UBERT},{BIAS.name}", "--out"]
    invoke = partial(CliRunner().invoke, make_app(["bench"]), catch_exceptions=False)
    alone = invoke([*given, str(tmp_path / "alone")])
    shared = [*given, str(tmp_path / "shared")]
    command = [sys.executable, "-m", "ubert_training.cli", *shared]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        while not any((tmp_path / "shared").glob(f"**/{CLAIMS}/*")):
            assert other.poll() is None
            time.sleep(0.01)
        here = invoke(shared)
        said = [here.output, other.communicate()[0]]
    assert [alone.exit_code, here.exit_code, other.returncode] == [0, 0, 0]
    cells = [line[len("   0.0 min") :] for output in said for line in output.splitlines() if ", seed " in line]
    assert len(cells) == len(set(cells)) == 4
    assert all(", seed " in output for output in said), "one of them had nothing to do"
    for name in ("accuracy.json", "accuracy.md"):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert "are missing" not in alone.output + "".join(said)


def test_a_recipe_that_was_tuned_on_another_scale_rates_on_the_tables(tmp_path: Path) -> None:
    """Else every rating above the recipe's highest would be cut off."""
    scale = RatingScale(lowest=1, highest=10)
    table = replace(TABLE, rating=2 * TABLE.rating, metadata=TableMetadata(scale=scale))
    tuned = Recipe.of_preset("tiny", RatingScale()).varied(pretrained=False)
    (tmp_path / "recipe.json").write_text(json.dumps(tuned.to_json()))
    recipe = read_recipe(tmp_path / "recipe.json", table.scale).on("cpu")
    assert recipe == tuned.varied(model={"scale": scale}).on("cpu")
    fold = make_folds(table, ROWS, "folds", 2, tmp_path / "splits")[0]
    workspace = Workspace(directory=tmp_path, lexicon=Lexicon(words=frozenset({"good"}), source="the test"))
    recipe = recipe.shortened(pretrain_epochs=None, finetune_epochs=1)
    ubert, bias = choose_contenders(f"{UBERT},{BIAS.name}", recipe, workspace)
    errors = [contender.rate(fold, 0).squared_errors.mean() for contender in (ubert, bias)]
    assert errors[0] < 1.5 * errors[1]


@pytest.mark.parametrize("given", ["config", "pretraining", "finetuning"])
def test_what_a_recipe_file_leaves_out_is_the_default_presets(given: str, tmp_path: Path) -> None:
    scale = RatingScale(lowest=1, highest=10)
    base, tuned = Recipe.of_preset("minilm", scale), Recipe.of_preset("tiny", RatingScale())
    tuned = tuned.seeded(3)
    (tmp_path / "plain.json").write_text(json.dumps({given: tuned.to_json()[given]}))
    expected = replace(base, **{given: getattr(tuned, given)}).varied(model={"scale": scale})
    assert read_recipe(tmp_path / "plain.json", scale) == expected


def test_a_recipe_file_of_no_more_than_no_pretraining_is_the_preset_without_it(tmp_path: Path) -> None:
    """The README's headline is measured so."""
    (tmp_path / "plain.json").write_text('{"pretraining": null}')
    expected = Recipe.of_preset("minilm", TABLE.scale).varied(pretrained=False)
    assert read_recipe(tmp_path / "plain.json", TABLE.scale) == expected
    TABLE.save(tmp_path / "reviews.parquet")
    arguments = ["bench", "accuracy", "--reviews", str(tmp_path), "--out", str(tmp_path / "out"), "--minutes", "0"]
    arguments += ["--recipe", str(tmp_path / "plain.json"), "--variants", f"{UBERT},{BIAS.name}", "--folds", "2"]
    done = CliRunner().invoke(make_app(["bench"]), arguments, env={"COLUMNS": "240"}, catch_exceptions=False)
    assert "cells are missing" in done.output


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"pretrained": None}, r"recipe = \['pretrained'\]: a recipe has no such part"),
        ({"finetuning": {"lop": {}}}, "not a recipe of this version"),
        ({"pretraining": {}}, "not a recipe of this version"),
        ({"config": {"state_dimension": 3}}, r"\['state_dimension'\]"),
        ([], r"recipe = \[\]: write an object of config, pretraining, finetuning"),
    ],
)
def test_what_is_no_recipe_is_refused_by_what_is_wrong_in_it(recipe: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(ConfigError, match=message):
        read_recipe(tmp_path / "recipe.json", RatingScale())


def test_a_variant_named_twice_is_measured_and_counted_once(tmp_path: Path) -> None:
    workspace = Workspace(directory=tmp_path, lexicon=Lexicon(words=frozenset({"good"}), source="the test"))
    chosen = choose_contenders(f"{UBERT},{MEAN.name}, {UBERT}", Recipe.of_preset("tiny", RatingScale()), workspace)
    assert [contender.name for contender in chosen] == [UBERT, MEAN.name]


def test_an_unknown_variant_is_refused_by_name(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "reviews.parquet")
    arguments = ["bench", "accuracy", "--reviews", str(tmp_path), "--out", str(tmp_path), "--variants", "best"]
    done = CliRunner().invoke(make_app(["bench"]), arguments)
    assert "variants = 'best': use default, all, or some of: u-bert" in str(done.exception)


@pytest.mark.parametrize("wrong", [["--truth", "nowhere.json"], ["--variants", "best"], ["--target", "nothing"]])
def test_what_is_refused_leaves_no_directory(wrong: list[str], tmp_path: Path) -> None:
    TABLE.save(tmp_path / "reviews.parquet")
    arguments = ["bench", "accuracy", "--reviews", str(tmp_path), "--out", str(tmp_path / "out"), *wrong]
    result = CliRunner().invoke(make_app(), arguments)
    assert isinstance(result.exception, UbertError)
    assert wrong[1] in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_bench_writes_nothing_among_other_things(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "reviews.parquet")
    arguments = ["bench", "accuracy", "--reviews", str(tmp_path), "--out", str(tmp_path), "--minutes", "0"]
    result = CliRunner().invoke(make_app(), arguments)
    assert isinstance(result.exception, ConfigError)
    assert "holds other files" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["reviews.parquet"]
