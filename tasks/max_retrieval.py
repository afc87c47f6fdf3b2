"""Retrieval of the largest item."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lcg.tasks.base import Task, uniform


@dataclass
class MaxRetrieval(Task):
    """The target is the class of the item with the largest priority.

    A length of L tokens is L // 2 items, each a priority and a class. Exactly one item, anywhere,
    has the largest priority m; m is uniform, all other priorities are uniform below m. So neither
    m nor its place tells the length, while the items just below m grow in number with it.
    Hard because: one score must outweigh ever more that are nearly as large.
    Source: arXiv 2410.01104. Differs from the paper: a list of tokens, not a set of vectors;
    priorities are levels, not reals, since a token must name them, and with levels drawn alike
    the largest would be the top level, tied, in every long sequence; no separate query.

    >>> print(MaxRetrieval(priorities=8, classes=3).example(10, seed=1))
    inputs <bos> p2 c2 p3 c2 p3 c1 p0 c0 p4 c0 <sep> c0
    labels .     .  .  .  .  .  .  .  .  .  .  c0    <eos>
    """

    name: ClassVar[str] = "max_retrieval"

    priorities: int = 64
    """Number of priority levels."""
    classes: int = 10
    """Number of classes."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.priorities >= 2, f"priorities must be at least 2, got {self.priorities}")
        self.require(self.classes >= 2, f"classes must be at least 2, got {self.classes}")

    min_length = 4

    @property
    def symbol_count(self) -> int:
        return self.priorities + self.classes  # priorities first

    def symbol(self, symbol):
        return f"p{symbol}" if symbol < self.priorities else f"c{symbol - self.priorities}"

    def source_length(self, length):
        return length // 2 * 2

    def target_length(self, length):
        return 1

    def sample(self, rng, lengths):
        items, row = lengths // 2, np.arange(len(lengths))
        shape = len(items), items.max()
        largest = rng.integers(1, self.priorities, len(items))
        priority = rng.integers(0, largest[:, None], shape)
        place = rng.integers(0, items)
        priority[row, place] = largest
        label = self.priorities + uniform(rng, 0, self.classes, shape).astype(np.int64)
        source = np.stack([priority, label], axis=2).reshape(len(items), -1)
        return source, label[row, place, None]

    def evidence(self, inputs, labels):
        """Return the item with the largest priority."""
        largest = np.where(inputs < self.priorities, inputs, -1).argmax(axis=1)
        return self.trace(labels, lambda k, n: largest[:, None] - 1, ends=False)

    def chance(self, length):
        return 100 / self.classes
