"""A synthetic review corpus with planted truth, to try the whole system where no real reviews are at hand.

Every user cares about a few aspects, every item is good, middling or bad in each. A rating is

    mean + user bias + item bias + strength * (mean quality of the item in the user's aspects) + noise,

rounded and clipped to 1-5; the text says what the user cares about and how the item does in it. So a model
that reads can predict what no bias can, and how much better it can get is known. Users are shared between
domains and care about the same aspects in each. All names begin with ``synthetic-``.
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
"""Users and items over which the reachable errors are averaged, per domain."""
Grid = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SynthOptions:
    """Size and difficulty of a synthetic corpus. ``strength`` is the rating's share of the planted match."""

    users: int = 300
    items: int = 120
    reviews: int = 6000
    domains: int = 3
    strength: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.domains <= len(PRODUCTS):
            raise ConfigError(f"{self.domains} domains: ask for 1 to {len(PRODUCTS)}")
        if not 0 <= self.strength < math.inf:
            raise ConfigError(f"strength {self.strength}: give a number of 0 or more")
        if self.items < self.domains * 4 * CORE:
            raise ConfigError(f"{self.items} items for {self.domains} domains: ask for {4 * CORE} a domain or more")
        if self.reviews < 2 * CORE * max(self.users, MOST_POPULAR * self.items):
            raise ConfigError(
                f"{self.reviews} reviews of {self.users} users and {self.items} items: ask for {2 * CORE} a user and "
                f"{2 * CORE * MOST_POPULAR} an item or more, so that all stay in the {CORE}-core"
            )
        if self.reviews > self.users * self.items / 4:
            raise ConfigError(
                f"{self.reviews} reviews of {self.users} users and {self.items} items: ask for a quarter of all "
                "pairs at most"
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
    wanted: dict[int, int]  # domain -> number of reviews


@dataclass(frozen=True, kw_only=True)
class _Item:
    name: str
    domain: int
    product: str
    bias: float
    popularity: int
    qualities: dict[str, int]


def write_corpus(out: Path, options: SynthOptions | None = None) -> SyntheticCorpus:
    """Write Amazon-2014-style reviews, the domains of the items and the planted truth into the folder
    ``out``.

    The same options give the same bytes. A corpus of the same options that is already there is left as it is.
    """
    options = options or SynthOptions()
    corpus = SyntheticCorpus(reviews=out / REVIEWS, item_domains=out / ITEM_DOMAINS, truth=out / TRUTH)
    if _is_written(corpus, options):
        return corpus
    users = [_user(number, options) for number in range(options.users)]
    items = [_item(number, options) for number in range(options.items)]
    corpus.truth.unlink(missing_ok=True)
    with replacing(corpus.reviews) as partial:
        count = _write_packed(partial, _reviews(users, items, options))
    write_text(corpus.item_domains, "".join(f"{item.name}\t{domain_name(item.domain)}\n" for item in items))
    write_text(corpus.truth, json.dumps(_truth(users, items, options, count), indent=2) + "\n")
    return corpus


def _write_packed(path: Path, reviews: Iterator[dict[str, Any]]) -> int:
    """Write JSON lines, packed; the header has neither name nor time, so that equal corpora are equal files."""
    count = 0
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as lines,
    ):
        for review in reviews:
            lines.write(json.dumps(review, ensure_ascii=False) + "\n")
            count += 1
    return count


def domain_name(domain: int) -> str:
    return f"synthetic-{list(PRODUCTS)[domain]}"


