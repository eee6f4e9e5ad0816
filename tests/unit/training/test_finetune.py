"""What fine-tuning takes over, starts from, and lets into a rating."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn import linear_model
from sklearn.linear_model import RidgeCV

from support.read_only import standing_in_read_only
from support.small_corpus import small_table
from ubert_model.config import RatingBase, preset
from ubert_model.errors import ConfigError, InputError, UbertError
from ubert_model.nn.co_matching import DIFFERENCE_SCALE
from ubert_model.nn.input_layer import UNKNOWN
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_model.rating.intervals import RatingIntervals
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.commands.options import model_config
from ubert_training.evaluation.evaluate import evaluate
from ubert_training.finetuning import finetuning_task, prediction_init
from ubert_training.finetuning.bias_fit import bias_ratings
from ubert_training.finetuning.finetune import finetune, target_identities
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.finetuning.histories import Histories
from ubert_training.finetuning.pair_model import PairModel, network_outputs
from ubert_training.finetuning.rating_parts import final_ratings, fit_blend_weight
from ubert_training.optimization.loop import LoopOptions
from ubert_training.pretraining.corpus_rows import target_rows
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.pretraining.pretrain import CORPUS_READ, pretrain
from ubert_training.pretraining.pretrain_options import PretrainOptions
from ubert_training.reviews.table import Review, ReviewTable, Rows
from ubert_training.running.devices import Precision
from ubert_training.running.stage import Stage, read_stage
from ubert_training.splits import random_split
from ubert_training.states.projection_init import initialize_projection
from ubert_training.states.review_states import ReviewStates
from ubert_training.states.tokens import TokenizedReviews
from ubert_training.weights import model_files
from ubert_training.weights.backbones import freeze_all_but_last, load_backbone
from ubert_training.weights.model_files import ModelFiles, load_model
from ubert_training.weights.saving import submodule_weights

TABLE = small_table(users=40)
SPLIT = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=0)
LEXICON = Lexicon(words=frozenset({"good", "excellent", "terrible", "weak", "decent", "love"}), source="the test")
ONE_EPOCH = LoopOptions(epochs=1, batch_size=16, learning_rate=1e-3)


def pretrained(directory: Path, corpus: str) -> Path:
    options = PretrainOptions(corpus=corpus, loop=ONE_EPOCH)  # type: ignore[arg-type]
    return pretrain(TABLE, SPLIT, preset("tiny"), LEXICON, options, directory)


@pytest.fixture(scope="module")
def from_both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained model to start from, and to leave as it is."""
    return pretrained(tmp_path_factory.mktemp("from-both") / "pretrained", "both")


def test_a_network_that_learned_nothing_gets_no_share() -> None:
    rng = np.random.default_rng(0)
    shares = [fit_blend_weight(rng.normal(0, 0.3, 1000), rng.normal(0, 0.9, 1000)) for _ in range(200)]
    assert np.mean([share > 0 for share in shares]) < 0.25
    assert np.mean(shares) < 0.03
    assert fit_blend_weight(np.zeros(10), np.ones(10)) == 0.0


def test_a_network_that_is_right_gets_nearly_all_and_one_that_overshoots_less() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.5, 1000)
    left = truth + rng.normal(0, 0.5, 1000)
    assert fit_blend_weight(truth, left) > 0.95
    assert fit_blend_weight(4 * truth, left) == pytest.approx(0.25, abs=0.03)
    assert fit_blend_weight(-truth, left) == 0.0


def test_user_embeddings_read_no_review_of_the_target(from_both: Path, tmp_path: Path) -> None:
    """Else they would carry the ratings of the pairs that fine-tuning predicts (law 5)."""
    elsewhere = {user for user, domain in zip(TABLE.user, TABLE.domain, strict=True) if domain == "domain-1"}
    both = load_model(from_both, "pretrain").identities.users
    assert set(both.identifiers) <= elsewhere
    assert len(both) > 10
    assert not load_model(pretrained(tmp_path / "target", "target"), "pretrain").identities.users.identifiers


