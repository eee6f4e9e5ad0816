"""A synthetic review corpus with planted truth, to try the whole system without real reviews.

Every user cares about a few aspects; every item is good, middling or bad in each aspect. A rating is

    mean + user bias + item bias + strength * (mean quality of the item in the user's aspects) + noise,

rounded and clipped to 1-5. The text says what the user cares about and how well the item does in it. So a model that
reads the texts can predict what no bias can, and its best reachable error is known. Domains share their users, who care
about the same aspects in each. All names begin with ``synthetic-``.
"""

import gzip
import io
import itertools
import json
import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubert_model.errors import ConfigError
from ubert_model.running.atomic import replacing, write_text
from ubert_training.corpora.synth_phrases import ASIDES, ASPECTS, CLOSINGS, OPENINGS, PRODUCTS, TITLES

REVIEWS = "synthetic-reviews.json.gz"
ITEM_DOMAINS = "synthetic-item-domains.tsv"
TRUTH = "truth.json"

CORE = 5
MEAN = 3.6
USER_SPREAD = 0.4
ITEM_SPREAD = 0.3
NOISE = 0.5
CARED_ASPECTS = 2
QUALITIES = (-1, 0, 1)
QUALITY_WEIGHTS = (0.35, 0.2, 0.45)
RATINGS = (1, 2, 3, 4, 5)
MOST_POPULAR = 3
FIRST_DAY = int(datetime(2012, 1, 1, tzinfo=UTC).timestamp())
DAYS = 2000
SECONDS_A_DAY = 86_400
MOST_SAMPLED = 1000
"""The reachable errors of a domain are averaged over at most this many users, and as many items."""
Grid = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SynthOptions:
    """Size and difficulty of a synthetic corpus. ``strength`` is the weight of the planted match in a rating."""

    users: int = 300
    items: int = 120
    reviews: int = 6000
    domains: int = 3
    strength: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.domains <= len(PRODUCTS):
            raise ConfigError(f"{self.domains} domains: use 1 to {len(PRODUCTS)}")
        if not 0 <= self.strength < math.inf:
            raise ConfigError(f"strength {self.strength}: use a number of 0 or more")
        if self.items < self.domains * 4 * CORE:
            raise ConfigError(f"{self.items} items for {self.domains} domains: use at least {4 * CORE} per domain")
        if self.reviews < 2 * CORE * max(self.users, MOST_POPULAR * self.items):
            raise ConfigError(
                f"{self.reviews} reviews of {self.users} users and {self.items} items: use at least {2 * CORE} per "
                f"user and {2 * CORE * MOST_POPULAR} per item, so that all stay in the {CORE}-core"
            )
        if self.reviews > self.users * self.items / 4:
            raise ConfigError(
                f"{self.reviews} reviews of {self.users} users and {self.items} items: use at most one for every four "
                "pairs of a user and an item"
            )


@dataclass(frozen=True, kw_only=True)
class SyntheticCorpus:
    """The files of a written corpus."""

    reviews: Path
    item_domains: Path
    truth: Path


@dataclass(frozen=True, kw_only=True)
class _User:
    name: str
    bias: float
    cares: tuple[str, ...]
    reviews_in: dict[int, int]  # domain -> number of reviews


@dataclass(frozen=True, kw_only=True)
class _Item:
    name: str
    domain: int
    product: str
    bias: float
    popularity: int
    qualities: dict[str, int]


def write_corpus(out: Path, options: SynthOptions | None = None, *, force: bool = False) -> SyntheticCorpus:
    """Write Amazon-2014-style reviews, the domains of the items and the planted truth into the folder ``out``.

    The same options give the same bytes; a finished corpus of the same options is left as it is. Raises ``ConfigError``
    if ``out`` holds a corpus of other options, which ``force`` replaces.
    """
    options = options or SynthOptions()
    corpus = SyntheticCorpus(reviews=out / REVIEWS, item_domains=out / ITEM_DOMAINS, truth=out / TRUTH)
    if corpus.truth.exists():  # written last: without it there is no finished corpus
        differing = _differing_options(corpus.truth, options)
        if differing and not force:
            raise ConfigError(
                f"{out} holds another corpus ({', '.join(differing)}); give another directory, or --force to replace it"
            )
        if not differing and corpus.reviews.is_file() and corpus.item_domains.is_file():
            return corpus
    users = [_user(number, options) for number in range(options.users)]
    items = [_item(number, options) for number in range(options.items)]
    corpus.truth.unlink(missing_ok=True)
    with replacing(corpus.reviews) as partial:
        count = _write_gzip(partial, _reviews(users, items, options))
    write_text(corpus.item_domains, "".join(f"{item.name}\t{domain_name(item.domain)}\n" for item in items))
    write_text(corpus.truth, json.dumps(_truth(users, items, options, count), indent=2) + "\n")
    return corpus


