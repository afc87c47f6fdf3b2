"""Algorithmic tasks with every option: labels, shortcuts, balance, and how long drawing takes."""

import time
import tracemalloc
from itertools import product

import numpy as np
import pytest
from oracles.algorithms import SOLVERS, belongs, printed
from oracles.shortcuts import bag, majority, reaches, window

from lcg.tasks.addition import Addition, add
from lcg.tasks.chomsky import (
    BinaryArithmetic,
    ComputeSqrt,
    CycleNavigation,
    EvenPairs,
    MissingDuplicate,
    ModularArithmetic,
    ModularArithmeticBrackets,
    OddsFirst,
    SolveEquation,
    StackManipulation,
)
from lcg.tasks.copy import Copy
from lcg.tasks.counting import Majority, Mode
from lcg.tasks.languages import LANGUAGES, Automaton, Recognition, language_called
from lcg.tasks.parity import CumulativeParity, Parity
from lcg.tasks.sort import Sort
from lcg.tasks.streams import eval_batch, train_batch

OTHERS = ("dyck-1", "dyck-2", "dyck-1-2", "dyck-2-3", "dyck-5-4", "shuffle-2", "shuffle-3")
OTHERS += ("counter-2", "counter-3")
LANGUAGE_TASKS = [Recognition(language) for language in (*LANGUAGES, *OTHERS)]
TASKS = [
    Copy(symbols=2),
    Copy(symbols=150, distinct=True),
    Copy(symbols=2, times=2),
    Sort(symbols=150, distinct=True),
    Sort(symbols=5),
    Majority(),
    Majority(symbols=2),
    Majority(symbols=2, period=3),
    Majority(symbols=3, period=2),
    Mode(),
    Mode(symbols=6, distinct=3, scratchpad=True),
    Parity(),
    Parity(ones="binomial"),
    Parity(scratchpad=True),
    CumulativeParity(),
    Addition(),
    Addition(base=2),
    Addition(order="reversed"),
    Addition(padded=True),
    Addition(base=3, hints=50),
    Addition(padded=True, order="reversed", hints=50),
    Addition(scratchpad=True),
    Addition(base=2, padded=True, order="reversed", scratchpad=True),
    Addition(padded=True, order="reversed", coupled=50),
    EvenPairs(),
    CycleNavigation(),
    CycleNavigation(places=2),
    ModularArithmetic(),
    ModularArithmetic(modulus=12),
    ModularArithmeticBrackets(),
    ModularArithmeticBrackets(modulus=2),
    SolveEquation(),
    SolveEquation(modulus=9),
    StackManipulation(),
    MissingDuplicate(),
    OddsFirst(),
    OddsFirst(symbols=7),
    BinaryArithmetic(),
    BinaryArithmetic(operation="multiply"),
    ComputeSqrt(),
    *LANGUAGE_TASKS,
]
FAMILIES = [Majority(), Parity(), Addition(), StackManipulation(), Recognition("tomita-3")]
"""One of each module, for what takes long."""


def slowly(tasks, quick):
    """Parameters of a test, slow but for those in `quick`."""
    return [
        pytest.param(task, id=str(task), marks=() if task in quick else pytest.mark.slow)
        for task in tasks
    ]


def sequences(task, lengths, seed=0):
    """Source and target of each row, as lists."""
    lengths = np.asarray(lengths)
    source, target = task.draw(np.random.default_rng(seed), lengths)
    ends = task.target_length if task.kind == "seq2seq" else task.source_length
    counts = [
        task.count_symbols(rows, of(lengths), lengths).ravel()
        for rows, of in ((source, task.source_length), (target, ends))
    ]
    for read, answer, n, m in zip(source, target, *counts, strict=True):
        yield read[:n].tolist(), answer[:m].tolist()


@pytest.mark.parametrize("solved", TASKS, ids=str)
def test_targets_are_those_of_a_slow_solver(solved):
    least = solved.min_length
    for lengths in ([least] * 20, [*range(least, least + 12)] * 5, [45] * 10):
        for source, target in sequences(solved, lengths):
            assert target == SOLVERS[solved.name](source, solved)


