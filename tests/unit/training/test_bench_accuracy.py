"""`ubert bench accuracy`: cells computed once, fair comparisons, shared work, and the report."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

import ubert_model
import ubert_training
from support.processes import running
from support.small_corpus import small_table
from ubert_model.bundle import CODEBOOKS
from ubert_model.config import RatingScale
from ubert_model.errors import ConfigError, UbertError
from ubert_model.running.atomic import write_text
from ubert_training.accuracy import bench
from ubert_training.accuracy.bench import at_intervals, compute_cells, ordered_cells
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
from ubert_training.errors import BaselineError
from ubert_training.evaluation.metrics import HISTORY_SLICES
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.pretraining.corpus_rows import target_rows
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.recipes.recipe import READ_BY_PRETRAINING, Recipe
from ubert_training.recipes.workspace import Job, Workspace
from ubert_training.reviews.table import ReviewTable, TableMetadata
from ubert_training.states import state_bank
from ubert_training.states.tokens import TokenizedReviews

TABLE = small_table(users=40)
ROWS = np.arange(len(TABLE))
MEAN, BIAS = surprise_baselines()[:2]
MEASURED_MEAN = MeasuredBaseline(baseline=MEAN, round=0)
VARIANT = {variant.name: variant for variant in VARIANTS}
TINY = Recipe.of_preset("tiny", RatingScale())
LEXICON = Lexicon(words=frozenset({"good"}), source="the test")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(directory=tmp_path, lexicon=LEXICON, only_measured=True)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A directory with a review table."""
    TABLE.save(tmp_path / "reviews.parquet")
    return tmp_path


