"""The synthetic corpus: reproducible, labelled as synthetic, imported whole, with the errors that its truth states."""

import csv
import gzip
import json
import math
import random
import string
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from ubert_model.errors import ConfigError
from ubert_training.cli import make_app
from ubert_training.commands.synth import synth_command
from ubert_training.corpora import synth
from ubert_training.corpora.synth import SynthOptions, write_corpus
from ubert_training.corpora.synth_phrases import ASIDES, ASPECTS, CLOSINGS, OPENINGS, PRODUCTS, TITLES
from ubert_training.reviews.importer import import_reviews
from ubert_training.reviews.options import ImportOptions

SMALL = SynthOptions(users=130, items=40, reviews=1300, domains=2)
SMALL_FLAGS = ["--users", "130", "--items", "40", "--reviews", "1300", "--domains", "2"]


def reviews_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def default_corpus(tmp_path_factory: pytest.TempPathFactory) -> synth.SyntheticCorpus:
    return write_corpus(tmp_path_factory.mktemp("synthetic"))


def test_equal_seeds_give_equal_bytes_and_different_seeds_do_not(tmp_path: Path) -> None:
    first, second = write_corpus(tmp_path / "a", SMALL), write_corpus(tmp_path / "b", SMALL)
    for name in ("reviews", "item_domains", "truth"):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()
    other = write_corpus(tmp_path / "c", replace(SMALL, seed=1))
    assert other.reviews.read_bytes() != first.reviews.read_bytes()
    assert first.reviews.read_bytes()[4:8] == bytes(4), "the gzip header has a time"


def test_a_finished_corpus_is_kept_and_an_unfinished_one_written_again(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, SMALL)
    before = corpus.reviews.stat().st_mtime_ns
    write_corpus(tmp_path, SMALL)
    assert corpus.reviews.stat().st_mtime_ns == before
    content = corpus.truth.read_bytes()
    corpus.truth.unlink()
    write_corpus(tmp_path, SMALL)
    assert corpus.reviews.stat().st_mtime_ns > before
    assert corpus.truth.read_bytes() == content


def test_a_corpus_of_other_options_is_replaced_only_with_force(tmp_path: Path) -> None:
    def synthesize(directory: str, *flags: str) -> Result:
        arguments = ["synth", "--out", str(tmp_path / directory), *SMALL_FLAGS, *flags]
        return CliRunner().invoke(make_app(["synth"]), arguments)

    def files(directory: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / directory).iterdir()}

    assert synthesize("here").exit_code == synthesize("elsewhere", "--seed", "1").exit_code == 0
    before = files("here")
    refused = synthesize("here", "--seed", "1", "--strength", "2")
    assert isinstance(refused.exception, ConfigError)
    assert str(refused.exception) == (
        f"{tmp_path / 'here'} holds another corpus (strength = 1.0, seed = 0); "
        "give another directory, or --force to replace it"
    )
    assert files("here") == before
    assert synthesize("here").exit_code == 0
    assert synthesize("here", "--seed", "1", "--force").exit_code == 0
    assert files("here") == files("elsewhere")


