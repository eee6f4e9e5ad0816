"""The synthetic corpus: reproducible, labelled, importable whole, and as predictable as its truth says."""

import csv
import gzip
import json
import math
import random
import string
from collections import Counter
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


def reviews_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def default_corpus(tmp_path_factory: pytest.TempPathFactory) -> synth.SyntheticCorpus:
    return write_corpus(tmp_path_factory.mktemp("synthetic"))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, second = write_corpus(tmp_path / "a", SMALL), write_corpus(tmp_path / "b", SMALL)
    for name in ("reviews", "item_domains", "truth"):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()
    other = write_corpus(tmp_path / "c", SynthOptions(users=130, items=40, reviews=1300, domains=2, seed=1))
    assert other.reviews.read_bytes() != first.reviews.read_bytes()
    assert first.reviews.read_bytes()[4:8] == bytes(4), "no time of packing"


def test_a_written_corpus_is_left_as_it_is_and_a_half_written_one_is_not(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, SMALL)
    before = corpus.reviews.stat().st_mtime_ns
    write_corpus(tmp_path, SMALL)
    assert corpus.reviews.stat().st_mtime_ns == before
    content = corpus.truth.read_bytes()
    corpus.truth.unlink()
    write_corpus(tmp_path, SMALL)
    assert corpus.reviews.stat().st_mtime_ns > before
    assert corpus.truth.read_bytes() == content


