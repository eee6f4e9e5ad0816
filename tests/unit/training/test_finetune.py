"""Fine-tuning: its initial weights, its configuration, what it refuses, and its ratings without further training."""

import json
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn import linear_model
from sklearn.linear_model import RidgeCV

from support.full_disk import full_disk
from support.read_only import inside_read_only
from support.small_corpus import small_table
from ubert_model.config import ModelConfig, RatingBase, RatingScale, preset
from ubert_model.errors import ConfigError, InputError, UbertError
from ubert_model.nn.co_matching import DIFFERENCE_SCALE
from ubert_model.nn.input_layer import UNKNOWN
from ubert_model.nn.pair_model import PairModel
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_model.rating import deviations, text_reader
from ubert_model.rating.intervals import RatingIntervals
from ubert_model.states import product_code
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.commands.options import model_config
from ubert_training.evaluation import evaluate as evaluation
from ubert_training.evaluation.evaluate import EVALUATION, MODEL_NAME, PREDICTIONS, evaluate
from ubert_training.finetuning import finetuning_task, prediction_init
from ubert_training.finetuning.bias_fit import bias_ratings
from ubert_training.finetuning.finetune import ELSEWHERE, finetune, target_identities
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.finetuning.histories import Histories
from ubert_training.finetuning.interval_fit import fit_intervals
from ubert_training.finetuning.network_outputs import network_outputs
from ubert_training.finetuning.rating_parts import final_ratings, fit_blend_weight
from ubert_training.optimization.loop import LoopOptions
from ubert_training.pretraining.corpus_rows import target_rows
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.pretraining.pretrain import CORPUS_READ, pretrain, pretraining_inputs
from ubert_training.pretraining.pretrain_options import PretrainOptions
from ubert_training.reviews.table import Review, ReviewTable, Rows, TableMetadata
from ubert_training.running.devices import Precision
from ubert_training.running.stage import Stage, read_stage
from ubert_training.splits import Split, random_split
from ubert_training.states.projection_init import initialize_projection
from ubert_training.states.review_states import ReviewStates
from ubert_training.states.tokens import TokenizedReviews
from ubert_training.weights import model_files
from ubert_training.weights.backbones import freeze_all_but_last, load_backbone
from ubert_training.weights.model_files import ModelFiles, load_model
from ubert_training.weights.saving import submodule_weights

TABLE = small_table(users=40)
TINY = preset("tiny")
SPLIT = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=0)
LEXICON = Lexicon(words=frozenset({"good", "excellent", "terrible", "weak", "decent", "love"}), source="the test")
ONE_EPOCH = LoopOptions(epochs=1, batch_size=16, learning_rate=1e-3)
NO_LEARNING = replace(ONE_EPOCH, learning_rate=1e-12)
"""Leaves the initial weights as they are, but for rounding."""


def pretrained(directory: Path, corpus: str) -> Path:
    options = PretrainOptions(corpus=corpus, loop=ONE_EPOCH)  # type: ignore[arg-type]
    return pretrain(TABLE, SPLIT, TINY, LEXICON, options, directory)


