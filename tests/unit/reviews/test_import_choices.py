"""What an import decides: domains, which duplicate is kept, how many bad lines it accepts, what is another import."""

import hashlib
import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from ubert_model.config import RatingScale
from ubert_model.errors import ConfigError, InputError
from ubert_training.errors import ReviewFileError
from ubert_training.reviews.importer import IMPORT_VERSION, import_reviews
from ubert_training.reviews.options import ImportOptions
from ubert_training.reviews.readers.formats import FormatName
from ubert_training.reviews.table import ReviewTable

NO_FILTER = ImportOptions(core=0, with_title=False)


def write_lines(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def review(item: str, **more: Any) -> dict[str, Any]:
    return {"user": "u", "item": item, "rating": 4, "text": "", "timestamp": 7} | more


def imported_table(out: Path) -> ReviewTable:
    return ReviewTable.load(out / "reviews.parquet")


def test_a_domain_comes_from_the_listing_else_the_record_else_the_file(tmp_path: Path) -> None:
    listing = tmp_path / "items.tsv"
    listing.write_text("i1\tlisted\n")
    path = write_lines(
        tmp_path / "x.jsonl", *(review(item, domain=own) for item, own in (("i1", "a"), ("i2", "b"), ("i3", "")))
    )
    import_reviews([path], tmp_path / "out", replace(NO_FILTER, item_domains=listing, domains=("file",)))
    table = imported_table(tmp_path / "out")
    assert dict(zip(table.item, table.domain, strict=True)) == {"i1": "listed", "i2": "b", "i3": "file"}


@pytest.mark.parametrize("name", ["reviews.parquet", "rejects.jsonl"])
def test_a_file_is_never_replaced_by_its_own_import(tmp_path: Path, name: str) -> None:
    path, out = tmp_path / "out" / name, tmp_path / "x" / ".." / "out"
    import_reviews([write_lines(tmp_path / "x.jsonl", review("i1"))], tmp_path / "out", NO_FILTER)
    before = path.read_bytes() if name == "reviews.parquet" else write_lines(path, review("i2")).read_bytes()
    (tmp_path / "x").mkdir()
    for force in (False, True):
        with pytest.raises(ConfigError, match=f"{name}, which this command reads, would be replaced"):
            import_reviews([path], out, NO_FILTER, force=force)
    assert path.read_bytes() == before


@pytest.mark.parametrize("domains", [(), ("caf\udce9",)], ids=["name of the file", "option"])
def test_a_domain_that_is_not_utf_8_is_refused(tmp_path: Path, domains: tuple[str, ...]) -> None:
    path = write_lines(tmp_path / "caf\udce9.jsonl", review("i1"))
    with pytest.raises(ConfigError, match=r"'caf\\udce9' is not UTF-8: give one with --domain"):
        import_reviews([path], tmp_path / "out", replace(NO_FILTER, domains=domains))
    import_reviews([path], tmp_path / "out", replace(NO_FILTER, domains=("café",)))
    assert imported_table(tmp_path / "out").domains == ("café",)


def test_a_listed_domain_overrides_the_category_of_a_yelp_business(tmp_path: Path) -> None:
    business = write_lines(
        tmp_path / "business.json", *({"business_id": item, "categories": "Pizza"} for item in ("b1", "b2"))
    )
    (tmp_path / "items.tsv").write_text("b1\tlisted\n")
    path = write_lines(
        tmp_path / "review.json",
        *({"user_id": "u", "business_id": item, "stars": 3, "text": ""} for item in ("b1", "b2")),
    )
    options = replace(NO_FILTER, item_domains=tmp_path / "items.tsv", yelp_business=business)
    import_reviews([path], tmp_path / "out", options)
    table = imported_table(tmp_path / "out")
    assert dict(zip(table.item, table.domain, strict=True)) == {"b1": "listed", "b2": "Pizza"}


def test_which_duplicate_is_kept_does_not_depend_on_the_order_of_the_files(tmp_path: Path) -> None:
    in_both = review("i1", text="in both")
    repeated_text = [review("i2", text="same", rating=rating) for rating in (2, 5)]
    files = [
        write_lines(tmp_path / f"{name}.jsonl", in_both, own) for name, own in zip("ab", repeated_text, strict=True)
    ]
    kept = []
    for name, domains, ordered in (("one", ("toys", "music"), files), ("two", ("music", "toys"), files[::-1])):
        report = import_reviews(ordered, tmp_path / name, replace(NO_FILTER, domains=domains))
        assert (report.consolidation.exact_duplicates, report.consolidation.repeated_texts) == (1, 1)
        table = imported_table(tmp_path / name)
        kept.append([*zip(table.item, table.rating.tolist(), table.domain, strict=True)])
    assert kept[0] == kept[1]
    assert ("i1", 4.0, "music") in kept[0], "of two domains, the first in alphabetical order is kept"


def test_of_two_copies_the_one_with_a_timestamp_is_kept(tmp_path: Path) -> None:
    both = (review("i1", text="same", timestamp=""), review("i1", text="same", timestamp=7))
    report = import_reviews([write_lines(tmp_path / "x.jsonl", *both)], tmp_path / "out", NO_FILTER)
    assert (report.consolidation.repeated_texts, report.consolidation.unknown_timestamps) == (1, 0)


def test_reviews_without_a_timestamp_are_counted(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "x.jsonl", review("i1", timestamp=1), review("i2", timestamp=0), review("i3", timestamp="")
    )
    assert import_reviews([path], tmp_path / "out", NO_FILTER).consolidation.unknown_timestamps == 2


@pytest.mark.parametrize("times", [(2014, "1970", "", 2100), (201707, "201712", 0)])
def test_times_that_are_all_years_or_months_are_refused(times: tuple[object, ...], tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", *(review(f"i{n}", timestamp=time) for n, time in enumerate(times)))
    with pytest.raises(InputError, match=r"all times are years or months alone, \d+ to \d+: write them as"):
        import_reviews([path], tmp_path / "out", NO_FILTER)


def test_relative_times_lose_none_that_could_be_a_year_or_a_month(tmp_path: Path) -> None:
    times = [*range(1, 3001), *range(201700, 201720)]
    path = write_lines(tmp_path / "x.jsonl", *(review(f"i{time}", timestamp=time) for time in times))
    counts = import_reviews([path], tmp_path / "out", NO_FILTER).consolidation
    assert (counts.earliest, counts.latest) == (1, 201719)
    assert imported_table(tmp_path / "out").timestamp.tolist() == times


def test_max_bad_is_an_inclusive_limit(tmp_path: Path) -> None:
    lines = [review(f"i{number}", rating=9 if number < 29 else 4) for number in range(100)]
    path = write_lines(tmp_path / "x.jsonl", *lines)
    assert import_reviews([path], tmp_path / "out", replace(NO_FILTER, max_bad=0.29)).bad == 29
    with pytest.raises(ReviewFileError, match=r"29 of 100 lines \(29\.00%\) are bad, more than the 28\.00%"):
        import_reviews([path], tmp_path / "other", replace(NO_FILTER, max_bad=0.28))


def test_the_error_about_bad_lines_lists_reasons_by_frequency_and_three_examples(tmp_path: Path) -> None:
    bad = [review("i", timestamp="soon"), *(review(f"i{number}", rating=9) for number in range(4))]
    path = write_lines(tmp_path / "x.jsonl", review("good"), *bad)
    with pytest.raises(ReviewFileError, match=r"rating outside the scale 4, bad timestamp 1\. First: ") as caught:
        import_reviews([path], tmp_path / "out", NO_FILTER)
    shown = [number for number in range(1, 7) if f"x.jsonl line {number} (" in str(caught.value)]
    assert shown == [2, 3, 4]


def test_every_option_changes_the_json_of_the_options() -> None:
    changed: dict[str, Any] = {
        "format": FormatName.CSV,
        "columns": {"user": "who"},
        "domains": ("toys",),
        "item_domains": Path("items.tsv"),
        "yelp_business": Path("business.json"),
        "scale": RatingScale(lowest=0, highest=10),
        "with_title": False,
        "core": 3,
        "max_bad": 0.5,
    }
    assert changed.keys() == {field.name for field in fields(ImportOptions)}
    for name, value in changed.items():
        assert replace(ImportOptions(), **{name: value}).to_json() != ImportOptions().to_json(), name


@pytest.mark.parametrize("changed", ["x.jsonl", "items.tsv"])
def test_a_file_of_another_size_and_the_same_modification_time_makes_another_import(
    tmp_path: Path, changed: str
) -> None:
    path = write_lines(tmp_path / "x.jsonl", review("i1"))
    listing = tmp_path / "items.tsv"
    listing.write_text("i1\tlisted\n")
    options = replace(NO_FILTER, item_domains=listing)
    import_reviews([path], tmp_path / "out", options)
    before = (tmp_path / changed).stat()
    with (tmp_path / changed).open("a") as file:
        file.write("\n")
    os.utime(tmp_path / changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match="other files"):
        import_reviews([path], tmp_path / "out", options)


def test_the_version_is_raised_whenever_the_same_input_is_staged_differently(tmp_path: Path) -> None:
    rows = [
        *("a,i,4,fine,2014", "b,i,4,fine,201707", "c,i,4,fine,20170714", "d,i,4,fine,1500000000999", "e,i,4,,NA"),
        *("", "  ", "f.0,i,4 stars,x,1", "g,,4,x,1", "h,i,9,x,1", "i,i,4,x,soon", "j,i,4", 'k,i,"4,5"," x ",1.5'),
    ]
    path = tmp_path / "x.csv.old"
    path.write_text("user,item,rating,text,timestamp\n" + "\n".join(rows) + "\n", encoding="utf-8")
    report = import_reviews([path], tmp_path / "out", replace(NO_FILTER, max_bad=0.9))
    table = imported_table(tmp_path / "out")
    staged = [report.rejected, table.user, table.rating.tolist(), table.text, table.timestamp.tolist()]
    digest = hashlib.sha256(json.dumps(staged, sort_keys=True).encode()).hexdigest()[:16]
    assert (IMPORT_VERSION, digest) == (6, "a3478b9afd7b753a"), staged
