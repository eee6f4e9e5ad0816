"""`ubert-serve-score`: the ratings of ``/predict`` for a file of pairs, also after failures and in shards."""

import gzip
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.app_settings import settings_for
from support.tiny_bundle import Corpus, TinyBundle
from support.waiting import wait_until
from ubert_model.bundle import Bundle
from ubert_model.errors import ClusterError, ConfigError, DeviceUnavailableError, InputError
from ubert_model.running.folder_lock import try_lock
from ubert_model.running.ray_engine import RayEngine
from ubert_model.running.sharding import Shard
from ubert_model.states import MaintenanceStore, open_existing_store, open_store
from ubert_model.states.lmdb_store import LmdbStore
from ubert_service.bulk import rating
from ubert_service.bulk.portions import Portions
from ubert_service.bulk.rating import rate_pairs
from ubert_service.commands.score import main
from ubert_service.errors import NotReadyError
from ubert_service.scoring.engine import Prediction
from ubert_service.settings import Settings

# Users and items with and without reviews, and unknown to the bundle; ids that look like numbers; one pair twice.
PAIRS = [(f"u{user}", f"i{(7 * user + number) % 14}") for number in range(5) for user in range(10)]
PAIRS += [("007", "i1"), ("NA", "1e3"), PAIRS[0]]
WHOLE = Shard()