def invoke_bench(reviews: Path, out: Path, *flags: str) -> Result:
    arguments = ["bench", "accuracy", "--reviews", str(reviews), "--out", str(out), *flags]
    return CliRunner().invoke(make_app(["bench"]), arguments, env={"COLUMNS": "240"})


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> list[Fold]:
    return make_folds(TABLE, ROWS, "folds", 3, tmp_path_factory.mktemp("splits"))


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A contender that is not trained: its squared errors are the mean baseline's plus ``above``, plus ``per_seed``
    times the seed, plus some noise; ``coverage`` is the share of the pairs whose interval holds the rating.
    """

    name: str
    above: float = 0.0
    per_seed: float = 0.0
    coverage: float = 1.0
    round: int = 0
    seeded: bool = True
    fails: bool = False
    code_per_seed: bool = False

    def inputs(self, fold: Fold, seed: int) -> Mapping[str, Any]:
        return {"planted": self.name}

    def rate(self, fold: Fold, seed: int) -> CellRatings:
        if self.fails:
            raise BaselineError("the library is missing")
        squared = np.square(fold.truth - float(TABLE.rating[fold.split.train].mean(dtype=np.float64)))
        noise = np.random.default_rng([seed, fold.number]).normal(0, 0.01, len(squared))
        squared_errors = squared + self.above + seed * self.per_seed + noise
        return CellRatings(
            squared_errors=squared_errors,
            predicted=fold.truth + np.sqrt(np.abs(squared_errors)),
            covered=np.arange(len(squared)) < self.coverage * len(squared),
            bias_squared_errors=squared + 1.0,
            code=f"code {seed}" if self.code_per_seed else "code",
        )


def computed(tmp_path: Path, folds: list[Fold], *contenders: Contender) -> tuple[list[Cell], CellStore]:
    store = CellStore(tmp_path / "cells")
    cells = ordered_cells(folds, [0, 1], [MEASURED_MEAN, *contenders])
    compute_all(cells, store)
    return cells, store


def compute_all(cells: Sequence[Cell], store: CellStore) -> list[Cell]:
    """Compute the cells that the store lacks; returns these."""
    begun: list[Cell] = []
    compute_cells(cells, store, until=float("inf"), began=begun.append, ended=lambda _: None)
    return begun


def report_of(tmp_path: Path, folds: list[Fold], *contenders: Contender) -> AccuracyReport:
    return summarise(*computed(tmp_path, folds, *contenders), "folds", None)


@pytest.mark.parametrize(("error", "relative"), [(0.0, "+0.00%"), (0.5, "+inf%")])
def test_a_best_baseline_without_any_error_is_reported_like_others(
    error: float, relative: str, tmp_path: Path, folds: list[Fold]
) -> None:
    """As if all ratings were the same."""
    store, cells = CellStore(tmp_path / "cells"), ordered_cells(folds, [0], [Planted(name=UBERT), MEASURED_MEAN])
    for cell in cells:
        errors = np.full(len(cell.fold.truth), error if cell.contender.name == UBERT else 0.0)
        predicted = cell.fold.truth + np.sqrt(errors)
        ratings = CellRatings(
            squared_errors=errors, predicted=predicted, covered=errors < 1, bias_squared_errors=errors
        )
        store.save(cell, ratings, seconds=0)
    report = summarise(cells, store, "folds", None)
    assert f"its MSE differs by {relative}" in markdown(report)
    path, *_ = write_report(report, tmp_path)
    assert "Infinity" not in path.read_text(encoding="utf-8")


def test_folds_test_every_review_once_and_count_training_reviews_only(folds: list[Fold]) -> None:
    tested = np.concatenate([fold.split.test for fold in folds])
    assert sorted(tested.tolist()) == ROWS.tolist()
    fold = folds[0]
    row = fold.split.test[0]
    expected = sum(TABLE.user[other] == TABLE.user[row] for other in fold.split.train.tolist())
    assert fold.user_counts[0] == expected


def test_cells_are_ordered_by_round_seed_and_fold(folds: list[Fold]) -> None:
    contenders: list[Contender] = [
        Planted(name="late", round=2),
        Planted(name=UBERT),
        Planted(name="unseeded", seeded=False),
    ]
    cells = ordered_cells(folds[:2], [0, 1], contenders)
    assert [(cell.contender.name, cell.seed, cell.fold.number) for cell in cells] == [
        (UBERT, 0, 0),
        ("unseeded", 0, 0),
        (UBERT, 0, 1),
        ("unseeded", 0, 1),
        (UBERT, 1, 0),
        (UBERT, 1, 1),
        *[("late", seed, fold) for seed in (0, 1) for fold in (0, 1)],
    ]


def test_ablation_seeds_limits_the_seeds_of_slow_baselines_and_ablations(folds: list[Fold]) -> None:
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
    ubert, ablation = Planted(name=UBERT, per_seed=0.1), Planted(name="ablation", round=REST)
    store = CellStore(tmp_path)
    cells = ordered_cells(folds, [0, 1], [MEASURED_MEAN, ubert, ablation], ablation_seeds=1)
    compute_all(cells, store)
    differences = {model.name: model.difference for model in summarise(cells, store, "folds", None).models}
    for name, expected in (("ablation", 0.0), (MEAN.name, 0.05)):
        difference = differences[name]
        assert difference is not None
        assert difference.value == pytest.approx(expected, abs=0.003)


def test_a_finished_cell_is_never_computed_again(tmp_path: Path, folds: list[Fold]) -> None:
    cells, store = computed(tmp_path, folds, Planted(name=UBERT))
    assert compute_all(cells, CellStore(store.directory)) == []
    other = replace(cells[0], seed=7, contender=Planted(name=UBERT))
    assert compute_all([*cells, other], store) == [other]


def test_a_cell_killed_while_it_was_written_is_computed_again(tmp_path: Path, folds: list[Fold]) -> None:
    cells, store = computed(tmp_path, folds, Planted(name=UBERT))
    (store.directory / cells[1].fingerprint / CELL).unlink()  # written last
    assert compute_all(cells, store) == [cells[1]]


@pytest.mark.parametrize("computed_there", [True, False])
def test_a_cell_that_another_process_claims_is_skipped_and_looked_at_again(
    tmp_path: Path, folds: list[Fold], monkeypatch: pytest.MonkeyPatch, computed_there: bool
) -> None:
    """It is computed here if the other process released it without a result."""
    monkeypatch.setattr(bench, "POLL_SECONDS", 0.0)
    store, others_store = CellStore(tmp_path), CellStore(tmp_path)
    cells = ordered_cells(folds, [0], [Planted(name=UBERT)])
    claimed, *free = cells
    begun: list[Cell] = []
    with ExitStack() as claim:
        assert claim.enter_context(others_store.claim(claimed.fingerprint))

        def ended(cell: Cell) -> None:
            if cell is free[-1]:
                if computed_there:
                    others_store.save(claimed, claimed.contender.rate(claimed.fold, claimed.seed), seconds=0.0)
                claim.close()

        compute_cells(cells, store, until=float("inf"), began=begun.append, ended=ended)
    assert begun == (free if computed_there else [*free, claimed])


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
    first_paragraph = markdown(report).split("\n")[0]
    assert verdict in first_paragraph
    assert report.shuffled is not None
    assert f"(its own MSE minus that: {report.shuffled.signed()})" in first_paragraph


def test_u_bert_is_compared_with_the_baseline_of_least_error(tmp_path: Path, folds: list[Fold]) -> None:
    def constant_baseline(value: float) -> MeasuredBaseline:
        prepare = lambda _, __: lambda settings, _: lambda rows: np.full(len(rows), settings["value"])  # noqa: E731
        always = replace(MEAN, name=f"always {value:g}", grid=({"value": value},), prepare=prepare)
        return MeasuredBaseline(baseline=always, round=0)

    report = report_of(tmp_path, folds, constant_baseline(1.0), constant_baseline(5.0), Planted(name=UBERT, above=-0.1))
    assert report.best_baseline == MEAN.name
    ranked = [(model.name, model.mse) for model in report.models]
    assert ranked == sorted(ranked, key=lambda model: model[1])
    assert ranked[0][0] == UBERT
    assert report.difference is not None
    assert report.relative == pytest.approx(report.difference.value / dict(ranked)[MEAN.name])
    assert f"its MSE differs by {report.difference.value / dict(ranked)[MEAN.name]:+.2%}, " in markdown(report)


def test_the_best_baseline_is_chosen_on_the_seeds_that_u_bert_has(tmp_path: Path, folds: list[Fold]) -> None:
    def baseline(name: str, off: Sequence[float]) -> MeasuredBaseline:
        """Off by ``off[seed]`` stars."""
        prepare = lambda _, __: lambda _, seed: lambda rows: np.add(TABLE.rating[rows], off[seed], dtype=np.float64)  # noqa: E731
        return MeasuredBaseline(baseline=replace(MEAN, name=name, seeded=True, prepare=prepare), round=0)

    ubert, store = Planted(name=UBERT), CellStore(tmp_path)
    cells = ordered_cells(folds, [0, 1], [ubert, baseline("better", [0.1, 0.9]), baseline("worse", [0.2, 0.2])])
    compute_all([cell for cell in cells if cell.contender is not ubert or cell.seed == 0], store)
    assert summarise(cells, store, "folds", None).best_baseline == "better"


def test_a_slice_reports_the_errors_of_its_own_pairs(tmp_path: Path, folds: list[Fold]) -> None:
    planted = Planted(name=UBERT, above=-0.1, coverage=0.5)
    cells, store = computed(tmp_path, folds, planted)
    report = summarise(cells, store, "folds", None)
    assert report.coverage == pytest.approx(0.5, abs=0.02)
    ubert: list[float] = []
    mean: list[float] = []
    covered: list[bool] = []
    counts: dict[str, list[int]] = {"user": [], "item": []}
    for fold in folds:
        of_seeds = [planted.rate(fold, seed) for seed in (0, 1)]
        ubert += np.mean([ratings.squared_errors for ratings in of_seeds], axis=0).tolist()
        mean += MEASURED_MEAN.rate(fold, 0).squared_errors.tolist()
        assert of_seeds[0].covered is not None
        covered += of_seeds[0].covered.tolist()
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


def test_every_input_of_a_cell_changes_its_fingerprint(workspace: Workspace, folds: list[Fold]) -> None:
    other_words = replace(workspace, lexicon=Lexicon(words=frozenset({"bad"}), source="the test"))
    ubert = MeasuredVariant(variant=VARIANT[UBERT], recipe=TINY, workspace=workspace)
    other_domains = replace(folds[0], table=replace(TABLE, domain=["one"] * len(TABLE)))
    other_split = replace(folds[0], split=replace(folds[0].split, train=folds[0].split.train[1:]))
    bias = MeasuredBaseline(baseline=BIAS, round=0)
    cells = [
        *(
            Cell(fold=fold, seed=0, contender=contender)
            for fold in (*folds[:2], other_domains, other_split)
            for contender in (ubert, bias)
        ),
        Cell(fold=folds[0], seed=1, contender=ubert),
        *(
            Cell(fold=folds[0], seed=0, contender=contender)
            for contender in (
                replace(ubert, variant=VARIANT[SHUFFLED]),
                replace(ubert, recipe=TINY.varied(learning_rate=1.0)),
                replace(ubert, workspace=other_words),
                replace(bias, baseline=replace(BIAS, version=lambda: "another")),
                replace(bias, baseline=replace(BIAS, grid=BIAS.grid[1:])),
            )
        ),
    ]
    assert len({cell.fingerprint for cell in cells}) == len(cells)


def test_the_fingerprint_of_a_cell_leaves_out_inputs_that_it_does_not_read(
    workspace: Workspace, folds: list[Fold]
) -> None:
    """The seed, if it is not seeded; the opinion words, without pre-training."""
    other_words = replace(workspace, lexicon=Lexicon(words=frozenset({"bad"}), source="the test"))
    variant = MeasuredVariant(variant=VARIANT["u-bert without pre-training"], recipe=TINY, workspace=workspace)
    for unseeded in (MeasuredBaseline(baseline=BIAS, round=0), replace(variant, seeded=False)):
        assert Cell(fold=folds[0], seed=0, contender=unseeded).inputs["seed"] is None
    cells = [
        Cell(fold=folds[0], seed=0, contender=replace(variant, workspace=place)) for place in (workspace, other_words)
    ]
    assert cells[0].fingerprint == cells[1].fingerprint


@pytest.mark.parametrize(
    ("corpus", "domains", "expected"),
    [
        ("both", True, True),
        ("other-domains", True, True),
        ("target", True, False),
        (None, True, False),
        ("both", False, False),
    ],
)
def test_baselines_with_other_domains_are_added_if_u_bert_reads_other_domains(
    corpus: str | None, workspace: Workspace, *, domains: bool, expected: bool
) -> None:
    recipe = TINY.varied(pretraining={"corpus": corpus}, pretrained=corpus is not None)
    contenders = choose_contenders("default", recipe, workspace, other_domains=domains)
    names = {contender.name for contender in contenders if isinstance(contender, MeasuredBaseline)}
    fast = [*(baseline.name for baseline in surprise_baselines()), "Bayesian FM", "PMF", "biased MF"]
    with_other_domains = {f"{name} with other domains" for name in fast}
    assert {name for name in names if "with other domains" in name} == (with_other_domains if expected else set())


def test_encoder_states_are_shared_exactly_by_jobs_of_the_same_texts_and_encoder(
    workspace: Workspace, folds: list[Fold]
) -> None:
    plain = TINY.varied(pretrained=False)

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
        states(TINY),
    ]
    assert len(set(others)) == len(others)


def test_the_code_digest_changes_exactly_with_code_that_affects_ratings(
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
    assert digest("atomic.py", '"""Text."""\n\nX = (  # comment\n    1\n)\n"""Text about X."""\n') == digest()
    assert len({digest(), digest("nn/layer.py"), digest("atomic.py"), digest("atomic.py", "X = '1'")}) == 4


def test_a_baseline_that_lacks_a_fold_of_u_bert_is_not_compared(tmp_path: Path, folds: list[Fold]) -> None:
    store = CellStore(tmp_path)
    cells = ordered_cells(folds, [0], [Planted(name=UBERT), MEASURED_MEAN])
    compute_all([cell for cell in cells if cell.contender is not MEASURED_MEAN or cell.fold is folds[0]], store)
    first_paragraph = markdown(summarise(cells, store, "folds", None)).split("\n")[0]
    assert "U-BERT and a baseline have to be measured on the same folds first" in first_paragraph


def test_the_report_says_if_cells_come_from_several_versions_of_the_program(tmp_path: Path, folds: list[Fold]) -> None:
    one_version = report_of(tmp_path / "one", folds, Planted(name=UBERT))
    assert "versions of this program" not in markdown(one_version)
    two_versions = report_of(tmp_path / "two", folds, Planted(name=UBERT, code_per_seed=True))
    assert "come from 2 versions of this program's code" in markdown(two_versions)


def test_u_bert_is_compared_with_its_own_bias_part(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT))
    assert report.bias_part is not None
    assert report.bias_part.value == pytest.approx(-1.0, abs=0.01)


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


def test_coverage_is_judged_only_in_slices_that_are_large_enough(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT))
    assert report.coverage == 1.0
    for coverage, judgement in ((1.0, "outside"), (0.91, "within"), (0.89, "within"), (0.88, "outside")):
        sentence = f"hold {coverage:.1%} of the ratings, {judgement} 90 ± 1.5%"
        assert sentence in markdown(replace(report, coverage=coverage))
    report = replace(report, coverage_by_prediction=[])
    sized = {pairs: [replace(entry, pairs=pairs) for entry in report.slices[:1]] for pairs in (199, 200)}
    assert "no slice has the 200 pairs" in markdown(replace(report, slices=sized[199]))
    assert "outside 90 ± 4%: user" in markdown(replace(report, slices=sized[200]))
    for coverage in (0.87, 0.93):
        within = [replace(entry, coverage=coverage) for entry in sized[200]]
        assert "each of the 1 slices of 200 pairs or more is within 90 ± 4%" in markdown(replace(report, slices=within))
    low = [replace(entry, coverage=0.85) for entry in sized[200]]
    assert f"outside 90 ± 4%: user {low[0].reviews} (85.0%)" in markdown(replace(report, slices=low))


def test_coverage_is_judged_by_prediction_too(tmp_path: Path, folds: list[Fold]) -> None:
    planted = Planted(name=UBERT, coverage=0.5)
    cells, store = computed(tmp_path, folds, planted)
    report = summarise(cells, store, "folds", None)
    of_seeds = [[planted.rate(fold, seed) for seed in (0, 1)] for fold in folds]
    predicted = np.concatenate([(first.predicted + second.predicted) / 2 for first, second in of_seeds])
    covered = np.concatenate([first.covered for first, _ in of_seeds if first.covered is not None])
    tenths = report.coverage_by_prediction
    assert len(tenths) == 10
    assert sum(entry.pairs for entry in tenths) == len(TABLE)
    lowest = predicted < np.quantile(predicted, 0.1)
    assert tenths[0].pairs == lowest.sum()
    assert tenths[0].coverage == pytest.approx(covered[lowest].mean())
    large = replace(tenths[0], pairs=200, coverage=0.5)
    assert f"predicted {large.predicted} (50.0%)" in markdown(replace(report, coverage_by_prediction=[large]))


def test_the_report_has_mean_absolute_errors(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT))
    mean = report.model(MEAN.name)
    assert mean is not None
    expected = [np.abs(fold.truth - TABLE.rating[fold.split.train].mean()).mean() for fold in folds]
    assert mean.mae == pytest.approx(np.mean(expected), rel=1e-6)
    assert f" | {mean.mae:.4f} | " in markdown(report)


def test_the_slices_of_a_side_hold_every_pair_once(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT))
    for side in ("user", "item"):
        assert sum(entry.pairs for entry in report.slices if entry.side == side) == len(TABLE)


def test_a_failed_baseline_is_reported_with_its_error_and_tried_again(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT), Planted(name="absent", fails=True))
    assert (report.failed, report.missing) == (6, 0)
    assert "- absent: the library is missing" in markdown(report)
    again = report_of(tmp_path, folds, Planted(name=UBERT), Planted(name="absent"))
    assert (again.failed, again.missing) == (0, 0)


def test_a_cell_whose_process_is_killed_as_soon_as_it_is_complete_has_not_failed(
    folds: list[Fold], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cell,) = ordered_cells(folds[:1], [0], [MEASURED_MEAN])
    store = CellStore(tmp_path)

    def killed_after(path: Path, text: str) -> None:
        write_text(path, text)
        raise KeyboardInterrupt

    store.note_failure(cell, BaselineError("an earlier attempt"))
    monkeypatch.setattr("ubert_training.accuracy.cells.write_text", killed_after)
    with pytest.raises(KeyboardInterrupt):
        compute_all([cell], store)
    assert store.has(cell)
    assert store.failure(cell) is None


def test_a_model_whose_training_diverges_is_reported_and_the_bench_goes_on(
    workspace: Workspace, folds: list[Fold]
) -> None:
    recipe = TINY.varied(pretrained=False, learning_rate=1e26).shortened(pretrain_epochs=None, finetune_epochs=1)
    diverging = MeasuredVariant(variant=VARIANT[UBERT], recipe=recipe, workspace=workspace)
    cells = ordered_cells(folds[:1], [0], [diverging, MEASURED_MEAN])
    store = CellStore(workspace.directory / "cells")
    compute_all(cells, store)
    assert "training diverged in epoch 1" in (store.failure(cells[0]) or "")
    assert store.has(cells[1])
    assert "training diverged" in markdown(summarise(cells, store, "folds", None))


def test_a_cell_keeps_its_ratings_in_the_order_of_the_test_pairs(workspace: Workspace, folds: list[Fold]) -> None:
    recipe = TINY.varied(pretrained=False).shortened(pretrain_epochs=None, finetune_epochs=1)
    ubert = MeasuredVariant(variant=VARIANT[UBERT], recipe=recipe, workspace=workspace)
    cells, store = ordered_cells(folds[:1], [0], [ubert, MEASURED_MEAN]), CellStore(workspace.directory / "cells")
    compute_all(cells, store)
    for cell in cells:
        ratings = store.load(cell)
        assert ratings is not None
        assert ratings.predicted is not None
        np.testing.assert_array_equal(np.square(ratings.predicted - cell.fold.truth), ratings.squared_errors)


def test_a_model_that_cannot_be_trained_ends_the_bench_before_any_cell(workspace: Workspace, folds: list[Fold]) -> None:
    too_deep = MeasuredVariant(
        variant=VARIANT[UBERT], recipe=TINY.varied(model={"encoder_layers": 9}), workspace=workspace
    )
    store = CellStore(workspace.directory / "cells")
    with pytest.raises(ConfigError, match="encoder_layers = 9: the backbone has 2 layers"):
        compute_all(ordered_cells(folds, [0], [MEASURED_MEAN, too_deep]), store)
    assert not store.directory.exists()


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


def test_without_text_every_review_is_the_same_word(folds: list[Fold]) -> None:
    table, _ = distorted(TABLE, folds[0].split, Distortion(texts="one word"), seed=0)
    assert set(table.text) == {ONE_WORD}


def test_the_variant_without_text_reads_none_of_the_test_part_either(tmp_path: Path, folds: list[Fold]) -> None:
    recipe = TINY.shortened(pretrain_epochs=None, finetune_epochs=1).varied(pretrained=False)
    rewritten = replace(TABLE, text=[" ".join(reversed(text.split())) or "new" for text in TABLE.text])

    def squared_errors(variant: str, table: ReviewTable, name: str) -> NDArray[np.float64]:
        workspace = Workspace(directory=tmp_path / name, lexicon=LEXICON, only_measured=True)
        measured = MeasuredVariant(variant=VARIANT[variant], recipe=recipe, workspace=workspace)
        return measured.rate(replace(folds[0], table=table), 0).squared_errors

    without = [squared_errors(NO_TEXT, table, f"without-{number}") for number, table in enumerate((TABLE, rewritten))]
    np.testing.assert_array_equal(without[0], without[1])
    ubert = [squared_errors(UBERT, table, f"with-{number}") for number, table in enumerate((TABLE, rewritten))]
    assert (ubert[0] != ubert[1]).any()


def test_states_that_are_only_measured_are_those_of_training_and_never_pass_for_fp32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folds: list[Fold]
) -> None:
    for module in ("ubert_training.running.devices", "ubert_training.optimization.loop"):
        monkeypatch.setattr(f"{module}.has_native_bfloat16", lambda _: True)
    filled: list[bool] = []

    def counting(*arguments: Any, bfloat16: bool) -> Any:
        filled.append(bfloat16)
        return fill(*arguments, bfloat16=bfloat16)

    fill = state_bank._fill
    monkeypatch.setattr(state_bank, "_fill", counting)
    recipe = TINY.shortened(pretrain_epochs=None, finetune_epochs=1).varied(pretrained=False)
    job = Job(table=TABLE, split=folds[0].split, recipe=recipe)
    workspace = Workspace(directory=tmp_path, lexicon=LEXICON, only_measured=True)
    MeasuredVariant(variant=VARIANT[UBERT], recipe=recipe, workspace=workspace).rate(folds[0], 0)
    assert filled == [True], "the cell is rated from the states that its training has read"
    kept = replace(workspace, only_measured=False)
    FinishedRun.open(TABLE, kept.run(job, "kept"), states=kept.states(job))
    assert filled == [True, False], "the states in bfloat16 passed for those in fp32"


def test_no_text_outside_training_is_encoded_with_an_encoder_that_no_other_split_shares(
    monkeypatch: pytest.MonkeyPatch, workspace: Workspace, folds: list[Fold]
) -> None:
    encoded: list[list[int]] = []

    def recording(files: Any, encoder: Any, tokens: TokenizedReviews, **options: Any) -> Any:
        encoded.append(np.flatnonzero(tokens.lengths).tolist())
        return fill(files, encoder, tokens, **options)

    fill = state_bank._fill
    monkeypatch.setattr(state_bank, "_fill", recording)
    split = folds[0].split
    for recipe in (TINY.shortened(pretrain_epochs=1, finetune_epochs=1), TINY.varied(pretrained=False)):
        MeasuredVariant(variant=VARIANT[UBERT], recipe=recipe, workspace=workspace).rate(folds[0], 0)
    with_text = {row for row, text in enumerate(TABLE.text) if text}
    assert with_text - set(split.train.tolist()), "the test part has no text to leave out"
    assert encoded == [sorted(with_text & set(rows.tolist())) for rows in (split.train, split.rows)]


def test_a_report_is_written_at_intervals_only(monkeypatch: pytest.MonkeyPatch, folds: list[Fold]) -> None:
    now, written = 100.0, list[float]()
    monkeypatch.setattr("time.monotonic", lambda: now)
    report = at_intervals(60, lambda _: written.append(now))
    cell = Cell(fold=folds[0], seed=0, contender=MEASURED_MEAN)
    for later in (30.0, 30.0, 59.0, 1.0, 80.0):
        now += later
        report(cell)
    assert written == [160.0, 220.0, 300.0]


@pytest.mark.parametrize("only_measured", [False, True])
def test_a_model_that_is_only_measured_gets_no_codebooks(
    tmp_path: Path, folds: list[Fold], only_measured: bool
) -> None:
    recipe = TINY.shortened(pretrain_epochs=None, finetune_epochs=1).varied(pretrained=False)
    workspace = Workspace(directory=tmp_path, lexicon=LEXICON, only_measured=only_measured)
    run = workspace.run(Job(table=TABLE, split=folds[0].split, recipe=recipe), "a")
    assert (run / CODEBOOKS).exists() is not only_measured


def test_a_share_of_the_reviews_keeps_all_evaluated_pairs(tmp_path: Path, folds: list[Fold]) -> None:
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
    assert len(table.rows_of_domains("domain-1")) == round(0.5 * others), "pre-training reads the same share"


def test_variants_share_pre_training_exactly_if_it_would_be_the_same(workspace: Workspace, folds: list[Fold]) -> None:
    def pretrained(name: str, *, seed: int = 0, **model: object) -> Path | None:
        variant = VARIANT[name]
        measured = MeasuredVariant(
            variant=replace(variant, model=model or variant.model), recipe=TINY, workspace=workspace
        )
        return workspace.pretrained(measured.job(folds[0], seed))

    assert pretrained(UBERT) == pretrained(UBERT, match_pooling="mean") == pretrained(UBERT, history_ratings=False)
    other: dict[str, Any] = {
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


def test_other_seeds_share_the_models_of_the_pretraining_seeds(workspace: Workspace, folds: list[Fold]) -> None:
    names = f"{UBERT},{SHUFFLED},u-bert without pre-training"
    cells = ordered_cells(folds[:1], [0, 1, 2, 3], choose_contenders(names, TINY, workspace, [0, 1]))
    for name in (UBERT, SHUFFLED):
        of_name = [(cell, cell.contender) for cell in cells if cell.contender.name == name]
        jobs = [
            contender.job(cell.fold, cell.seed) for cell, contender in of_name if isinstance(contender, MeasuredVariant)
        ]
        places = [(workspace.pretrained(job), workspace.states(job)) for job in jobs]
        assert places[2:] == places[:2]
        assert places[0] != places[1]
        assert [job.recipe.finetuning.loop.seed for job in jobs] == [0, 1, 2, 3]
    assert len({cell.fingerprint for cell in cells}) == len(cells), "cells are not shared"
    report = markdown(summarise(cells, CellStore(workspace.directory / "cells"), "folds", None))
    assert "seeds 0, 1, 2, 3 (pre-training by 0, 1 only)" in report


def test_folds_share_pre_training_in_other_domains_only(workspace: Workspace, tmp_path: Path) -> None:
    folds = make_folds(TABLE, target_rows(TABLE, ["domain-0"]), "folds", 3, tmp_path)
    for corpus, places in (("other-domains", 1), ("target", len(folds)), ("both", len(folds))):
        recipe = TINY.varied(pretraining={"corpus": corpus})
        measured = MeasuredVariant(variant=VARIANT[UBERT], recipe=recipe, workspace=workspace)
        assert len({workspace.pretrained(measured.job(fold, 0)) for fold in folds}) == places
        assert len({workspace.states(measured.job(fold, 0)) for fold in folds}) == places


def test_the_names_of_runs_differ_between_folds_of_different_splits(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise of two benches in one workspace, one would find the other's run at work."""
    names: list[str] = []

    def record_name(_: Workspace, __: Job, name: str) -> Path:
        names.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Workspace, "run", record_name)
    measured = MeasuredVariant(variant=VARIANT[UBERT], recipe=TINY, workspace=workspace)
    for fold in (make_folds(TABLE, ROWS, by, 3, tmp_path)[0] for by in ("folds", "time")):
        with pytest.raises(KeyboardInterrupt):
            measured.rate(fold, 0)
    assert len(set(names)) == 2


