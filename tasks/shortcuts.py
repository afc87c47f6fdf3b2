"""The accuracy of answers that look at little of what a model reads."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator

from lcg.tasks.base import IGNORE, Batch, Task
from lcg.tasks.streams import eval_batch, train_batch

WINDOW = 4
SHORTCUTS: dict[str, Callable[[list[int]], Hashable]] = {
    "the most frequent label": lambda read: (),
    f"the last {WINDOW} tokens": lambda read: tuple(read[-WINDOW:]),
    "the counts of tokens": lambda read: tuple(sorted(read)),
}
"""Name of a feature -> the feature of the tokens that were read."""


def shortcut_accuracy(
    task: Task, length: int, feature: Callable[[list[int]], Hashable], rows: int = 1000
) -> float:
    """The share of scored labels, EOS aside, that a table from a feature gets right, in %.

    The table holds the most frequent label of each value of the feature among so many training
    samples, and of all labels where a value never came; it is tried on test samples.
    """
    table: dict[Hashable, Counter[int]] = defaultdict(Counter)
    every: Counter[int] = Counter()
    for seen, label in _scored(task, train_batch(task, 0, 0, rows, length, length), feature):
        table[seen][label] += 1
        every[label] += 1
    best = {seen: labels.most_common(1)[0][0] for seen, labels in table.items()}
    usual = every.most_common(1)[0][0]
    tried = eval_batch(task, 0, "test", length, 0, max(1, rows // 4))
    found = [best.get(seen, usual) == label for seen, label in _scored(task, tried, feature)]
    return 100 * sum(found) / max(1, len(found))


def _scored(
    task: Task, batch: Batch, feature: Callable[[list[int]], Hashable]
) -> Iterator[tuple[Hashable, int]]:
    """The feature and the label at every scored position."""
    for read, labels in zip(batch.inputs.tolist(), batch.labels.tolist(), strict=True):
        for t, label in enumerate(labels):
            if label not in (IGNORE, task.eos):
                yield feature(read[: t + 1]), label
