"""Dependence of targets on sources, its distance as sequences grow, and what might betray it.

Seeds are fixed, so nothing here is a matter of luck. `fits` is a chi-squared test at about five
standard deviations.
"""

import numpy as np
import pytest

from lcg.tasks.base import distinct
from lcg.tasks.copy import Copy
from lcg.tasks.flip_flop import FlipFlop
from lcg.tasks.local_count import LocalCount
from lcg.tasks.max_retrieval import MaxRetrieval
from lcg.tasks.mqmtar import MQMTAR
from lcg.tasks.n_back import NBack
from lcg.tasks.reverse import Reverse
from lcg.tasks.sort import Sort
from lcg.tasks.streams import eval_batch


def draw(task, length, count, seed=0):
    source, target = task.sample(np.random.default_rng(seed), np.full(count, length))
    source = source[:, : task.source_length(length)].astype(np.int64)
    return source, target[:, : task.target_length(length)].astype(np.int64)


def fits(counts, expected=None):
    counts = np.ravel(counts)
    expected = np.full(counts.size, counts.mean()) if expected is None else np.ravel(expected)
    dof = counts.size - 1
    return ((counts - expected) ** 2 / expected).sum() < dof + 5 * np.sqrt(2 * dof)


def slope(lengths, values):
    """Exponent of growth: 1 if the values are proportional to the lengths, 0 if constant."""
    return np.polyfit(np.log(lengths), np.log(values), 1)[0]


# ---- copy, reverse, sort: uniform symbols, and every position matters


@pytest.mark.parametrize("cls", [Copy, Reverse, Sort])
def test_symbols_are_uniform_and_independent(cls):
    source, _ = draw(cls(), 64, 4000)
    assert fits(np.bincount(source.ravel(), minlength=32))
    for position in (0, 31, 63):
        assert fits(np.bincount(source[:, position], minlength=32))
    neighbours = source[:, :-1] * 32 + source[:, 1:]
    assert fits(np.bincount(neighbours.ravel(), minlength=1024))


def test_sort_must_count_further_as_sequences_grow():
    lengths = [64, 256, 1024, 4096]
    largest = []
    for length in lengths:
        _, target = draw(Sort(), length, 64)
        counts = np.stack([np.bincount(row, minlength=32) for row in target])
        assert counts.mean() == pytest.approx(length / 32)
        largest.append(counts.max(axis=1).mean())
    assert 0.7 < slope(lengths, largest) < 1.05


@pytest.mark.parametrize("length", [64, 256])
def test_distance_to_the_symbol_that_is_needed(length):
    """From where it is written back to where it was read, in symbols: in a large alphabet each
    symbol of most sequences is the only one of its kind, which shows where it came from."""
    for cls, expected in (
        (Copy, np.full(length, length)),
        (Reverse, 1 + 2 * np.arange(length)),
    ):
        source, target = draw(cls(symbols=65_536), length, 50)
        place = (source[:, None] == target[..., None]).argmax(axis=2)
        distance = length + np.arange(length) - place
        assert (np.median(distance, axis=0) == expected).all()


# ---- tagging


def test_n_back_depends_on_one_place_at_a_fixed_distance():
    for length in (64, 1024):
        source, target = draw(NBack(n=2), length, 500)
        assert (target[:, :2] == 0).all()
        assert (target[:, 2:] == source[:, :-2]).all()
        assert fits(np.bincount(source[:, 1:].ravel(), minlength=16)[1:])
        # Other distances tell nothing: agreement at chance.
        for other in (1, 3, 5):
            agreement = (target[:, 6:] == source[:, 6 - other : -other or None]).mean()
            assert agreement == pytest.approx(1 / 15, abs=0.01)


def runs(source):
    """Lengths of a row's runs, the last (which may be cut) left out."""
    starts = np.flatnonzero(np.diff(source, prepend=-1))
    return np.diff(starts)


