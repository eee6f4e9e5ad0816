"""Import end to end: what is kept, what is removed and counted, and which folders are refused."""

import base64
import fcntl
import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer
from typer.testing import CliRunner

from support.files import contents
from support.full_disk import full_disk
from ubert_model.config import RatingScale
from ubert_model.errors import ConfigError, InputError
from ubert_training.commands.import_reviews import import_command
from ubert_training.commands.options import parse_columns
from ubert_training.errors import ReviewFileError
from ubert_training.reviews.file_staging import ImportProgress
from ubert_training.reviews.importer import STAGING, import_reviews
from ubert_training.reviews.options import ImportOptions
from ubert_training.reviews.readers.formats import FormatName
from ubert_training.reviews.report import ImportReport
from ubert_training.reviews.table import Review, ReviewTable

NO_CORE = ImportOptions(core=0)


def line(user: str, item: str, rating: float = 4, text: str = "", *, at: int = 1, **more: Any) -> dict[str, Any]:
    fields = {"reviewerID": user, "asin": item, "overall": rating, "reviewText": text, "unixReviewTime": at}
    return fields | more


def write(path: Path, *lines: dict[str, Any] | bytes) -> Path:
    content = b"".join((json.dumps(one).encode() if isinstance(one, dict) else one) + b"\n" for one in lines)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def corpus(seed: int, size: int, prefix: str = "i") -> list[dict[str, Any]]:
    """Reviews of 40 users and 30 items, some twice, some with the text of another."""
    rng = random.Random(seed)
    lines = [
        line(
            f"u{rng.randrange(40)}", f"{prefix}{rng.randrange(30)}", rng.randint(1, 5),
            f"words {rng.randrange(size)}", at=10**9 + rng.randrange(10**6),
        )
        for _ in range(size)
    ]  # fmt: skip
    return lines + rng.sample(lines, size // 10)


def imported(out: Path) -> ReviewTable:
    return ReviewTable.load(out / "reviews.parquet")


def test_files_of_several_formats_become_one_ordered_table(tmp_path: Path) -> None:
    amazon = write(tmp_path / "reviews_Musical_Instruments_5.json.gz", line("u1", "i1", 5, "good", at=30, summary="A"))
    newer = {"user_id": "u1", "parent_asin": "i2", "rating": 4, "text": "fine", "title": "B", "timestamp": 10**12}
    toys = write(tmp_path / "Toys.jsonl", newer)
    shop = tmp_path / "shop.csv"
    shop.write_text("who,sku,stars,body\nu2,i3,1,\n")
    report = import_reviews([amazon, toys], tmp_path / "both", NO_CORE)
    table = imported(tmp_path / "both")
    assert [(table.text[row], table.domain[row], table.timestamp[row]) for row in range(2)] == [
        ("A. good", "Musical_Instruments", 30),
        ("B. fine", "Toys", 10**9),
    ]
    assert [(file.format, file.domain) for file in report.files] == [
        ("amazon-2014", "Musical_Instruments"),
        ("amazon-2023", "Toys"),
    ]
    mapped = ImportOptions(core=0, columns={"user": "who", "item": "sku", "rating": "stars", "text": "body"})
    assert import_reviews([shop], tmp_path / "shop", mapped).consolidation.empty_texts == 1
    assert imported(tmp_path / "shop").metadata.with_title is True


def test_the_table_does_not_depend_on_the_order_of_files_and_lines(tmp_path: Path) -> None:
    lines = corpus(0, 300)
    one = write(tmp_path / "x.json", *lines)
    shuffled = random.Random(1).sample(lines, len(lines))
    left = write(tmp_path / "left.json.gz", *shuffled[:100])
    right = write(tmp_path / "right.json", *shuffled[100:])
    options = ImportOptions(core=3, domains=("d",))
    import_reviews([one], tmp_path / "one", options)
    import_reviews([left, right], tmp_path / "two", options, records_per_chunk=37)
    import_reviews([right, left], tmp_path / "three", options, records_per_chunk=90)
    tables = {(tmp_path / name / "reviews.parquet").read_bytes() for name in ("one", "two", "three")}
    assert len(tables) == 1


def test_duplicates_are_removed_and_counted_by_kind(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.json",
        line("u1", "i1", 5, "same text", at=20),
        line("u1", "i1", 5, "same text", at=20),  # exact
        line("u1", "i2", 4, "same text", at=10),  # of a repeated text the earliest is kept
        line("u1", "i0", 4, "same text", at=20),
        line("u2", "i1", 5, "same text", at=20),  # another user's
        line("u1", "i5", 5, "", at=20),
        line("u1", "i6", 5, "", at=20),  # empty texts are no repeated texts
    )
    report = import_reviews([path], tmp_path / "out", NO_CORE)
    table = imported(tmp_path / "out")
    assert sorted(zip(table.user, table.item, strict=True)) == [("u1", "i2"), ("u1", "i5"), ("u1", "i6"), ("u2", "i1")]
    assert (report.consolidation.exact_duplicates, report.consolidation.repeated_texts) == (1, 2)
    assert report.consolidation.empty_texts == 2


def test_of_repeated_texts_with_equal_timestamps_the_first_item_is_kept(tmp_path: Path) -> None:
    """Whatever the ratings, which take part in the identifiers of the reviews."""
    for first in range(1, 6):
        ratings = {"i3": first, "i1": first % 5 + 1, "i2": (first + 1) % 5 + 1}
        path = write(tmp_path / "x.json", *(line("u", item, ratings[item], "same", at=7) for item in ratings))
        import_reviews([path], tmp_path / f"out-{first}", NO_CORE)
        assert imported(tmp_path / f"out-{first}").item == ["i1"]


def test_texts_that_differ_in_case_are_not_repeated(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", line("u", "i1", 5, "Same"), line("u", "i2", 5, "same"))
    import_reviews([path], tmp_path / "out", NO_CORE)
    assert sorted(imported(tmp_path / "out").text) == ["Same", "same"]


def core_of(pairs: list[tuple[str, str]], core: int) -> list[tuple[str, str]]:
    """The k-core, found by removing one user or item with too few reviews at a time."""
    for side in (0, 1):
        for pair in pairs:
            if sum(other[side] == pair[side] for other in pairs) < core:
                return core_of([other for other in pairs if other[side] != pair[side]], core)
    return pairs


@pytest.mark.parametrize("core", [0, 1, 2, 3, 4])
def test_exactly_the_k_core_is_kept(core: int, tmp_path: Path) -> None:
    rng = random.Random(7)
    pairs = [(f"u{int(rng.paretovariate(0.7))}", f"i{int(rng.paretovariate(0.7))}") for _ in range(150)]
    lines = [line(user, item, 3, f"text {number}", at=number) for number, (user, item) in enumerate(pairs)]
    report = import_reviews([write(tmp_path / "x.json", *lines)], tmp_path / "out", ImportOptions(core=core))
    table = imported(tmp_path / "out")
    assert sorted(zip(table.user, table.item, strict=True)) == sorted(core_of(pairs, core))
    assert report.consolidation.below_core == len(pairs) - len(table)
    assert (report.consolidation.core_rounds > 1) == (core > 1)


def test_reviews_are_removed_in_as_many_rounds_as_the_core_needs(tmp_path: Path) -> None:
    """Of a path each round removes only the ends."""
    path = [pair for number in range(8) for pair in ((f"u{number}", f"i{number}"), (f"u{number + 1}", f"i{number}"))]
    cycle = [(user, item) for user in ("v0", "v1") for item in ("j0", "j1")]
    lines = [line(user, item, 3, f"text {number}") for number, (user, item) in enumerate(path + cycle)]
    report = import_reviews([write(tmp_path / "x.json", *lines)], tmp_path / "out", ImportOptions(core=2))
    table = imported(tmp_path / "out")
    assert sorted(zip(table.user, table.item, strict=True)) == cycle
    assert report.consolidation.core_rounds == 4


def test_an_import_that_leaves_no_review_is_refused_with_the_counts_of_what_was_removed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 outside the 5-core were removed; a lower --core keeps more"):
        import_reviews([write(tmp_path / "x.json", line("u", "i"))], tmp_path / "out")


@pytest.mark.parametrize("core", [0, 5])
def test_a_file_without_a_review_is_refused(core: int, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user,item,rating,text\n")
    with pytest.raises(InputError, match=r"no review in x\.csv: empty, or a header only"):
        import_reviews([tmp_path / "x.csv"], tmp_path / "out", ImportOptions(core=core))


def test_a_file_of_bad_lines_only_is_refused_even_if_max_bad_allows_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", line("u", "i", 9), b"{")
    with pytest.raises(InputError) as refusal:
        import_reviews([path], tmp_path / "out", ImportOptions(core=0, max_bad=1))
    rejects = tmp_path / "out" / STAGING / "rejects.jsonl"
    for part in ("every line is bad (2)", "broken JSON 1", "rating outside the scale 1", "x.json line 1", str(rejects)):
        assert part in str(refusal.value)
    assert len(rejects.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"user,item,rating,text\nu,i,9,fine\n", "; give the scale with --scale, such as --scale 0:10"),
        (
            "user,item,rating,text\nu,i,4,caf\xe9\n".encode("latin-1"),
            "; convert it to UTF-8, as with iconv -f ENCODING",
        ),
        (b"user,item,rating,text\nu,i,4,fine,more\n", "; if it is a TSV file with quoted cells, give --format csv"),
        (b"user,item,rating,text\nu,i,5 stars,fine\n", "; write ratings as numbers alone, such as 4 or 4.5"),
        (b"user,item,rating,text\nu,,4,fine\n", "; fill it in, or leave such lines out by a higher --max-bad"),
        (b"user,item,rating,text,timestamp\nu,i,4,fine,02/28/2014\n", "; write times as Unix seconds or ISO dates"),
    ],
)
def test_too_many_bad_lines_are_refused_with_the_remedy_for_their_reason(
    content: bytes, remedy: str, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ReviewFileError) as refusal:
        import_reviews([tmp_path / "x.csv"], tmp_path / "out", NO_CORE)
    assert remedy in str(refusal.value)


def test_a_remedy_for_two_reasons_is_given_once(tmp_path: Path) -> None:
    good = {"user": "u", "item": "i", "rating": 4, "text": "fine"}
    path = write(tmp_path / "x.jsonl", good | {"user": ["u"]}, good | {"item": {}})
    with pytest.raises(ReviewFileError, match="write ids as strings or whole numbers") as refusal:
        import_reviews([path], tmp_path / "out", NO_CORE)
    assert str(refusal.value).count("whole numbers") == 1


@pytest.mark.parametrize("known", ["", '{"user": "u", "item": "i", "rating": 4, "text": "fine"}\n'])
def test_lines_that_are_no_json_are_refused_with_how_to_write_it(tmp_path: Path, known: str) -> None:
    """Python's dictionaries, or an object over several lines, whether or not a line tells that the file is JSON."""
    path = tmp_path / "x.jsonl"
    path.write_text(known + "{'user': 'u', 'item': 'i', 'rating': 4}\n")
    with pytest.raises(ReviewFileError, match=r"[;:] write one JSON object a line, as jq -c"):
        import_reviews([path], tmp_path / "out", NO_CORE)


def test_a_table_of_another_separator_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user|item|rating|text\nu|i|4|fine\n")
    expected = r"it has a single one, user\|item\|rating\|text: name .* divided by commas, semicolons or tabs"
    with pytest.raises(ReviewFileError, match=expected):
        import_reviews([tmp_path / "x.csv"], tmp_path / "out", NO_CORE)


@pytest.mark.parametrize(("reviews", "size"), [(300, 3_000), (20, 10_000)], ids=["reviews", "rejects"])
def test_an_import_that_found_the_disk_full_while_staging_can_be_run_again(
    tmp_path: Path, reviews: int, size: int
) -> None:
    """A file of ``size`` bytes has no room for the reviews, or only for those."""
    path = write(tmp_path / "x.json", *corpus(0, reviews))
    with path.open("a") as file:
        file.write("no review\n" * 300)
    options = ImportOptions(core=0, max_bad=0.99)
    import_reviews([path], tmp_path / "whole", options)
    with full_disk(size), pytest.raises(OSError, match=r"part-0000-\d+ cannot be written .*; make room, then run"):
        import_reviews([path], tmp_path / "out", options)
    import_reviews([path], tmp_path / "out", options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_import_that_found_the_disk_full_during_consolidation_can_be_run_again(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", *corpus(0, 300))
    import_reviews([path], tmp_path / "whole", NO_CORE)
    with full_disk(30_000), pytest.raises(OSError, match=r"consolidation cannot be written .*; make room, then run"):
        import_reviews([path], tmp_path / "out", NO_CORE)
    import_reviews([path], tmp_path / "out", NO_CORE)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_directory_in_place_of_a_review_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReviewFileError, match="is a directory: give the files in it"):
        import_reviews([tmp_path], tmp_path / "out")


def test_a_pipe_is_refused_with_a_remedy(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(ReviewFileError, match=r"cannot be read twice: write it to a file first"):
        import_reviews([tmp_path / "x.json"], tmp_path / "out")


def test_an_items_domain_is_that_of_the_listing_or_else_of_its_file(tmp_path: Path) -> None:
    listing = tmp_path / "items.tsv"
    listing.write_text("i1\tstrings\ni2\tpicks\n")
    path = write(tmp_path / "Music.json", line("u1", "i1"), line("u1", "i2"), line("u1", "i3"), line("u2", "i3"))
    report = import_reviews([path], tmp_path / "out", ImportOptions(core=0, item_domains=listing))
    table = imported(tmp_path / "out")
    assert dict(zip(table.item, table.domain, strict=True)) == {"i1": "strings", "i2": "picks", "i3": "Music"}
    assert (report.consolidation.domain_missing_items, report.consolidation.domain_missing_reviews) == (1, 2)
    assert [(line.domain, line.pretraining_reviews) for line in report.statistics.domains] == [
        ("Music", 2), ("picks", 2), ("strings", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("content", ["i1\n", "i1\td\te\n", "\td\n", "i1\td\ni1\te\n"])
def test_a_listing_with_a_bad_line_is_refused(content: str, tmp_path: Path) -> None:
    listing = tmp_path / "items.tsv"
    listing.write_text(content)
    path = write(tmp_path / "x.json", line("u", "i1"))
    with pytest.raises(ReviewFileError, match=r"items\.tsv line"):
        import_reviews([path], tmp_path / "out", ImportOptions(core=0, item_domains=listing))


def test_the_first_category_of_a_yelp_business_is_its_domain(tmp_path: Path) -> None:
    businesses: list[dict[str, Any]] = [
        {"business_id": "b1", "categories": "Pizza, Restaurants"},
        {"business_id": "b2", "categories": None},
        {"business_id": "b3", "categories": ["Books", "Shops"]},
    ]
    business = write(tmp_path / "business.json", *businesses)
    review = {"user_id": "u", "stars": 3, "text": "", "date": "2020-01-01"}
    path = write(tmp_path / "review.json", *(review | {"business_id": f"b{number}"} for number in (1, 2, 3)))
    options = ImportOptions(core=0, yelp_business=business, domains=("other",))
    report = import_reviews([path], tmp_path / "out", options)
    table = imported(tmp_path / "out")
    assert dict(zip(table.item, table.domain, strict=True)) == {"b1": "Pizza", "b2": "other", "b3": "Books"}
    assert report.consolidation.domain_missing_items == 1


def test_a_yelp_business_file_without_yelp_reviews_is_refused(tmp_path: Path) -> None:
    business = write(tmp_path / "business.json", {"business_id": "b1", "categories": "Pizza"})
    path = write(tmp_path / "x.json", line("u", "i"))
    with pytest.raises(ConfigError, match=r"business\.json"):
        import_reviews([path], tmp_path / "out", ImportOptions(core=0, yelp_business=business))


def test_bad_lines_are_written_to_the_rejects_with_file_line_reason_and_bytes(tmp_path: Path) -> None:
    bad = [b'{"half', b'{"a": "\xff\x00"}', json.dumps(line("u", "i", 9, "x" * 5000)).encode()]
    good = [line("u", f"i{number}") for number in range(4)]
    path = write(tmp_path / "x.json", good[0], bad[0], good[1], bad[1], good[2], b"", bad[2], good[3])
    report = import_reviews([path], tmp_path / "out", ImportOptions(core=0, max_bad=0.5), records_per_chunk=3)
    rejects = [json.loads(one) for one in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert [(one["file"], one["line"], one["reason"]) for one in rejects] == [
        ("x.json", 2, "broken JSON"),
        ("x.json", 4, "wrong encoding"),
        ("x.json", 7, "rating outside the scale"),
    ]
    assert rejects[0]["raw"].encode() == bad[0]
    assert base64.b64decode(rejects[1]["raw_base64"]) == bad[1]
    assert (rejects[2]["raw"].encode(), rejects[2]["raw_bytes"]) == (bad[2][:4096], len(bad[2]))
    assert report.rejected == {"broken JSON": 1, "rating outside the scale": 1, "wrong encoding": 1}
    assert (report.records, report.consolidation.reviews) == (7, 4)


def test_the_error_for_too_many_bad_lines_gives_counts_examples_and_the_rejects_file(tmp_path: Path) -> None:
    lines = [line("u", f"i{number}") for number in range(97)] + [line("u", "j", 9), line("u", "j", overall="x")]
    path = write(tmp_path / "x.json", *lines, b"{")
    with pytest.raises(ReviewFileError) as refusal:
        import_reviews([path], tmp_path / "out", NO_CORE)
    message = str(refusal.value)
    rejects = tmp_path / "out" / STAGING / "rejects.jsonl"
    counts = ("3 of 100", "3.00%", "1.00%", "broken JSON 1", "rating is no number 1")
    for part in (*counts, "x.json line 98", str(rejects)):
        assert part in message
    assert len(rejects.read_text().splitlines()) == 3
    assert not (tmp_path / "out" / "reviews.parquet").exists()
    report = import_reviews([path], tmp_path / "out", ImportOptions(core=0, max_bad=0.03))
    assert report.consolidation.reviews == 97
    assert sorted(contents(tmp_path / "out")) == ["rejects.jsonl", "report.json", "reviews.parquet"]


def test_a_chunk_without_a_good_line_ends_the_import_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", *([b"{}"] * 20), *(line("u", f"i{n}") for n in range(30)))
    with pytest.raises(ReviewFileError, match="10 of 10 lines"):
        import_reviews([path], tmp_path / "out", NO_CORE, records_per_chunk=10)


def test_ratings_are_accepted_within_the_scale_of_the_options(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", line("u", "i", 0.5), line("u", "j", 10))
    options = ImportOptions(core=0, scale=RatingScale(lowest=0.5, highest=10))
    import_reviews([path], tmp_path / "out", options)
    assert imported(tmp_path / "out").scale == options.scale


def test_a_finished_import_is_left_unchanged_and_one_with_other_options_needs_force(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", *corpus(0, 100))
    out = tmp_path / "out"
    first = import_reviews([path], out, NO_CORE)
    before = contents(out)
    times = [file.stat().st_mtime_ns for file in out.iterdir()]
    again = import_reviews([path], out, NO_CORE)
    assert again.already_imported
    assert not first.already_imported
    assert again.statistics == first.statistics
    assert [file.stat().st_mtime_ns for file in out.iterdir()] == times
    other = ImportOptions(core=0, with_title=False)
    with pytest.raises(InputError, match="--force"):
        import_reviews([path], out, other)
    assert contents(out) == before
    assert not import_reviews([path], out, other, force=True).already_imported
    assert imported(out).metadata.with_title is False
    assert ImportReport.load(out / "report.json").options["with_title"] is False


def test_an_import_of_a_changed_file_is_another_import(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", line("u", "i"))
    import_reviews([path], tmp_path / "out", NO_CORE)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="other files"):
        import_reviews([path], tmp_path / "out", NO_CORE)


def test_staging_of_other_options_is_discarded(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", line("u", "i"), line("u", "j", 9))
    with pytest.raises(ReviewFileError):
        import_reviews([path], tmp_path / "out", NO_CORE)
    report = import_reviews([path], tmp_path / "out", ImportOptions(core=0, scale=RatingScale(lowest=1, highest=9)))
    assert report.consolidation.reviews == 2


def test_a_staging_folder_that_no_import_made_is_never_removed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", line("u", "i"))
    for name in ("staging", STAGING):
        (tmp_path / name / name).mkdir(parents=True)
        (tmp_path / name / name / "thesis.tex").write_text("years of work")
    import_reviews([path], tmp_path / "staging", NO_CORE)
    for again in (False, True):
        with pytest.raises(ConfigError, match="no output of `ubert import`"):
            import_reviews([path], tmp_path / STAGING, NO_CORE, force=again)
    for name in ("staging", STAGING):
        assert (tmp_path / name / name / "thesis.tex").exists()


@pytest.mark.parametrize("leftover", [None, ".stage.json.1.partial"])
def test_a_staging_folder_left_by_a_kill_while_it_was_created_or_removed_is_reused(
    tmp_path: Path, leftover: str | None
) -> None:
    path = write(tmp_path / "x.json", line("u", "i"))
    staging = tmp_path / "out" / STAGING
    staging.mkdir(parents=True)
    if leftover:
        (staging / leftover).write_text("")
    assert import_reviews([path], tmp_path / "out", NO_CORE).consolidation.reviews == 1
    assert not staging.exists()


def test_a_table_that_no_import_made_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = ReviewTable.of([Review(user="u", item="i", rating=3, text="", domain="d")])
    table.save(out / "reviews.parquet")
    path = write(tmp_path / "x.json", line("v", "i"))
    with pytest.raises(InputError, match="no import made it"):
        import_reviews([path], out, NO_CORE)
    assert imported(out).user == ["u"]


def test_a_second_import_into_a_folder_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", line("u", "i"))
    (tmp_path / "out").mkdir()
    other = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="running"):
            import_reviews([path], tmp_path / "out", NO_CORE)
    finally:
        os.close(other)
    assert import_reviews([path], tmp_path / "out", NO_CORE).consolidation.reviews == 1


def test_invalid_files_and_options_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", line("u", "i"))
    out = tmp_path / "out"
    with pytest.raises(ReviewFileError, match="absent"):
        import_reviews([tmp_path / "absent.json"], out, NO_CORE)
    with pytest.raises(ConfigError, match="twice"):
        import_reviews([path, path], out, NO_CORE)
    with pytest.raises(ConfigError, match="no review file"):
        import_reviews([], out, NO_CORE)
    with pytest.raises(ConfigError, match="3 domain names for 1 files"):
        import_reviews([path], out, ImportOptions(domains=("a", "b", "c")))
    assert not out.exists()
    for options in ({"core": -1}, {"max_bad": 1.5}, {"domains": (" ",)}):
        with pytest.raises(ConfigError):
            ImportOptions(**options)


def test_progress_ends_with_the_whole_file_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json.gz", *corpus(0, 200))
    reports: list[ImportProgress] = []
    import_reviews([path], tmp_path / "out", NO_CORE, reports.append, records_per_chunk=50)
    reading = [progress for progress in reports if progress.file == path]
    assert [progress.bytes_read for progress in reading] == sorted(progress.bytes_read for progress in reading)
    assert reading[-1].bytes_read == reading[-1].bytes_total == path.stat().st_size
    assert reports[-1].file is None


def test_special_characters_in_texts_identifiers_and_paths_are_preserved(tmp_path: Path) -> None:
    special = "quote ' \" tab \t line \n nul \0 💡 ü"
    path = write(tmp_path / "x [1].json", line("u'1", "i\t💡", 3, special))
    out = tmp_path / "it's [a] folder *"
    import_reviews([path], out, NO_CORE)
    table = imported(out)
    assert (table.user, table.item, table.text) == (["u'1"], ["i\t💡"], [special])


def test_duckdb_reads_the_table(tmp_path: Path) -> None:
    import_reviews([write(tmp_path / "x.json", *corpus(0, 50))], tmp_path / "out", NO_CORE)
    with duckdb.connect() as database:
        query = f"SELECT count(*), count(DISTINCT review_id) FROM '{tmp_path / 'out' / 'reviews.parquet'}'"
        rows = database.execute(query).fetchall()
    assert rows == [(50, 50)]


def test_the_command_prints_what_it_read_and_removed(tmp_path: Path) -> None:
    shop = tmp_path / "shop.csv"
    rows = ["who,sku,stars,body", "u,i,5,fine", "u,i,5,fine", "u,j,5,fine", "u,k,50,fine"]
    shop.write_text("\n".join(rows))
    arguments = [str(shop), "--out", str(tmp_path / "out"), "--core", "0", "--max-bad", "0.5", "--domain", "toys"]
    columns = ["--columns", "user=who,item=sku,rating=stars,text=body"]
    app = typer.Typer()
    app.command()(import_command)
    result = CliRunner().invoke(app, arguments + columns)
    assert result.exit_code == 0, result.output
    for part in ("4 lines read, 1 reviews", "1 removed: bad lines", "1 removed: exact", "1 removed: texts", "toys"):
        assert part in result.stdout
    assert "Already imported" in CliRunner().invoke(app, arguments + columns).stdout


def test_the_command_names_the_unread_columns_of_a_file_without_times(tmp_path: Path) -> None:
    shop = tmp_path / "shop.csv"
    shop.write_text("user,item,rating,text,date,helpful\nu,i,5,fine,2017-07-14,3\n")
    app = typer.Typer()
    app.command()(import_command)
    arguments = [str(shop), "--out", str(tmp_path / "out"), "--core", "0"]
    shown = "shop.csv has no column timestamp; unread columns: date, helpful."
    for _ in range(2):  # also when it is already imported
        result = CliRunner().invoke(app, arguments)
        assert shown in result.stdout
        assert "--columns timestamp=date" in result.stdout
    result = CliRunner().invoke(app, [*arguments, "--force", "--columns", "timestamp=date"])
    assert "without time" not in result.stdout
    assert "unread" not in result.stdout


def test_the_command_names_a_column_of_ids_that_were_written_as_floats(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(import_command)
    for number, (users, noted) in enumerate(((("1.0", "2.0", ""), True), (("1", "2", "3.0"), False))):
        shop = tmp_path / f"shop{number}.csv"
        shop.write_text("who,item,rating,text\n" + "".join(f"{user},i7.0,5,fine {user}\n" for user in users))
        arguments = [str(shop), "--out", str(tmp_path / f"{number}"), "--core", "0", "--max-bad", "0.5"]
        for _ in range(2):  # also when it is already imported
            shown = " ".join(CliRunner().invoke(app, [*arguments, "--columns", "user=who"]).stdout.split())
            assert ("column who are written as floats, such as 1.0" in shown) == noted
            assert "column item" not in shown


def test_the_command_says_how_to_join_files_that_divide_the_reviews_of_the_same_items(tmp_path: Path) -> None:
    """As with a file a month: each would be a domain."""
    months = [write(tmp_path / f"{month}.json", *corpus(number, 20)) for number, month in enumerate(("may", "june"))]
    app = typer.Typer()
    app.command()(import_command)
    for number, options in enumerate(([], ["--domain", "shop"])):
        arguments = [*map(str, months), "--out", str(tmp_path / f"{number}"), "--core", "0", *options]
        assert ("give them one with --domain" in CliRunner().invoke(app, arguments).stdout) == (number == 0)


@pytest.mark.parametrize("text", ["user", "user=", "=a", "user=a,user=b"])
def test_a_malformed_column_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--columns"):
        parse_columns(text)


def test_an_explicit_format_overrides_the_file_name(tmp_path: Path) -> None:
    path = write(tmp_path / "misnamed.csv", line("u", "i"))
    options = ImportOptions(core=0, format=FormatName.AMAZON_2014)
    assert import_reviews([path], tmp_path / "out", options).consolidation.reviews == 1
