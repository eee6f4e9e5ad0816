"""Law 5 across domains: which reviews pre-training may read, and that a model that has read others is refused."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from support.small_corpus import small_table
from ubert_model.config import preset
from ubert_model.errors import InputError
from ubert_training.finetuning.finetune import finetune
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.optimization.loop import LoopOptions
from ubert_training.pretraining.corpus_rows import Corpus, pretraining_rows, rows_elsewhere, target_rows, withheld
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.pretraining.pretrain import CORPUS_READ, pretrain
from ubert_training.pretraining.pretrain_options import PretrainOptions
from ubert_training.reviews import table as table_module
from ubert_training.reviews.table import Review, ReviewTable
from ubert_training.splits import Split, random_split, time_split

TARGET, OTHER = "target", "other"
LEXICON = Lexicon(words=frozenset({"good"}), source="the test")
ONE_EPOCH = LoopOptions(epochs=1, batch_size=16, learning_rate=1e-3)


def two_domains(*, undated: bool = False) -> ReviewTable:
    """Ten users review six items in the target, the same six in other words in the other domain, and two more there."""
    reviews = []
    for user in range(10):
        for item in range(6):
            for domain, day in ((TARGET, item), (OTHER, item + 3)):
                reviews.append(review(user, item, domain, 10 * user + day + 1))
        reviews += [review(user, item, OTHER, 0 if undated else 10 * user + item) for item in (6, 7)]
    return ReviewTable.of(reviews)


def review(user: int, item: int, domain: str, timestamp: int) -> Review:
    text = f"Good thing number {item} {domain}, says {user}."
    return Review(user=f"u{user}", item=f"i{item}", rating=1 + item % 5, text=text, domain=domain, timestamp=timestamp)


def pairs_read_elsewhere(table: ReviewTable, split: Split) -> list[tuple[str, str]]:
    rows = pretraining_rows(table, split, "both", fraction=1.0, seed=0)
    return [(table.user[row], table.item[row]) for row in rows.tolist() if table.domain[row] == OTHER]


def test_a_second_review_of_a_target_pair_in_another_domain_is_never_read() -> None:
    table = two_domains()
    split = random_split(table, target_rows(table, [TARGET]), seed=0)
    pairs = {(table.user[row], table.item[row]) for row in split.rows.tolist()}
    found = pairs_read_elsewhere(table, split)
    assert found
    assert not pairs & set(found)
    everything = set(table.review_id)
    elsewhere = rows_elsewhere(table, split, everything).tolist()
    assert sorted((table.user[row], table.item[row]) for row in elsewhere) == sorted(found)
    unread = table.review_id[elsewhere[0]]
    assert rows_elsewhere(table, split, everything - {unread}).tolist() == elsewhere[1:]


@pytest.mark.parametrize("corpus", ["other-domains", "both"])
def test_only_users_of_the_target_are_read_in_other_domains(corpus: Corpus) -> None:
    reviews = [
        review(user, item, TARGET if user < 10 and item < 4 else OTHER, 1) for user in range(20) for item in range(6)
    ]
    table = ReviewTable.of(reviews)
    split = random_split(table, target_rows(table, [TARGET]), seed=0)
    users = {table.user[row] for row in pretraining_rows(table, split, corpus, fraction=1.0, seed=0).tolist()}
    assert users == {f"u{user}" for user in range(10)}


def test_if_domains_share_no_item_only_held_out_reviews_are_withheld() -> None:
    table = small_table(users=40)
    split = random_split(table, target_rows(table, ["domain-0"]), seed=0)
    held_out = np.concatenate([split.validation, split.test])
    assert np.flatnonzero(withheld(table, split)).tolist() == sorted(held_out.tolist())


@pytest.mark.parametrize("undated", [False, True])
def test_a_time_split_withholds_newer_and_undated_reviews_of_other_domains(undated: bool) -> None:
    table = two_domains(undated=undated)
    split = time_split(table, target_rows(table, [TARGET]))
    end = table.timestamp[split.train].max()
    rows = rows_elsewhere(table, split, set(table.review_id))
    assert (table.timestamp[rows] <= end).all()
    assert (table.timestamp[rows] > 0).all()
    new_pairs = [] if undated else [row for row in table.rows_of_domains(OTHER) if table.item[row] in ("i6", "i7")]
    assert rows.tolist() == [row for row in new_pairs if table.timestamp[row] <= end]
    assert len(rows) < 20
    assert all(table.timestamp[row] <= end for row in pretraining_rows(table, split, "both", fraction=1.0, seed=0))


@pytest.mark.parametrize("splitter", [partial(random_split, seed=0), time_split])
def test_a_model_pre_trained_on_a_withheld_review_is_refused(tmp_path: Path, splitter: Callable[..., Split]) -> None:
    table = two_domains()
    split = splitter(table, target_rows(table, [TARGET]))
    options = PretrainOptions(corpus="other-domains", device="cpu", loop=ONE_EPOCH)
    read = pretrain(table, split, preset("tiny"), LEXICON, options, tmp_path / "pretrained") / CORPUS_READ
    withheld_rows = np.flatnonzero(withheld(table, split)).tolist()
    added = next(row for row in withheld_rows[::-1] if table.domain[row] == OTHER)
    read.write_text(f"{read.read_text()}{table.review_id[added]}\n")
    with pytest.raises(
        InputError, match=rf"has read 1 of the {len(withheld_rows)} reviews .* pre-train with the same spl"
    ):
        finetune(
            table,
            split,
            preset("tiny"),
            FinetuneOptions(device="cpu"),
            tmp_path / "run",
            pretrained=tmp_path / "pretrained",
            states=tmp_path / "states",
        )


@pytest.mark.parametrize(("nothing", "left"), [("", r"1\d"), ("\N{ZERO WIDTH SPACE}", "5")])
def test_a_corpus_of_fewer_than_two_texts_is_refused(nothing: str, left: str, tmp_path: Path) -> None:
    """A text is what the tokenizer makes tokens of. Fewer are left where each is a copy of a held-out one."""
    texts = {(user, item): "Good" if user == item == 0 else nothing for user in range(6) for item in range(4)}
    reviews = [
        Review(user=f"u{user}", item=f"i{item}", rating=3.0, text=texts[user, item], domain=TARGET)
        for user in range(6)
        for item in range(4)
    ]
    table = ReviewTable.of(reviews)
    split = random_split(table, np.arange(len(table)), seed=0)
    options = PretrainOptions(corpus="target", device="cpu", loop=ONE_EPOCH)
    with pytest.raises(InputError, match=f"[01] of the {left} reviews of corpus 'target' have text"):
        pretrain(table, split, preset("tiny"), LEXICON, options, tmp_path / "pretrained")
    assert not (tmp_path / "pretrained").exists()


def test_every_text_is_digested_once_for_all_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ubert bench accuracy` selects the corpora of all cells first: hours, if each time every text were digested."""
    digested: list[str] = []
    digest = table_module._digest_of_writing

    def recorded_digest(user: str, text: str) -> int:
        digested.append(text)
        return digest(user, text)

    monkeypatch.setattr(table_module, "_digest_of_writing", recorded_digest)
    table = two_domains()
    for seed in range(3):
        split = random_split(table, target_rows(table, [TARGET]), seed=seed)
        pretraining_rows(table, split, "both", fraction=1.0, seed=seed)
    assert len(digested) == len(table)


def test_pre_training_reads_the_same_reviews_of_other_domains_for_every_split() -> None:
    """A copy of a target review is left out there even if the original is in the training part."""
    reviews = []
    for user in range(8):
        for item in range(6):
            text = f"Thing number {item}, says {user}."
            reviews.append(Review(user=f"u{user}", item=f"i{item}", rating=4.0, text=text, domain=TARGET))
        for name, text in (("copied", f"thing  number {user % 6}, SAYS {user}."), ("own", f"Another, says {user}.")):
            reviews.append(Review(user=f"u{user}", item=name, rating=4.0, text=text, domain=OTHER))
    table = ReviewTable.of(reviews)
    for seed in range(3):
        split = random_split(table, target_rows(table, [TARGET]), seed=seed)
        rows = pretraining_rows(table, split, "both", fraction=1.0, seed=0).tolist()
        assert {table.item[row] for row in rows if table.domain[row] == OTHER} == {"own"}