def test_variants_that_change_nothing_of_the_recipe_are_left_out(workspace: Workspace) -> None:
    assert {variant.name for variant in VARIANTS} <= {c.name for c in choose_contenders("all", TINY, workspace)}
    names = {c.name for c in choose_contenders("all", TINY.varied(pretrained=False), workspace)}
    assert {UBERT, SHUFFLED, "paper options", "25% of the reviews"} <= names
    assert not {"u-bert without pre-training", "without task 1", "25% of the pre-training reviews"} & names


def test_the_bench_computes_what_is_missing_and_then_only_repeats_its_report(reviews: Path) -> None:
    out = reviews / "out"
    options = ["--folds", "2", "--seeds", "0", "--preset", "tiny", "--finetune-epochs", "1", "--target", "domain-0"]
    options += ["--variants", f"{UBERT},u-bert without pre-training,{BIAS.name}"]

    def output_of(*more: str) -> str:
        result = invoke_bench(reviews, out, *options, *more)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    assert "6 of 6 cells are missing" in output_of("--minutes", "0")
    assert "are missing" not in output_of()
    report = (out / "accuracy.json").read_bytes()
    assert not list((out / "states").iterdir())
    assert not list((out / "runs").iterdir())
    assert "fold 0" not in output_of()
    assert (out / "accuracy.json").read_bytes() == report


