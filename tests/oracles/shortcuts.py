"""Answers that follow from little of what a model reads: tables from a feature to a label."""

from collections import Counter, defaultdict

import numpy as np

from lcg.tasks.base import IGNORE, Task
from lcg.tasks.streams import eval_batch, train_batch

WINDOW = 4


def majority(read, source):
    """Nothing."""
    return ()


def window(read, source):
    """The last four tokens that were read."""
    return tuple(read[-WINDOW:])


def bag(read, source):
    """How often each symbol is in the source."""
    return tuple(sorted(source))


def bag_so_far(read, source):
    """How often each symbol was read, and which one last, as a question may be."""
    return tuple(sorted(read)), read[-1]


def reaches(feature, task: Task, length: int, rows: int = 4000) -> float:
    """The share of samples, in %, that the best table from a feature gets right: at each scored
    position the label that was most frequent there after this feature."""
    table = defaultdict(Counter)
    for row in _rows(feature, train_batch(task, 0, 0, rows, length, length)):
        for (place, value), label in row:
            table[place, value][label] += 1
            table[place][label] += 1  # for what was never seen
    best = {key: labels.most_common(1)[0][0] for key, labels in table.items()}
    right = [
        all(best.get(key, best.get(key[0])) == label for key, label in row)
        for row in _rows(feature, eval_batch(task, 0, "test", length, 0, 1000))
    ]
    return 100 * float(np.mean(right))


def _rows(feature, batch):
    """For each sample its scored labels, with (number among them, feature)."""
    for read, labels in zip(batch.inputs.tolist(), batch.labels.tolist(), strict=True):
        places = [t for t, label in enumerate(labels) if label != IGNORE]
        source = read[1 : places[0] + 1]
        yield [((i, feature(read[: t + 1], source)), labels[t]) for i, t in enumerate(places)]