@pytest.fixture(scope="module")
def from_both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model pre-trained on both corpora, which no test may change."""
    return pretrained(tmp_path_factory.mktemp("from-both") / "pretrained", "both")


def fine_tuned(
    directory: Path,
    *,
    config: ModelConfig = TINY,
    options: FinetuneOptions | None = None,
    split: Split = SPLIT,
    start: Path | None = None,
) -> Path:
    """Fine-tune in ``directory / "run"``, for one epoch by default. ``start``: a pre-trained model."""
    options = FinetuneOptions(loop=ONE_EPOCH) if options is None else options
    states = directory / "states"
    return finetune(TABLE, split, config, options, directory / "run", pretrained=start, states=states)


def test_a_network_without_signal_gets_hardly_any_blend_weight() -> None:
    rng = np.random.default_rng(0)
    weights = [fit_blend_weight(rng.normal(0, 0.3, 1000), rng.normal(0, 0.9, 1000)) for _ in range(200)]
    assert np.mean([weight > 0 for weight in weights]) < 0.25
    assert np.mean(weights) < 0.03
    assert fit_blend_weight(np.zeros(10), np.ones(10)) == 0.0
    assert fit_blend_weight(np.array([0.1]), np.array([1.0])) == 0.0, "one pair fits exactly, whatever the network says"


def test_the_blend_weight_corrects_the_scale_of_the_network_and_is_never_negative() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.5, 1000)
    residuals = truth + rng.normal(0, 0.5, 1000)
    assert fit_blend_weight(truth, residuals) > 0.95
    assert fit_blend_weight(4 * truth, residuals) == pytest.approx(0.25, abs=0.03)
    assert fit_blend_weight(-truth, residuals) == 0.0


def test_pre_trained_user_embeddings_read_no_review_of_the_target(from_both: Path, tmp_path: Path) -> None:
    """They would carry the ratings of the pairs that fine-tuning predicts (law 5)."""
    elsewhere = {user for user, domain in zip(TABLE.user, TABLE.domain, strict=True) if domain == "domain-1"}
    users = load_model(from_both, "pretrain").identities.users
    assert set(users.identifiers) <= elsewhere
    assert len(users) > 10
    assert not load_model(pretrained(tmp_path / "target", "target"), "pretrain").identities.users.identifiers


def test_fine_tuning_starts_users_and_items_from_the_pre_trained_users(from_both: Path, tmp_path: Path) -> None:
    before = load_model(from_both, "pretrain")
    after = load_model(fine_tuned(tmp_path, options=FinetuneOptions(loop=NO_LEARNING), start=from_both), "finetune")
    learned, given = after.load_weights(), before.load_weights()
    for name in ("query_projection.weight", "fusion.outer_norm.weight", "fusion.feed_forward.expand.weight"):
        for side in ("user_encoder", "item_encoder"):
            torch.testing.assert_close(learned[f"head.{side}.{name}"], given[f"user_encoder.{name}"])
    assert_rounded = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-3)
    assert_rounded(learned["domain_embedding.weight"], given["domain_embedding.weight"])
    unknown = given["user_query.embedding.weight"][UNKNOWN]
    for item in learned["item_query.embedding.weight"]:
        assert_rounded(item, unknown)
    user = before.identities.users.identifiers[0]
    assert_rounded(
        learned["user_query.embedding.weight"][after.identities.users.row(user)],
        given["user_query.embedding.weight"][before.identities.users.row(user)],
    )


def test_a_model_that_read_other_domains_is_also_compared_with_baselines_that_did(
    from_both: Path, tmp_path: Path
) -> None:
    names = {}
    for start in (from_both, None):
        directory = tmp_path / f"pretrained-{start is not None}"
        run = fine_tuned(directory, start=start)
        names[start] = set(evaluate(TABLE, run, states=directory / "states").settings)
    assert names[from_both] == names[None] | {f"{name} with other domains" for name in names[None]}


def test_an_evaluation_writes_the_rating_and_interval_of_every_test_pair(tmp_path: Path) -> None:
    run = fine_tuned(tmp_path)
    mse = evaluate(TABLE, run, states=tmp_path / "states").scores[MODEL_NAME].mse.value
    pairs = [json.loads(line) for line in (run / PREDICTIONS).read_text(encoding="utf-8").splitlines()]
    test_reviews = {(TABLE.user[row], TABLE.item[row], float(TABLE.rating[row])) for row in SPLIT.test.tolist()}
    assert {(pair["user"], pair["item"], pair["rating"]) for pair in pairs} == test_reviews
    assert np.mean([(pair["predicted"] - pair["rating"]) ** 2 for pair in pairs]) == pytest.approx(mse)
    assert all(pair["low"] <= pair["predicted"] <= pair["high"] for pair in pairs)


def test_ratings_without_text_read_ratings_in_other_domains(from_both: Path, tmp_path: Path) -> None:
    ratings = []
    for start in (None, from_both):
        directory = fine_tuned(tmp_path / str(start is None), start=start)
        run = FinishedRun.open(TABLE, directory, states=directory.parent / "states")
        ratings.append(run.ratings_without_text(SPLIT.test))
    assert np.abs(ratings[1] - ratings[0]).max() > 0.01
    (directory / ELSEWHERE).unlink()
    with pytest.raises(InputError, match=r"cannot be read .*: fine-tune again"):
        run.ratings_without_text(SPLIT.test)


def test_a_read_only_run_is_refused_before_it_is_evaluated(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "run", "finetune", {})
    stage.open()
    stage.finish({})
    refused = pytest.raises(InputError, match=r"\(Permission denied\).*copy the run, and evaluate its copy")
    with inside_read_only(stage.directory) as run, refused:
        evaluate(TABLE, run, states=tmp_path / "states")


def test_a_run_is_evaluated_only_on_the_reviews_that_it_was_trained_on(tmp_path: Path) -> None:
    run = fine_tuned(tmp_path)
    wider = replace(TABLE, metadata=TableMetadata(scale=RatingScale(lowest=0, highest=10)))
    with pytest.raises(InputError, match=rf"scale 0:10, the run {run} has 1:5: give reviews that .* --scale 1:5"):
        evaluate(wider, run, states=tmp_path / "states")
    with pytest.raises(InputError, match=f"reviews are missing here.*Give the reviews that {run} was trained on"):
        evaluate(TABLE.subset(SPLIT.train), run, states=tmp_path / "states")


def test_a_table_of_other_domains_makes_another_configuration(from_both: Path, tmp_path: Path) -> None:
    """Every stage learns domains, which review ids do not cover."""
    run = fine_tuned(tmp_path)
    renamed = replace(TABLE, domain=[f"new {name}" for name in TABLE.domain])
    assert renamed.fingerprint == TABLE.fingerprint
    with pytest.raises(ConfigError, match="differs in domains"):
        pretrain(renamed, SPLIT, TINY, LEXICON, PretrainOptions(corpus="both", loop=ONE_EPOCH), from_both)
    options = FinetuneOptions(loop=ONE_EPOCH)
    with pytest.raises(ConfigError, match="differs in domains"):
        finetune(renamed, SPLIT, TINY, options, run, pretrained=None, states=tmp_path / "states")


LONGER = replace(ONE_EPOCH, epochs=2)
OTHER_SEED = random_split(TABLE, SPLIT.rows, seed=1)
ALL_DOMAINS = random_split(TABLE, np.arange(len(TABLE)), seed=0)


def test_every_input_of_pre_training_is_part_of_its_configuration(from_both: Path) -> None:
    """Otherwise a stage that is started again with other inputs would return the former model."""
    options = PretrainOptions(corpus="both", loop=ONE_EPOCH)
    for differing, split, config, lexicon, changed in (
        (r"config\.dropout: 0\.1, now 0\.2", SPLIT, TINY.with_options(dropout=0.2), LEXICON, options),
        ("lexicon", SPLIT, TINY, Lexicon(words=frozenset({"good"}), source="the test"), options),
        (r"options\.loop\.epochs: 1, now 2", SPLIT, TINY, LEXICON, replace(options, loop=LONGER)),
        ("reviews", OTHER_SEED, TINY, LEXICON, options),
        ("reviews; target", ALL_DOMAINS, TINY, LEXICON, options),
    ):
        with pytest.raises(ConfigError, match=rf"\(it differs in {differing}\)"):
            pretrain(TABLE, split, config, lexicon, changed, from_both)


def test_the_lexicon_is_an_input_of_opinion_masking_alone() -> None:
    rows = SPLIT.train
    for masking, counts in (("opinion", True), ("random", False), ("none", False)):
        options = PretrainOptions(masking=masking)  # type: ignore[arg-type]
        other = Lexicon(words=frozenset({"good"}), source="the test")
        inputs, changed = (pretraining_inputs(TABLE, SPLIT, rows, TINY, words, options) for words in (LEXICON, other))
        assert (inputs != changed) == counts


def test_every_input_of_fine_tuning_is_part_of_its_configuration(from_both: Path, tmp_path: Path) -> None:
    fine_tuned(tmp_path)
    changes: dict[str, dict[str, Any]] = {
        r"config\.dropout: 0\.1, now 0\.2": {"config": TINY.with_options(dropout=0.2)},
        r"options\.loop\.epochs: 1, now 2": {"options": FinetuneOptions(loop=LONGER)},
        "pretrained": {"start": from_both},
        "split.test; split.train; split.validation": {"split": OTHER_SEED},
    }
    for differing, changed in changes.items():
        with pytest.raises(ConfigError, match=rf"\(it differs in {differing}\)"):
            fine_tuned(tmp_path, **changed)


def test_identities_are_those_of_the_training_part_only() -> None:
    """No user and no item is known by an evaluation pair (law 5)."""
    table = ReviewTable.of(
        Review(user=f"u{n}", item=f"i{n}", rating=3.0, text="fine", domain="d", timestamp=n) for n in range(20)
    )
    split = random_split(table, np.arange(20), seed=0)
    identities = target_identities(table, split)
    for known, names in ((identities.users, table.user), (identities.items, table.item)):
        assert sorted(known.identifiers) == sorted(names[row] for row in split.train)


@pytest.mark.parametrize("id_embeddings", ["free", "shrunk", "none"])
@pytest.mark.parametrize("former", ["shrunk", "none"])
def test_fine_tuning_may_use_other_id_embeddings_than_pre_training(
    former: Literal["shrunk", "none"], id_embeddings: str, tmp_path: Path
) -> None:
    before = TINY.with_options(id_embeddings=former)
    start = pretrain(TABLE, SPLIT, before, LEXICON, PretrainOptions(loop=ONE_EPOCH), tmp_path / "pretrained")
    config = before.with_options(id_embeddings=id_embeddings)
    run = fine_tuned(tmp_path, config=config, options=FinetuneOptions(loop=NO_LEARNING), start=start)
    users, pretrained_users = (
        load_model(directory, kind).load_weights()["user_query.embedding.weight"]
        for directory, kind in ((run, "finetune"), (start, "pretrain"))
    )
    assert (len(users) > 1) == (id_embeddings != "none")
    are_distinguished = "none" not in (former, id_embeddings)
    assert torch.allclose(users, pretrained_users[:1], atol=1e-5) == (not are_distinguished)


def test_the_projection_is_initialized_anew_from_the_pre_trained_encoders_states(
    from_both: Path, tmp_path: Path
) -> None:
    before = load_model(from_both, "pretrain")
    options = FinetuneOptions(
        mode="end-to-end", loop=NO_LEARNING, encoder_learning_rate=1e-12, projection_learning_rate=1e-12
    )
    run = fine_tuned(tmp_path, options=options, start=from_both)
    encoder = encoder_of(before)
    pretrained_projection = encoder.get_parameter("projection.weight").detach().clone()
    tokenizer = ReviewTokenizer(before.tokenizer_json, before.config.max_length)
    tokens = TokenizedReviews.of(TABLE.texts_at(SPLIT.rows), tokenizer)
    states = ReviewStates(encoder=encoder.eval(), tokens=tokens, bank=None)
    initialize_projection(states, SPLIT.train, TABLE.user, ONE_EPOCH.seed)
    projection = encoder_of(load_model(run, "finetune")).get_parameter("projection.weight")
    torch.testing.assert_close(projection, encoder.get_parameter("projection.weight"), atol=1e-5, rtol=1e-4)
    assert (projection - pretrained_projection).abs().max() > 1e-2


def encoder_of(files: ModelFiles) -> ReviewEncoder:
    encoder = ReviewEncoder.from_config(files.bert_config, files.config.state_dim, files.config.tokens_a_row)
    encoder.load_state_dict(submodule_weights(files.load_weights(), "review_encoder"))
    return encoder


@pytest.fixture(scope="module")
def initial_weights(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, torch.Tensor]:
    """The weights that fine-tuning starts from."""
    run = fine_tuned(tmp_path_factory.mktemp("initial"), options=FinetuneOptions(loop=NO_LEARNING))
    return load_model(run, "finetune").load_weights()


def test_the_initial_prediction_layer_weights_every_input(initial_weights: Mapping[str, torch.Tensor]) -> None:
    (weights,) = initial_weights["head.prediction_layer.output.weight"]
    vectors, ratings = weights[:-2], weights[-2:]
    assert (vectors.view(4, -1).abs().sum(dim=1) > 0).all()  # û, tᵘ, î and tⁱ
    assert (ratings != 0).all()


def test_the_initial_co_matching_kernel_takes_the_difference(initial_weights: Mapping[str, torch.Tensor]) -> None:
    kernel = initial_weights["head.co_matching.kernel.weight"]
    torch.testing.assert_close(kernel[:, : len(kernel)], -DIFFERENCE_SCALE * torch.eye(len(kernel)), atol=1e-5, rtol=0)


@dataclass(frozen=True, kw_only=True)
class RidgeFit:
    """A ridge regression of the training pairs: its targets and what it predicts for its inputs."""

    predicted: NDArray[np.float64]
    targets: NDArray[np.float64]


@pytest.fixture
def ridge_fits(monkeypatch: pytest.MonkeyPatch) -> list[RidgeFit]:
    """Every ridge regression that is fitted."""
    fits: list[RidgeFit] = []

    class RecordingRidge(RidgeCV):  # type: ignore[misc]
        def fit(self, inputs: Any, targets: Any) -> "RecordingRidge":
            super().fit(inputs, targets)
            fits.append(RidgeFit(predicted=self.predict(inputs), targets=targets))
            return self

    monkeypatch.setattr(linear_model, "RidgeCV", RecordingRidge)
    return fits


def test_the_prediction_layer_is_initialized_from_a_sample_of_many_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ridge_fits: list[RidgeFit]
) -> None:
    """The inputs of 800,000 pairs would take 13 GB."""
    monkeypatch.setattr(prediction_init, "RIDGE_PAIRS", 30)
    run = fine_tuned(tmp_path, options=FinetuneOptions(loop=NO_LEARNING))
    assert [(len(fit.predicted), len(fit.targets)) for fit in ridge_fits] == [(30, 30)]
    assert (load_model(run, "finetune").load_weights()["head.prediction_layer.output.weight"] != 0).any()


def test_the_initial_prediction_layer_leaves_the_mean_rating_to_the_bias_model(
    tmp_path: Path, ridge_fits: list[RidgeFit]
) -> None:
    fine_tuned(tmp_path, options=FinetuneOptions(loop=NO_LEARNING))
    (fit,) = ridge_fits
    assert abs(fit.targets.mean()) > 0.001
    assert fit.predicted.mean() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("base", ["leave_one_out_bias", "none"])
def test_if_no_epoch_improves_the_initial_network_rates_without_a_blend_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ridge_fits: list[RidgeFit], base: RatingBase
) -> None:
    """Above a bias that network is the ridge regression. Without one it is the paper's: randomly initialized."""
    interval_inputs: list[tuple[NDArray[np.float64], ...]] = []

    def recorded(
        predicted: NDArray[np.float64],
        truth: NDArray[np.float64],
        user_counts: NDArray[np.float64],
        scale: RatingScale,
    ) -> RatingIntervals:
        interval_inputs.append((predicted, truth, user_counts))
        return fit_intervals(predicted, truth, user_counts, scale)

    monkeypatch.setattr(finetuning_task, "fit_intervals", recorded)
    monkeypatch.setattr(finetuning_task, "fit_blend_weight", lambda *_: 0.5)
    config = TINY.with_options(rating_base=base, history_ratings=base != "none")
    options = FinetuneOptions(loop=replace(NO_LEARNING, least_improvement=50.0))
    directory = fine_tuned(tmp_path, config=config, options=options)
    run = FinishedRun.open(TABLE, directory, device="cpu", states=tmp_path / "states")
    assert read_stage(directory)["summary"]["best_epoch"] == -1
    assert run.parts.blend.weight == 1.0

    def rated(pairs: Rows) -> tuple[Histories, NDArray[np.float64], NDArray[np.float64]]:
        histories = run.histories(pairs)
        outputs = network_outputs(PairModel(run.model), run.source(run.bank), histories, run.accelerator)
        ratings = final_ratings(run.parts.blend, histories, outputs)
        return histories, outputs, ratings

    histories, outputs, _ = rated(SPLIT.train)
    if config.above_bias:
        (ridge,) = ridge_fits
        readable = histories.has_both_sides
        above_bias = TABLE.rating[SPLIT.train] - bias_ratings(run.parts.blend.bias, histories.sums)
        np.testing.assert_allclose(ridge.targets, above_bias[readable], atol=1e-5)
        np.testing.assert_allclose(outputs[readable], ridge.predicted, atol=1e-3)
    else:
        assert not ridge_fits
    histories, _, ratings = rated(SPLIT.validation)
    ((predicted, truth, counts),) = interval_inputs
    np.testing.assert_allclose(predicted, ratings, atol=1e-4)
    assert truth.tolist() == TABLE.rating[SPLIT.validation].tolist()
    assert counts.tolist() == histories.user_count.tolist() != histories.item_count.tolist()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (FinetuneOptions, "encoder_learning_rate"),
        (FinetuneOptions, "projection_learning_rate"),
        (PretrainOptions, "encoder_learning_rate"),
    ],
)
def test_a_learning_rate_of_0_is_refused_by_name(options: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} = 0.0: use a positive step size"):
        options(**{name: 0.0})


