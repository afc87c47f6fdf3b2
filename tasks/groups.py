"""State tracking: words of a group."""

from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import ClassVar, Literal

import numpy as np

from lcg.tasks.base import IGNORE, Task, uniform


@dataclass
class WordProblem(Task):
    """Label each position with the product of the group elements so far: y_t = y_(t-1) · g_t.

    Every element is a symbol, drawn uniformly and independently. A permutation is printed as the
    images of 0, 1, ...; a product p · q maps x to p(q(x)). Z60 adds modulo 60. An element of
    A4xZ5 is printed as permutation+number. All groups but S5 have 60 elements, S5 has 120.
    Hard because: every label depends on all symbols before it. S5 and A5 are not solvable, so that
    a constant number of layers cannot do it at every length, under the usual conjecture; Z60 needs
    a sum, whatever the order, A4xZ5 is between the two.
    Source: arXiv 2404.08819.

    >>> print(WordProblem(group="A5").example(4))
    inputs <bos> 23014 41032 42130 30421
    labels .     23014 43210 02314 10432
    """

    name: ClassVar[str] = "word_problem"
    kind: ClassVar[Literal["tagging"]] = "tagging"

    group: Literal["S5", "A5", "Z60", "A4xZ5"] = "S5"
    """S5 and A5 (not solvable), Z60 (commutative), or A4xZ5 (solvable)."""

    def __post_init__(self):
        super().__post_init__()
        self.require(
            self.group in GROUPS,
            f"group must be one of {', '.join(GROUPS)}, got {self.group!r}",
        )

    @property
    def symbol_count(self) -> int:
        return len(_group(self.group)[0])

    def symbol(self, symbol):
        images, number = _group(self.group)[0][symbol]
        parts = ["".join(map(str, images))] if images else []
        return "+".join([*parts, str(number)]) if GROUPS[self.group][2] > 1 else parts[0]

    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbol_count, (len(lengths), lengths.max()))
        table, product = _group(self.group)[1], source.astype(np.uint8)
        # After the step of each distance, y_t is the product of the last 2 · distance elements.
        distance = 1
        while distance < product.shape[1]:
            product[:, distance:] = table[product[:, :-distance], product[:, distance:]]
            distance *= 2
        return source, product

    def evidence(self, inputs, labels):
        return np.where(labels == IGNORE, -1, 1)

    def chance(self, length):
        return 100 * float(self.symbol_count) ** -length


GROUPS = {"S5": (5, False, 1), "A5": (5, True, 1), "Z60": (0, False, 60), "A4xZ5": (4, True, 5)}
"""Points that are permuted, whether by even permutations alone, and the modulus of a number."""


@cache
def _group(name):
    """Return the elements, pairs of a permutation and a number, and the table of their products."""
    points, even, modulus = GROUPS[name]
    images = [p for p in permutations(range(points)) if not (even and _odd(p))]
    elements = [(p, number) for p in images for number in range(modulus)]
    ids = {element: i for i, element in enumerate(elements)}
    table = [
        [ids[tuple(p[x] for x in q), (m + n) % modulus] for q, n in elements] for p, m in elements
    ]
    return elements, np.array(table, np.uint8)


def _odd(images):
    inversions = [a > b for i, a in enumerate(images) for b in images[i + 1 :]]
    return sum(inversions) % 2 == 1
