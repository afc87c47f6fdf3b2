"""What tasks state of themselves: where the evidence of a label lies, and their chance level."""

from collections import Counter

import numpy as np
import pytest

from lcg.tasks.addition import Addition
from lcg.tasks.base import IGNORE
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
from lcg.tasks.languages import Recognition
from lcg.tasks.parity import CumulativeParity, Parity
from lcg.tasks.reverse import Reverse
from lcg.tasks.sort import Sort
from lcg.tasks.streams import train_batch


def evidence(task, length, seed=0):
    """The evidence of the scored labels of one sequence, and the sequence."""
    batch = task.encode(np.random.default_rng(seed), np.array([length]))
    found = task.evidence(batch.inputs, batch.labels)
    assert found.shape == batch.labels.shape
    assert (found[batch.labels == IGNORE] == -1).all()
    return found[batch.labels != IGNORE].tolist(), batch.inputs[0].tolist()


@pytest.mark.parametrize(
    ("stated", "length", "expected"),
    [
        (Copy(), 3, [1, 2, 3, 4]),
        (Copy(times=2), 2, [1, 2, 1, 2, 3]),
        (Reverse(), 3, [3, 2, 1, 4]),
        (Sort(), 3, [1, 1, 1, 4]),
        (Majority(), 3, [1, -1]),
        (Majority(period=2), 7, [1, 2, -1]),
        (Mode(), 6, [1, -1]),
        (Mode(distinct=2, scratchpad=True), 6, [1, 1, -1]),
        (Parity(), 3, [1, -1]),
        (Parity(scratchpad=True), 3, [1, 2, 3, 4]),
        (CumulativeParity(), 3, [1, 1, 1]),
        (EvenPairs(), 3, [1, -1]),
        (CycleNavigation(), 3, [1, -1]),
        (ModularArithmetic(), 3, [1, -1]),
        (ModularArithmeticBrackets(), 3, [1, -1]),
        (SolveEquation(), 3, [1, -1]),
        (OddsFirst(), 5, [1, 3, 5, 2, 4, 6]),
        (OddsFirst(), 4, [1, 3, 2, 4, 5]),
        (ComputeSqrt(), 5, [1, 1, 1, 6]),
        (Recognition(), 6, [1, -1]),
        # Digits of a at 1 and 2, of b at 4 and 5, SEP at 6.
        (Addition(padded=True, order="reversed"), 2, [1, 2, 2, 6]),
        (Addition(padded=True), 2, [1, 1, 2, 6]),
        (Addition(padded=True, order="reversed", hints=3), 2, [1, 2, 3, 4, 3, 4, 10]),
        # Two digits and a carry, twice, at 7 to 12, = at 13.
        (
            Addition(padded=True, order="reversed", scratchpad=True),
            2,
            [1, 4, 7, 2, 5, 9, 6, 7, 9, 12, 6],
        ),
    ],
)
def test_evidence_of_one_sequence(stated, length, expected):
    assert evidence(stated, length)[0] == expected


@pytest.mark.parametrize(
    ("stated", "source", "target", "expected"),
    [
        (Addition(), [1, 10, 2, 5], [2, 6], [3, 1, 5]),
        (Addition(), [2, 5, 10, 1], [2, 6], [1, 2, 5]),
        (Addition(), [9, 9, 10, 1], [1, 0, 0], [1, 1, 2, 5]),
        (Addition(scratchpad=True), [9, 10, 1, 2], [9, 2, 1, 0, 1, 1, 11, 2, 1], None),
        (BinaryArithmetic(), [1, 1, 2, 1], [0, 0, 1], [1, 2, 2, 5]),
        (BinaryArithmetic(), [1, 2, 1, 1], [0, 0, 1], [1, 4, 4, 5]),
        (BinaryArithmetic(operation="multiply"), [1, 3, 1, 1], [1, 1], [1, 1, 5]),
        (StackManipulation(), [0, 1, 2, 4, 3, 2, 4], [1, 1, 0], [5, 2, 1, 8]),
        (StackManipulation(), [0, 4, 4, 3], [1], [4, 5]),
        (MissingDuplicate(), [0, 1, 0, 0, 2, 0], [1], [2, -1]),
        (MissingDuplicate(), [0, 1, 2, 0, 1, 0], [0], [3, -1]),
    ],
)
def test_evidence_of_a_given_source(stated, source, target, expected):
    batch = stated.assemble(np.array([source]), np.array([target]), np.array([len(source)]))
    found = stated.evidence(batch.inputs, batch.labels)[batch.labels != IGNORE].tolist()
    if expected is None:  # a has no digit of weight 1, and the last carry is that of 6 to 9
        expected = [1, 4, 6, -1, 3, 8, 5, 8, 6, 5]
    assert found == expected


