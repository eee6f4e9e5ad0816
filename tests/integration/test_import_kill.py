"""An import that is killed and started again ends with the bytes of one that was not (law 8)."""

import gzip
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ubert_training.reviews.importer import STAGING

STEP = 11  # of the about 110 changes that an import makes; 1 tries them all
FINISHED = ["rejects.jsonl", "report.json", "reviews.parquet"]

# Stops for a minute at the n-th report of progress (0: never) and says so, to be killed there.
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

# Kills itself with SIGKILL before the n-th change it makes under the output folder, for growing n until an
# import outlives its n; each is then started again to its end. The children are forked, so that starting
# Python is paid once; the parent itself never imports reviews and so has no threads to lose. A kill loses
# nothing that was written, so the children save the time of flushing to disk.
MANY_MOMENTS = """
import os, signal, sys
from pathlib import Path
from ubert_training.reviews.importer import import_reviews
from ubert_training.reviews.options import ImportOptions

folder, *files = map(Path, sys.argv[1:])
os.fsync = lambda descriptor: None
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "open"}

def run(out, moment):
    seen = 0
    def watch(event, arguments):
        nonlocal seen
        if event in CHANGES and str(arguments[0]).startswith(str(out)):
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if child == 0:
        if moment:
            sys.addaudithook(watch)
        import_reviews(files, out, ImportOptions(core=2, max_bad=0.5), records_per_chunk=60)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

moment = 1
while (ended := run(folder / f"{moment:03d}", moment)) == signal.SIGKILL:
    assert run(folder / f"{moment:03d}", 0) == 0
    moment += STEP
assert ended == 0
print(moment)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files with duplicates, bad lines and reviews outside the 2-core."""
    folder = tmp_path_factory.mktemp("reviews")
    chance = random.Random(0)
    lines = [
        {
            "reviewerID": f"u{chance.randrange(40)}",
            "asin": f"i{chance.randrange(60)}",
            "overall": chance.randint(1, 6),
            "reviewText": f"words {chance.randrange(150)}",
            "unixReviewTime": chance.randrange(10**9),
        }
        for _ in range(220)
    ]
    plain = folder / "plain.json"
    plain.write_text("".join(json.dumps(line) + "\n" for line in lines[:100]))
    packed = folder / "packed.json.gz"
    packed.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines[80:]).encode()))
    return [plain, packed]


@pytest.fixture(scope="module")
def unkilled(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("unkilled") / "out"
    finish(out, files)
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_a_kill_before_a_change_on_disk_leaves_no_trace_in_the_result(
    files: list[Path], unkilled: dict[str, bytes], tmp_path: Path
) -> None:
    script = MANY_MOMENTS.replace("STEP", str(STEP))
    ran = subprocess.run(
        [sys.executable, "-c", script, tmp_path, *files], check=True, timeout=600, stdout=subprocess.PIPE, text=True
    )
    assert int(ran.stdout) > 60
    outs = sorted(tmp_path.iterdir())
    assert len(outs) == 1 + (int(ran.stdout) - 1) // STEP
    for out in outs:
        assert contents(out) == unkilled, f"killed before change {out.name}"
    assert list(unkilled) == FINISHED


def killed_at(report: int, out: Path, files: list[Path]) -> int:
    """Start an import, kill it at its n-th report of progress, and give its exit status."""
    command = [sys.executable, "-c", IMPORT, str(report), str(out), *map(str, files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.kill()
    return process.returncode


def finish(out: Path, files: list[Path]) -> None:
    subprocess.run([sys.executable, "-c", IMPORT, "0", out, *files], check=True, timeout=300)


@pytest.mark.parametrize(("report", "staged_chunks"), [(1, 1), (4, 4), (6, 5)])
def test_a_process_killed_from_outside_goes_on_where_it_was(
    report: int, staged_chunks: int, files: list[Path], unkilled: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert killed_at(report, out, files) == -signal.SIGKILL
    assert len(list((out / STAGING).glob("part-*.json"))) == staged_chunks
    finish(out, files)
    assert contents(out) == unkilled


def test_staged_chunks_are_not_read_again(files: list[Path], unkilled: dict[str, bytes], tmp_path: Path) -> None:
    """A mark left in a staged chunk shows in the result: the restarted run took it from the staging folder."""
    out = tmp_path / "out"
    killed_at(2, out, files)
    rejects = out / STAGING / "part-0000-000000.rejects.jsonl"
    rejects.write_text('{"marked": true}\n' + rejects.read_text())
    finish(out, files)
    assert contents(out)["rejects.jsonl"] == b'{"marked": true}\n' + unkilled["rejects.jsonl"]
