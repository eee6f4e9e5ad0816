"""A real bundle of a small, untrained model, and reviews with states that the model computed."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from support.codebooks import random_codebooks
from support.random_models import DOMAINS, ITEMS, USERS, VOCABULARY, rating_model
from support.rating_columns import rating_columns
from support.tiny_tokenizer import tiny_tokenizer_json
from ubert_model.bundle import (
    CODEBOOKS,
    DEVIATIONS,
    ENCODER_GRAPH,
    EXPLAINER_GRAPH,
    IDENTITIES,
    METRICS,
    SCORER_GRAPH,
    TEXT_READER,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    Manifest,
    write_bundle,
)
from ubert_model.config import RatingScale
from ubert_model.history import select_history, without_counterpart
from ubert_model.ids import Identities, IdTable
from ubert_model.nn.rating_model import RatingModel
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.deviations import SideBias, UsualDeviations, stack_sums
from ubert_model.rating.intervals import Margins, RatingIntervals
from ubert_model.rating.text_reader import BUCKETS, ITEM_GROUPS, PIECES_READ, TextReader
from ubert_model.rating.worth import ReviewWorth
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import FloatMatrix, MaintenanceStore
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.export.graphs import export_encoder, export_explainer, export_scorer
from ubert_training.finetuning.usual_fit import fit_usual_deviations

USER_WORTH = ReviewWorth(curve=RatingCurve.of_rises(RatingScale(), [0.3, 0.1, 0.8, 1.2]))
ITEM_WORTH = ReviewWorth(curve=RatingCurve.of_rises(RatingScale(), [0.6, 0.7, 0.9, 0.7]), surplus_weight=0.8)
BIAS = BiasModel(
    mean=3.5,
    intercept=0.1,
    user=SideBias(worth=USER_WORTH, mean=1.1, shrinkage=2.0),
    item=SideBias(worth=ITEM_WORTH, mean=1.8, shrinkage=3.0),
)
BLEND_WEIGHT = 0.6
INTERVALS = RatingIntervals(
    coverage=0.9,
    margins=tuple(
        Margins(predicted=(3.0, 4.5), below=(1.2 * below, 0.8 * below), above=(0.9, 0.6))
        for below in (1.9, 1.8, 1.6, 1.5)
    ),
)


@dataclass(frozen=True, kw_only=True)
class TinyBundle:
    """A bundle on disk and the torch model that it was exported from."""

    bundle: Bundle
    model: RatingModel


def shared_tiny_bundle(temporary: pytest.TempPathFactory) -> TinyBundle:
    """The bundle of ``write_tiny_bundle``, written once for all processes of a test run: no test may change it."""
    folder = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which all workers share
    path = folder / "tiny-bundle"
    with (folder / "tiny-bundle.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            return write_tiny_bundle(path)
    return TinyBundle(bundle=Bundle.load(path), model=_random_model())


def write_tiny_bundle(path: Path) -> TinyBundle:
    """Write a bundle that knows users ``u0``… and items ``i0``… in domains ``d0`` and ``d1``.

    Exporting its graphs takes half a minute of processor time.
    """
    model = _random_model()
    domains = IdTable(f"d{number}" for number in range(DOMAINS))
    items = IdTable(f"i{number}" for number in range(ITEMS))
    identities = Identities(
        users=IdTable(f"u{number}" for number in range(USERS)),
        items=items,
        domains=domains,
        item_domains={item: domains.identifiers[row % DOMAINS] for row, item in enumerate(items.identifiers)},
        default_domain="d0",
    )

    tokenizer_json = _tokenizer_of_the_model()

    def write_files(directory: Path) -> None:
        (directory / IDENTITIES).write_text(json.dumps(identities.to_json()), encoding="utf-8")
        (directory / METRICS).write_text("{}", encoding="utf-8")
        (directory / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
        save_file(model.state_dict(), directory / WEIGHTS)
        _random_deviations(identities).save(directory / DEVIATIONS)
        random_text_reader(tokenizer_json).save(directory / TEXT_READER)
        random_codebooks(model.review_encoder.dim).save(directory / CODEBOOKS)
        export_encoder(model, directory / ENCODER_GRAPH)
        export_scorer(model, directory / SCORER_GRAPH)
        export_explainer(model, directory / EXPLAINER_GRAPH)

    manifest = Manifest(
        config=model.config,
        state_dim=model.review_encoder.dim,
        encoder_digest="random weights",
        bias=BIAS,
        blend_weight=BLEND_WEIGHT,
        intervals=INTERVALS,
    )
    return TinyBundle(bundle=write_bundle(path, manifest, write_files), model=model)


def changed_copy(bundle: Bundle, path: Path, **changes: Any) -> Bundle:
    """The bundle with some fields of its manifest changed."""

    def copy_files(directory: Path) -> None:
        for name in bundle.manifest.files:
            shutil.copyfile(bundle.file(name), directory / name)

    return write_bundle(path, replace(bundle.manifest, **changes, files={}, bundle_id=""), copy_files)


def _random_model() -> RatingModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for the initial weights, to which ``rating_model`` adds noise
        return rating_model()


def _random_deviations(identities: Identities) -> UsualDeviations:
    random = np.random.default_rng(5)
    reviews = [
        ReviewEntry(
            review_id=f"training-{number}",
            user=str(random.choice(identities.users.identifiers)),
            item=str(random.choice(identities.items.identifiers)),
            rating=float(random.integers(1, 6)),
            timestamp=0,
            rows=1,
            surplus=float(np.float32(random.normal())),
        )
        for number in range(60)
    ]
    rated = rating_columns(reviews, user_ids=identities.users, item_ids=identities.items)
    return fit_usual_deviations(rated, USER_WORTH, ITEM_WORTH)


def random_text_reader(tokenizer_json: str, seed: int = 6) -> TextReader:
    """A reader whose surpluses are of the order of half a star."""
    random = np.random.default_rng(seed)
    return TextReader(
        tokenizer=ReviewTokenizer(tokenizer_json, PIECES_READ),
        weights=random.normal(scale=0.5, size=(ITEM_GROUPS, BUCKETS)).astype(np.float32),
        intercepts=random.normal(4.0, 0.1, size=ITEM_GROUPS),
        usual=RatingCurve(knots=(1.0, 2.0, 3.0, 4.0, 5.0), values=(3.1, 3.4, 3.8, 4.2, 4.5)),
    )


def _tokenizer_of_the_model() -> str:
    """The tiny tokenizer, less the pieces that the random model has no embedding for."""
    tokenizer = json.loads(tiny_tokenizer_json())
    pieces = tokenizer["model"]["vocab"].items()
    tokenizer["model"]["vocab"] = {piece: row for piece, row in pieces if row < VOCABULARY}
    return json.dumps(tokenizer)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Reviews and the fp32 states that the torch model gives for their (random) text."""

    entries: Sequence[ReviewEntry]
    states: Mapping[str, FloatMatrix]

    def of_user(self, user: str) -> list[ReviewEntry]:
        return _newest_first(entry for entry in self.entries if entry.user == user)

    def of_item(self, item: str) -> list[ReviewEntry]:
        return _newest_first(entry for entry in self.entries if entry.item == item)

    def review(self, user: str, item: str) -> ReviewEntry:
        return next(entry for entry in self.entries if (entry.user, entry.item) == (user, item))

    def changed(self, entry: ReviewEntry, states: FloatMatrix) -> "Corpus":
        """The same reviews, with one replaced under its identifier."""
        others = [other for other in self.entries if other.review_id != entry.review_id]
        return Corpus(entries=[*others, entry], states={**self.states, entry.review_id: states})

    def only(self, keep: Callable[[ReviewEntry], bool]) -> "Corpus":
        """The reviews for which ``keep`` is true."""
        return Corpus(entries=[entry for entry in self.entries if keep(entry)], states=self.states)

    def write(self, store: MaintenanceStore, bundle: Bundle, codec: str = "fp32") -> None:
        state_codec = bundle.codec(codec)
        store.open_namespace(state_codec.namespace)
        payloads = [state_codec.encode(self.states[entry.review_id]) for entry in self.entries]
        store.put(state_codec.namespace.version, list(zip(self.entries, payloads, strict=True)))


