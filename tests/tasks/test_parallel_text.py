"""Parallel text: what is drawn from where, what is never in two splits, and what is refused."""

import dataclasses
import pickle
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from lcg.config import identity, load_config
from lcg.tasks.base import Batch
from lcg.tasks.parallel_text import ParallelText, split_pairs
from lcg.tasks.streams import eval_batch, samples_of, train_batch
from lcg.tasks.text import SPLITS, Rows

WORDS = [
    "der",
    "die",
    "das",
    "haus",
    "baum",
    "katze",
    "hund",
    "sieht",
    "geht",
    "schläft",
    "rot",
    "grün",
    "blau",
    "und",
    "nicht",
]
SPLITS_OF_TWO = ("validation", "test")


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """900 pairs of one to twelve words; many lines occur several times, on either side."""
    rng = np.random.default_rng(0)
    drawn = [rng.choice(WORDS, n) for n in rng.integers(1, 13, 900)]
    sides = {
        "source": [" ".join(words) for words in drawn],
        "target": [" ".join(word[::-1] for word in words[::-1]) for words in drawn],
    }
    for side, lines in sides.items():
        (tmp_path / f"text.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {side: str(tmp_path / f"text.{side}") for side in sides}


def rows(task: ParallelText, source: np.ndarray, target: np.ndarray) -> list[tuple[str, str]]:
    """Sampled rows as text, each up to its first negative entry."""
    ends = [[row[row >= 0] for row in side] for side in (source, target)]
    assert all((row[len(end) :] < 0).all() for row, end in zip(source, ends[0], strict=True))
    return [(task.words(a), task.words(b)) for a, b in zip(*ends, strict=True)]


def lines(files: dict[str, str]) -> list[tuple[str, str]]:
    sides = [Path(path).read_text(encoding="utf-8").splitlines() for path in files.values()]
    return list(zip(*sides, strict=True))


def test_every_sample_is_a_pair_of_the_files(files):
    task, known = ParallelText(**files), set(lines(files))
    lengths = np.full(200, 30)
    drawn = rows(task, *task.sample(np.random.default_rng(0), lengths))
    assert set(drawn) <= known
    assert all(max(len(a.encode()), len(b.encode())) <= 30 for a, b in drawn)
    assert len(set(drawn)) > 50


def test_pairs_of_training_are_equally_likely_up_to_the_length(files):
    task = ParallelText(**files)
    rng = np.random.default_rng(1)
    drawn = Counter(rows(task, *task.sample(rng, np.full(20_000, 16))))
    splits = split_pairs(*map(list, zip(*lines(files), strict=True)), 0.05)
    short = Counter(
        pair
        for pair, split in zip(lines(files), splits, strict=True)
        if split == "train" and max(len(side.encode()) for side in pair) <= 16
    )
    assert drawn.keys() == short.keys()
    expected = {pair: 20_000 * n / short.total() for pair, n in short.items()}
    chi = sum((drawn[pair] - e) ** 2 / e for pair, e in expected.items())
    assert chi < len(expected) + 5 * (2 * len(expected)) ** 0.5


def test_evaluation_takes_each_pair_of_the_upper_half_once(files):
    task = ParallelText(**files, held_out=0.2)
    splits = split_pairs(*map(list, zip(*lines(files), strict=True)), 0.2)
    for split in SPLITS_OF_TWO:
        expected = Counter(
            pair
            for pair, where in zip(lines(files), splits, strict=True)
            if where == split and 24 < max(len(side.encode()) for side in pair) <= 48
        )
        count = task.distinct_samples(split, 48)
        assert count == expected.total() > 64  # more than one block
        assert samples_of(task, split, 48, 10**6) == count
        assert samples_of(task, split, 48, 3) == 3
        own, found = task.for_split(split), Counter()
        for start in range(0, count, 64):
            drawn = own.sample_block(None, np.full(64, 48), start)
            found.update(rows(own, *drawn)[: count - start])
        assert found == expected


def test_no_line_is_in_two_splits(files):
    pairs = lines(files)
    splits = split_pairs(*map(list, zip(*pairs, strict=True)), 0.1)
    seen = {
        split: {line for pair, s in zip(pairs, splits, strict=True) if s == split for line in pair}
        for split in SPLITS
    }
    assert all(seen.values())
    for one, other in combinations(SPLITS, 2):
        assert not seen[one] & seen[other]


def test_pairs_that_share_a_line_stay_together():
    """a-1, b-1, b-2, 2-c: one piece, whatever the order, and on whichever side a line is."""
    pairs = [("a", "1"), ("b", "1"), ("b", "2"), ("2", "c")]
    alone = [(f"x{i}", f"y{i}") for i in range(200)]
    for held_out in (0.1, 0.3, 0.45):
        whole = [*pairs, *alone]
        splits = split_pairs(*map(list, zip(*whole, strict=True)), held_out)
        assert len(set(splits[:4])) == 1
        shares = [(splits[4:] == split).mean() for split in SPLITS]
        assert shares == pytest.approx([1 - 2 * held_out, held_out, held_out], abs=0.12)
        order = np.random.default_rng(0).permutation(len(whole))
        shuffled = split_pairs(*map(list, zip(*(whole[i] for i in order), strict=True)), held_out)
        assert (shuffled == splits[order]).all()


def same_batch(one: Batch, other: Batch) -> None:
    np.testing.assert_array_equal(one.inputs, other.inputs)
    np.testing.assert_array_equal(one.labels, other.labels)


def test_a_batch_is_a_pure_function_of_its_address(files):
    one, two = ParallelText(**files), pickle.loads(pickle.dumps(ParallelText(**files)))
    for task in (two, dataclasses.replace(one)):
        same_batch(train_batch(one, 3, 7, 16, 8, 40), train_batch(task, 3, 7, 16, 8, 40))
        same_batch(eval_batch(one, 0, "test", 40, 5, 9), eval_batch(task, 0, "test", 40, 5, 9))
    other = train_batch(one, 3, 8, 16, 8, 40)
    assert other.inputs.tobytes() != train_batch(one, 3, 7, 16, 8, 40).inputs.tobytes()


def test_text_that_changed_is_another_run_and_refused_by_the_old_one(files):
    words = [f"task.{side}={path}" for side, path in files.items()]
    words = ["task=parallel_text", *words, "data.min_length=40", "data.max_length=40"]
    words += ["validation.lengths=40", "validation.monitor=null", "evaluation.lengths=40"]
    config = load_config(words)
    old, digest = identity(config), config.task.digest
    assert identity(load_config([*words, f"task.digest={digest}"])) == old

    path = Path(files["source"])
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("katze", "Katze"), encoding="utf-8")
    assert identity(load_config(words)) != old
    with pytest.raises(ValueError, match=f"parallel_text: the text .* has changed.*{digest}"):
        ParallelText(**files, digest=digest)

    path.write_text(text, encoding="utf-8")
    moved = Path(files["source"]).with_name("elsewhere")
    moved.mkdir()
    for side, place in files.items():
        Path(place).rename(moved / side)
    words[1:3] = [f"task.{side}={moved / side}" for side in files]
    assert identity(load_config(words)) == old  # where it lies changes no weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": ""}, "give both source and target, or neither"),
        (
            {"source": "/nowhere/x"},
            "there is no file /nowhere/x; name a text of your own, or make one: python -m lcg.",
        ),
        (
            {"source": "/nowhere/x", "digest": "0123"},
            "there is no file /nowhere/x; put the text back there; its digest, 0123, says whether",
        ),
        ({"bpe": 200}, "bpe must be 0 for bytes, or more than their 256"),
        ({"held_out": 0.5}, "held_out must lie in"),
        ({"digest": "0123"}, "has changed, its digest was 0123"),
    ],
)
def test_refusals(files, change, message):
    with pytest.raises(ValueError) as error:
        ParallelText(**{**files, **change})
    assert str(error.value).startswith("parallel_text: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unequal_files_are_refused(files):
    Path(files["target"]).write_text("only one\n", encoding="utf-8")
    with pytest.raises(ValueError, match="have 900 and 1 lines; line i must translate line i"):
        ParallelText(**files)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_files_without_a_pair_are_called_empty(files, content):
    for path in files.values():
        Path(path).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="no line with text in both, they are empty"):
        ParallelText(**files)


