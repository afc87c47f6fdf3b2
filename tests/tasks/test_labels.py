"""Targets against slow definitions written from the tasks' statements alone.

Each definition takes one source and the task, checks that the source is well-formed, and returns
the target.
"""

import numpy as np
import pytest
from oracles import recall_tasks
from oracles.algorithms import SOLVERS
from task_samples import fitting

from lcg.tasks.base import IGNORE
from lcg.tasks.streams import eval_batch, train_batch


def reverse(source, task):
    return [source[-1 - i] for i in range(len(source))]


def n_back(source, task):
    assert source[0] == 0
    assert 0 not in source[1:]
    return [source[i - task.n] if i >= task.n else 0 for i in range(len(source))]


def local_count(source, task):
    target, runs = [], []
    for i, symbol in enumerate(source):
        if i > 0 and symbol == source[i - 1]:
            runs[-1] += 1
        else:
            runs.append(1)
        target.append(runs[-1] - 1)
    assert all(2 <= run <= task.max_reps for run in runs[:-1])
    assert runs[-1] <= task.max_reps
    return target


def flip_flop(source, task):
    commands, bits = source[::2], source[1::2]
    assert len(commands) == len(bits) + 1
    assert commands[0] == 2
    assert commands[-1] == 4
    assert set(commands[:-1]) <= {2, 3}
    memory = None
    for command, bit in zip(commands[:-1], bits, strict=True):
        assert bit in (0, 1)
        memory = bit if command == 2 else memory
    return [memory]


def max_retrieval(source, task):
    items = [(source[i], source[i + 1]) for i in range(0, len(source), 2)]
    assert all(p < task.priorities <= c < task.priorities + task.classes for p, c in items)
    largest = max(priority for priority, _ in items)
    classes = [c for priority, c in items if priority == largest]
    assert len(classes) == 1
    return classes


def mqmtar(source, task):
    k, v = task.key_length, task.value_length
    body = source[: len(source) - task.queries * (k + 1)]
    asked = source[len(body) :]
    assert body.count(2) == 0
    pairs, i = {}, 0
    while i < len(body):
        if body[i] == 0:
            i += 1
            continue
        key, separator, value = body[i : i + k], body[i + k], body[i + k + 1 : i + k + 1 + v]
        assert min(key + value) >= 3
        assert separator == 1
        assert len(value) == v
        assert tuple(key) not in pairs
        assert tuple(value) not in pairs.values()
        i += k + 1 + v
        assert body[i] == 0  # a space ends every pair
        pairs[tuple(key)] = tuple(value)
    target = []
    for i in range(0, len(asked), k + 1):
        assert asked[i] == 2
        target += [2, *pairs[tuple(asked[i + 1 : i + 1 + k])]]
    return target


DEFINITIONS = {
    f.__name__: f for f in (reverse, n_back, local_count, flip_flop, max_retrieval, mqmtar)
}
DEFINITIONS |= SOLVERS | recall_tasks.DEFINITIONS


def rows(batch, task):
    """(nominal length, source, target) of each row, read back from inputs and labels."""
    for inputs, labels, length in zip(*(array.tolist() for array in batch[:3]), strict=True):
        tokens = [token for token in inputs if token != task.pad]
        scored = [label for label in labels if label != IGNORE]
        assert tokens.pop(0) == task.bos
        if task.kind != "seq2seq":
            yield length, tokens, labels[1 : 1 + len(tokens)]
            continue
        assert scored.pop() == task.eos
        source = tokens[: len(tokens) - len(scored)]
        assert tokens[len(source) :] == scored
        if task.separator:
            assert source.pop() == task.sep
        yield length, source, scored


def check(batch, task):
    assert task.name in DEFINITIONS, f"write down in {__file__} what {task.name} is"
    for length, source, target in rows(batch, task):
        most = task.source_length(length), task.target_length(length)
        if task.variable_length:
            assert len(source) <= most[0] and len(target) <= most[1]
        else:
            assert len(source) == most[0]
            assert len(target) == most[1] or task.kind != "seq2seq"
        assert target == DEFINITIONS[task.name](source, task)


@pytest.mark.parametrize("per", ["sample", "batch"])
@pytest.mark.parametrize(("shortest", "longest"), [(None, 20), (32, 64), (64, 64), (79, 80)])
def test_training_targets(task, per, shortest, longest):
    for t in range(4):
        least = fitting(task, shortest or 0)
        batch = train_batch(task, 7, t, 32, least, max(least, longest), per)
        check(batch, task)


def test_evaluation_targets_far_beyond_training(drawn_class):
    task = drawn_class()
    check(eval_batch(task, 0, "test", fitting(task, 4096), 60, 8), task)


def test_ragged_rows_follow_the_same_law(task):
    """Rows of one length, drawn among longer ones or alone, agree in every token's frequencies."""
    length, count = fitting(task, 24), 600 if task.symbol_count > 300 else 6000
    bucket = 1 + task.symbol_count // 300  # neighbours in a large alphabet are taken together
    rng = np.random.default_rng(3)
    mixed = np.where(np.arange(2 * count) % 2, length, rng.integers(length, 60, 2 * count))
    among = task.sample(rng, mixed)
    alone = task.sample(rng, np.full(count, length))
    for widths, of_mixed, of_same in zip(
        (task.source_length(length), task.target_length(length)), among, alone, strict=True
    ):
        of_mixed, of_same = of_mixed[1::2, :widths] // bucket, of_same[:, :widths] // bucket
        for symbol in np.unique(np.concatenate([of_mixed, of_same])):
            p, q = (of_mixed == symbol).mean(axis=0), (of_same == symbol).mean(axis=0)
            spread = np.sqrt((p * (1 - p) + q * (1 - q)) / count) + 1 / count
            assert (np.abs(p - q) / spread).max() < 5.5