def test_fine_tuning_starts_from_what_pre_training_learned_for_users_and_items_alike(
    from_both: Path, tmp_path: Path
) -> None:
    before = load_model(from_both, "pretrain")
    options = FinetuneOptions(loop=replace(ONE_EPOCH, learning_rate=1e-12))
    run = finetune(
        TABLE,
        SPLIT,
        before.config,
        options,
        tmp_path / "run",
        pretrained=from_both,
        states=tmp_path / "states",
    )
    after = load_model(run, "finetune")
    learned, given = after.load_weights(), before.load_weights()
    for name in ("query_projection.weight", "fusion.outer_norm.weight", "fusion.feed_forward.expand.weight"):
        for side in ("user_encoder", "item_encoder"):
            torch.testing.assert_close(learned[f"head.{side}.{name}"], given[f"user_encoder.{name}"])
    moved_by_no_more = {"atol": 1e-5, "rtol": 1e-3}
    torch.testing.assert_close(learned["domain_embedding.weight"], given["domain_embedding.weight"], **moved_by_no_more)
    unknown = given["user_query.embedding.weight"][UNKNOWN]
    for item in learned["item_query.embedding.weight"]:
        torch.testing.assert_close(item, unknown, **moved_by_no_more)
    user = before.identities.users.identifiers[0]
    torch.testing.assert_close(
        learned["user_query.embedding.weight"][after.identities.users.row(user)],
        given["user_query.embedding.weight"][before.identities.users.row(user)],
        **moved_by_no_more,
    )


def test_who_has_read_other_domains_is_compared_with_baselines_that_have_read_them_too(
    from_both: Path, tmp_path: Path
) -> None:
    options, states = FinetuneOptions(loop=ONE_EPOCH), tmp_path / "states"
    compared = {}
    for start in (from_both, None):
        run = tmp_path / f"run-{start is not None}"
        finetune(TABLE, SPLIT, preset("tiny"), options, run, pretrained=start, states=states)
        compared[start] = set(evaluate(TABLE, run, states=states).settings)
    assert compared[from_both] == compared[None] | {f"{name} with other domains" for name in compared[None]}


def test_a_run_that_cannot_be_written_into_is_refused_before_it_is_evaluated(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "run", "finetune", {})
    stage.open()
    stage.finish({})
    refused = pytest.raises(InputError, match=r"\(Permission denied\).*copy the run, and evaluate its copy")
    with standing_in_read_only(stage.directory) as run, refused:
        evaluate(TABLE, run, states=tmp_path / "states")


def test_a_model_of_the_same_reviews_in_other_domains_is_another_configuration(from_both: Path, tmp_path: Path) -> None:
    """A review's id does not name its domain, and yet every stage learns domains."""
    kept = {"pretrained": None, "states": tmp_path / "states"}
    options = FinetuneOptions(loop=ONE_EPOCH)
    finetune(TABLE, SPLIT, preset("tiny"), options, tmp_path / "run", **kept)
    renamed = replace(TABLE, domain=[f"new {name}" for name in TABLE.domain])
    assert renamed.fingerprint == TABLE.fingerprint
    with pytest.raises(ConfigError, match="differs in domains"):
        pretrain(renamed, SPLIT, preset("tiny"), LEXICON, PretrainOptions(corpus="both", loop=ONE_EPOCH), from_both)
    with pytest.raises(ConfigError, match="differs in domains"):
        finetune(renamed, SPLIT, preset("tiny"), options, tmp_path / "run", **kept)