def test_a_corpus_of_other_options_is_replaced_only_by_force(tmp_path: Path) -> None:
    def synthesize(directory: str, *flags: str) -> Result:
        sizes = ["--users", "130", "--items", "40", "--reviews", "1300", "--domains", "2"]
        arguments = ["synth", "--out", str(tmp_path / directory), *sizes, *flags]
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
def test_a_truth_that_is_no_corpus_is_replaced_only_by_force(tmp_path: Path, content: str) -> None:
    (tmp_path / synth.TRUTH).write_text(content)
    with pytest.raises(ConfigError, match=r"holds another corpus \(its truth\.json cannot be read\)"):
        write_corpus(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [synth.TRUTH]
    assert "options" in json.loads(write_corpus(tmp_path, SMALL, force=True).truth.read_text())


def test_every_name_says_that_it_is_synthetic(default_corpus: synth.SyntheticCorpus) -> None:
    reviews = reviews_of(default_corpus.reviews)
    assert all(review["reviewerID"].startswith("synthetic-user-") for review in reviews)
    assert all(review["asin"].startswith("synthetic-item-") for review in reviews)
    with default_corpus.item_domains.open(newline="") as lines:
        listed = dict(csv.reader(lines, delimiter="\t"))
    assert {domain.split("-")[0] for domain in listed.values()} == {"synthetic"}
    assert {review["asin"] for review in reviews} == set(listed)
    assert json.loads(default_corpus.truth.read_text())["synthetic"] is True


@pytest.mark.parametrize("options", [SynthOptions(), SMALL, SynthOptions(users=125, items=40, reviews=1250, domains=1)])
def test_an_import_removes_nothing(options: SynthOptions, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "synthetic", options)
    report = import_reviews([corpus.reviews], tmp_path / "out", ImportOptions(core=5, item_domains=corpus.item_domains))
    assert report.consolidation.reviews == report.records == json.loads(corpus.truth.read_text())["reviews"]
    assert (report.statistics.users, report.statistics.items) == (options.users, options.items)
    assert abs(report.records - options.reviews) < options.reviews * 0.1
    assert len(report.statistics.domains) == options.domains
    if options.domains > 1:
        assert all(line.pretraining_reviews > line.reviews / 2 for line in report.statistics.domains)


def additive_error(reviews: list[dict[str, Any]], domains: dict[str, str]) -> float:
    """The test error of mean + user bias + item bias per domain, fitted by ridge on four fifths of the
    reviews.
    """
    chance = random.Random(0)
    tested = [chance.random() < 0.2 for _ in reviews]
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


def spread_within(reviews: list[dict[str, Any]], domains: dict[str, str]) -> float:
    """The mean squared distance of a rating to the mean of its domain."""
    ratings: dict[str, list[float]] = {}
    for review in reviews:
        ratings.setdefault(domains[review["asin"]], []).append(review["overall"])
    return sum(float(np.var(own)) * len(own) for own in ratings.values()) / len(reviews)


def test_the_errors_are_those_that_the_truth_promises(default_corpus: synth.SyntheticCorpus) -> None:
    reviews = reviews_of(default_corpus.reviews)
    promised = json.loads(default_corpus.truth.read_text())["mse"]
    users = {user.name: user for user in (synth._user(n, SynthOptions()) for n in range(300))}
    items = {item.name: item for item in (synth._item(n, SynthOptions()) for n in range(120))}
    latent = np.array(
        [[synth._latent_rating(users[review["reviewerID"]], items[review["asin"]], 1.0) for review in reviews]]
    )
    expected, _ = synth._rating_moments(latent)
    rating = np.array([review["overall"] for review in reviews])
    assert np.mean((rating - expected[0]) ** 2) == pytest.approx(promised["noise_floor"], rel=0.05)
    domains = {item.name: synth.domain_name(item.domain) for item in items.values()}
    assert spread_within(reviews, domains) == pytest.approx(promised["best_with_mean"], rel=0.05)
    fitted = additive_error(reviews, domains)
    assert promised["best_with_biases"] * 0.97 < fitted < promised["best_with_biases"] * 1.2
    assert promised["noise_floor"] < 0.6 * promised["best_with_biases"]
    assert promised["best_with_text"] == promised["noise_floor"]


def test_an_item_is_reviewed_as_often_as_it_is_popular(default_corpus: synth.SyntheticCorpus) -> None:
    """The truth weights its errors so."""
    items = [synth._item(number, SynthOptions()) for number in range(120)]
    reviewed = Counter(review["asin"] for review in reviews_of(default_corpus.reviews))
    for domain in range(3):
        own = [item for item in items if item.domain == domain]
        a_share = sum(reviewed[item.name] for item in own) / sum(item.popularity for item in own)
        for item in own:
            assert reviewed[item.name] == pytest.approx(a_share * item.popularity, rel=0.15)


def test_without_a_match_the_biases_are_all_there_is(tmp_path: Path) -> None:
    options = SynthOptions(users=130, items=40, reviews=1300, domains=2, strength=0)
    promised = json.loads(write_corpus(tmp_path, options).truth.read_text())["mse"]
    assert promised["best_with_biases"] == pytest.approx(promised["noise_floor"], rel=0.01)


def test_moments_of_a_rounded_rating_agree_with_drawing_it() -> None:
    chance = random.Random(0)
    for latent in (0.2, 2.4, 3.5, 5.3):
        drawn = [synth._rounded(latent + chance.gauss(0, synth.NOISE)) for _ in range(20_000)]
        expected, variance = synth._rating_moments(np.array([[latent]]))
        assert expected.item() == pytest.approx(np.mean(drawn), abs=0.02)
        assert variance.item() == pytest.approx(np.var(drawn), abs=0.02)


def test_a_text_speaks_of_what_its_writer_cares_about_at_the_level_of_the_item(
    default_corpus: synth.SyntheticCorpus,
) -> None:
    truth = json.loads(default_corpus.truth.read_text())
    for review in reviews_of(default_corpus.reviews)[:500]:
        for aspect in truth["cares"][review["reviewerID"]]:
            quality = truth["qualities"][review["asin"]][aspect]
            assert any(said in review["reviewText"] for said in plain(ASPECTS[aspect].at_level(quality)))
            for other in {-1, 0, 1} - {quality}:
                assert not any(said in review["reviewText"] for said in plain(ASPECTS[aspect].at_level(other)))


def plain(phrases: tuple[str, ...]) -> list[str]:
    """The longest part of each phrase without a placeholder."""
    return [max((part for part, *_ in string.Formatter().parse(phrase)), key=len) for phrase in phrases]


def test_no_phrase_is_written_twice_and_all_placeholders_are_known() -> None:
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
def test_an_impossible_size_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(options.values())))):
        SynthOptions(**options)


def test_the_command_says_synthetic_and_names_the_next_step(tmp_path: Path) -> None:
    program = typer.Typer()
    program.command()(synth_command)
    sizes = ["--users", "130", "--items", "40", "--reviews", "1300", "--domains", "2"]
    answer = CliRunner().invoke(program, ["--out", str(tmp_path / "out"), *sizes])
    assert answer.exit_code == 0, answer.output
    for part in ("SYNTHETIC", "noise_floor", "best_with_biases", "ubert import", "truth.json"):
        assert part in answer.stdout
