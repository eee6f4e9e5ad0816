"""Opinion words, which pre-training task 1 masks.

The paper takes Hu and Liu's list. It is used where it is found (a path, or NLTK's data), else the words of the VADER
lexicon, which installs with the package.
"""

import contextlib
import importlib.resources
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ubert_model.errors import InputError
from ubert_training.running.digests import digest_of

LIST_NAMES = ("positive-words.txt", "negative-words.txt")
NLTK_PLACES = ("corpora/opinion_lexicon/", "corpora/opinion_lexicon.zip/opinion_lexicon/")
VADER_PACKAGE = "vaderSentiment"
VADER_FILE = "vader_lexicon.txt"
VADER_LEAST_VALENCE = 1.0
"""On a scale from -4 to 4: weaker words are not clearly opinions, and hardly any are in Hu and Liu's list."""
VADER_WORD = re.compile(r"[a-z]{3,}(?:['-][a-z]+)*")
"""VADER also rates emoticons and abbreviations; a review's tokens are words."""


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Lower-case opinion words, and their source, for the log."""

    words: frozenset[str]
    source: str

    @property
    def digest(self) -> str:
        """Digest of the words, for fingerprints."""
        return digest_of(sorted(self.words))


def load_lexicon(path: str | Path | None = None) -> Lexicon:
    """Load the opinion words of ``path``, else those of NLTK's data, else VADER's.

    ``path`` is one word list or a folder with ``positive-words.txt`` and ``negative-words.txt``, as Hu and
    Liu publish them (UTF-8 or latin-1, one word a line, ``;`` begins a comment). Raises ``InputError`` for a path
    without words.
    """
    if path is not None:
        return _from_path(Path(path))
    return _from_nltk() or _from_vader()


def _from_path(path: Path) -> Lexicon:
    files = [path / name for name in LIST_NAMES] if path.is_dir() else [path]
    absent = [str(file) for file in files if not file.is_file()]
    if absent:
        names = " and ".join(LIST_NAMES)
        raise InputError(f"no opinion words at {', '.join(absent)}: give a word list, or a folder with {names}")
    words = _words_of_lists(_decoded(file.read_bytes()) for file in files)
    if not words:
        raise InputError(f"{path} holds no words: write one word per line")
    return Lexicon(words=words, source=f"{path} ({len(words):,} words)")


def _from_nltk() -> Lexicon | None:
    import nltk.data  # noqa: PLC0415  # takes two seconds: it imports scikit-learn and pandas

    for place in NLTK_PLACES:
        with contextlib.suppress(LookupError):
            words = _words_of_lists(
                nltk.data.load(f"nltk:{place}{name}", format="text", encoding="latin-1", cache=False)
                for name in LIST_NAMES
            )
            source = f"Hu and Liu's opinion lexicon, NLTK data at {nltk.data.find(place)}"
            return Lexicon(words=words, source=source)
    return None


def _from_vader() -> Lexicon:
    try:
        listed = importlib.resources.files(VADER_PACKAGE).joinpath(VADER_FILE).read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError(
            f"no opinion lexicon: install {VADER_PACKAGE}, set NLTK_DATA to a folder with corpora/opinion_lexicon, "
            "or name a word list with --lexicon"
        ) from error
    rated = (line.split("\t") for line in listed.splitlines() if line)
    words = frozenset(
        word for word, valence, *_ in rated if VADER_WORD.fullmatch(word) and abs(float(valence)) >= VADER_LEAST_VALENCE
    )
    return Lexicon(words=words, source="the VADER lexicon (Hu and Liu's was not found: see NLTK_DATA)")


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _words_of_lists(contents: Iterable[str]) -> frozenset[str]:
    """The words in lower case, with the apostrophe as the reviews' words are looked up."""
    lines = (line.strip() for content in contents for line in content.splitlines())
    return frozenset(line.lower().replace("’", "'") for line in lines if line and not line.startswith(";"))