def test_all_that_a_model_is_made_from_is_its_configuration(from_both: Path, tmp_path: Path) -> None:
    """Else a stage that is started again with something else would give out the former model for the new one."""
    config = preset("tiny")
    options = PretrainOptions(corpus="both", loop=ONE_EPOCH)
    longer, later = replace(ONE_EPOCH, epochs=2), random_split(TABLE, SPLIT.rows, seed=1)
    wider = random_split(TABLE, np.arange(len(TABLE)), seed=0)
    for differs, split, *others in (
        ("config", SPLIT, config.with_options(dropout=0.2), LEXICON, options),
        ("lexicon", SPLIT, config, Lexicon(words=frozenset({"good"}), source="the test"), options),
        ("options", SPLIT, config, LEXICON, replace(options, loop=longer)),
        ("reviews", later, config, LEXICON, options),
        ("reviews, target", wider, config, LEXICON, options),
    ):
        with pytest.raises(ConfigError, match=rf"\(it differs in {differs}\)"):
            pretrain(TABLE, split, *others, from_both)
    tuning = FinetuneOptions(loop=ONE_EPOCH)
    kept = {"directory": tmp_path / "run", "states": tmp_path / "states"}
    finetune(TABLE, SPLIT, config, tuning, pretrained=None, **kept)
    for differs, split, *others, start in (
        ("config", SPLIT, config.with_options(dropout=0.2), tuning, None),
        ("options", SPLIT, config, replace(tuning, loop=longer), None),
        ("pretrained", SPLIT, config, tuning, from_both),
        ("split", later, config, tuning, None),
    ):
        with pytest.raises(ConfigError, match=rf"\(it differs in {differs}\)"):
            finetune(TABLE, split, *others, pretrained=start, **kept)


def test_identities_are_those_of_the_training_part_alone() -> None:
    """Nobody is known by an evaluation pair (law 5)."""
    table = ReviewTable.of(
        Review(user=f"u{n}", item=f"i{n}", rating=3.0, text="fine", domain="d", timestamp=n) for n in range(20)
    )
    split = random_split(table, np.arange(20), seed=0)
    identities = target_identities(table, split)
    for known, names in ((identities.users, table.user), (identities.items, table.item)):
        assert sorted(known.identifiers) == sorted(names[row] for row in split.train)


@pytest.mark.parametrize("id_embeddings", ["free", "shrunk", "none"])
@pytest.mark.parametrize("former", ["shrunk", "none"])
def test_fine_tuning_may_have_other_identities_than_pre_training(
    former: Literal["shrunk", "none"], id_embeddings: str, tmp_path: Path
) -> None:
    before = preset("tiny").with_options(id_embeddings=former)
    found = pretrain(TABLE, SPLIT, before, LEXICON, PretrainOptions(loop=ONE_EPOCH), tmp_path / "pretrained")
    still = FinetuneOptions(loop=replace(ONE_EPOCH, learning_rate=1e-12))
    config = before.with_options(id_embeddings=id_embeddings)
    run = finetune(TABLE, SPLIT, config, still, tmp_path / "run", pretrained=found, states=tmp_path / "states")
    users, known = (
        load_model(directory, kind).load_weights()["user_query.embedding.weight"]
        for directory, kind in ((run, "finetune"), (found, "pretrain"))
    )
    assert (len(users) > 1) == (id_embeddings != "none")
    told_apart = "none" not in (former, id_embeddings)
    assert torch.allclose(users, known[:1], atol=1e-5) == (not told_apart)


def test_the_projection_of_states_starts_anew_from_what_the_pre_trained_encoder_says(
    from_both: Path, tmp_path: Path
) -> None:
    before = load_model(from_both, "pretrain")
    still = FinetuneOptions(mode="end-to-end", loop=replace(ONE_EPOCH, learning_rate=1e-12))
    still = replace(still, encoder_learning_rate=1e-12, projection_learning_rate=1e-12)
    given = {"pretrained": from_both, "states": tmp_path / "states"}
    run = finetune(TABLE, SPLIT, before.config, still, tmp_path / "run", **given)
    encoder = encoder_of(before)
    left_by_pretraining = encoder.projection.weight.detach().clone()
    tokenizer = ReviewTokenizer(before.tokenizer_json, before.config.max_length)
    tokens = TokenizedReviews.of(TABLE.texts_at(SPLIT.rows), tokenizer)
    states = ReviewStates(encoder=encoder.eval(), tokens=tokens, bank=None)
    initialize_projection(states, SPLIT.train, TABLE.user, ONE_EPOCH.seed)
    begun = encoder_of(load_model(run, "finetune")).projection.weight
    torch.testing.assert_close(begun, encoder.projection.weight, atol=1e-5, rtol=1e-4)
    assert (begun - left_by_pretraining).abs().max() > 1e-2


