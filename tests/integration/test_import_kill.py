"""Law 8: an import that is killed and run again writes the same bytes as one that was never killed."""

import gzip
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.files import contents
from support.killed_writes import Killed
from support.processes import running
from ubert_model.running.atomic import publish
from ubert_training.reviews.importer import STAGING, import_reviews
from ubert_training.reviews.options import ImportOptions

STEP = 11  # an import makes about 190 changes on disk, and is killed before every eleventh; 1 would try them all
FINISHED = ["rejects.jsonl", "report.json", "reviews.parquet"]

# Pauses for a minute at the n-th progress report (0: never), so that the test can kill it there.
IMPORT = """
import sys, time
from pathlib import Path
from ubert_training.reviews.importer import import_reviews
from ubert_training.reviews.options import ImportOptions

out, *files = map(Path, sys.argv[2:])
reports = 0

def report(progress):
    global reports
    reports += 1
    if reports == int(sys.argv[1]):
        print("waiting", flush=True)
        time.sleep(60)

import_reviews(files, out, ImportOptions(core=2, max_bad=0.5), report, records_per_chunk=60)
"""

# Runs imports that kill themselves with SIGKILL before the n-th change under the output folder, for growing n, until
# one finishes before its n-th change. Each is then run again to completion. The children are forked, so that Python
# starts only once; the parent imports no reviews, so it has no threads, which a fork would not copy. They skip fsync to
# save time: the end of a process loses nothing that it wrote.
KILLED_BEFORE_CHANGES = """
import os, signal, sys
from pathlib import Path
from ubert_training.reviews.importer import import_reviews
from ubert_training.reviews.options import ImportOptions

folder, *files = map(Path, sys.argv[1:])
os.fsync = lambda descriptor: None
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "open"}

def run(out, fatal_change):
    seen = 0
    def watch(event, arguments):
        nonlocal seen
        if event in CHANGES and str(arguments[0]).startswith(str(out)):
            seen += 1
            if seen == fatal_change:
                os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if child == 0:
        if fatal_change:
            sys.addaudithook(watch)
        import_reviews(files, out, ImportOptions(core=2, max_bad=0.5), records_per_chunk=60)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

change = 1
while (ended := run(folder / f"{change:03d}", change)) == signal.SIGKILL:
    assert run(folder / f"{change:03d}", 0) == 0
    change += STEP
assert ended == 0
print(change)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files with duplicates, bad lines and reviews outside the 2-core."""
    folder = tmp_path_factory.mktemp("reviews")
    rng = random.Random(0)
    lines = [
        {
            "reviewerID": f"u{rng.randrange(40)}",
            "asin": f"i{rng.randrange(60)}",
            "overall": rng.randint(1, 6),
            "reviewText": f"words {rng.randrange(150)}",
            "unixReviewTime": rng.randrange(10**9),
        }
        for _ in range(220)
    ]
    plain = folder / "plain.json"
    plain.write_text("".join(json.dumps(line) + "\n" for line in lines[:100]))
    packed = folder / "packed.json.gz"
    packed.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines[80:]).encode()))
    return [plain, packed]


@pytest.fixture(scope="module")
def uninterrupted(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    run_to_completion(out, files)
    return contents(out)


def test_an_import_killed_before_a_change_on_disk_resumes_to_the_same_bytes(
    files: list[Path], uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    script = KILLED_BEFORE_CHANGES.replace("STEP", str(STEP))
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path, *files], check=True, timeout=240, stdout=subprocess.PIPE, text=True
    )
    last_change = int(run.stdout)
    assert last_change > 60
    outs = sorted(tmp_path.iterdir())
    assert len(outs) == 1 + (last_change - 1) // STEP
    for out in outs:
        assert contents(out) == uninterrupted, f"killed before change {out.name}"
    assert list(uninterrupted) == FINISHED


def kill_at_report(report: int, out: Path, files: list[Path]) -> int:
    """Start an import, kill it at its n-th progress report, and return its exit status."""
    command = [sys.executable, "-c", IMPORT, str(report), str(out), *map(str, files)]
    with running(command) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
    return process.returncode


def run_to_completion(out: Path, files: list[Path]) -> None:
    subprocess.run([sys.executable, "-c", IMPORT, "0", out, *files], check=True, timeout=240)


@pytest.mark.parametrize(("report", "staged_chunks"), [(1, 1), (4, 4), (6, 5)])
def test_an_import_killed_at_a_progress_report_resumes_to_the_same_bytes(
    report: int, staged_chunks: int, files: list[Path], uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert kill_at_report(report, out, files) == -signal.SIGKILL
    assert len(list((out / STAGING).glob("part-*.json"))) == staged_chunks
    run_to_completion(out, files)
    assert contents(out) == uninterrupted


def test_a_resumed_import_uses_the_staged_chunks(
    files: list[Path], uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    """A line that the test adds to a staged chunk is in the result."""
    out = tmp_path / "out"
    kill_at_report(2, out, files)
    rejects = out / STAGING / "part-0000-000000.rejects.jsonl"
    rejects.write_text('{"added": true}\n' + rejects.read_text())
    run_to_completion(out, files)
    assert contents(out)["rejects.jsonl"] == b'{"added": true}\n' + uninterrupted["rejects.jsonl"]


@pytest.mark.parametrize("published", [0, 1, 2])
def test_an_import_that_is_killed_while_it_replaces_another_leaves_no_report_of_another_table(
    published: int, files: list[Path], uninterrupted: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "out", ImportOptions(core=2, max_bad=0.5)
    import_reviews(files[:1], out, options)
    left = iter(range(published))

    def killed_publish(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise Killed
        publish(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("ubert_training.reviews.importer.publish", killed_publish)
        with pytest.raises(Killed):
            import_reviews(files, out, options, force=True)
    assert not (out / "report.json").exists()
    import_reviews(files, out, options)
    assert contents(out) == uninterrupted