def test_local_count_runs():
    # Long rows: within short ones long runs are more often the one that is cut.
    source, target = draw(LocalCount(), 16_384, 64)
    lengths = np.concatenate([runs(row) for row in source])
    assert lengths.min() == 2
    assert lengths.max() == 48
    assert fits(np.bincount(lengths)[2:])
    for row, labels in zip(source, target, strict=True):
        assert (np.diff(row[labels == 0]) != 0).all()
    assert fits(np.bincount(source[target == 0], minlength=16))
    assert fits(np.bincount(draw(LocalCount(), 64, 4000)[0][:, 0], minlength=16))


def test_local_count_must_ignore_more_as_sequences_grow():
    lengths = [128, 512, 2048, 8192]
    distractors = []
    for length in lengths:
        source, target = draw(LocalCount(), length, 64)
        assert target.max() <= 47
        equal = (source == source[:, -1:]).sum(axis=1) - 1 - target[:, -1]
        distractors.append(equal.mean())
    assert 0.85 < slope(lengths, distractors) < 1.3


# ---- flip-flop


def distances(task, length, count):
    """Instructions between the read and the last write, and how many writes there are."""
    source, _ = draw(task, length, count)
    write = source[:, ::2] == 2
    last = np.where(write, np.arange(write.shape[1]), 0).max(axis=1)
    return write.shape[1] - 1 - last, write.sum(axis=1)


def test_flip_flop_last_write_recedes_with_length():
    lengths = [64, 256, 1024, 4096]
    measured = [distances(FlipFlop(), length, 4000) for length in lengths]
    means = [distance.mean() for distance, _ in measured]
    assert 0.95 < slope(lengths, means) < 1.05
    # Almost all memories at 16 times the length are older than the oldest seen in training.
    assert (measured[2][0] > 31).mean() > 0.75
    for _, writes in measured:
        assert writes.mean() == pytest.approx(5, abs=0.2)


def test_flip_flop_constant_probability_stays_local():
    task = FlipFlop(writes=0.8, per="instruction")
    means = [distances(task, length, 2000)[0].mean() for length in (64, 1024)]
    assert means == pytest.approx([1.25, 1.25], abs=0.1)


def test_flip_flop_target_is_not_betrayed():
    source, target = draw(FlipFlop(), 64, 20_000)
    assert target.mean() == pytest.approx(0.5, abs=0.02)
    ignored = source[:, -3] == 3  # the instruction before the read
    assert (source[ignored, -2] == target[ignored, 0]).mean() == pytest.approx(0.5, abs=0.02)
    bits = source[:, 1::2]
    majority = (bits.mean(axis=1) > 0.5) == target[:, 0]
    assert majority.mean() < 0.62


# ---- max retrieval


@pytest.mark.parametrize("length", [64, 4096])
def test_max_retrieval_depends_on_one_uniform_place(length):
    task = MaxRetrieval()
    source, target = draw(task, length, 5000 if length == 64 else 1000)
    priority, label = source[:, ::2], source[:, 1::2]
    place = priority.argmax(axis=1)
    assert (label[np.arange(len(label)), place] == target[:, 0]).all()
    places = place * 8 // priority.shape[1]
    assert fits(np.bincount(places, minlength=8))
    # The largest priority has one law at all lengths, and so have the classes.
    assert fits(np.bincount(priority.max(axis=1), minlength=64)[1:])
    assert fits(np.bincount(target[:, 0] - 64, minlength=10))
    # A fixed item's class, or the most frequent one, is right at chance.
    assert (label[:, 0] == target[:, 0]).mean() < 0.1 + 1 / priority.shape[1] + 0.03
    frequent = np.stack([np.bincount(row - 64, minlength=10) for row in label]).argmax(axis=1)
    assert (frequent == target[:, 0] - 64).mean() < (0.2 if length == 64 else 0.15)


def test_max_retrieval_runners_up_grow_with_length():
    lengths = [64, 256, 1024, 4096]
    just_below = []
    for length in lengths:
        priority = draw(MaxRetrieval(), length, 500)[0][:, ::2]
        just_below.append((priority == priority.max(axis=1, keepdims=True) - 1).sum(axis=1).mean())
    assert 0.9 < slope(lengths, just_below) < 1.1


# ---- MQMTAR