def _is_written(corpus: SyntheticCorpus, options: SynthOptions) -> bool:
    """The truth is written last, so it says whether the rest is whole."""
    if not all(path.is_file() for path in (corpus.reviews, corpus.item_domains, corpus.truth)):
        return False
    try:
        truth = json.loads(corpus.truth.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(truth, dict) and truth.get("options") == asdict(options)


def _user(number: int, options: SynthOptions) -> _User:
    chance = random.Random(f"{options.seed} user {number}")
    shared = min(2, options.domains)
    domains = chance.sample(range(options.domains), chance.randint(shared, options.domains))
    average = options.reviews // options.users
    reviews = chance.randint(CORE, 2 * average - CORE)
    most = options.items // options.domains // 2
    return _User(
        name=f"synthetic-user-{number + 1:06d}",
        bias=chance.gauss(0, USER_SPREAD),
        cares=tuple(chance.sample(sorted(ASPECTS), CARED_ASPECTS)),
        wanted={
            domain: min(most, reviews // len(domains) + (place < reviews % len(domains)))
            for place, domain in enumerate(domains)
        },
    )


def _item(number: int, options: SynthOptions) -> _Item:
    chance = random.Random(f"{options.seed} item {number}")
    domain = number % options.domains
    return _Item(
        name=f"synthetic-item-{number + 1:06d}",
        domain=domain,
        product=chance.choice(list(PRODUCTS.values())[domain]),
        bias=chance.gauss(0, ITEM_SPREAD),
        popularity=chance.randint(1, MOST_POPULAR),
        qualities={aspect: chance.choices(QUALITIES, QUALITY_WEIGHTS)[0] for aspect in sorted(ASPECTS)},
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
        chance = random.Random(f"{options.seed} reviews {number}")
        written: set[str] = set()
        for domain, wanted in user.wanted.items():
            for item in shelves[domain].take(wanted):
                rating = _rounded(_latent_rating(user, item, options.strength) + chance.gauss(0, NOISE))
                text = _text(user, item, rating, chance)
                while text in written:  # an import removes texts that a user repeats
                    text = _text(user, item, rating, chance)
                written.add(text)
                yield _amazon_fields(user, item, rating, text, chance)


class _Shelf:
    """Deals out the items of a domain: each as often as it is popular, and none left behind."""

    def __init__(self, items: list[_Item], chance: random.Random) -> None:
        self._round = [item for item in items for _ in range(item.popularity)]
        self._chance = chance
        self._next: deque[_Item] = deque()

    def take(self, count: int) -> list[_Item]:
        """The next ``count`` different items; one that would come twice waits for the next taker."""
        taken: dict[str, _Item] = {}
        waiting: list[_Item] = []
        while len(taken) < count:
            if not self._next:
                self._next.extend(self._chance.sample(self._round, len(self._round)))
            item = self._next.popleft()
            if item.name in taken:
                waiting.append(item)
            else:
                taken[item.name] = item
        self._next.extendleft(reversed(waiting))
        return list(taken.values())


def _text(user: _User, item: _Item, rating: int, chance: random.Random) -> str:
    said = [chance.choice(OPENINGS)]
    for aspect in chance.sample(user.cares, len(user.cares)):
        if chance.random() < 0.5:
            said.append(chance.choice(ASPECTS[aspect].cared))
        said.append(chance.choice(ASPECTS[aspect].at_level(item.qualities[aspect])))
    if chance.random() < 0.4:
        other = chance.choice([aspect for aspect in sorted(ASPECTS) if aspect not in user.cares])
        said += [chance.choice(ASIDES), chance.choice(ASPECTS[other].at_level(item.qualities[other]))]
    if chance.random() < 0.6:
        said.append(chance.choice(CLOSINGS[rating]))
    return " ".join(said).format(product=item.product, count=chance.randint(2, 20))


def _amazon_fields(user: _User, item: _Item, rating: int, text: str, chance: random.Random) -> dict[str, Any]:
    when = FIRST_DAY + chance.randrange(DAYS) * SECONDS_A_DAY
    return {
        "reviewerID": user.name,
        "asin": item.name,
        "reviewerName": user.name,
        "helpful": [0, 0],
        "reviewText": text,
        "overall": float(rating),
        "summary": chance.choice(TITLES[rating]).format(product=item.product),
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
            "noise_floor": "the least error of anyone who knows all that was planted: noise and rounding alone",
            "best_with_text": "a perfect reader of many texts: they state all that was planted, so the noise floor",
            "best_with_biases": "the best sum of a user's and an item's bias in each domain",
            "best_with_mean": "the best single number for each domain",
        },
        "cares": {user.name: list(user.cares) for user in users},
        "qualities": {item.name: item.qualities for item in items},
    }


def _reachable_errors(users: list[_User], items: list[_Item], options: SynthOptions) -> dict[str, float]:
    """Mean squared errors over all pairs of a domain, weighted as the reviews are; averaged over the domains."""
    total = np.zeros(3)
    weight = 0.0
    for domain in range(options.domains):
        buyers = [user for user in users if domain in user.wanted][:MOST_SAMPLED]
        wares = [item for item in items if item.domain == domain][:MOST_SAMPLED]
        activity = np.array([user.wanted[domain] for user in buyers], dtype=np.float64)
        popularity = np.array([item.popularity for item in wares], dtype=np.float64)
        latent = np.array(
            [[_latent_rating(user, item, options.strength) for item in wares] for user in buyers]
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
    """Errors of knowing everything, the two biases, and the mean. The weights are a product, so that the best
    additive model is the row means plus the column means.
    """
    expected, variance = _rating_moments(latent)  # (users, items) each
    floor = user_weight @ variance @ item_weight
    of_user = expected @ item_weight  # (users,)
    of_item = user_weight @ expected  # (items,)
    mean = float(user_weight @ of_user)
    missed = expected - of_user[:, None] - of_item[None, :] + mean
    return np.array(
        [
            floor,
            floor + user_weight @ missed**2 @ item_weight,
            floor + user_weight @ (expected - mean) ** 2 @ item_weight,
        ]
    )


def _rating_moments(latent: Grid) -> tuple[Grid, Grid]:
    """Mean and variance of the rounded and clipped rating, given what it is without noise."""
    below = np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)))
    edges = [below((rating + 0.5 - latent) / NOISE) for rating in RATINGS[:-1]]
    cumulative = [np.zeros_like(latent), *edges, np.ones_like(latent)]
    chances = [after - before for before, after in itertools.pairwise(cumulative)]
    expected = sum(chance * rating for chance, rating in zip(chances, RATINGS, strict=True))
    square = sum(chance * rating**2 for chance, rating in zip(chances, RATINGS, strict=True))
    return np.asarray(expected), np.asarray(square - expected**2)