def _newest_first(entries: Iterable[ReviewEntry]) -> list[ReviewEntry]:
    return sorted(entries, key=lambda entry: entry.recency, reverse=True)


def random_corpus(model: RatingModel, *, users: int, items: int, reviews: int, seed: int = 0) -> Corpus:
    """``reviews`` distinct pairs of ``users`` and ``items``, one review in ten without text.

    More users and items than the model knows make strangers with reviews.
    """
    random = np.random.default_rng(seed)
    entries: list[ReviewEntry] = []
    states: dict[str, FloatMatrix] = {}
    for number, pair in enumerate(random.choice(users * items, size=reviews, replace=False).tolist()):
        tokens = 0 if number % 10 == 9 else int(random.integers(3, model.config.max_length + 1))
        review_id = f"review-{number}"
        entries.append(
            ReviewEntry(
                review_id=review_id,
                user=f"u{pair // items}",
                item=f"i{pair % items}",
                rating=float(random.integers(1, 6)),
                timestamp=int(random.integers(0, 50)),
                rows=tokens,
                surplus=float(np.float32(random.normal(scale=0.5))) if tokens else 0.0,
            )
        )
        states[review_id] = states_of_tokens(model, random.integers(0, VOCABULARY, size=tokens).tolist())
    return Corpus(entries=entries, states=states)