@pytest.mark.parametrize("long", slowly(TASKS, FAMILIES))
def test_a_hundred_thousand_tokens_take_a_second_and_memory_in_proportion(long):
    length, peaks = 100_000, []
    if isinstance(long, Copy | Sort) and long.distinct:
        long.symbols = length
    if isinstance(long, Addition):
        length = length // 6 if long.padded or long.scratchpad else length // 2
        long.hints, long.coupled = 2 * length * bool(long.hints), 2 * length * bool(long.coupled)
    rng = np.random.default_rng(0)
    long.encode(rng, np.array([length]))  # what is computed once
    start = time.process_time()
    batch = long.encode(rng, np.array([length]))
    assert time.process_time() - start < 1
    assert batch.inputs.shape[1] >= 0.4 * 100_000
    for some in (length // 4, length):
        tracemalloc.start()
        long.encode(rng, np.array([some]))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 6 * peaks[0]


# ---- shortcuts

COUNTED = ("tomita-1", "tomita-5", "tomita-6", "parity", "majority")
"""Languages that say how often symbols may occur."""


def is_counted(task):
    """The number of each symbol tells the answer, by definition."""
    if isinstance(task, Recognition):
        return task.language in COUNTED
    counted = isinstance(task, Majority) and task.period == 1 and task.symbols == 2
    counted |= isinstance(task, Parity) and not task.scratchpad
    counted |= isinstance(task, ModularArithmeticBrackets) and task.modulus == 2  # where - is +
    return counted or isinstance(task, CycleNavigation | MissingDuplicate)


NOT_SHORT = slowly(
    TASKS,
    [
        Majority(symbols=2),
        Majority(symbols=2, period=3),
        Parity(),
        Addition(),
        StackManipulation(),
        MissingDuplicate(),
        EvenPairs(),
        Recognition("dyck-2-3"),
        Recognition("tomita-3"),
    ],
)


@pytest.mark.parametrize("asked", NOT_SHORT)
def test_no_shortcut_solves_it(asked):
    """Neither the most frequent answer nor the last four tokens, nor, unless counts are all that
    matters, how often each symbol occurs."""
    assert reaches(majority, asked, 20) < max(60, asked.chance(20) + 5)
    assert reaches(window, asked, 20) < 90
    counts = reaches(bag, asked, 20)
    assert counts > 99 if is_counted(asked) else counts < 90


# ---- balance


@pytest.mark.parametrize(
    ("balanced", "length"),
    [
        (Majority(symbols=2), 7),
        (Majority(symbols=2), 8),
        (Majority(), 50),
        (Mode(), 50),
        (Parity(ones="binomial"), 20),
        (CycleNavigation(), 40),
        (ModularArithmeticBrackets(), 17),
        (SolveEquation(), 17),
        (MissingDuplicate(), 16),
        (EvenPairs(), 9),
    ],
    ids=str,
)
def test_answers_are_equally_likely(balanced, length):
    answers = np.array([target for _, target in sequences(balanced, [length] * 5000)]).ravel()
    counts = np.unique(answers, return_counts=True)[1]
    expected = answers.size * balanced.chance(length) / 100
    assert counts.size == round(100 / balanced.chance(length))
    assert ((counts - expected) ** 2 / expected).sum() < counts.size + 5 * (2 * counts.size) ** 0.5


def test_the_number_of_zeros_is_uniform_but_for_ties():
    zeros = [source.count(0) for source, _ in sequences(Majority(symbols=2), [6] * 6000)]
    counts = np.bincount(zeros, minlength=7)
    assert counts[3] == 0
    assert np.delete(counts, 3) == pytest.approx(1000, abs=150)
    ones = [source.count(1) for source, _ in sequences(Parity(), [5] * 6000)]
    assert np.bincount(ones) == pytest.approx(1000, abs=150)


def test_final_stacks_have_all_heights():
    """Even ones, unless a pop met an empty stack."""
    heights = [len(target) for _, target in sequences(StackManipulation(), [16] * 2000)]
    assert set(range(4, 17, 2)) <= set(heights)


@pytest.mark.parametrize("language", [*LANGUAGES, *OTHERS])
def test_half_of_all_sources_are_members(language):
    task = Recognition(language)
    for length in (task.min_length, 12, 33):
        answers = [target[0] for _, target in sequences(task, [length] * 1000)]
        assert np.mean([task.symbol(a) == "yes" for a in answers]) == pytest.approx(0.5, abs=0.08)


# ---- languages


@pytest.mark.parametrize("language", [*LANGUAGES, "dyck-1", "dyck-1-2", "counter-2"])
def test_membership_of_every_short_word(language):
    found = language_called(language)
    for length in range(1, 9):
        words = np.array(list(product(range(len(found.alphabet)), repeat=length)))[:3000]
        expected = [belongs([found.alphabet[s] for s in word], language) for word in words]
        if length % found.step == found.offset % found.step:
            lengths = np.append(np.full(len(words), length), length + found.step)
            beside = np.ones((len(lengths), length + found.step), int)  # one row is longer
            beside[:-1, :length] = words
            assert found.accepts(words, lengths[:-1]).tolist() == expected
            assert found.accepts(beside, lengths)[:-1].tolist() == expected
            there = set(expected) == {True, False} or length < found.least
            assert there or len(words) < len(found.alphabet) ** length
        elif language not in ("tomita-6", "marked-reversal"):
            assert not any(expected)


@pytest.mark.parametrize(
    "language", [*(n for n, found in LANGUAGES.items() if isinstance(found, Automaton)), "dyck-1"]
)
def test_members_are_uniform(language):
    found, count = language_called(language), 4000
    length = 8
    words = found.members(np.random.default_rng(0), np.full(count, length))
    drawn = np.unique(words @ 2 ** np.arange(length), return_counts=True)[1]
    every = [belongs([found.alphabet[s] for s in w], language) for w in product((0, 1), repeat=8)]
    assert drawn.size == sum(every)
    expected = count / drawn.size
    spread = 5 * (2 * drawn.size) ** 0.5
    assert ((drawn - expected) ** 2 / expected).sum() <= drawn.size - 1 + spread * (drawn.size > 1)


def test_bounded_brackets_are_as_deep_as_allowed_and_of_all_kinds():
    task = Recognition("dyck-3-4")
    words = language_called("dyck-3-4").members(np.random.default_rng(0), np.full(300, 40))
    depth = np.where(words < 3, 1, -1).cumsum(axis=1)
    assert depth.max() == 4 and depth.min() == 0
    assert np.bincount(words.ravel()) == pytest.approx(2000, abs=200)
    assert {"(", "]", "}"} < set(printed(words[0].tolist(), task))


def test_non_members_are_a_few_edits_away():
    """Of one word in a^n b^n at each length it can be counted in how many places they differ."""
    found, lengths = language_called("counter-2"), np.full(4000, 30)
    members, others = (
        draw(np.random.default_rng(0), lengths) for draw in (found.members, found.others)
    )
    places = (members != others).sum(axis=1)
    assert places.min() == 1 and places.max() <= 40
    kept = others.sum(axis=1) == 15
    assert kept.mean() > 0.5  # half of all exchange symbols, some replace as many a as b
    assert (places[~kept] == 1).mean() == pytest.approx(0.65, abs=0.1)


def test_unknown_languages():
    for name in ("dyck", "dyck-0", "tomita-8", "counter-1", "shuffle-2-3"):
        with pytest.raises(ValueError, match=f"recognition: language={name} is not known; choose"):
            Recognition(name)


# ---- addition


def test_carries_run_through_any_number_of_nines():
    a, b = np.zeros((2, 1, 50), np.int64)
    a[0], b[0, 3] = 9, 1
    total, carry = add(a, b, 10)
    assert total[0].tolist() == [9, 9, 9, *[0] * 47, 1]
    assert carry[0].tolist() == [0, 0, 0, *[1] * 47]


def test_digits_of_one_weight_share_an_id():
    task = Addition(padded=True, order="plain", coupled=20)
    batch = task.encode(np.random.default_rng(0), np.array([3, 2]))
    ids = task.position_ids(batch, np.random.default_rng(0), training=False)
    #                          bos a a a + b b b sep sum
    assert ids[0].tolist() == [0, 3, 2, 1, 0, 3, 2, 1, 0, 4, 3, 2, 1]
    assert ids[1, :10].tolist() == [0, 2, 1, 0, 2, 1, 0, 3, 2, 1]
    task = Addition(padded=True, order="reversed", coupled=9, scratchpad=True)
    batch = task.encode(np.random.default_rng(0), np.array([2] * 500))
    drawn = task.position_ids(batch, np.random.default_rng(0), training=True)
    start = drawn.max(axis=1, keepdims=True) - 2
    assert np.unique(start).tolist() == list(range(1, 8))
    #           bos a  a  +  b  b sep  scratchpad       =  sum
    expected = [-1, 0, 1, -1, 0, 1, -1, 0, 0, 0, 1, 1, 1, -1, 0, 1, 2]
    expected = np.where(np.array(expected) < 0, 0, expected + start)
    assert (drawn == expected).all()
    task = Addition(padded=True, hints=9, coupled=9)
    batch = task.encode(np.random.default_rng(0), np.array([1]))
    ids = task.position_ids(batch, np.random.default_rng(0), training=False)
    assert ids[0].tolist() == [0, 1, 1, 0, 1, 1, 0, 2, 2, 1, 1]
    assert Addition().position_ids(batch, np.random.default_rng(0), training=True) is None


def test_coupled_ids_come_with_batches():
    task = Addition(padded=True, order="reversed", coupled=30)
    drawn = train_batch(task, 0, 0, 32, 3, 9)
    assert drawn.ids.shape == drawn.inputs.shape and drawn.ids.max() > 20
    assert ((drawn.ids == 0) == (drawn.inputs >= 10)).all()
    fixed = eval_batch(task, 0, "test", 9, 0, 4)
    assert fixed.ids.max() == 10 and (fixed.ids == fixed.ids[0]).all()


def test_coupled_ids_need_one_sequence():
    task = Addition(padded=True, coupled=9)
    batch = task.encode(np.random.default_rng(0), np.array([2]), separate_source=True)
    with pytest.raises(ValueError, match="addition: coupled ids need one sequence"):
        task.position_ids(batch, np.random.default_rng(0), training=False)


@pytest.mark.parametrize(
    ("cls", "options", "length", "said"),
    [
        (Copy, {"symbols": 4, "distinct": True}, 5, "length 5 needs as many distinct symbols"),
        (Sort, {"symbols": 4, "distinct": True}, 5, "length 5 needs as many distinct symbols"),
        (Addition, {"hints": 4}, 6, "length 6 needs 5 hints, but hints=4"),
        (Addition, {"coupled": 4, "padded": True}, 4, "length 4 needs 5 position ids"),
        (Addition, {"coupled": 4}, None, "coupled ids tell how long a sum is; use padded=true"),
        (Addition, {"hints": 4, "scratchpad": True}, None, "hints and a scratchpad exclude each"),
        (Addition, {"order": "random"}, None, "order must be plain or reversed, got 'random'"),
        (Addition, {"base": 1}, None, "base must be at least 2, got 1"),
        (Copy, {"times": 0}, None, "times must be at least 1, got 0"),
        (Majority, {"period": 0}, None, "period must be at least 1, got 0"),
        (Majority, {"symbols": 1}, None, "symbols must be at least 2, got 1"),
        (Mode, {"distinct": 40}, None, "distinct must lie in 2 to symbols=32, got 40"),
        (Parity, {"ones": "many"}, None, "ones must be uniform or binomial, got 'many'"),
        (ModularArithmetic, {"modulus": 1}, None, "modulus must be at least 2, got 1"),
        (SolveEquation, {"modulus": 1}, None, "modulus must be at least 2, got 1"),
        (CycleNavigation, {"places": 1}, None, "places must be at least 2, got 1"),
        (OddsFirst, {"symbols": 1}, None, "symbols must be at least 2, got 1"),
        (BinaryArithmetic, {"operation": "divide"}, None, "operation must be add or multiply"),
    ],
)
def test_impossible_values_are_one_line(cls, options, length, said):
    with pytest.raises(ValueError) as error:
        cls(**options).check_length(length)
    assert str(error.value).startswith(f"{cls.name}: {said}") and "\n" not in str(error.value)