@pytest.fixture(scope="module")
def settings(tiny: TinyBundle, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """With a store that holds the corpus."""
    url = f"lmdb:{tmp_path_factory.mktemp('rated') / 'states'}"
    with closing(open_store(url)) as store:
        corpus.write(store, tiny.bundle)
    return settings_for(tiny.bundle, store=url)


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ubert_service.bulk.rating.PAIRS_A_PORTION", 20)


@pytest.fixture
def pairs(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pairs.parquet"
    users, items = zip(*PAIRS, strict=True)
    pq.write_table(pa.table({"item": items, "place": range(len(PAIRS)), "user": pa.array(users)}), path)
    yield path
    assert not list(tmp_path.glob("*.portions"))


def test_a_file_of_pairs_gets_the_ratings_of_predict(
    settings: Settings, pairs: Path, tmp_path: Path, reader: httpx.Client
) -> None:
    assert rate_pairs(pairs, tmp_path / "out.parquet", settings, shard=WHOLE) == len(PAIRS)
    rated = pq.ParquetFile(tmp_path / "out.parquet").read().to_pylist()
    question = {"pairs": [{"user": user, "item": item} for user, item in PAIRS]}
    answered = reader.post("/predict", json=question).raise_for_status().json()["predictions"]
    for row, expected in zip(rated, answered, strict=True):
        interval = expected["interval"]
        stars = [row.pop(name) for name in ("rating", "low", "high")]
        assert stars == pytest.approx([expected["rating"], interval["low"], interval["high"]], abs=1e-5)
        assert row == {name: expected[name] for name in row}
    assert {"full", "one_side", "mean"} <= {row["basis"] for row in rated}


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.tsv.gz"])
def test_the_format_of_the_file_changes_no_byte_of_the_ratings(
    settings: Settings, pairs: Path, tmp_path: Path, name: str
) -> None:
    separator = "\t" if "tsv" in name else ","
    text = "".join(separator.join(row) + "\n" for row in [("item", "note", "user"), *((i, "x", u) for u, i in PAIRS)])
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    for source, out in ((pairs, "expected.parquet"), (tmp_path / name, "out.parquet")):
        rate_pairs(source, tmp_path / out, settings, shard=WHOLE)
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()


def test_line_breaks_in_a_quoted_column_divide_no_row(settings: Settings, tmp_path: Path) -> None:
    rows = 20 * len(PAIRS)  # more than one block of the parser
    text = '"' + "very, very good\n" * 100 + '"'
    (tmp_path / "pairs.csv").write_text("user,item,text\n" + f"u1,i1,{text}\n" * rows)
    rated = rate_pairs(tmp_path / "pairs.csv", tmp_path / "out.parquet", settings, shard=WHOLE)
    users = pq.ParquetFile(tmp_path / "out.parquet").read()["user"]
    assert (rated, users.to_pylist()) == (rows, ["u1"] * rows)


def test_a_runtime_that_each_worker_would_choose_for_itself_is_refused(
    settings: Settings, pairs: Path, tmp_path: Path
) -> None:
    auto = settings.model_copy(update={"runtime": "auto"})
    with pytest.raises(ConfigError, match=r"runtime = 'auto': .* name one"):
        rate_pairs(pairs, tmp_path / "out.parquet", auto, shard=WHOLE)


class Interrupted(Exception):  # noqa: N818 - stands for a kill
    pass


def rate_first_portion(pairs: Path, out: Path, settings: Settings) -> None:
    """A run that is interrupted after its first portion."""

    def interrupt(rated: int, of: int) -> None:
        assert (rated, of) in {(0, len(PAIRS)), (20, len(PAIRS))}
        if rated:
            raise Interrupted

    with pytest.raises(Interrupted):
        rate_pairs(pairs, out, settings, shard=WHOLE, progress=interrupt)
    assert not out.exists()


def test_an_interrupted_run_resumes_after_its_finished_portions(
    settings: Settings, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_pairs(pairs, tmp_path / "expected.parquet", settings, shard=WHOLE)
    rate_first_portion(pairs, tmp_path / "out.parquet", settings)
    rated: list[int] = []
    rate = Portions.rate

    def recorded(portions: Portions, number: int, predictions: Sequence[Prediction]) -> None:
        rated.append(number)
        rate(portions, number, predictions)

    monkeypatch.setattr(Portions, "rate", recorded)
    assert rate_pairs(pairs, tmp_path / "out.parquet", settings, shard=WHOLE) == len(PAIRS)
    assert rated == [1, 2]
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()


def test_unfinished_ratings_of_another_file_are_discarded_only_with_force(
    settings: Settings, pairs: Path, tmp_path: Path
) -> None:
    rate_first_portion(pairs, tmp_path / "out.parquet", settings)
    table = pq.ParquetFile(pairs).read()
    pq.write_table(table.slice(1), pairs)
    rated = sorted((tmp_path / "out.parquet.portions").iterdir())
    with pytest.raises(InputError, match=r"out\.parquet\.portions holds ratings .* discard its ratings with --force"):
        rate_pairs(pairs, tmp_path / "out.parquet", settings, shard=WHOLE)
    assert sorted((tmp_path / "out.parquet.portions").iterdir()) == rated
    assert rate_pairs(pairs, tmp_path / "out.parquet", settings, shard=WHOLE, force=True) == len(PAIRS) - 1
    assert pq.ParquetFile(tmp_path / "out.parquet").read()["user"].to_pylist() == table["user"].to_pylist()[1:]


@pytest.mark.parametrize("content", ["user,thing\nu1,i1\n", "user,item\nu1,i1\nu1,\n"])
def test_an_invalid_file_discards_no_finished_portion_even_with_force(
    settings: Settings, pairs: Path, tmp_path: Path, content: str
) -> None:
    rate_first_portion(pairs, tmp_path / "out.parquet", settings)
    rated = sorted((tmp_path / "out.parquet.portions").iterdir())
    (tmp_path / "wrong.csv").write_text(content)
    with pytest.raises(InputError, match=r"wrong\.csv"):
        rate_pairs(tmp_path / "wrong.csv", tmp_path / "out.parquet", settings, shard=WHOLE, force=True)
    assert sorted((tmp_path / "out.parquet.portions").iterdir()) == rated
    assert rate_pairs(pairs, tmp_path / "out.parquet", settings, shard=WHOLE) == len(PAIRS)


@pytest.mark.parametrize("engine", [None, RayEngine(address="127.0.0.1:9")], ids=["no such device", "no such cluster"])
def test_a_missing_device_or_cluster_discards_no_finished_portion_even_with_force(
    settings: Settings, pairs: Path, tmp_path: Path, engine: RayEngine | None
) -> None:
    rate_first_portion(pairs, tmp_path / "out.parquet", settings)
    rated = sorted((tmp_path / "out.parquet.portions").iterdir())
    without_device = settings.model_copy(update={"device": "cpu", "runtime": "onnx-tensorrt"})
    with pytest.raises(DeviceUnavailableError if engine is None else ClusterError):
        rate_pairs(pairs, tmp_path / "out.parquet", without_device, shard=WHOLE, engine=engine, force=True)
    assert sorted((tmp_path / "out.parquet.portions").iterdir()) == rated
    assert rate_pairs(pairs, tmp_path / "out.parquet", settings, shard=WHOLE) == len(PAIRS)


def test_shards_have_distinct_users_and_together_all_pairs(settings: Settings, pairs: Path, tmp_path: Path) -> None:
    shards = []
    for number in (1, 2, 3):
        rate_pairs(pairs, tmp_path / "out.parquet", settings, shard=Shard(number=number, shards=3), force=True)
        shards.append(pq.ParquetFile(tmp_path / "out.parquet").read().to_pylist())
    rate_pairs(pairs, tmp_path / "whole.parquet", settings, shard=WHOLE)
    whole = pq.ParquetFile(tmp_path / "whole.parquet").read().to_pylist()
    users = [{row["user"] for row in shard} for shard in shards]
    assert all(users)
    assert sum(map(len, users)) == len(set().union(*users))
    assert sorted((row["user"], row["item"]) for shard in shards for row in shard) == sorted(PAIRS)
    order = [(row["user"], row["item"]) for row in whole]
    for shard, own in zip(shards, users, strict=True):
        assert [(row["user"], row["item"]) for row in shard] == [pair for pair in order if pair[0] in own]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pairs.csv", "user,item\nu1,i1\n,i2\n", r"row 2: user '' has 0 bytes"),
        ("pairs.csv", f"user,item\nu1,{'i' * 257}\n", "row 1: item 'iii.* has 257 bytes"),
        ("pairs.csv", "user,thing\nu1,i1\n", "pairs.csv has no column item; it has user, thing: rename"),
        ("pairs.csv", "", "pairs.csv has no column user or item; it has none"),
        ("pairs.csv", "user,item,user\nu1,i1,u2\n", "has 2 columns named user"),
        ("pairs.csv", "user,item\nu1\n", "columns user and item"),
        pytest.param("pairs.csv", f"{'x' * 5_000_000},user,item\n", "columns user and item", id="a long column"),
        ("pairs.parquet", "user,item\nu1,i1\n", "columns user and item"),
        ("pairs.txt", "user,item\nu1,i1\n", r"name it \.csv"),
        ("missing/pairs.csv", None, "no file of pairs"),
    ],
)
def test_invalid_pairs_raise_an_error_that_names_them(
    settings: Settings, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        rate_pairs(tmp_path / name, tmp_path / "out.parquet", settings, shard=WHOLE)
    assert not list(tmp_path.glob("*.portions"))


@pytest.mark.parametrize("name", ["ratings.csv", "ratings", "ratings.parquet.gz"])
def test_an_output_whose_name_does_not_end_in_parquet_is_refused(
    settings: Settings, pairs: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match=rf"--out .*{name}: .* ends in \.parquet"):
        rate_pairs(pairs, tmp_path / name, settings, shard=WHOLE)
    assert not (tmp_path / name).exists()


def test_a_failed_run_leaves_its_folder_only_if_it_holds_ratings(
    settings: Settings, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, folder = tmp_path / "out.parquet", tmp_path / "out.parquet.portions"
    rate = Portions.rate

    def fail_at(portion: int) -> None:
        def rate_or_fail(self: Portions, number: int, predictions: Sequence[Prediction]) -> None:
            if number == portion:
                raise DeviceUnavailableError("gone")
            rate(self, number, predictions)

        monkeypatch.setattr(Portions, "rate", rate_or_fail)
        with pytest.raises(DeviceUnavailableError):
            rate_pairs(pairs, out, settings, shard=WHOLE)

    fail_at(0)
    assert not folder.exists()
    fail_at(1)
    assert folder.exists()
    fail_at(1)
    assert folder.exists()
    monkeypatch.setattr(Portions, "rate", rate)
    assert rate_pairs(pairs, out, settings, shard=WHOLE) == len(PAIRS)


def test_a_run_locks_its_folder_against_other_runs(settings: Settings, pairs: Path, tmp_path: Path) -> None:
    out, folder, locked = tmp_path / "out.parquet", tmp_path / "out.parquet.portions", []
    folder.mkdir()
    with try_lock(folder):
        for force in (False, True):
            with pytest.raises(InputError, match=r"another run is at work in .*out\.parquet\.portions"):
                rate_pairs(pairs, out, settings, shard=WHOLE, force=force)

    def try_to_lock(rated: int, of: int) -> None:
        with try_lock(folder) as ours:
            locked.append(ours)

    assert rate_pairs(pairs, out, settings, shard=WHOLE, progress=try_to_lock) == len(PAIRS)
    assert locked
    assert not any(locked)
    assert pq.ParquetFile(out).metadata.num_rows == len(PAIRS)


def test_an_output_that_cannot_be_written_is_an_error_of_one_line(
    settings: Settings,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "no-folder").write_text("")
    flags = ["--bundle", str(settings.bundle), "--store", settings.store, "--codec", "fp32"]
    command = [*flags, "--pairs", str(pairs), "--out", str(tmp_path / "no-folder" / "out.parquet")]
    monkeypatch.setattr(sys, "argv", ["ubert-serve-score", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ubert-serve-score: ")
    assert line.endswith("no-folder: Not a directory") or "no-folder/out.parquet" in line


def test_an_existing_output_is_not_replaced_without_force(settings: Settings, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "out.parquet").write_text("mine")
    with pytest.raises(InputError, match="--force"):
        rate_pairs(pairs, tmp_path / "out.parquet", settings, shard=WHOLE)
    assert (tmp_path / "out.parquet").read_text() == "mine"


def test_a_store_without_the_states_is_refused_and_the_error_names_the_command(
    tiny: TinyBundle, pairs: Path, tmp_path: Path
) -> None:
    empty = settings_for(tiny.bundle, store=f"lmdb:{tmp_path / 'empty'}")
    with pytest.raises(ConfigError, match="ubert precompute --store"):
        rate_pairs(pairs, tmp_path / "out.parquet", empty, shard=WHOLE)
    assert not (tmp_path / "empty").exists()
    open_store(empty.store).close()
    with pytest.raises(
        NotReadyError, match=r"lmdb:.*, for .*: the store has no states .* under codec fp32; .* `ubert precompute`"
    ):
        rate_pairs(pairs, tmp_path / "out.parquet", empty, shard=WHOLE)


def test_the_command_rates_a_file(settings: Settings, pairs: Path, tmp_path: Path) -> None:
    flags = ["--bundle", str(settings.bundle), "--store", settings.store, "--codec", "fp32", "--device", "cpu"]
    command = ["-m", "ubert_service.commands.score", *flags, "--pairs", str(pairs)]
    rated = subprocess.run(
        [sys.executable, *command, "--out", str(tmp_path / "out.parquet")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (rated.returncode, rated.stdout) == (0, f"{len(PAIRS)} pairs rated in {tmp_path / 'out.parquet'}\n")
    assert pq.ParquetFile(tmp_path / "out.parquet").metadata.num_rows == len(PAIRS)


def test_the_namespace_is_held_while_it_is_read(
    settings: Settings, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores: list[MaintenanceStore] = []
    version = Bundle.load(settings.bundle).manifest.namespace(settings.codec).version
    rate = Portions.rate

    def opened(url: str) -> MaintenanceStore:
        stores.append(open_existing_store(url))
        return stores[-1]

    def rate_while_held(portions: Portions, number: int, predictions: Sequence[Prediction]) -> None:
        wait_until(lambda: stores[-1].holders(version), or_fail="nobody holds the namespace")
        rate(portions, number, predictions)

    monkeypatch.setattr(rating, "open_existing_store", opened)
    monkeypatch.setattr(Portions, "rate", rate_while_held)
    assert rate_pairs(pairs, tmp_path / "out.parquet", settings, shard=WHOLE) == len(PAIRS)
    with closing(open_store(settings.store)) as store:
        assert store.holders(version) == []


def test_each_portion_reads_its_states_anew(
    settings: Settings, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that its ratings depend on no other portion, to the last bit."""
    table = pq.ParquetFile(pairs).read().slice(0, 20)
    pq.write_table(pa.concat_tables([table] * 3), pairs)
    read: list[list[str]] = []
    states = LmdbStore.states

    def recorded(store: LmdbStore, version: str, review_ids: Sequence[str]) -> list[bytes | None]:
        read.append(sorted(review_ids))
        return states(store, version, review_ids)

    monkeypatch.setattr(LmdbStore, "states", recorded)
    rate_pairs(pairs, tmp_path / "out.parquet", settings, shard=WHOLE)
    assert read[0]
    assert read == [read[0]] * 3