def test_fine_tuned_weights_of_another_version_are_refused(tmp_path: Path) -> None:
    run = fine_tuned(tmp_path)
    files = load_model(run, "finetune")
    with pytest.raises(InputError, match=rf"weights of {run} do not fit this version's model .*run its step again"):
        replace(files, config=files.config.with_options(history_ratings=False)).build_rating_model()


def test_pre_trained_weights_of_another_version_are_refused(from_both: Path, tmp_path: Path) -> None:
    """As if that version had another name for a layer."""
    start = shutil.copytree(from_both, tmp_path / "pretrained")
    weights = {
        name.replace("user_query.norm", "norm"): tensor
        for name, tensor in load_file(start / "model.safetensors").items()
    }
    save_file(weights, start / "model.safetensors")
    with pytest.raises(InputError, match=rf"weights of {start} do not fit this version's model .*run its step again"):
        fine_tuned(tmp_path, start=start)


def test_damaged_weights_are_refused_by_the_name_of_their_file(from_both: Path, tmp_path: Path) -> None:
    weights = shutil.copytree(from_both, tmp_path / "pretrained") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"{weights} cannot be read \(.+\); run its step again"):
        fine_tuned(tmp_path, start=tmp_path / "pretrained")


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000], ids=["empty", "cut", "list", "nested"])
@pytest.mark.parametrize("name", ["stage.json", "config.json", "encoder_config.json", "identities.json"])
def test_a_damaged_file_is_refused_by_its_name(name: str, content: str, from_both: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(from_both, tmp_path / "pretrained") / name
    damaged.write_text(content)
    with pytest.raises(InputError, match=rf"{damaged} cannot be read \(.+\); run its step again"):
        fine_tuned(tmp_path, start=tmp_path / "pretrained")


def test_the_weights_of_a_pre_trained_model_are_read_once(
    from_both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the largest file: BERT-base, and a row for each of up to millions of users."""
    read: list[Path] = []

    def recorded(path: Path) -> dict[str, torch.Tensor]:
        read.append(path)
        return load_file(path)

    monkeypatch.setattr(model_files, "load_file", recorded)
    fine_tuned(tmp_path, start=from_both)
    assert read == [from_both / "model.safetensors"]


def test_frozen_layers_of_the_encoder_have_no_dropout() -> None:
    bert = load_backbone("random-tiny").bert.train()
    tokens = torch.arange(1, 9)[None]
    freeze_all_but_last(bert, 1)
    lower, upper = (
        [bert(tokens, output_hidden_states=True).hidden_states[layer] for _ in range(2)] for layer in (1, 2)
    )
    assert torch.equal(*lower)
    assert not torch.equal(*upper)
    assert [all(weight.requires_grad for weight in layer.parameters()) for layer in bert.encoder.layer] == [False, True]
    assert not any(weight.requires_grad for weight in bert.embeddings.parameters())


@pytest.mark.parametrize("layers", [1, 3])
def test_a_truncated_backbone_encodes_as_the_first_layers_of_the_whole(layers: int) -> None:
    whole, truncated = load_backbone("minilm").bert.eval(), load_backbone("minilm", layers).bert.eval()
    tokens = torch.arange(1000, 1012)[None]
    with torch.inference_mode():
        states = whole(tokens, output_hidden_states=True).hidden_states[layers]
        assert torch.equal(truncated(tokens).last_hidden_state, states)
    assert truncated.config.num_hidden_layers == len(truncated.encoder.layer) == layers


def test_more_layers_than_the_backbone_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="encoder_layers = 3: the backbone has 2 layers; use at most that many"):
        load_backbone("random-tiny", 3)


TOO_LONG = {"max_length": 100, "pretrain_max_length": 65, "max_rows": 200}


@pytest.mark.parametrize(
    ("changes", "trainable_layers", "precision", "message"),
    [
        (TOO_LONG, None, "fp32", r"max_length = (65|100): the backbone reads 64 tokens; use at most that many"),
        ({"encoder_layers": 3}, None, "fp32", "encoder_layers = 3: the backbone has 2 layers; use at most that many"),
        ({}, 3, "fp32", "trainable_layers = 3: the backbone has 2 layers; use at most that many"),
        ({"backbone": "/nowhere/at/all"}, None, "fp32", "backbone '/nowhere/at/all' cannot be loaded"),
        ({}, None, "bf16", "precision = 'bf16': this cpu only emulates bfloat16"),
    ],
)
def test_a_refused_configuration_neither_creates_nor_discards_a_directory(
    changes: dict[str, Any],
    trainable_layers: int | None,
    precision: Precision,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ubert_training.running.devices.has_native_bfloat16", lambda _: False)
    config, loop = replace(TINY, **changes), replace(ONE_EPOCH, precision=precision)
    pretraining = PretrainOptions(loop=loop, trainable_layers=trainable_layers)
    finetuning = FinetuneOptions(mode="end-to-end", loop=loop, trainable_layers=trainable_layers)
    former = Stage(tmp_path / "former", "finetune", {"of": "another configuration"})
    former.open()
    for directory, force in ((tmp_path / "new", False), (former.directory, True)):
        with pytest.raises(UbertError, match=message):
            pretrain(TABLE, SPLIT, config, LEXICON, pretraining, directory, force=force)
        with pytest.raises(UbertError, match=message):
            finetune(TABLE, SPLIT, config, finetuning, directory, force=force, pretrained=None, states=directory)
    assert [path.name for path in tmp_path.iterdir()] == ["former"]
    assert read_stage(former.directory)["inputs"] == {"of": "another configuration"}


def test_the_presets_encoder_layers_apply_to_its_own_backbone_only() -> None:
    assert model_config("minilm", TABLE).encoder_layers == 3
    assert model_config("minilm", TABLE, backbone="minilm").encoder_layers == 3
    assert model_config("minilm", TABLE, encoder_layers=0).encoder_layers is None
    assert model_config("minilm", TABLE, backbone="bert-base-uncased").encoder_layers is None
    assert model_config("minilm", TABLE, backbone="bert-base-uncased", encoder_layers=8).encoder_layers == 8


@pytest.mark.parametrize("module", [deviations, text_reader, product_code])
def test_a_full_disk_is_an_error_that_names_the_run_which_then_continues(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = module.save_file

    def save_to_full_disk(tensors: Mapping[str, Any], path: Path) -> None:
        with full_disk(10):
            save(tensors, path)

    monkeypatch.setattr(module, "save_file", save_to_full_disk)
    with pytest.raises(
        OSError, match=rf"{tmp_path / 'run'} cannot be written \(.*make room, then run the same command"
    ):
        fine_tuned(tmp_path)
    monkeypatch.undo()
    assert read_stage(fine_tuned(tmp_path))["finished"]


def test_others_may_read_all_files_of_a_run_as_the_user_allows(tmp_path: Path) -> None:
    former = os.umask(0o027)
    try:
        run = fine_tuned(tmp_path)
    finally:
        os.umask(former)
    assert {stat.filemode(path.stat().st_mode) for path in run.iterdir() if path.is_file()} == {"-rw-r-----"}


def test_the_evaluation_of_a_run_is_not_written_into_the_one_that_replaced_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fine_tuned(tmp_path)

    def tuned_while_the_run_is_replaced(*_: object, **__: object) -> list[object]:
        options = FinetuneOptions(loop=replace(ONE_EPOCH, seed=1))
        finetune(TABLE, SPLIT, TINY, options, run, pretrained=None, states=tmp_path / "states", force=True)
        return []

    monkeypatch.setattr(evaluation, "_tuned_baselines", tuned_while_the_run_is_replaced)
    with pytest.raises(InputError, match=f"{run} holds another run .*; run `ubert evaluate` again"):
        evaluate(TABLE, run, states=tmp_path / "states")
    assert not (run / EVALUATION).exists()


def test_a_model_pre_trained_on_an_evaluation_pair_is_refused(from_both: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has read \d+ of the \d+ reviews .* pre-train with the same split"):
        fine_tuned(tmp_path, split=OTHER_SEED, start=from_both)
    assert not (tmp_path / "run").exists()


def test_a_model_pre_trained_on_other_texts_of_the_same_pairs_is_refused(from_both: Path, tmp_path: Path) -> None:
    """As after an import without titles: no review has the id that pre-training has recorded."""
    columns = zip(TABLE.user, TABLE.item, TABLE.rating.tolist(), TABLE.text, TABLE.domain, strict=True)
    retold = ReviewTable.of(
        Review(user=user, item=item, rating=rating, text=f"{text} Again.", domain=domain)
        for user, item, rating, text, domain in columns
    )
    for split in (random_split(retold, target_rows(retold, ["domain-0"]), seed=seed) for seed in (0, 1)):
        with pytest.raises(InputError, match=r"another review table.* pre-train on these reviews, with the same s"):
            finetune(
                retold,
                split,
                TINY,
                FinetuneOptions(loop=ONE_EPOCH),
                tmp_path / "run",
                pretrained=from_both,
                states=tmp_path / "states",
            )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("field", "value", "pretrained_with"), [("state_dim", 8, 16), ("encoder_layers", 1, None)])
def test_a_pre_trained_model_of_another_architecture_is_refused(
    field: str, value: int, pretrained_with: int | None, from_both: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"{field} = {value}.*pre-trained with {pretrained_with}"):
        fine_tuned(tmp_path, config=TINY.with_options(**{field: value}), start=from_both)
    assert not (tmp_path / "run").exists()


def test_a_pre_trained_model_without_its_list_of_reviews_is_refused(from_both: Path, tmp_path: Path) -> None:
    start = shutil.copytree(from_both, tmp_path / "pretrained")
    (start / CORPUS_READ).unlink()
    with pytest.raises(InputError, match=rf"holds no {CORPUS_READ}, the reviews it has read; pre-train again"):
        fine_tuned(tmp_path, start=start)
    assert not (tmp_path / "run").exists()