def test_a_byte_order_mark_is_dropped(files):
    digest = ParallelText(**files).digest
    path = Path(files["source"])
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert ParallelText(**files).digest == digest


@pytest.mark.parametrize(
    "mark", ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
)
def test_a_line_ends_at_a_line_feed_and_nowhere_else(files, mark):
    """With such a character in line 15 of one side and in line 201 of the other, as without."""
    known = [side[:] for side in map(list, zip(*lines(files), strict=True))]
    for side, (path, at) in zip(known, zip(files.values(), (14, 200), strict=True), strict=True):
        side[at] = f"vor{mark}nach"
        Path(path).write_bytes("".join(f"{line}\n" for line in side).encode())
    task = ParallelText(**files)
    drawn = rows(task, *task.sample(np.random.default_rng(0), np.full(3000, 48)))
    assert set(drawn) <= set(zip(*known, strict=True))


def test_lines_that_end_in_crlf_are_the_same_lines(files):
    digest = ParallelText(**files).digest
    for path in map(Path, files.values()):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert ParallelText(**files).digest == digest


@pytest.mark.parametrize("content", [b"ein Wort\xff\n", "wort\n".encode("utf-16")])
def test_text_that_is_not_utf_8_is_refused(files, content):
    Path(files["target"]).write_bytes(content)
    with pytest.raises(ValueError, match=r"^parallel_text: .*text\.target is not UTF-8 text$"):
        ParallelText(**files)


