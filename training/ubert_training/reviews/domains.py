"""Which domain a review belongs to.

The first of these that is known: the item's line in an item-to-domain file, the first category of a Yelp business, the
domain that the record itself names, the domain of its file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ubert_model.errors import ConfigError
from ubert_training.errors import ReviewFileError
from ubert_training.reviews.readers.jsonlines import parse_object
from ubert_training.reviews.readers.records import BadLine, check_length, decode, nonblank_lines, open_source

FILE_SUFFIXES = re.compile(r"(\.(json|jsonl|ndjson|csv|tsv|txt|parquet|gz))+$", re.IGNORECASE)
AMAZON_NAME = re.compile(r"^(?:reviews_)?(.+?)(?:_\d+)?$")


@dataclass(frozen=True, kw_only=True)
class Domains:
    """Assigns a domain to every review of one file. ``of_item`` is None without a listing of the items' domains.

    Raises ``ConfigError`` for a name that is not UTF-8, as the name of a file may be.
    """

    of_item: Mapping[str, str] | None
    of_file: str

    def __post_init__(self) -> None:
        try:
            self.of_file.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"the domain {self.of_file!a} is not UTF-8: give one with --domain") from error

    def domain_of(self, item: str, of_record: str | None) -> str:
        listed = self.of_item.get(item) if self.of_item is not None else None
        return listed or of_record or self.of_file

    def lists(self, item: str) -> bool:
        """Whether ``item`` is in the listing; True without one."""
        return self.of_item is None or item in self.of_item


def file_domain(path: Path) -> str:
    """The domain in a file name: Musical_Instruments for ``reviews_Musical_Instruments_5.json.gz``.

    Raises ``ConfigError`` for a name without one.
    """
    stem = FILE_SUFFIXES.sub("", path.name)
    found = AMAZON_NAME.match(stem)
    if found is None:
        raise ConfigError(f"the name of {path} contains no domain: give it with --domain")
    return found[1]


def load_item_domains(path: Path) -> dict[str, str]:
    """Read lines of ``item<TAB>domain``. Raises ``ReviewFileError`` naming the first malformed line."""
    domains: dict[str, str] = {}
    with open_source(path) as source:
        for number, line in nonblank_lines(source.stream):
            try:
                check_length(line)
                cells = decode(line).split("\t")
            except BadLine as bad_line:
                raise ReviewFileError(f"{path} line {number}: {bad_line}") from bad_line
            item, domain = (cell.strip() for cell in cells) if len(cells) == 2 else ("", "")
            if not (item and domain):
                raise ReviewFileError(f"{path} line {number} is not item<TAB>domain: {line[:80]!r}")
            if domains.setdefault(item, domain) != domain:
                raise ReviewFileError(f"{path} line {number} gives item {item} a second domain, {domain}")
    return domains


def load_yelp_categories(path: Path) -> dict[str, str]:
    """Read the first category of every business that has one. Raises ``ReviewFileError``."""
    domains: dict[str, str] = {}
    with open_source(path) as source:
        for number, line in nonblank_lines(source.stream):
            fields = parse_object(line)
            if isinstance(fields, BadLine):
                raise ReviewFileError(f"{path} line {number}: {fields}")
            business, categories = fields.get("business_id"), fields.get("categories")
            if not isinstance(business, str):
                raise ReviewFileError(f"{path} line {number} has no business_id: is it Yelp's business.json?")
            # Older releases hold a list, newer ones a comma-separated string.
            first = categories[0] if isinstance(categories, list) and categories else categories
            if isinstance(first, str) and first.strip():
                domains[business] = first.split(",")[0].strip()
    return domains
