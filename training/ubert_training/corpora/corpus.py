"""The Amazon Musical Instruments 5-core reviews, downloaded once from their publisher.

The data belong to their authors (He and McAuley 2016; McAuley et al. 2015) and are not part of this package.
"""

import gzip
import http.client
import json
import logging
import os
import time
import urllib.request
import zlib
from pathlib import Path

from ubert_model.running.atomic import replacing

ADDRESS = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_Musical_Instruments_5.json.gz"
FILE_NAME = "reviews_Musical_Instruments_5.json.gz"
LEAST_BYTES = 1_000_000
MOST_BYTES = 50_000_000
BLOCK_BYTES = 1 << 16
SLOWEST_DOWNLOAD = 120.0

log = logging.getLogger(__name__)


class _UnusableDownloadError(Exception):
    """What came is not the file that was asked for."""


def cache_folder() -> Path:
    """The folder for downloads: ``u-bert`` under ``XDG_CACHE_HOME``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "u-bert"


def fetch_musical_instruments(
    cache_dir: Path | None = None,
    timeout: float = 5.0,
    *,
    address: str = ADDRESS,
    deadline: float = SLOWEST_DOWNLOAD,
) -> Path | None:
    """Give the path of the review file, downloading it on first use; None where that cannot be done now.

    ``timeout`` is how many seconds the server may stay silent, ``deadline`` how many the whole download may
    take. A download that is cut short, damaged or something else is dropped; nothing half-written is ever
    returned. The reason for a None is logged as a warning.
    """
    path = (cache_dir or cache_folder()) / FILE_NAME
    try:
        if path.is_file():
            _check_reviews(path)
            return path
    except (OSError, EOFError, zlib.error, _UnusableDownloadError) as error:
        log.warning("the cached %s is damaged (%s) and is fetched again", path, error)
    try:
        with replacing(path) as partial:
            _download(address, partial, timeout, deadline)
            _check_reviews(partial)
    except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException, _UnusableDownloadError) as error:
        log.warning("%s cannot be fetched: %s", address, error)
        return None
    return path


def _download(address: str, path: Path, timeout: float, deadline: float) -> None:
    ends = time.monotonic() + deadline
    with urllib.request.urlopen(address, timeout=timeout) as response, path.open("wb") as file:
        announced = response.headers.get("Content-Length")
        received = 0
        # read1 returns what has arrived, so that a trickle is seen by the deadline.
        while block := response.read1(BLOCK_BYTES):
            received += file.write(block)
            if received > MOST_BYTES:
                raise _UnusableDownloadError(f"more than {MOST_BYTES:,} bytes came")
            if time.monotonic() > ends:
                raise _UnusableDownloadError(f"{received:,} bytes came in {deadline:g} s, which is too slow")
        if announced is not None and received != int(announced):
            raise _UnusableDownloadError(f"{received:,} of {announced} bytes came")


def _check_reviews(path: Path) -> None:
    """Unpack the whole file, whose checksum is at its end, and look at its first line."""
    size = path.stat().st_size
    if size < LEAST_BYTES:
        raise _UnusableDownloadError(f"{size:,} bytes are too few for this file")
    with gzip.open(path) as unpacked:
        first = unpacked.readline(MOST_BYTES)
        while unpacked.read(BLOCK_BYTES):
            pass
    try:
        fields = json.loads(first)
    except ValueError as error:
        raise _UnusableDownloadError("its first line is no JSON") from error
    if not isinstance(fields, dict) or not {"reviewerID", "asin", "overall"} <= fields.keys():
        raise _UnusableDownloadError("its first line is no Amazon review")