def test_two_processes_share_the_cells_and_write_the_report_of_one(
    reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second starts when the first has claimed a cell."""
    monkeypatch.setattr(bench, "POLL_SECONDS", 0.05)
    options = ["--preset", "tiny", "--finetune-epochs", "1", "--folds", "2", "--seeds", "0"]
    options += ["--variants", f"{UBERT},{BIAS.name}"]
    shared = reviews / "shared"
    alone = invoke_bench(reviews, reviews / "alone", *options)
    command = [sys.executable, "-m", "ubert_training.cli", "bench", "accuracy", "--reviews", str(reviews)]
    with running([*command, "--out", str(shared), *options]) as first:
        while not any(shared.glob(f"**/{CLAIMS}/*")):
            assert first.poll() is None
            time.sleep(0.01)
        second = invoke_bench(reviews, shared, *options)
        outputs = [first.communicate(timeout=120)[0], second.output]
    assert [alone.exit_code, first.returncode, second.exit_code] == [0, 0, 0], (alone.exception, second.exception)
    cells = [line[len("   0.0 min") :] for output in outputs for line in output.splitlines() if ", seed " in line]
    assert len(cells) == len(set(cells)) == 4
    assert all(", seed " in output for output in outputs), "one of them computed nothing"
    for name in ("accuracy.json", "accuracy.md"):
        assert (shared / name).read_bytes() == (reviews / "alone" / name).read_bytes()
    assert "are missing" not in alone.output + "".join(outputs)


def test_a_recipe_tuned_on_another_scale_rates_on_that_of_the_table(workspace: Workspace, tmp_path: Path) -> None:
    """Otherwise ratings would be clipped to the recipe's scale."""
    scale = RatingScale(lowest=1, highest=10)
    table = replace(TABLE, rating=2 * TABLE.rating, metadata=TableMetadata(scale=scale))
    tuned = TINY.varied(pretrained=False)
    (tmp_path / "recipe.json").write_text(json.dumps(tuned.to_json()))
    recipe = read_recipe(tmp_path / "recipe.json", table.scale).on("cpu")
    assert recipe == tuned.varied(model={"scale": scale}).on("cpu")
    fold = make_folds(table, ROWS, "folds", 2, tmp_path / "splits")[0]
    recipe = recipe.shortened(pretrain_epochs=None, finetune_epochs=1)
    ubert, bias = choose_contenders(f"{UBERT},{BIAS.name}", recipe, workspace)
    errors = [contender.rate(fold, 0).squared_errors.mean() for contender in (ubert, bias)]
    assert errors[0] < 1.5 * errors[1]


@pytest.mark.parametrize("given", ["config", "pretraining", "finetuning"])
def test_the_default_preset_fills_in_what_a_recipe_file_leaves_out(given: str, tmp_path: Path) -> None:
    scale = RatingScale(lowest=1, highest=10)
    base, tuned = Recipe.of_preset("minilm", scale), TINY.seeded(3)
    (tmp_path / "plain.json").write_text(json.dumps({given: tuned.to_json()[given]}))
    expected = replace(base, **{given: getattr(tuned, given)}).varied(model={"scale": scale})
    assert read_recipe(tmp_path / "plain.json", scale) == expected


def test_the_default_preset_fills_in_single_settings_that_a_recipe_file_leaves_out(tmp_path: Path) -> None:
    given = {"config": {"state_dim": 64}, "pretraining": {}, "finetuning": {"loop": {"learning_rate": 0.5}}}
    (tmp_path / "plain.json").write_text(json.dumps(given))
    base = Recipe.of_preset("minilm", RatingScale())
    expected = base.varied(model={"state_dim": 64}, learning_rate=0.5)
    assert read_recipe(tmp_path / "plain.json", RatingScale()) == expected


def test_a_recipe_file_with_null_for_pretraining_is_the_preset_without_it(reviews: Path) -> None:
    """The headline of the README is measured with such a file."""
    recipe = reviews / "plain.json"
    recipe.write_text('{"pretraining": null}')
    assert read_recipe(recipe, TABLE.scale) == Recipe.of_preset("minilm", TABLE.scale).varied(pretrained=False)
    flags = ["--recipe", str(recipe), "--variants", f"{UBERT},{BIAS.name}", "--folds", "2", "--minutes", "0"]
    assert "cells are missing" in invoke_bench(reviews, reviews / "out", *flags).output


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"pretrained": None}, r"recipe = \['pretrained'\]: a recipe has no such part"),
        ({"finetuning": {"lop": {}}}, "not a recipe of this version"),
        ({"pretraining": {"loop": 3}}, "not a recipe of this version"),
        ({"config": {"state_dimension": 3}}, r"\['state_dimension'\]"),
        ({"config": {"state_dim": 64.5}}, "state_dim = 64.5: use a whole number or null"),
        ({"finetuning": {"loop": {"epochs": "3"}}}, "epochs = '3': use a whole number"),
        ({"finetuning": {"loop": {"batch_size": 16.5}}}, "batch_size = 16.5: use a whole number"),
        ({"finetuning": {"loop": {"weight_decay": -1}}}, "weight_decay = -1: use 0 or more"),
        ({"finetuning": {"loop": {"max_gradient_norm": -1}}}, "max_gradient_norm = -1: use a number above 0"),
        ({"finetuning": {"mode": ["cached"]}}, r"mode = \['cached'\]: use one of 'cached', 'end-to-end'"),
        ({"pretraining": {"beta": True}}, "beta = True: use a number"),
        ([], r"recipe = \[\]: write an object of config, pretraining, finetuning"),
    ],
)
def test_an_invalid_recipe_file_is_refused(recipe: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(ConfigError, match=message):
        read_recipe(tmp_path / "recipe.json", RatingScale())


def test_a_variant_that_is_named_twice_is_measured_once(workspace: Workspace) -> None:
    chosen = choose_contenders(f"{UBERT},{MEAN.name}, {UBERT}", TINY, workspace)
    assert [contender.name for contender in chosen] == [UBERT, MEAN.name]


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--truth", "nowhere.json", "nowhere.json"),
        ("--variants", "best", "variants = 'best': use default, all, or some of: u-bert"),
        ("--target", "nothing", "nothing"),
    ],
)
def test_a_refused_flag_is_named_and_leaves_no_directory(flag: str, value: str, message: str, reviews: Path) -> None:
    result = invoke_bench(reviews, reviews / "out", flag, value)
    assert isinstance(result.exception, UbertError)
    assert message in str(result.exception)
    assert not (reviews / "out").exists()


def test_a_directory_with_other_files_is_refused_and_left_as_it_is(reviews: Path) -> None:
    result = invoke_bench(reviews, reviews, "--minutes", "0")
    assert isinstance(result.exception, ConfigError)
    assert "holds other files" in str(result.exception)
    assert [path.name for path in reviews.iterdir()] == ["reviews.parquet"]
