"""Brackets that must match."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lcg.tasks.base import IGNORE, Task, uniform


@dataclass
class DyckBracket(Task):
    """Close the right bracket: label with the bracket that closes the last one left open.

    The source is the beginning of a word of Dyck-(kinds, depth): `kinds` kinds of brackets, at most
    `depth` of them open at once. Where none is open one opens, where `depth` are open one closes,
    elsewhere either with probability 1/2; the kind of an opening bracket is uniform. Scored are the
    positions that a closing bracket follows (after the end of the source one follows if it can), or
    with `everywhere` all at which a bracket is open.
    Hard because: the bracket to be closed lies beyond all that were opened and closed since; it
    takes the count of open ones and the last bracket of that depth. Distances grow with `depth`,
    not with the length: many are 0, some of any size.
    Source: Dyck-(k, m), arXiv 2010.07515; closing brackets as the score, arXiv 2105.11115. Differs
    from them in that sources are not whole words but begin one, so that every length exists.

    >>> print(DyckBracket(kinds=2, depth=4).example(12))
    inputs <bos> ( [ [ ] ] ) ( [ ( ) ] )
    labels .     . . ] ] ) . . . ) ] ) .
    """

    name: ClassVar[str] = "dyck_bracket"
    kind: ClassVar[Literal["labelled"]] = "labelled"

    kinds: int = 4
    """Number of kinds of brackets."""
    depth: int = 8
    """Most brackets that are open at once."""
    everywhere: bool = False
    """Score all positions at which a bracket is open."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("kinds", "depth"):
            value = getattr(self, name)
            self.require(value >= 1, f"{name} must be at least 1, got {value}")

    @property
    def symbol_count(self) -> int:
        return 2 * self.kinds  # opening brackets first

    def symbol(self, symbol):
        kind = symbol % self.kinds
        bracket = ("([{<", ")]}>")[symbol // self.kinds]
        return bracket[kind] if self.kinds <= 4 else f"{bracket[0]}{kind}"

    def sample(self, rng, lengths):
        shape = len(lengths), lengths.max() + 1
        # A walk between two walls, which turn it back, is one without walls, folded.
        walk = np.cumsum(2 * rng.integers(0, 2, shape) - 1, axis=1) % (2 * self.depth)
        depth = np.minimum(walk, 2 * self.depth - walk)
        # After the end, a bracket closes if it can.
        ends = np.arange(shape[1]) == lengths[:, None]
        depth[:, 1:] = np.where(ends[:, 1:] & (depth[:, :-1] > 0), depth[:, :-1] - 1, depth[:, 1:])
        top = _last_open(depth)
        opens = np.diff(depth, axis=1, prepend=0) > 0
        kind = uniform(rng, 0, self.kinds, shape).astype(np.int64)
        close = self.kinds + np.take_along_axis(kind, np.maximum(top, 0), axis=1)
        source = np.where(opens, kind, np.pad(close[:, :-1], ((0, 0), (1, 0))))
        asked = depth > 0 if self.everywhere else ~np.roll(opens, -1, axis=1)
        return source[:, :-1], np.where(asked, close, IGNORE)[:, :-1]

    def evidence(self, inputs, labels):
        """Return the bracket to be closed."""
        step = np.where(inputs < self.kinds, 1, np.where(inputs < 2 * self.kinds, -1, 0))
        return np.where(labels == IGNORE, -1, _last_open(step.cumsum(axis=1)))

    def chance(self, length):
        """Return what one kind everywhere gets: every bracket asked for must be of it."""
        step = np.zeros((self.depth + 1, self.depth + 1))
        for d in range(self.depth + 1):
            either = 1 if d in (0, self.depth) else 2
            asked = 1 / self.kinds
            if d < self.depth:
                step[d, d + 1] = (asked if self.everywhere else 1) / either
            if d > 0:
                step[d, d - 1] = (1 if self.everywhere else asked) / either
        found = np.linalg.matrix_power(step, length)[0]
        if not self.everywhere:
            found[1:] /= self.kinds  # the one after the end
        return 100 * float(found.sum())


def _last_open(depth):
    """Return the index of the last bracket left open after each symbol, -1 for none.

    depth: [rows, symbols], after each symbol.
    """
    before = np.pad(depth[:, :-1], ((0, 0), (1, 0)))
    # What stands last at a level is what opened it, while it is open.
    level, width = np.maximum(before, depth), depth.shape[1]
    row = (depth.max(initial=0) + 1) * np.arange(len(depth))[:, None]
    address = (row + level) * width + np.arange(width)
    moved = before != depth  # not padding, which is at no level
    known = np.sort(address[moved])
    asked = (row + depth) * width + np.arange(width)
    found = known[np.searchsorted(known, asked.ravel(), side="right") - 1].reshape(depth.shape)
    return np.where(depth > 0, found % width, -1)
