"""The records that every reader yields, and reading the lines of a plain or gzip file."""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Protocol, cast

from ubert_training.errors import ReviewFileError

GZIP_MAGIC = b"\x1f\x8b"
UTF_16 = "is text in UTF-16: convert it, as with iconv -f UTF-16 -t UTF-8 FILE > CONVERTED"
UNSUPPORTED: Mapping[bytes, str] = MappingProxyType(
    {
        b"BZh": "is compressed with bzip2: unpack it first, as with bunzip2 FILE",
        b"\xfd7zXZ": "is compressed with xz: unpack it first, as with unxz FILE",
        b"\x28\xb5\x2f\xfd": "is compressed with zstd: unpack it first, as with unzstd FILE",
        b"PK\x03\x04": "is a zip archive or a spreadsheet: unpack it, or save its sheet as CSV",
        b"\xff\xfe": UTF_16,
        b"\xfe\xff": UTF_16,
    }
)
"""Magic numbers of unsupported file types, with the message about each."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_LINE_BYTES = 4 * 1024 * 1024
"""No review is this long. A longer line means a file without line ends, which must not fill the memory."""


class Reason(StrEnum):
    """Why a line is rejected."""

    BROKEN_JSON = "broken JSON"
    BROKEN_ROW = "broken row"
    TOO_LONG = "line too long"
    WRONG_ENCODING = "wrong encoding"
    MISSING_FIELD = "missing field"
    EMPTY_ID = "empty id"
    LONG_ID = "id too long"
    BAD_USER = "user is no string"
    BAD_ITEM = "item is no string"
    BAD_TEXT = "text is no string"
    BAD_TITLE = "title is no string"
    BAD_DOMAIN = "domain is no string"
    NO_NUMBER = "rating is no number"
    OUTSIDE_SCALE = "rating outside the scale"
    BAD_TIMESTAMP = "bad timestamp"


REMEDIES: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.BROKEN_JSON: "write one JSON object a line, as jq -c '.[]' FILE or Python's json.dumps do",
        Reason.BROKEN_ROW: "quote cells with the separator in them and double their quotes; if it is a TSV file with "
        "quoted cells, give --format csv",
        Reason.EMPTY_ID: "fill it in, or leave such lines out by a higher --max-bad",
        Reason.BAD_USER: "write ids as strings or whole numbers",
        Reason.BAD_ITEM: "write ids as strings or whole numbers",
        Reason.NO_NUMBER: "write ratings as numbers alone, such as 4 or 4.5",
        Reason.OUTSIDE_SCALE: "give the scale with --scale, such as --scale 0:10",
        Reason.BAD_TIMESTAMP: "write times as Unix seconds or ISO dates, such as 2017-07-14, or rename their column",
        Reason.WRONG_ENCODING: "convert it to UTF-8, as with iconv -f ENCODING -t UTF-8 FILE (WINDOWS-1252, UTF-16)",
    }
)
"""What helps when many lines are rejected for one reason."""


class BadLine(Exception):  # noqa: N818 - a verdict on one line of input, not a failure of the program
    """Why a record cannot become a review; ``detail`` names the offending value."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


Fields = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of a file: the number of its first line (from 1), its bytes, and its fields or why it has none.

    ``position`` is the number of bytes of the file on disk that had been read after the record.
    """

    line: int
    raw: bytes
    fields: Fields | BadLine
    position: int


class RecordReader(Protocol):
    """Reads a whole file record by record."""

    def records(self, path: Path, skip: int) -> Iterator[Record]:
        """Yield all records after the first ``skip``.

        Raises ``ReviewFileError`` if the file itself, not only a line of it, is damaged.
        """


@dataclass(frozen=True, kw_only=True)
class Source:
    """An open file; ``stream`` is its content, decompressed if necessary."""

    file: BinaryIO
    stream: BinaryIO

    @property
    def position(self) -> int:
        return self.file.tell()


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a plain or gzip file, distinguished by its first bytes. Raises ``ReviewFileError``."""
    try:
        with path.open("rb") as file:
            beginning = file.read(max(map(len, UNSUPPORTED)))
            file.seek(0)
            for magic, message in UNSUPPORTED.items():
                if beginning.startswith(magic):
                    raise ReviewFileError(f"{path} {message}")
            if beginning.startswith(GZIP_MAGIC):
                with gzip.open(file) as unpacked:
                    yield Source(file=file, stream=cast(BinaryIO, unpacked))
            else:
                yield Source(file=file, stream=file)
    except FileNotFoundError as error:
        raise ReviewFileError(f"no file at {path}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ReviewFileError(f"{path} is a damaged gzip file ({error}): download it again") from error
    except OSError as error:
        raise ReviewFileError(f"{path} cannot be read: {error}") from error


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line) without line ends.

    An overlong line is cut to its first ``MAX_LINE_BYTES + 1`` bytes, by which :func:`check_length` recognizes it.
    """
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES + 1)
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        yield number, line.rstrip(b"\r\n")


def nonblank_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the numbered lines that contain more than white space."""
    return ((number, line) for number, line in numbered_lines(stream) if line.strip())


def check_length(line: bytes) -> None:
    """Raise ``BadLine`` for an overlong line."""
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(Reason.TOO_LONG, f"more than {MAX_LINE_BYTES} bytes")


def decode(line: bytes) -> str:
    """Decode UTF-8. Raises ``BadLine``, naming the first offending byte."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise BadLine(Reason.WRONG_ENCODING, f"byte 0x{byte:02x} at offset {error.start} is not UTF-8") from error
