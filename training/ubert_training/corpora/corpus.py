"""The Amazon Musical Instruments 5-core reviews, downloaded once from their publisher.

The data belong to their authors (He and McAuley 2016; McAuley et al. 2015) and are not part of this package.
"""

import gzip
import http.client
import json
import logging
import os
import time
import urllib.error
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
    """The downloaded file is not the expected one."""


def cache_folder() -> Path:
    """The folder for downloads: ``u-bert`` in ``XDG_CACHE_HOME``, which defaults to ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "u-bert"


def fetch_musical_instruments(
    cache_dir: Path | None = None,
    timeout: float = 5.0,
    *,
    address: str = ADDRESS,
    deadline: float = SLOWEST_DOWNLOAD,
) -> Path | None:
    """The path of the review file, downloaded on first use; None if the download fails.

    The server may be silent for ``timeout`` seconds, and the whole download may take ``deadline`` seconds. A truncated,
    damaged or wrong download is discarded: the file is either whole or absent. A failure is logged as a warning.
    """
    path = (cache_dir or cache_folder()) / FILE_NAME
    try:
        if path.is_file():
            _check_reviews(path)
            return path
    except (OSError, EOFError, zlib.error, _UnusableDownloadError) as error:
        log.warning("the cached %s is damaged (%s) and will be downloaded again", path, error)
    try:
        with replacing(path) as partial:
            _download(address, partial, timeout, deadline)
            _check_reviews(partial)
    except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException, _UnusableDownloadError) as error:
        log.warning("%s cannot be downloaded: %s", address, error)
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the response, too
        return None
    return path


def _download(address: str, path: Path, timeout: float, deadline: float) -> None:
    ends_at = time.monotonic() + deadline
    with urllib.request.urlopen(address, timeout=timeout) as response, path.open("wb") as file:
        announced = response.headers.get("Content-Length")
        received = 0
        # read1 returns as soon as any bytes have arrived, so that the deadline also stops a trickle.
        while block := response.read1(BLOCK_BYTES):
            received += file.write(block)
            if received > MOST_BYTES:
                raise _UnusableDownloadError(f"received more than {MOST_BYTES:,} bytes")
            if time.monotonic() > ends_at:
                raise _UnusableDownloadError(f"received only {received:,} bytes in {deadline:g} s")
        if announced is not None and received != int(announced):
            raise _UnusableDownloadError(f"received {received:,} of {announced} bytes")


def _check_reviews(path: Path) -> None:
    """Decompress the whole file, whose checksum is at its end, and check its first line."""
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
        raise _UnusableDownloadError("its first line is not JSON") from error
    if not isinstance(fields, dict) or not {"reviewerID", "asin", "overall"} <= fields.keys():
        raise _UnusableDownloadError("its first line is not an Amazon review")