def encoder_of(files: ModelFiles) -> ReviewEncoder:
    encoder = ReviewEncoder.from_config(files.bert_config, files.config.state_dim, files.config.tokens_a_row)
    encoder.load_state_dict(submodule_weights(files.load_weights(), "review_encoder"))
    return encoder


def test_the_prediction_layer_hears_the_match_vectors_from_the_start(tmp_path: Path) -> None:
    options = FinetuneOptions(loop=replace(ONE_EPOCH, learning_rate=1e-12))
    run = finetune(TABLE, SPLIT, preset("tiny"), options, tmp_path / "run", pretrained=None, states=tmp_path / "states")
    weights = load_model(run, "finetune").load_weights()
    vectors, ratings = weights["head.prediction_layer.output.weight"][0].split([4 * preset("tiny").state_dim, 2])
    heard = vectors.view(4, -1).abs().sum(dim=1)  # of û, tᵘ, î and tⁱ
    assert (heard > 0).all()
    assert (ratings != 0).all()
    kernel = weights["head.co_matching.kernel.weight"]
    torch.testing.assert_close(kernel[:, : len(kernel)], -DIFFERENCE_SCALE * torch.eye(len(kernel)), atol=1e-5, rtol=0)


def test_of_many_pairs_a_sample_starts_the_prediction_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many inputs in memory as there are pairs would be 13 GB of 800,000."""
    monkeypatch.setattr(prediction_init, "RIDGE_PAIRS", 30)
    fitted: list[int] = []

    class Watched(RidgeCV):  # type: ignore[misc]
        def fit(self, inputs: Any, targets: Any) -> "Watched":
            fitted.extend((len(inputs), len(targets)))
            super().fit(inputs, targets)
            return self

    monkeypatch.setattr(linear_model, "RidgeCV", Watched)
    options = FinetuneOptions(loop=replace(ONE_EPOCH, learning_rate=1e-12))
    run = finetune(TABLE, SPLIT, preset("tiny"), options, tmp_path / "run", pretrained=None, states=tmp_path / "states")
    assert fitted == [30, 30]
    assert (load_model(run, "finetune").load_weights()["head.prediction_layer.output.weight"] != 0).any()


@pytest.mark.parametrize("base", ["leave_one_out_bias", "none"])
def test_where_no_step_is_better_ratings_are_the_bias_and_the_whole_of_the_ridge_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: RatingBase
) -> None:
    """Without a bias beneath it the network is the paper's, never blended, and begins as it is drawn."""
    fits: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []

    class Watched(RidgeCV):  # type: ignore[misc]
        def fit(self, inputs: Any, targets: Any) -> "Watched":
            super().fit(inputs, targets)
            fits.append((self.predict(inputs), targets))
            return self

    calibrated: list[tuple[NDArray[np.float64], ...]] = []
    fit = RatingIntervals.fit

    def noted(*given: NDArray[np.float64]) -> RatingIntervals:
        calibrated.append(given)
        return fit(*given)

    monkeypatch.setattr(linear_model, "RidgeCV", Watched)
    monkeypatch.setattr(RatingIntervals, "fit", noted)
    monkeypatch.setattr(finetuning_task, "fit_blend_weight", lambda *_: 0.5)
    config = preset("tiny").with_options(rating_base=base, history_ratings=base != "none")
    options = FinetuneOptions(loop=replace(ONE_EPOCH, learning_rate=1e-12, least_improvement=50.0))
    kept = {"states": tmp_path / "states"}
    directory = finetune(TABLE, SPLIT, config, options, tmp_path / "run", pretrained=None, **kept)
    run = FinishedRun.open(TABLE, directory, device="cpu", **kept)
    assert read_stage(directory)["summary"]["best_epoch"] == -1
    assert run.parts.blend_weight == 1.0

    def rated(pairs: Rows) -> tuple[Histories, NDArray[np.float64], NDArray[np.float64]]:
        histories = run.histories(pairs)
        outputs = network_outputs(PairModel(run.model), run.source(run.bank), histories, run.accelerator)
        ratings = final_ratings(config, run.parts.bias, 1.0, histories, outputs)
        return histories, outputs, ratings

    histories, outputs, _ = rated(SPLIT.train)
    if config.above_bias:
        ((predicted, targets),) = fits
        readable = histories.has_both_sides
        left = TABLE.rating[SPLIT.train] - bias_ratings(run.parts.bias, histories.sums)
        np.testing.assert_allclose(targets, left[readable], atol=1e-5)
        np.testing.assert_allclose(outputs[readable], predicted, atol=1e-3)
    else:
        assert not fits
    histories, _, ratings = rated(SPLIT.validation)
    ((predicted, truth, counts),) = calibrated
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
def test_a_learning_rate_of_nothing_is_refused_by_name(options: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} = 0.0: use a positive step size"):
        options(**{name: 0.0})