def states_of_text(tiny: TinyBundle, text: str) -> FloatMatrix:
    """The states (L, D) that precompute would store for one review, by torch."""
    (token_ids,) = tiny.bundle.tokenizer().encode([text])
    return states_of_tokens(tiny.model, token_ids)


def states_of_tokens(model: RatingModel, token_ids: Sequence[int]) -> FloatMatrix:
    """The states (L, D) of one review, by torch."""
    if not token_ids:
        return np.zeros((0, model.review_encoder.dim), dtype=np.float32)
    with torch.inference_mode():
        states: torch.Tensor = model.review_encoder(
            torch.tensor([token_ids]), torch.ones(1, len(token_ids), dtype=torch.bool)
        )
    return states[0].numpy()


def torch_rating(tiny: TinyBundle, corpus: Corpus, user: str, item: str) -> float:
    """The expected rating of one pair, by the training model's own forward."""
    config, identities = tiny.model.config, tiny.bundle.identities
    user_reviews = without_counterpart(Side.USER, corpus.of_user(user), item)
    item_reviews = without_counterpart(Side.ITEM, corpus.of_item(item), user)
    usual = tiny.bundle.deviations
    user_sums, item_sums = usual.sums(Side.USER, user, user_reviews), usual.sums(Side.ITEM, item, item_reviews)
    bias = BIAS.rate(stack_sums([user_sums]), stack_sums([item_sums]))
    sides = [
        select_history(reviews, max_reviews=config.max_reviews, max_rows=config.max_rows)
        for reviews in (user_reviews, item_reviews)
    ]
    network = np.zeros(1)
    if all(sides):
        rows = (identities.users.row(user), identities.items.row(item), identities.domain_row(item))
        inputs = [torch.tensor([row]) for row in rows]
        residuals = (
            usual.residuals(Side.USER, sides[0], BIAS.user.bias(user_sums)),
            usual.residuals(Side.ITEM, sides[1], BIAS.item.bias(item_sums)),
        )
        for side, review_residuals in zip(sides, residuals, strict=True):
            matrices = [corpus.states[review.review_id] for review in side]
            states = np.concatenate(matrices)
            row_residuals = np.repeat(review_residuals, [len(matrix) for matrix in matrices])
            inputs += [
                torch.from_numpy(states)[None],
                torch.from_numpy(row_residuals)[None],
                torch.ones(1, len(states), dtype=torch.bool),
            ]
        with torch.inference_mode():
            network = tiny.model(*inputs).double().numpy()
    rating = np.clip(bias + BLEND_WEIGHT * network, config.scale.lowest, config.scale.highest)
    return float(rating[0])