def test_a_length_without_a_pair_is_refused_with_those_that_have_some(files):
    task = ParallelText(**files)
    counts = task._corpus.splits["test"].longer
    with pytest.raises(ValueError, match=f"its longest pair has {counts.max()} tokens; use") as e:
        task.check_evaluation("test", 999)
    named = [int(n) for n in str(e.value).rpartition("lengths ")[2].split(", ")]
    assert all(task.distinct_samples("test", n) for n in named)
    assert sum(task.distinct_samples("test", n) for n in named) == len(counts)


def test_a_length_without_a_pair_is_refused(files):
    task = ParallelText(**files)
    with pytest.raises(
        ValueError, match="parallel_text: the test split has no samples of length 999"
    ):
        task.check_evaluation("test", 999)
    task.check_length(999)  # training takes all that is shorter
    with pytest.raises(ValueError, match="is too short, the least possible is"):
        task.check_length(task.min_length - 1)


def test_bpe_is_the_same_in_another_process_and_is_kept(files):
    pytest.importorskip("tokenizers")
    task = ParallelText(**files, bpe=300)
    (stored,) = Path(files["source"]).parent.glob("*.bpe300-*.json")
    before = stored.read_bytes()
    stored.unlink()
    program = (
        "from lcg.tasks.parallel_text import ParallelText;"
        f"print(ParallelText(**{files!r}, bpe=300).digest)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == task.digest, done.stderr
    assert stored.read_bytes() == before
    assert task.digest != ParallelText(**files).digest
    pairs = rows(task, *task.sample(np.random.default_rng(0), np.full(64, 20)))
    assert set(pairs) <= set(lines(files))
    with pytest.raises(ValueError, match="bpe=9000 is more than the training text gives, use at"):
        ParallelText(**files, bpe=9000)


def test_bleu_and_chrf_are_those_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    task = ParallelText()
    texts = ["the cat sat on the mat today", "a dog barks at night"]
    other = ["the cat sat on a mat today", "a dog barks loudly at night"]
    tokens = [[np.frombuffer(t.encode(), np.uint8) for t in side] for side in (texts, other)]
    found = task.measure(*tokens)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, [other]).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(texts, [other]).score)
    assert task.measure(tokens[1], tokens[1])["bleu"] == pytest.approx(100)


def test_right_translations_of_few_words_have_a_bleu_of_100():
    pytest.importorskip("sacrebleu")
    tokens = [np.frombuffer(t.encode(), np.uint8) for t in ("hello world", "a b c", "save file")]
    assert ParallelText().measure(tokens, tokens)["bleu"] == pytest.approx(100)
    assert ParallelText().measure(tokens, [*tokens[1:], tokens[0]])["bleu"] == 0


def test_rendered_as_text(files):
    task = ParallelText(**files)
    tokens = [task.bos, *"grün geht".encode(), task.eos, task.pad]
    assert task.render(tokens) == "<bos> grün geht <eos> <pad>"


def test_rows_are_padded_with_less_than_nothing():
    held = Rows(np.array([5, 6, 7, 8, 9]), np.array([0, 2, 2, 5]))
    np.testing.assert_array_equal(
        held.padded(np.array([2, 1, 0])), [[7, 8, 9], [-1, -1, -1], [5, 6, -1]]
    )
    np.testing.assert_array_equal(held.take(np.array([2, 0])).tokens, [7, 8, 9, 5, 6])