def test_weights_of_another_versions_model_are_refused(tmp_path: Path) -> None:
    options = FinetuneOptions(loop=ONE_EPOCH)
    run = finetune(TABLE, SPLIT, preset("tiny"), options, tmp_path / "run", pretrained=None, states=tmp_path / "states")
    files = load_model(run, "finetune")
    with pytest.raises(InputError, match=rf"weights of {run} do not fit this version's model .*run its step again"):
        replace(files, config=files.config.with_options(history_ratings=False)).build_rating_model()


def test_a_model_that_another_version_pre_trained_is_refused(from_both: Path, tmp_path: Path) -> None:
    """One that called a layer otherwise, say."""
    found = shutil.copytree(from_both, tmp_path / "pretrained")
    weights = {
        name.replace("user_query.norm", "norm"): tensor
        for name, tensor in load_file(found / "model.safetensors").items()
    }
    save_file(weights, found / "model.safetensors")
    given = {"pretrained": found, "states": tmp_path / "states"}
    with pytest.raises(InputError, match=rf"weights of {found} do not fit this version's model .*run its step again"):
        finetune(TABLE, SPLIT, preset("tiny"), FinetuneOptions(loop=ONE_EPOCH), tmp_path / "run", **given)


def test_damaged_weights_are_refused_by_the_name_of_their_file(from_both: Path, tmp_path: Path) -> None:
    weights = shutil.copytree(from_both, tmp_path / "pretrained") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    given = {"pretrained": tmp_path / "pretrained", "states": tmp_path / "states"}
    with pytest.raises(InputError, match=rf"{weights} cannot be read \(.+\); run its step again"):
        finetune(TABLE, SPLIT, preset("tiny"), FinetuneOptions(loop=ONE_EPOCH), tmp_path / "run", **given)


