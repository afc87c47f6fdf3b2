"""Chains of references."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lcg.tasks.base import IGNORE, Task, distinct, places, shuffled
from lcg.tasks.recall import falling

LETTERS = 26


@dataclass
class VariableTracking(Task):
    """Follow assignments: X1 = v, X2 = X1, ..., Xh+1 = Xh, in several chains among noise.

    A name is two letters; all names of a sequence are distinct, the values of its chains too. The
    assignments of a chain stand in their order, those of different chains mix at random, all at
    uniform places among symbols of noise. `ask=names` ends the source with `?` and a value, and the
    target is the names of all variables that have it, in the order of assignment. `ask=value` ends
    it with `?` and the last name of a chain, and the target is its value: `hops` steps in one.
    A length of L is L tokens of source; their number of assignments is always the same.
    Hard because: `hops` pointers, each of any length, must be followed one after the other.
    Source: RULER, arXiv 2404.06654. Differs from it: symbols, not text; names are told in order
    and matched exactly; RULER has names of five letters and, by default, one chain of four hops.

    >>> print(VariableTracking(hops=1, values=9, noise=3).example(24))
    inputs <bos> w d = 2 n h = 0 q o = w d n0 n0 n2 h a = n h n1 ? 0 <sep> n h h a
    labels .     . . . . . . . . . . . . . .  .  .  . . . . . .  . . n     h h a <eos>
    >>> print(VariableTracking(chains=1, hops=1, values=9, noise=3, ask="value").example(14))
    inputs <bos> w d = 4 q o = w d n2 n0 ? q o <sep> 4
    labels .     . . . . . . . . . .  .  . . . 4     <eos>
    """

    name: ClassVar[str] = "variable_tracking"

    chains: int = 2
    """Number of chains."""
    hops: int = 2
    """Number of assignments of one variable to another in each chain."""
    values: int = 32
    """Number of values."""
    noise: int = 32
    """Number of symbols of noise."""
    ask: Literal["names", "value"] = "names"
    """Ask for the variables that have a value, or for the value of a variable."""

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("chains", 1), ("hops", 0), ("noise", 1)):
            value = getattr(self, name)
            self.require(value >= least, f"{name} must be at least {least}, got {value}")
        found = self.ask in ("names", "value")
        self.require(found, f"ask must be names or value, got {self.ask!r}")
        self.require(
            self.values >= max(2, self.chains),
            f"values must be at least 2 and at least chains={self.chains}, got {self.values}",
        )
        names = self.chains * (self.hops + 1)
        self.require(
            names <= LETTERS**2,
            f"chains · (hops + 1) must be at most {LETTERS**2}, the number of names, got {names}",
        )

    @property
    def _is(self) -> int:
        return LETTERS + self.values

    @property
    def _asks(self) -> int:
        return self._is + 1

    @property
    def symbol_count(self) -> int:
        return self._asks + 1 + self.noise

    def symbol(self, symbol):
        if symbol < LETTERS:
            return chr(ord("a") + symbol)
        if symbol < self._is:
            return str(symbol - LETTERS)
        return "=?"[symbol - self._is] if symbol <= self._asks else f"n{symbol - self._asks - 1}"

    @property
    def _query(self) -> int:
        return 2 if self.ask == "names" else 3

    @property
    def min_length(self) -> int:
        return self.chains * (4 + 5 * self.hops) + self._query

    def target_length(self, length):
        return 2 * (self.hops + 1) if self.ask == "names" else 1

    def sample(self, rng, lengths):
        rows, row = len(lengths), np.arange(len(lengths))[:, None]
        steps = self.hops + 1
        count = self.chains * steps
        name = np.stack(np.divmod(distinct(rng, LETTERS**2, rows, count), LETTERS), axis=2)
        name = name.reshape(rows, self.chains, steps, 2)
        value = LETTERS + distinct(rng, self.values, rows, self.chains)

        chain = rng.permuted(np.tile(np.arange(count) % self.chains, (rows, 1)), axis=1)
        # [rows, chains, steps]: which of all assignments each is.
        number = np.argsort(chain, axis=1, kind="stable").reshape(rows, self.chains, steps)
        size = np.full((rows, count), 5)
        np.put_along_axis(size, number[..., 0], 4, axis=1)
        room = lengths - self.min_length + count  # where an assignment is one token
        begin = np.sort(places(rng, room, count), axis=1) - np.arange(count)
        begin += size.cumsum(axis=1) - size
        begin = np.take_along_axis(begin, number.reshape(rows, -1), axis=1).reshape(number.shape)

        shape = rows, lengths.max()
        source = self._asks + 1 + rng.integers(0, self.noise, shape)
        each = np.arange(rows)[:, None, None]
        source[each, begin], source[each, begin + 1] = name[..., 0], name[..., 1]
        source[each, begin + 2] = self._is
        source[row, begin[..., 0] + 3] = value
        later, before = begin[..., 1:], name[:, :, :-1]
        source[each, later + 3], source[each, later + 4] = before[..., 0], before[..., 1]

        asked = rng.integers(0, self.chains, rows)
        names, value = name[row[:, 0], asked], value[row[:, 0], asked]
        by_value = self.ask == "names"
        query = value[:, None] if by_value else names[:, -1]
        source[row, lengths[:, None] - self._query] = self._asks
        source[row, lengths[:, None] - self._query + 1 + np.arange(query.shape[1])] = query
        return source, names.reshape(rows, -1) if by_value else value[:, None]

    def evidence(self, inputs, labels):
        """Return the assignment to the variable; for a value, the first one of its chain."""
        begin = np.nonzero(inputs == self._is)[1].reshape(len(inputs), -1) - 2
        told = labels[(labels != IGNORE) & (labels != self.eos)].reshape(len(inputs), -1)
        if self.ask == "names":
            left = [np.take_along_axis(inputs, begin + i, axis=1)[:, None] for i in (0, 1)]
            same = (left[0] == told[:, ::2, None]) & (left[1] == told[:, 1::2, None])
        else:
            same = np.take_along_axis(inputs, begin + 3, axis=1)[:, None] == told[..., None]
        place = np.take_along_axis(begin, same.argmax(axis=2), axis=1) - 1

        def of_symbol(k, n):
            return np.take_along_axis(place, np.clip(k // 2, 0, place.shape[1] - 1), axis=1)

        return self.trace(labels, of_symbol, ends=False)

    def chance(self, length):
        if self.ask == "value":
            return 100 / self.values
        return 100 * falling(LETTERS**2, self.hops + 1)


@dataclass
class LEGO(Task):
    """Resolve a chain of signs: each clause gives a variable the sign of another, or the opposite.

    A length of L is a chain of L clauses of three tokens, in random order: `a + 1` or `a - 1` says
    that a is + or -, `b + a` that b is what a is, `b - a` that it is the opposite. Names are
    distinct. The target is the sign of each clause's variable, in the order of the clauses.
    Hard because: it takes L steps from the first variable to the last, each to a clause anywhere;
    parallel steps can halve what is left, so that depth must grow with log L.
    Source: LEGO, arXiv 2206.04301. Differs from it: a sequence to sequence task, where the authors
    have the sign at each clause, seen from both sides; names are symbols of a large alphabet, so
    that chains of any length exist.

    >>> print(LEGO(names=9).example(4))
    inputs <bos> x6 - x2 x4 - 1 x2 - x5 x5 - x4 <sep> + - - +
    labels .     .  . .  .  . . .  . .  .  . .  +     - - + <eos>
    """

    name: ClassVar[str] = "lego"

    names: int = 1024
    """Number of names: the longest chain."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.names >= 1, f"names must be at least 1, got {self.names}")

    def check_length(self, length):
        super().check_length(length)
        self.require(
            length <= self.names,
            f"length {length} needs as many names, but names={self.names}",
        )

    @property
    def symbol_count(self) -> int:
        return self.names + 3  # +, -, 1

    def symbol(self, symbol):
        return f"x{symbol}" if symbol < self.names else "+-1"[symbol - self.names]

    def source_length(self, length):
        return 3 * length

    def sample(self, rng, lengths):
        shape = len(lengths), lengths.max()
        name = distinct(rng, self.names, *shape)
        sign = rng.integers(0, 2, shape)
        before = np.pad(name[:, :-1], ((0, 0), (1, 0)), constant_values=self.names + 2)
        clause = np.stack([name, self.names + sign, before], axis=2)
        order = shuffled(rng, np.tile(np.arange(shape[1]), (shape[0], 1)), lengths)
        source = np.take_along_axis(clause, order[..., None], axis=1).reshape(shape[0], -1)
        target = self.names + sign.cumsum(axis=1) % 2
        return source, np.take_along_axis(target, order, axis=1)

    def evidence(self, inputs, labels):
        """Return the first in the source of the clauses between 1 and the variable."""
        count = (labels != IGNORE).sum(axis=1) - 1
        rows, most = len(inputs), count.max()
        clause = inputs[:, 1 : 1 + 3 * most].reshape(rows, most, 3)
        row, number = np.nonzero(np.arange(most) < count[:, None])
        of_name = np.zeros((rows, self.vocabulary), np.int64)
        of_name[row, clause[row, number, 0]] = number
        first = np.tile(np.arange(most), (rows, 1))
        before = first.copy()
        before[row, number] = of_name[row, clause[row, number, 2]]
        before = np.where(clause[..., 2] == self.names + 2, first, before)
        for _ in range(int(most).bit_length()):  # as many steps back, then twice as many
            first = np.minimum(first, np.take_along_axis(first, before, axis=1))
            before = np.take_along_axis(before, before, axis=1)
        return self.trace(
            labels, lambda k, n: 3 * np.take_along_axis(first, np.clip(k, 0, most - 1), axis=1)
        )

    def chance(self, length):
        return 100 * 0.5**length


