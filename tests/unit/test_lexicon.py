"""Opinion words: those of a path, else of NLTK's data, else of the installed VADER lexicon."""

import importlib.resources
import zipfile
from pathlib import Path

import nltk.data
import pytest

from ubert_model.errors import InputError
from ubert_training.pretraining.lexicon import load_lexicon

POSITIVE = "; a comment\n;\n\nGood\nna\xefve\nwell-made\n"
NEGATIVE = "; another\nbad\n"
WORDS = frozenset({"good", "naïve", "well-made", "bad"})


def write_lists(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "positive-words.txt").write_text(POSITIVE, encoding="latin-1")
    (folder / "negative-words.txt").write_text(NEGATIVE, encoding="latin-1")
    return folder


def test_a_folder_of_two_latin_1_lists_is_read_without_its_comments(tmp_path: Path) -> None:
    lexicon = load_lexicon(str(write_lists(tmp_path / "lists")))
    assert lexicon.words == WORDS
    assert str(tmp_path / "lists") in lexicon.source


def test_a_single_list_is_read(tmp_path: Path) -> None:
    assert load_lexicon(write_lists(tmp_path / "lists") / "negative-words.txt").words == {"bad"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_a_list_in_another_language_is_read_in_its_encoding(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("Schön\ngrässlich\n", encoding=encoding)
    assert load_lexicon(tmp_path / "words.txt").words == {"schön", "grässlich"}


def test_a_typographic_apostrophe_in_a_list_is_the_one_that_words_are_looked_up_with(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("don’t\n", encoding="utf-8")
    assert load_lexicon(tmp_path / "words.txt").words == {"don't"}


@pytest.mark.parametrize("zipped", [False, True])
def test_without_a_path_the_words_of_nltk_are_used(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_lists(tmp_path / "corpora" / "opinion_lexicon")
    if zipped:
        with zipfile.ZipFile(tmp_path / "corpora" / "opinion_lexicon.zip", "w") as archive:
            archive.mkdir("opinion_lexicon")
            for file in sorted(folder.iterdir()):
                archive.write(file, f"opinion_lexicon/{file.name}")
                file.unlink()
        folder.rmdir()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    lexicon = load_lexicon()
    assert lexicon.words == WORDS
    assert "NLTK" in lexicon.source


def test_without_nltk_data_the_vader_lexicon_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [])
    lexicon = load_lexicon()
    assert "VADER" in lexicon.source
    assert len(lexicon.words) > 5000
    assert {"excellent", "awful", "disappointed", "love"} <= lexicon.words
    assert not {"the", "guitar", "string", ":-)"} & lexicon.words
    assert all(word == word.lower() and len(word) > 2 for word in lexicon.words)


def test_without_any_lexicon_the_error_names_the_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(package: str) -> Path:
        raise ModuleNotFoundError(package)

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(importlib.resources, "files", not_installed)
    with pytest.raises(InputError, match=r"vaderSentiment.*NLTK_DATA.*--lexicon"):
        load_lexicon()


def test_a_path_without_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("; nothing\n")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "empty.txt"):
        with pytest.raises(InputError, match=str(path)):
            load_lexicon(path)
