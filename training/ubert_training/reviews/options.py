"""The options of an import."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ubert_model.config import RatingScale
from ubert_model.errors import ConfigError
from ubert_training.reviews.readers.formats import FormatName


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Everything but the files that determines the result of an import.

    ``format`` None: detected for each file. ``columns`` maps columns of the review table to those of a file of no known
    layout. ``domains`` names the domain of all files (one name) or of each in order; empty: taken from the file names.
    ``item_domains`` is a file of item<TAB>domain lines, ``yelp_business`` Yelp's ``business.json``. ``with_title`` puts
    a review's title before its body. ``core`` is the least number of reviews of every user and item (0: no filter).
    ``max_bad`` is the share of bad lines above which the import fails.
    """

    format: FormatName | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    item_domains: Path | None = None
    yelp_business: Path | None = None
    scale: RatingScale = field(default_factory=RatingScale)
    with_title: bool = True
    core: int = 5
    max_bad: float = 0.01

    def __post_init__(self) -> None:
        if self.core < 0:
            raise ConfigError(f"core = {self.core}: use 0 for no filter, or a number of reviews")
        if not 0 <= self.max_bad <= 1:
            raise ConfigError(f"max_bad = {self.max_bad:g}: use a share between 0 and 1, such as 0.02 for 2%")
        if not all(domain.strip() for domain in self.domains):
            raise ConfigError("a domain name is empty: give each --domain a name")

    @property
    def listings(self) -> tuple[Path, ...]:
        """The files, other than the reviews, that the result depends on."""
        return tuple(path for path in (self.item_domains, self.yelp_business) if path is not None)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "columns": dict(sorted(self.columns.items())),
            "domains": list(self.domains),
            "item_domains": self.item_domains and str(self.item_domains),
            "yelp_business": self.yelp_business and str(self.yelp_business),
            "scale": str(self.scale),
            "with_title": self.with_title,
            "core": self.core,
            "max_bad": self.max_bad,
        }