def test_the_weights_of_a_pre_trained_model_are_read_once(
    from_both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the largest file there is: BERT-base, and a row for each of perhaps millions of users."""
    read: list[Path] = []
    monkeypatch.setattr(model_files, "load_file", lambda path: read.append(path) or load_file(path))
    given = {"pretrained": from_both, "states": tmp_path / "states"}
    finetune(TABLE, SPLIT, preset("tiny"), FinetuneOptions(loop=ONE_EPOCH), tmp_path / "run", **given)
    assert read == [from_both / "model.safetensors"]


def test_frozen_layers_of_the_encoder_draw_no_noise() -> None:
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
def test_the_first_layers_of_a_backbone_encode_as_they_do_within_it(layers: int) -> None:
    whole, part = load_backbone("minilm").bert.eval(), load_backbone("minilm", layers).bert.eval()
    tokens = torch.arange(1000, 1012)[None]
    with torch.inference_mode():
        within = whole(tokens, output_hidden_states=True).hidden_states[layers]
        assert torch.equal(part(tokens).last_hidden_state, within)
    assert part.config.num_hidden_layers == len(part.encoder.layer) == layers


def test_more_layers_than_a_backbone_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="encoder_layers = 3: the backbone has 2 layers; use at most that many"):
        load_backbone("random-tiny", 3)


TOO_LONG = {"max_length": 100, "pretrain_max_length": 65, "max_rows": 200}


@pytest.mark.parametrize(
    ("shape", "trainable_layers", "precision", "refused"),
    [
        (TOO_LONG, None, "fp32", r"max_length = (65|100): the backbone reads 64 tokens; use at most that many"),
        ({"encoder_layers": 3}, None, "fp32", "encoder_layers = 3: the backbone has 2 layers; use at most that many"),
        ({}, 3, "fp32", "trainable_layers = 3: the backbone has 2 layers; use at most that many"),
        ({"backbone": "/nowhere/at/all"}, None, "fp32", "backbone '/nowhere/at/all' cannot be loaded"),
        ({}, None, "bf16", "precision = 'bf16': this cpu only emulates bfloat16"),
    ],
)
def test_what_is_refused_neither_leaves_a_directory_nor_discards_one(
    shape: dict[str, Any],
    trainable_layers: int | None,
    precision: Precision,
    refused: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ubert_training.running.devices.has_native_bfloat16", lambda _: False)
    config, loop = replace(preset("tiny"), **shape), replace(ONE_EPOCH, precision=precision)
    pretraining = PretrainOptions(loop=loop, trainable_layers=trainable_layers)
    finetuning = FinetuneOptions(mode="end-to-end", loop=loop, trainable_layers=trainable_layers)
    former = Stage(tmp_path / "former", "finetune", {"of": "another configuration"})
    former.open()
    for directory, force in ((tmp_path / "new", False), (former.directory, True)):
        with pytest.raises(UbertError, match=refused):
            pretrain(TABLE, SPLIT, config, LEXICON, pretraining, directory, force=force)
        with pytest.raises(UbertError, match=refused):
            finetune(TABLE, SPLIT, config, finetuning, directory, force=force, pretrained=None, states=directory)
    assert [path.name for path in tmp_path.iterdir()] == ["former"]
    assert read_stage(former.directory)["inputs"] == {"of": "another configuration"}


def test_how_many_layers_encode_is_the_presets_for_its_own_backbone_only() -> None:
    assert model_config("minilm", TABLE).encoder_layers == 3
    assert model_config("minilm", TABLE, backbone="minilm").encoder_layers == 3
    assert model_config("minilm", TABLE, encoder_layers=0).encoder_layers is None
    assert model_config("minilm", TABLE, backbone="bert-base-uncased").encoder_layers is None
    assert model_config("minilm", TABLE, backbone="bert-base-uncased", encoder_layers=8).encoder_layers == 8


def test_a_model_pre_trained_on_an_evaluation_pair_is_refused(from_both: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(from_both, tmp_path / "pretrained")
    other = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    arguments = {"pretrained": directory, "states": tmp_path / "states"}
    with pytest.raises(InputError, match=r"has read \d+ of the \d+ reviews .* pre-train with the same split"):
        finetune(TABLE, other, preset("tiny"), FinetuneOptions(), tmp_path / "run", **arguments)
    for field, value, trained in (("state_dim", 8, 16), ("encoder_layers", 1, None)):
        other_shape = replace(preset("tiny"), **{field: value})
        with pytest.raises(ConfigError, match=rf"{field} = {value}.*pre-trained with {trained}"):
            finetune(TABLE, SPLIT, other_shape, FinetuneOptions(), tmp_path / "run", **arguments)
    (directory / CORPUS_READ).unlink()
    with pytest.raises(InputError, match=rf"holds no {CORPUS_READ}, the reviews it has read; pre-train again"):
        finetune(TABLE, SPLIT, preset("tiny"), FinetuneOptions(), tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()
