"""Addition."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from lcg.tasks.base import IGNORE, Batch, Task


class Layout(NamedTuple):
    """The positions of the parts of a sequence, each [batch, 1]: of a causal model's inputs."""

    plus: np.ndarray
    """Position of +."""
    end: np.ndarray
    """Position of SEP."""
    first: np.ndarray
    """Position of the sum's first token."""
    digits: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Number of digits of a, b and the sum."""


@dataclass
class Addition(Task):
    """The target is the sum of two numbers.

    Not `padded`: a source of L tokens is a + b, where a has m digits, m uniform in 1 .. L - 2, and
    b has the others; no number begins with 0 unless it is 0. `padded`: a and b have L digits and
    the sum has L + 1, leading zeros included; a nominal length of L is 2L + 1 source tokens.
    `order=reversed` writes all numbers from the least significant digit on, so that carries go the
    way one writes. With `hints` each digit follows a symbol of its weight (not counted in L); those
    of one sequence are consecutive, from a start drawn anew. A `scratchpad` first writes, for each
    weight from the least on, the two digits and the carry into the next, and then =.
    `coupled` gives digits of one weight one position id, in whichever number; all else has id 0.
    Hard because: digits of one weight must be found at distances that change with the length, and
    a carry may come from any of the lower ones.
    Source: plain, in base 2: arXiv 2410.02140, whose length counts the = in SEP's place, one more;
    reversed, with index hints: 2402.09371; position coupling: 2405.20671; scratchpads: 2112.00114.
    Differs from the last in the steps, where it copies all digits that are left at each.

    >>> print(Addition(padded=True, order="reversed").example(3))
    inputs <bos> 8 6 5 + 2 3 0 <sep> 0 0 6 0
    labels .     . . . . . . . 0     0 6 0 <eos>
    >>> print(Addition(hints=6).example(5))
    inputs <bos> h4 1 h3 5 h2 6 + h2 3 <sep> h4 1  h3 5  h2 9
    labels .     .  . .  . .  . . .  . h4    1  h3 5  h2 9  <eos>
    """

    name: ClassVar[str] = "addition"

    base: int = 10
    """Digits are 0 .. base - 1."""
    padded: bool = False
    """Pad all numbers with zeros: L digits each, and L + 1 of the sum."""
    order: Literal["plain", "reversed"] = "plain"
    """Begin with the most significant digit, or with the least significant one."""
    hints: int = 0
    """Number of hint symbols, at least the digits of a sum; 0: no hints."""
    scratchpad: bool = False
    """Write digits and carries before the sum."""
    coupled: int = 0
    """Largest position id that digits are given in training; 0: no ids. Needs padded=true."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.base >= 2, f"base must be at least 2, got {self.base}")
        self.require(
            self.order in ("plain", "reversed"),
            f"order must be plain or reversed, got {self.order!r}",
        )
        for name in ("hints", "coupled"):
            value = getattr(self, name)
            self.require(value >= 0, f"{name} must be at least 0, got {value}")
        self.require(
            not (self.hints and self.scratchpad), "hints and a scratchpad exclude each other"
        )
        self.require(
            self.padded or not self.coupled,
            "coupled ids tell how long a sum is; use padded=true with them",
        )

    @property
    def variable_length(self) -> bool:
        return not self.padded

    @property
    def symbol_count(self) -> int:
        return self.base + 2 + self.hints

    def symbol(self, symbol):
        if symbol < self.base:
            return str(symbol)
        return "+="[symbol - self.base] if symbol < self.base + 2 else f"h{symbol - self.base - 2}"

    # ---- lengths

    @property
    def _tokens(self) -> int:
        return 2 if self.hints else 1  # of a digit

    def _digits(self, length):
        """Digits of both numbers together, of the longer one and of the sum, at most."""
        if self.padded:
            return 2 * length, length, length + 1
        return length - 1, length - 2, length - 1

    @property
    def min_length(self) -> int:
        return 1 if self.padded else 3

    def check_length(self, length):
        super().check_length(length)
        _, _, digits = self._digits(length)
        self.require(
            not self.hints or digits <= self.hints,
            f"length {length} needs {digits} hints, but hints={self.hints}",
        )
        self.require(
            not self.coupled or digits <= self.coupled,
            f"length {length} needs {digits} position ids, but coupled={self.coupled}",
        )

    def source_length(self, length):
        both, _, _ = self._digits(length)
        return self._tokens * both + 1

    def target_length(self, length):
        _, steps, digits = self._digits(length)
        return self._tokens * digits + (3 * steps + 1 if self.scratchpad else 0)

    # ---- data

    def sample(self, rng, lengths):
        rows = len(lengths)
        first, steps, most = lengths, *self._digits(lengths)[1:]
        if not self.padded:
            first = rng.integers(1, lengths - 1)
        second = self._digits(lengths)[0] - first
        digits = rng.integers(0, self.base, (2, rows, steps.max()))  # the least significant first
        for number, count in zip(digits, (first, second), strict=True):
            if not self.padded:
                leading = np.where(count > 1, rng.integers(1, self.base, rows), number[:, 0])
                number[np.arange(rows), count - 1] = leading
            number[np.arange(steps.max()) >= count[:, None]] = 0
        total, carry = add(*digits, self.base)
        longer = np.maximum(first, second)
        count = most if self.padded else longer + total[np.arange(rows), longer]

        start = self.base + 2 + (rng.integers(0, self.hints - most + 1) if self.hints else 0)
        source = np.full((rows, self.source_length(lengths).max()), -1)
        target = np.full((rows, self.target_length(lengths).max()), -1)
        self._write(source, 0, digits[0], first, start)
        source[np.arange(rows), self._tokens * first] = self.base
        self._write(source, self._tokens * first + 1, digits[1], second, start)
        begin = 0
        if self.scratchpad:
            trace = np.stack([*digits, carry], axis=2).reshape(rows, -1)
            own = np.arange(trace.shape[1]) < 3 * longer[:, None]
            target[:, : trace.shape[1]] = np.where(own, trace, -1)
            target[np.arange(rows), 3 * longer] = self.base + 1
            begin = 3 * longer + 1
        self._write(target, begin, total, count, start)
        return source, target

    def _write(self, rows, begin, digits, count, start):
        """Write `count` digits of each row from `begin` on, with hints from `start`."""
        row, weight = np.nonzero(np.arange(digits.shape[1]) < count[:, None])
        place = weight if self.order == "reversed" else count[row] - 1 - weight
        place = np.broadcast_to(begin, len(rows))[row] + self._tokens * place
        rows[row, place + self._tokens - 1] = digits[row, weight]
        if self.hints:
            rows[row, place] = np.broadcast_to(start, len(rows))[row] + weight

    # ---- where things are

    def _layout(self, inputs: np.ndarray) -> Layout:
        plus = (inputs == self.base).argmax(axis=1)[:, None]
        end = (inputs == self.sep).argmax(axis=1)[:, None]
        tokens = (inputs != self.pad).sum(axis=1)[:, None]
        a, b = (plus - 1) // self._tokens, (end - plus - 1) // self._tokens
        first = end + 1 + (3 * np.maximum(a, b) + 1 if self.scratchpad else 0)
        return Layout(plus, end, first, (a, b, (tokens - first) // self._tokens))

    def _weight(self, column: np.ndarray, begin: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Weight of the digit that a token of a number belongs to, outside of it any."""
        place = (column - begin) // self._tokens
        return place if self.order == "reversed" else count - 1 - place

    def position_ids(self, batch: Batch, rng, training):
        if not self.coupled:
            return None
        self.require(batch.source is None, "coupled ids need one sequence: use model.kind=decoder")
        plus, end, first, (a, b, total) = self._layout(batch.inputs)
        column = np.arange(batch.inputs.shape[1])
        weight = np.select(
            [column < plus, column < end, column < first],
            [
                self._weight(column, 1, a),
                self._weight(column, plus + 1, b),
                (column - end - 1) // 3,
            ],
            self._weight(column, first, total),
        )
        start = rng.integers(1, self.coupled - batch.lengths[:, None] + 1) if training else 1
        is_digit = (batch.inputs < self.base) | (batch.inputs >= self.base + 2)  # or its hint
        return np.where(is_digit & (batch.inputs < self.symbol_count), weight + start, 0)

    def evidence(self, inputs, labels):
        plus, end, first, (a, b, total) = self._layout(inputs)
        column = np.arange(1, inputs.shape[1] + 1)  # where a label's token stands
        step, part = np.divmod(column - end - 1, 3)  # of the scratchpad

        def place(begin, count, weight):
            order = weight if self.order == "reversed" else count - 1 - weight
            return begin + self._tokens * order

        weight = self._weight(column, first, total)
        highest = np.minimum(weight, np.maximum(a, b) - 1)  # beyond: a carry
        found = np.where(highest < a, place(1, a, highest), place(plus + 1, b, highest))
        found = found + (column - first) % self._tokens
        if self.scratchpad:
            found = end + np.where(weight > 0, 3 * weight, 1)  # the carry, or the first digit
            read = [
                np.where(step < a, place(1, a, step), -1),
                np.where(step < b, place(plus + 1, b, step), -1),
                end + np.where(step > 0, 3 * step, 1),
            ]
            found = np.where(column < first - 1, np.choose(np.clip(part, 0, 2), read), found)
            found = np.where(column == first - 1, end, found)
        return np.select([labels == IGNORE, labels == self.eos], [-1, end], found)

    def chance(self, length):
        """0 for lengths above 64 without padding, where it is less than 1e-8."""
        both, _, digits = self._digits(length)
        starts = self.hints - digits + 1 if self.hints else 1
        if self.padded:
            known = both if self.scratchpad else length
            return 100 * float(self.base) ** -known / starts
        if length > 64:
            return 0.0
        ranges = [(0, self.base)] + [(self.base**m, self.base ** (m + 1)) for m in range(1, both)]
        pairs = list(zip(ranges[: both - 1], reversed(ranges[: both - 1]), strict=True))
        sizes = [(high - low) * (top - least) for (low, high), (least, top) in pairs]
        if self.scratchpad:
            return 100 / min(sizes) / len(pairs)
        # The number of ways is piecewise linear in the sum, so that some corner has the most.
        corners = {x + y for one, other in pairs for x in one for y in other}
        corners |= {corner - 1 for corner in corners} | {corner - 2 for corner in corners}
        likeliest = max(
            sum(
                max(0, min(high - 1, total - least) - max(low, total - top + 1) + 1) / size
                for ((low, high), (least, top)), size in zip(pairs, sizes, strict=True)
            )
            for total in corners
        )
        return 100 * likeliest / len(pairs) / starts


def add(a: np.ndarray, b: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits [batch, n + 1] of the sums of numbers [batch, n], and the carries [batch, n] into the
    next digit; the least significant digit comes first.

    A carry comes from the nearest weight, from this one down, whose digits do not add up to
    base - 1.
    """
    digits = a + b
    decides = np.where(digits != base - 1, np.arange(digits.shape[1]), -1)
    source = np.maximum.accumulate(decides, axis=1)
    carry = (source >= 0) & (np.take_along_axis(digits, source, axis=1) >= base)
    total = np.pad(digits, ((0, 0), (0, 1)))
    total[:, 1:] += carry
    return total % base, carry.astype(digits.dtype)