@dataclass
class PathStar(Task):
    """Find the way along one arm of a star: the target is the path from its centre to a goal.

    A length of L is the number of edges of an arm. The source lists the edges of all arms in random
    order, each as two nodes from the centre outwards, then `?`, the centre and the goal, which is
    the end of one arm: 2 · arms · L + 3 tokens. The target is the L + 1 nodes from the centre to
    the goal, or with `reverse` from the goal to the centre. Nodes are distinct symbols.
    Hard because: which arm the first step takes shows only at its end, L edges away; every further
    step is a look-up, which is all that teacher forcing teaches, so that 1 / arms of the rows are
    right at best. The reverse target is look-ups from the start.
    Source: arXiv 2403.06963. Differs from it in the alphabet, which is larger than the graph (50
    nodes there), so that arms may grow; no separator between edges.

    >>> print(PathStar(nodes=9).example(2))
    inputs <bos> 4 6 4 5 5 2 6 3 ? 4 2 <sep> 4 5 2
    labels .     . . . . . . . . . . . 4     5 2 <eos>
    >>> print(PathStar(nodes=9, reverse=True).example(2))
    inputs <bos> 4 6 4 5 5 2 6 3 ? 4 2 <sep> 2 5 4
    labels .     . . . . . . . . . . . 2     5 4 <eos>
    """

    name: ClassVar[str] = "path_star"

    arms: int = 2
    """Number of arms."""
    nodes: int = 1024
    """Number of symbols for nodes."""
    reverse: bool = False
    """Tell the path from the goal to the centre."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.arms >= 1, f"arms must be at least 1, got {self.arms}")
        self.require(
            self.nodes > self.arms,
            f"nodes must be more than arms={self.arms}, got {self.nodes}",
        )

    def check_length(self, length):
        super().check_length(length)
        least = self.arms * length + 1
        self.require(
            least <= self.nodes, f"length {length} needs {least} nodes, but nodes={self.nodes}"
        )

    @property
    def symbol_count(self) -> int:
        return self.nodes + 1

    def symbol(self, symbol):
        return "?" if symbol == self.nodes else str(symbol)

    def source_length(self, length):
        return 2 * self.arms * length + 3

    def target_length(self, length):
        return length + 1

    def sample(self, rng, lengths):
        row, length = np.arange(len(lengths))[:, None], lengths[:, None]
        edges = self.arms * lengths
        node = distinct(rng, self.nodes, len(lengths), edges.max() + 1)  # the centre first
        order = shuffled(rng, np.tile(np.arange(edges.max()), (len(lengths), 1)), edges)
        outer = order + 1
        inner = np.where(order % length == 0, 0, order)
        source = np.zeros((len(lengths), 2 * edges.max() + 3), np.int64)
        source[:, 0:-3:2], source[:, 1:-3:2] = node[row, inner], node[row, outer]

        begin = rng.integers(0, self.arms, length.shape) * length
        step = np.arange(lengths.max() + 1)
        if self.reverse:
            step = np.maximum(length - step, 0)
        target = node[row, np.where(step == 0, 0, np.minimum(begin + step, node.shape[1] - 1))]
        query = [np.full(length.shape, self.nodes), node[:, :1], node[row, begin + length]]
        source[row, 2 * edges[:, None] + np.arange(3)] = np.concatenate(query, axis=1)
        return source, target

    def evidence(self, inputs, labels):
        """Return the edge of each step; for the first one from the centre, the arm's first edge."""
        row = np.arange(len(inputs))[:, None]
        scored = labels != IGNORE
        end, count = scored.argmax(axis=1)[:, None], scored.sum(axis=1)[:, None] - 1
        query = 2 * self.arms * (count - 1)  # where it begins in the source
        edge_of = np.zeros((len(inputs), self.vocabulary), np.int64)  # by its outer node
        edges = np.arange(1, query.max(), 2)
        found, at = np.nonzero(edges < query)
        edge_of[found, inputs[found, 1 + edges[at]]] = edges[at] - 1
        step = np.arange(count.max())
        told = labels[row, np.minimum(end + step, labels.shape[1] - 1)]
        outer = np.where(step < count, told, self.pad)
        if self.reverse:
            place = edge_of[row, np.pad(outer[:, :-1], ((0, 0), (1, 0)))]
            place[:, :1] = query + 2
        else:
            place = edge_of[row, outer]
            place[:, 0] = query.max()
            arm = np.where((step > 0) & (step < count), place, query.max())
            place[:, :1] = query + 1
            place[:, 1] = arm.min(axis=1)
        return self.trace(
            labels, lambda k, n: np.take_along_axis(place, np.clip(k, 0, len(step) - 1), axis=1)
        )

    def chance(self, length):
        return 100 * falling(self.nodes, length + 1)
