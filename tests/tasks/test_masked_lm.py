"""Masked language modelling: what is hidden, how, and from which text."""

from pathlib import Path

import numpy as np
import pytest

from lcg.tasks.base import IGNORE
from lcg.tasks.masked_lm import MaskedLM, split_passages
from lcg.tasks.text import SPLITS, read_text


@pytest.fixture
def folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        passages = ["\n".join(map(str, rng.integers(0, 10**6, 8))) for _ in range(80)]
        (tmp_path / f"{name}.txt").write_text("\n\n".join([*passages, passages[0]]))
    return tmp_path


@pytest.mark.parametrize("length", [1, 7, 64, 200])
def test_the_hidden_tokens_are_as_bert_hides_them(folder, length):
    task = MaskedLM(str(folder))
    count = max(1, round(0.15 * length))
    shown, labels = task.sample(np.random.default_rng(0), np.full(4000, length))
    chosen = labels != IGNORE
    assert (chosen.sum(axis=1) == count).all()
    # every position is equally likely, and the three treatments have their shares
    expected, rows = 4000 * count / length, chosen.sum(axis=0)
    assert (abs(rows - expected) < 6 * expected**0.5 + 1).all()
    hidden, true = shown[chosen], labels[chosen]
    n = len(hidden)
    masks, kept = (hidden == task.mask).mean(), (hidden == true).mean()
    assert masks == pytest.approx(0.8, abs=4 * (0.16 / n) ** 0.5)
    assert kept == pytest.approx(0.1 + 0.1 / 256, abs=4 * (0.09 / n) ** 0.5)
    assert ((hidden == task.mask) | (hidden < task.symbol_count)).all()
    assert (shown[~chosen] < task.symbol_count).all()


def test_a_window_is_a_piece_of_its_split(folder):
    task = MaskedLM(f"{folder}/*.txt")
    texts = [path.read_text() for path in sorted(folder.glob("*.txt"))]
    passages = split_passages(texts, 0.05)
    for split in SPLITS:
        whole = "".join(passages[split])
        shown, labels = task.for_split(split).sample(np.random.default_rng(1), np.full(50, 40))
        for row in np.where(labels == IGNORE, shown, labels):
            assert task.words(row) in whole


def test_a_passage_is_in_one_split_and_none_is_lost(folder):
    texts = [path.read_text() for path in sorted(folder.glob("*.txt"))]
    passages = split_passages(texts, 0.2)
    stripped = {split: {p.strip() for p in held} for split, held in passages.items()}
    assert sum(map(len, passages.values())) == 2 * 81
    assert sum(map(len, stripped.values())) == 2 * 80  # the first of each file comes twice
    assert set.union(*stripped.values()) == {p for text in texts for p in text.split("\n\n")}


@pytest.mark.parametrize("mark", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_passage_ends_at_an_empty_line_alone(tmp_path, mark):
    """Two such characters in a row, or one after a line feed, are no empty line."""
    file = tmp_path / "text.txt"
    passages = [f"{n} vor{mark}{mark}nach\nund{mark}aus" for n in range(60)]
    file.write_bytes("\n\n".join(passages).encode())
    splits = split_passages([read_text(file)], 0.1)
    assert sorted(p for held in splits.values() for p in held) == sorted(
        f"{p}\n\n" for p in passages
    )


def test_shares_can_be_changed(folder):
    task = MaskedLM(str(folder), masked=0.5, random=0.0, kept=0.0)
    shown, labels = task.sample(np.random.default_rng(0), np.full(100, 64))
    assert ((labels != IGNORE).sum(axis=1) == 32).all()
    assert (shown[labels != IGNORE] == task.mask).all()


def test_rows_of_other_lengths_choose_within_their_own(folder):
    lengths = np.array([3, 40, 100])
    shown, labels = MaskedLM(str(folder)).sample(np.random.default_rng(0), lengths)
    for row, length in zip(labels, lengths, strict=True):
        assert (row[:length] != IGNORE).sum() == max(1, round(0.15 * length))
        assert (row[length:] == IGNORE).all()
    assert shown.shape == labels.shape == (3, 100)


def test_accuracy_counts_scored_tokens():
    rows = [np.array([1, 2, 3]), np.array([4])]
    wrong = [np.array([1, 0, 3]), np.array([5])]
    assert MaskedLM().measure(wrong, rows) == {"masked_accuracy": 50.0}


def test_a_file_more_is_another_text(folder):
    before = MaskedLM(str(folder)).digest
    (folder / "c.txt").write_text("more")
    assert MaskedLM(str(folder)).digest != before
    with pytest.raises(ValueError, match="masked_lm: the text or its vocabulary has changed"):
        MaskedLM(str(folder), digest=before)


def test_a_vocabulary_is_no_part_of_the_text(folder):
    pytest.importorskip("tokenizers")
    first = MaskedLM(str(folder), bpe=300)
    assert list(folder.parent.glob(f"{folder.name}.bpe300-*.json"))
    assert MaskedLM(str(folder), bpe=300).digest == first.digest
    shown, labels = first.sample(np.random.default_rng(0), np.full(8, 32))
    assert np.where(labels == IGNORE, shown, labels).max() < 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": "/nowhere/x.txt"}, "there is no file /nowhere/x.txt; name a text of your own"),
        ({"files": "/nowhere/*.txt"}, "there are no files in /nowhere/*.txt; name a text of your"),
        ({"files": "/nowhere/*.txt", "digest": "01"}, "put the text back there; its digest, 01,"),
        ({"masked": 0.0}, "masked must lie in (0, 1)"),
        ({"random": 0.8, "kept": 0.3}, "random and kept must be shares"),
        ({"bpe": 100}, "bpe must be 0 for bytes"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError) as error:
        MaskedLM(**options)
    assert str(error.value).startswith("masked_lm: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the text is empty"),
        ("\n \n", "the text is empty"),
        ("one\ntwo\n", "the text is one passage: none is for .*; separate passages by blank lines"),
        ("one\n\ntwo\n", "the text has 2 passages, too few: none is for .*; separate passages"),
    ],
)
def test_a_text_without_passages_for_every_split_is_refused(tmp_path, content, message):
    (tmp_path / "a.txt").write_text(content)
    for bpe in (0, 300):
        with pytest.raises(ValueError, match=f"masked_lm: {message}"):
            MaskedLM(str(tmp_path / "a.txt"), bpe=bpe)


def test_a_window_longer_than_a_split_is_refused(folder):
    with pytest.raises(ValueError, match="masked_lm: length 100000 is more than the"):
        MaskedLM(str(folder)).check_length(100_000)