def recall_places(task, length, count):
    """Return where the pair that answers the last query begins, and where all pairs do."""
    source, _ = draw(task, length, count)
    k = task.key_length
    separators = np.stack([np.flatnonzero(row == 1) for row in source])
    begins = separators - k
    keys = np.stack([source[np.arange(count)[:, None], begins + i] for i in range(k)], axis=2)
    asked = source[:, -k:]
    answer = (keys == asked[:, None]).all(axis=2)
    assert (answer.sum(axis=1) == 1).all()
    return source, begins, keys, answer.argmax(axis=1)


def test_mqmtar_answers_lie_anywhere():
    task = MQMTAR()
    for length in (64, 512):
        source, begins, _, answer = recall_places(task, length, 3000)
        assert fits(np.bincount(answer, minlength=begins.shape[1]))
        # A pair's place in its slot is uniform.
        slot = length // task.pairs_at(length)
        places = begins - np.arange(begins.shape[1]) * slot
        assert fits(np.bincount(places.ravel(), minlength=slot - 5))
        assert source.shape[1] == task.source_length(length)


def test_mqmtar_answers_recede_with_length():
    lengths = [64, 256, 1024]
    means = []
    for length in lengths:
        source, begins, _, answer = recall_places(MQMTAR(), length, 1000)
        means.append((source.shape[1] - begins[np.arange(1000), answer]).mean())
    assert 0.85 < slope(lengths, means) < 1.05


def test_mqmtar_with_a_number_of_pairs_grows_by_spaces_alone():
    """However long, as many pairs, and every token but spaces and specials is one of theirs."""
    task = MQMTAR(alphabet=16, words=16, key_length=1, value_length=1, queries=1, pairs=4)
    for length in (16, 64, 1000, 5120):
        batch = eval_batch(task, 0, "test", length, 0, 20)
        body = (batch.inputs >= 3) & (batch.inputs < task.symbol_count)
        assert (body.sum(axis=1) == 4 * 2 + 1 + 1).all()  # pairs, the query, the answer's letter
        assert task.source_length(length) == 4 * (length // 4) + 2
    assert task.min_length == 16


def test_mqmtar_fillers_are_no_keys():
    task = MQMTAR(alphabet=16, words=256)
    source, _, keys, _ = recall_places(task, 64, 2000)
    assert keys.min() >= 3
    pairs = task.pairs_at(64)
    # All that is not a letter is accounted for: separators and spaces. So no letter is a filler.
    letters = (source >= 3).sum(axis=1)
    assert (letters == pairs * 4 + task.queries * 2).all()
    assert ((source == 1).sum(axis=1) == pairs).all()
    assert ((source == 2).sum(axis=1) == task.queries).all()


def test_mqmtar_words_are_uniform_and_distractors_share_letters():
    task = MQMTAR(alphabet=8, words=64)
    _, _, keys, _ = recall_places(task, 64, 3000)
    number = (keys[..., 0] - 3) * 8 + keys[..., 1] - 3
    # Keys of a sequence are distinct, so that their counts vary less than independent ones.
    assert fits(np.bincount(number.ravel(), minlength=64))
    same_first = (keys[:, 0, None, 0] == keys[:, 1:, 0]).mean()
    assert same_first == pytest.approx(7 / 63, abs=0.01)


def test_mqmtar_queries_are_drawn_with_replacement():
    source, _ = draw(MQMTAR(), 64, 4000)
    asked = source[:, -12:].reshape(-1, 4, 3)[:, :, 1:] @ [1000, 1]
    repeated = [len(set(row)) < 4 for row in asked.tolist()]
    assert np.mean(repeated) == pytest.approx(1 - 7 * 6 * 5 / 8**3, abs=0.03)


@pytest.mark.parametrize("high", [5, 9, 1000])  # by permuting and by drawing again
def test_distinct_is_uniform(high):
    drawn = distinct(np.random.default_rng(0), high, 20_000, 3)
    assert (np.diff(np.sort(drawn, axis=1)) > 0).all()
    for column in drawn.T:
        assert fits(np.bincount(column, minlength=high))
    if high < 1000:
        pairs = np.bincount(drawn[:, 0] * high + drawn[:, 1], minlength=high**2)
        assert fits(pairs[pairs > 0])
        assert (pairs > 0).sum() == high * (high - 1)