@pytest.mark.parametrize("content", ["{", "[1]", '{"truth": 1}', '{"options": 3}'])
def test_an_unreadable_truth_is_replaced_only_with_force(tmp_path: Path, content: str) -> None:
    (tmp_path / synth.TRUTH).write_text(content)
    with pytest.raises(ConfigError, match=r"holds another corpus \(its truth\.json cannot be read\)"):
        write_corpus(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [synth.TRUTH]
    assert "options" in json.loads(write_corpus(tmp_path, SMALL, force=True).truth.read_text())


def test_every_user_item_and_domain_is_named_synthetic(default_corpus: synth.SyntheticCorpus) -> None:
    reviews = reviews_of(default_corpus.reviews)
    assert all(review["reviewerID"].startswith("synthetic-user-") for review in reviews)
    assert all(review["asin"].startswith("synthetic-item-") for review in reviews)
    with default_corpus.item_domains.open(newline="") as lines:
        domain_of = dict(csv.reader(lines, delimiter="\t"))
    assert {domain.split("-")[0] for domain in domain_of.values()} == {"synthetic"}
    assert {review["asin"] for review in reviews} == set(domain_of)
    assert json.loads(default_corpus.truth.read_text())["synthetic"] is True


@pytest.mark.parametrize("options", [SynthOptions(), SMALL, SynthOptions(users=125, items=40, reviews=1250, domains=1)])
def test_an_import_keeps_every_review(options: SynthOptions, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "synthetic", options)
    report = import_reviews([corpus.reviews], tmp_path / "out", ImportOptions(core=5, item_domains=corpus.item_domains))
    assert report.consolidation.reviews == report.records == json.loads(corpus.truth.read_text())["reviews"]
    assert (report.statistics.users, report.statistics.items) == (options.users, options.items)
    assert abs(report.records - options.reviews) < options.reviews * 0.1
    assert len(report.statistics.domains) == options.domains
    if options.domains > 1:
        assert all(line.pretraining_reviews > line.reviews / 2 for line in report.statistics.domains)


def additive_error(reviews: list[dict[str, Any]], domains: dict[str, str]) -> float:
    """The test MSE of mean + user bias + item bias in each domain, fitted by ridge on four fifths of the reviews."""
    rng = random.Random(0)
    tested = [rng.random() < 0.2 for _ in reviews]
    squares = []
    for domain in sorted(set(domains.values())):
        own = [number for number, review in enumerate(reviews) if domains[review["asin"]] == domain]
        columns: dict[str, int] = {}
        for number in own:
            for name in (reviews[number]["reviewerID"], reviews[number]["asin"]):
                columns.setdefault(name, len(columns))
        design = np.zeros((len(own), len(columns)))
        for row, number in enumerate(own):
            design[row, [columns[reviews[number]["reviewerID"]], columns[reviews[number]["asin"]]]] = 1
        rating = np.array([reviews[number]["overall"] for number in own])
        train = ~np.array([tested[number] for number in own])
        mean = rating[train].mean()
        gram = design[train].T @ design[train] + 3 * np.eye(len(columns))
        bias = np.linalg.solve(gram, design[train].T @ (rating[train] - mean))
        squares.extend((rating[~train] - mean - design[~train] @ bias) ** 2)
    return float(np.mean(squares))


def variance_within_domains(reviews: list[dict[str, Any]], domains: dict[str, str]) -> float:
    """The mean squared distance of a rating to the mean of its domain."""
    ratings: dict[str, list[float]] = {}
    for review in reviews:
        ratings.setdefault(domains[review["asin"]], []).append(review["overall"])
    return sum(float(np.var(own)) * len(own) for own in ratings.values()) / len(reviews)


def test_the_truth_states_the_reachable_errors(default_corpus: synth.SyntheticCorpus) -> None:
    reviews = reviews_of(default_corpus.reviews)
    stated = json.loads(default_corpus.truth.read_text())["mse"]
    users = {user.name: user for user in (synth._user(n, SynthOptions()) for n in range(300))}
    items = {item.name: item for item in (synth._item(n, SynthOptions()) for n in range(120))}
    latent = np.array(
        [[synth._latent_rating(users[review["reviewerID"]], items[review["asin"]], 1.0) for review in reviews]]
    )
    expected, _ = synth._rating_moments(latent)
    rating = np.array([review["overall"] for review in reviews])
    assert np.mean((rating - expected[0]) ** 2) == pytest.approx(stated["noise_floor"], rel=0.05)
    domains = {item.name: synth.domain_name(item.domain) for item in items.values()}
    assert variance_within_domains(reviews, domains) == pytest.approx(stated["best_with_mean"], rel=0.05)
    fitted = additive_error(reviews, domains)
    assert stated["best_with_biases"] * 0.97 < fitted < stated["best_with_biases"] * 1.2
    assert stated["noise_floor"] < 0.6 * stated["best_with_biases"]
    assert stated["best_with_text"] == stated["noise_floor"]


def test_an_items_reviews_are_proportional_to_its_popularity(default_corpus: synth.SyntheticCorpus) -> None:
    """The truth weights its errors by popularity."""
    items = [synth._item(number, SynthOptions()) for number in range(120)]
    reviewed = Counter(review["asin"] for review in reviews_of(default_corpus.reviews))
    for domain in range(3):
        own = [item for item in items if item.domain == domain]
        per_popularity = sum(reviewed[item.name] for item in own) / sum(item.popularity for item in own)
        for item in own:
            assert reviewed[item.name] == pytest.approx(per_popularity * item.popularity, rel=0.15)


def test_at_strength_0_biases_reach_the_noise_floor(tmp_path: Path) -> None:
    options = replace(SMALL, strength=0)
    stated = json.loads(write_corpus(tmp_path, options).truth.read_text())["mse"]
    assert stated["best_with_biases"] == pytest.approx(stated["noise_floor"], rel=0.01)


def test_rating_moments_agree_with_drawn_ratings() -> None:
    rng = random.Random(0)
    for latent in (0.2, 2.4, 3.5, 5.3):
        drawn = [synth._rounded(latent + rng.gauss(0, synth.NOISE)) for _ in range(20_000)]
        expected, variance = synth._rating_moments(np.array([[latent]]))
        assert expected.item() == pytest.approx(np.mean(drawn), abs=0.02)
        assert variance.item() == pytest.approx(np.var(drawn), abs=0.02)


def test_a_text_states_the_items_quality_in_every_aspect_that_its_user_cares_about(
    default_corpus: synth.SyntheticCorpus,
) -> None:
    truth = json.loads(default_corpus.truth.read_text())
    for review in reviews_of(default_corpus.reviews)[:500]:
        for aspect in truth["cares"][review["reviewerID"]]:
            quality = truth["qualities"][review["asin"]][aspect]
            assert any(phrase in review["reviewText"] for phrase in literals(ASPECTS[aspect].at_level(quality)))
            for other in {-1, 0, 1} - {quality}:
                assert not any(phrase in review["reviewText"] for phrase in literals(ASPECTS[aspect].at_level(other)))


def literals(phrases: tuple[str, ...]) -> list[str]:
    """The longest part of each phrase without a placeholder."""
    return [max((part for part, *_ in string.Formatter().parse(phrase)), key=len) for phrase in phrases]


def test_no_phrase_occurs_twice_and_all_placeholders_are_known() -> None:
    phrases = [*OPENINGS, *ASIDES]
    phrases += [phrase for level in (TITLES, CLOSINGS) for group in level.values() for phrase in group]
    for aspect in ASPECTS.values():
        phrases += [*aspect.cared, *aspect.good, *aspect.middling, *aspect.bad]
    assert [phrase for phrase, count in Counter(phrases).items() if count > 1] == []
    for phrase in phrases:
        assert "{" not in phrase.format(product="kettle", count=2)
    assert len({product for group in PRODUCTS.values() for product in group}) == sum(map(len, PRODUCTS.values()))


@pytest.mark.parametrize(
    "options",
    [
        {"domains": 0},
        {"domains": 9},
        {"items": 10},
        {"reviews": 100},
        {"users": 40},
        {"strength": -1.0},
        {"strength": math.nan},
        {"strength": math.inf},
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(options.values())))):
        SynthOptions(**options)


def test_the_command_says_synthetic_and_names_the_next_step(tmp_path: Path) -> None:
    program = typer.Typer()
    program.command()(synth_command)
    result = CliRunner().invoke(program, ["--out", str(tmp_path / "out"), *SMALL_FLAGS])
    assert result.exit_code == 0, result.output
    for part in ("SYNTHETIC", "noise_floor", "best_with_biases", "ubert import", "truth.json"):
        assert part in result.stdout