def _write_gzip(path: Path, reviews: Iterator[dict[str, Any]]) -> int:
    """Write gzipped JSON lines. The header has neither name nor time, so that equal corpora are equal files."""
    count = 0
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed,
        io.TextIOWrapper(compressed, encoding="utf-8", newline="\n") as lines,
    ):
        for review in reviews:
            lines.write(json.dumps(review, ensure_ascii=False) + "\n")
            count += 1
    return count


def domain_name(domain: int) -> str:
    return f"synthetic-{list(PRODUCTS)[domain]}"


def _differing_options(truth: Path, options: SynthOptions) -> list[str]:
    """The options of the corpus that ``truth`` describes, such as ``seed = 1``, where they differ from ``options``."""
    try:
        found = dict(json.loads(truth.read_text(encoding="utf-8"))["options"])
    except (OSError, ValueError, KeyError, TypeError):
        return [f"its {TRUTH} cannot be read"]
    return [f"{name} = {found.get(name)}" for name, value in asdict(options).items() if found.get(name) != value]


def _user(number: int, options: SynthOptions) -> _User:
    rng = random.Random(f"{options.seed} user {number}")
    domains = rng.sample(range(options.domains), rng.randint(min(2, options.domains), options.domains))
    average = options.reviews // options.users
    reviews = rng.randint(CORE, 2 * average - CORE)
    most_in_domain = options.items // options.domains // 2
    return _User(
        name=f"synthetic-user-{number + 1:06d}",
        bias=rng.gauss(0, USER_SPREAD),
        cares=tuple(rng.sample(sorted(ASPECTS), CARED_ASPECTS)),
        reviews_in={
            domain: min(most_in_domain, reviews // len(domains) + (place < reviews % len(domains)))
            for place, domain in enumerate(domains)
        },
    )


def _item(number: int, options: SynthOptions) -> _Item:
    rng = random.Random(f"{options.seed} item {number}")
    domain = number % options.domains
    return _Item(
        name=f"synthetic-item-{number + 1:06d}",
        domain=domain,
        product=rng.choice(list(PRODUCTS.values())[domain]),
        bias=rng.gauss(0, ITEM_SPREAD),
        popularity=rng.randint(1, MOST_POPULAR),
        qualities={aspect: rng.choices(QUALITIES, QUALITY_WEIGHTS)[0] for aspect in sorted(ASPECTS)},
    )


def _latent_rating(user: _User, item: _Item, strength: float) -> float:
    match = sum(item.qualities[aspect] for aspect in user.cares) / CARED_ASPECTS
    return MEAN + user.bias + item.bias + strength * match


def _reviews(users: list[_User], items: list[_Item], options: SynthOptions) -> Iterator[dict[str, Any]]:
    shelves = [
        _Shelf([item for item in items if item.domain == domain], random.Random(f"{options.seed} shelf {domain}"))
        for domain in range(options.domains)
    ]
    for number, user in enumerate(users):
        rng = random.Random(f"{options.seed} reviews {number}")
        written: set[str] = set()
        for domain, count in user.reviews_in.items():
            for item in shelves[domain].take(count):
                rating = _rounded(_latent_rating(user, item, options.strength) + rng.gauss(0, NOISE))
                text = _text(user, item, rating, rng)
                while text in written:  # an import removes texts that a user repeats
                    text = _text(user, item, rating, rng)
                written.add(text)
                yield _amazon_fields(user, item, rating, text, rng)


class _Shelf:
    """Hands out the items of a domain in random rounds; a round holds each item as often as its popularity."""

    def __init__(self, items: list[_Item], rng: random.Random) -> None:
        self._round = [item for item in items for _ in range(item.popularity)]
        self._rng = rng
        self._next: deque[_Item] = deque()

    def take(self, count: int) -> list[_Item]:
        """The next ``count`` distinct items; a repeated one is put back for the next call."""
        taken: dict[str, _Item] = {}
        repeated: list[_Item] = []
        while len(taken) < count:
            if not self._next:
                self._next.extend(self._rng.sample(self._round, len(self._round)))
            item = self._next.popleft()
            if item.name in taken:
                repeated.append(item)
            else:
                taken[item.name] = item
        self._next.extendleft(reversed(repeated))
        return list(taken.values())


def _text(user: _User, item: _Item, rating: int, rng: random.Random) -> str:
    sentences = [rng.choice(OPENINGS)]
    for aspect in rng.sample(user.cares, len(user.cares)):
        if rng.random() < 0.5:
            sentences.append(rng.choice(ASPECTS[aspect].cared))
        sentences.append(rng.choice(ASPECTS[aspect].at_level(item.qualities[aspect])))
    if rng.random() < 0.4:
        other = rng.choice([aspect for aspect in sorted(ASPECTS) if aspect not in user.cares])
        sentences += [rng.choice(ASIDES), rng.choice(ASPECTS[other].at_level(item.qualities[other]))]
    if rng.random() < 0.6:
        sentences.append(rng.choice(CLOSINGS[rating]))
    return " ".join(sentences).format(product=item.product, count=rng.randint(2, 20))


def _amazon_fields(user: _User, item: _Item, rating: int, text: str, rng: random.Random) -> dict[str, Any]:
    when = FIRST_DAY + rng.randrange(DAYS) * SECONDS_A_DAY
    return {
        "reviewerID": user.name,
        "asin": item.name,
        "reviewerName": user.name,
        "helpful": [0, 0],
        "reviewText": text,
        "overall": float(rating),
        "summary": rng.choice(TITLES[rating]).format(product=item.product),
        "unixReviewTime": when,
        "reviewTime": f"{datetime.fromtimestamp(when, UTC):%m %d, %Y}",
    }


def _rounded(latent: float) -> int:
    return min(max(math.floor(latent + 0.5), RATINGS[0]), RATINGS[-1])


def _truth(users: list[_User], items: list[_Item], options: SynthOptions, reviews: int) -> dict[str, Any]:
    return {
        "synthetic": True,
        "options": asdict(options),
        "reviews": reviews,
        "mse": _reachable_errors(users, items, options),
        "mse_means": {
            "noise_floor": "the error that remains when everything planted is known: noise and rounding alone",
            "best_with_text": "a perfect reader of many texts: they state all that was planted, so the noise floor",
            "best_with_biases": "the best sum of a user bias and an item bias in each domain",
            "best_with_mean": "the best constant for each domain",
        },
        "cares": {user.name: list(user.cares) for user in users},
        "qualities": {item.name: item.qualities for item in items},
    }


def _reachable_errors(users: list[_User], items: list[_Item], options: SynthOptions) -> dict[str, float]:
    """Mean squared errors over all pairs of a domain, weighted by their share of the reviews; mean over the domains."""
    total = np.zeros(3)
    weight = 0.0
    for domain in range(options.domains):
        reviewers = [user for user in users if domain in user.reviews_in][:MOST_SAMPLED]
        reviewed = [item for item in items if item.domain == domain][:MOST_SAMPLED]
        activity = np.array([user.reviews_in[domain] for user in reviewers], dtype=np.float64)
        popularity = np.array([item.popularity for item in reviewed], dtype=np.float64)
        latent = np.array(
            [[_latent_rating(user, item, options.strength) for item in reviewed] for user in reviewers]
        )  # (users, items)
        total += activity.sum() * _errors(latent, activity / activity.sum(), popularity / popularity.sum())
        weight += float(activity.sum())
    floor, biases, mean = (total / weight).tolist()
    return {
        "noise_floor": floor,
        "best_with_text": floor,
        "best_with_biases": biases,
        "best_with_mean": mean,
    }


def _errors(latent: Grid, user_weight: Grid, item_weight: Grid) -> Grid:
    """MSE of a predictor that knows everything, of the best biases, and of the mean: (3,).

    A pair's weight is the product of its user's and its item's, so the best additive model is row means plus column
    means, less the mean.
    """
    expected, variance = _rating_moments(latent)  # (users, items) each
    floor = user_weight @ variance @ item_weight
    of_user = expected @ item_weight  # (users,)
    of_item = user_weight @ expected  # (items,)
    mean = float(user_weight @ of_user)
    interaction = expected - of_user[:, None] - of_item[None, :] + mean  # what no biases can express
    return np.array(
        [
            floor,
            floor + user_weight @ interaction**2 @ item_weight,
            floor + user_weight @ (expected - mean) ** 2 @ item_weight,
        ]
    )


def _rating_moments(latent: Grid) -> tuple[Grid, Grid]:
    """Mean and variance of the rounded and clipped rating, given the rating without noise."""
    normal_cdf = np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)))
    edges = [normal_cdf((rating + 0.5 - latent) / NOISE) for rating in RATINGS[:-1]]
    cumulative = [np.zeros_like(latent), *edges, np.ones_like(latent)]
    probabilities = [after - before for before, after in itertools.pairwise(cumulative)]
    expected = sum(probability * rating for probability, rating in zip(probabilities, RATINGS, strict=True))
    square = sum(probability * rating**2 for probability, rating in zip(probabilities, RATINGS, strict=True))
    return np.asarray(expected), np.asarray(square - expected**2)
