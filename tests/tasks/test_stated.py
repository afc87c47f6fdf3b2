"""What tasks state of themselves: where the evidence of a label lies, and their chance level."""

from collections import Counter

import numpy as np
import pytest

from lcg.tasks.base import IGNORE
from lcg.tasks.copy import Copy
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
    ],
)
def test_evidence_of_one_sequence(stated, length, expected):
    assert evidence(stated, length)[0] == expected


@pytest.mark.parametrize("stated", [Copy(), Copy(times=3), Reverse()])
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
]


@pytest.mark.parametrize(("stated", "length"), CHANCES, ids=str)
def test_chance_is_the_share_of_the_most_frequent_target(stated, length):
    labels = train_batch(stated, 0, 0, 20_000, length, length).labels
    most = Counter(row.tobytes() for row in labels).most_common(1)[0][1] / 200
    chance = stated.chance(length)
    assert abs(most - chance) < 4 * (chance * (100 - chance) / 20_000) ** 0.5 + 0.2


def test_chance_far_beyond_numbers():
    for task in (Copy(), Reverse(), Sort(symbols=2)):
        assert 0 <= task.chance(100_000) < 0.3
    assert Sort(symbols=150, distinct=True).chance(150) == 100