@pytest.mark.parametrize("stated", [Copy(), Copy(times=3), Reverse(), OddsFirst(symbols=9)])
def test_a_copied_symbol_is_its_own_evidence(stated):
    batch = train_batch(stated, 0, 0, 16, 3, 20)
    found = stated.evidence(batch.inputs, batch.labels)
    symbol = (batch.labels != IGNORE) & (batch.labels != stated.eos)
    assert (np.take_along_axis(batch.inputs, found, axis=1) == batch.labels)[symbol].all()
    assert (found[batch.labels == stated.eos] == batch.lengths + 1).all()


CHANCES = [
    (Copy(symbols=2), 3),
    (Copy(symbols=4, distinct=True), 2),
    (Copy(symbols=2, times=2), 2),
    (Reverse(symbols=3), 2),
    (Sort(symbols=3), 4),
    (Sort(symbols=5), 2),
    (Sort(symbols=5, distinct=True), 3),
    (Majority(symbols=3), 5),
    (Majority(symbols=2, period=3), 10),
    (Mode(symbols=5, distinct=2), 4),
    (Mode(symbols=4, distinct=2, scratchpad=True), 5),
    (Parity(), 4),
    (Parity(), 5),
    (Parity(scratchpad=True), 4),
    (Parity(ones="binomial"), 4),
    (Parity(ones="binomial", scratchpad=True), 4),
    (CumulativeParity(), 4),
    (Addition(base=3), 4),
    (Addition(base=2), 3),
    (Addition(base=2), 6),
    (Addition(base=2, hints=5), 5),
    (Addition(base=2, scratchpad=True), 5),
    (Addition(base=2, scratchpad=True), 4),
    (Addition(base=2, padded=True), 3),
    (Addition(base=2, padded=True, hints=6), 2),
    (Addition(base=2, padded=True, order="reversed", scratchpad=True), 2),
    (EvenPairs(), 3),
    (CycleNavigation(), 2),
    (CycleNavigation(), 3),
    (CycleNavigation(places=2), 3),
    (ModularArithmetic(), 3),
    (ModularArithmetic(modulus=4), 8),
    (ModularArithmeticBrackets(), 9),
    (SolveEquation(), 8),
    (StackManipulation(), 3),
    (StackManipulation(), 6),
    (MissingDuplicate(), 6),
    (OddsFirst(symbols=2), 3),
    (BinaryArithmetic(), 4),
    (BinaryArithmetic(), 7),
    (BinaryArithmetic(operation="multiply"), 7),
    (ComputeSqrt(), 5),
    (ComputeSqrt(), 6),
    (Recognition(), 8),
]


@pytest.mark.parametrize(("stated", "length"), CHANCES, ids=str)
def test_chance_is_the_share_of_the_most_frequent_target(stated, length):
    labels = train_batch(stated, 0, 0, 8000, length, length).labels
    most = Counter(row.tobytes() for row in labels).most_common(1)[0][1] / 80
    chance = stated.chance(length)
    assert abs(most - chance) < 4 * (chance * (100 - chance) / 8000) ** 0.5 + 0.3


def test_chance_far_beyond_numbers():
    for task in {task.name: task for task, _ in reversed(CHANCES)}.values():
        assert 0 <= task.chance(100_000) < 51
    assert Sort(symbols=2).chance(100_000) == pytest.approx(0.25, abs=0.01)
    assert ModularArithmetic().chance(10_001) == pytest.approx(20)
    assert StackManipulation().chance(512) < 1e-6
    assert BinaryArithmetic().chance(16) < 0.2 and Addition(base=2).chance(64) < 1e-8
    assert Sort(symbols=150, distinct=True).chance(150) == 100
