"""Two methods on the same test samples: how far apart they are, and whether that can be chance.

Samples that both got right, or both wrong, say nothing about the difference; what counts is how
many only the one and only the other got right. All of it is about test samples: it does not say
what another training seed would have done.
"""

import math
from dataclasses import dataclass

from lcg.results.record import Cell


@dataclass(frozen=True)
class Paired:
    """The same `samples` answered by a method and a baseline.

    only_first, only_second: samples that one of them alone got right.
    """

    samples: int
    only_first: int
    only_second: int

    @property
    def difference(self) -> float:
        """Exact match of the first minus that of the second, in [-1, 1]."""
        return (self.only_first - self.only_second) / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """See `tango`."""
        return tango(self.only_first, self.only_second, self.samples)

    @property
    def p_value(self) -> float:
        """See `mcnemar`."""
        return mcnemar(self.only_first, self.only_second)


def compare(first: Cell, second: Cell) -> Paired | None:
    """The two cells sample by sample; None unless both have outcomes of the same samples."""
    if not same_samples(first, second):
        return None
    a, b = first.bits, second.bits
    if a is None or b is None:
        return None
    return Paired(first.samples, (a & ~b).bit_count(), (b & ~a).bit_count())


def same_samples(first: Cell, second: Cell) -> bool:
    """Tell whether two cells are of one test set, answered in one way."""
    same = ("length", "samples", "seed", "decode")
    return all(getattr(first, name) == getattr(second, name) for name in same)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact McNemar test: two-sided binomial p-value of the pairs that differ, at probability 1/2.

    min(1, 2 Σ_{i ≤ min(b, c)} C(b + c, i) / 2^(b + c)); 1 if no pair differs.
    Raises ValueError for negative counts.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    if k < 0:
        raise ValueError(f"{only_first} and {only_second} are not counts")
    term = tail = 1
    for i in range(k):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)


def tango(only_first: int, only_second: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Score interval of a difference of paired proportions; z = 1.96 gives 95 %.

    All Δ with |b - c - nΔ| ≤ z √(n (2q + Δ (1 - Δ))), where q is the most likely probability of
    c's cell when the difference is Δ. T. Tango, Statistics in Medicine 17 (1998), 891-908. It keeps
    its level where discordant pairs are few or none, where a Wald interval has no width.
    Raises ValueError unless the counts are not negative, fit into n, and n >= 1.
    """
    if n < 1 or min(only_first, only_second) < 0 or only_first + only_second > n:
        raise ValueError(f"{only_first} and {only_second} of {n} are not counts of pairs")
    estimate = (only_first - only_second) / n

    def inside(delta: float) -> bool:
        variance = n * (2 * _likeliest(only_first, only_second, n, delta) + delta * (1 - delta))
        return abs(only_first - only_second - n * delta) <= z * math.sqrt(max(0.0, variance))

    return _edge(inside, estimate, -1.0), _edge(inside, estimate, 1.0)


def _likeliest(b: int, c: int, n: int, delta: float) -> float:
    """Maximum-likelihood probability of c's cell, given that b's is larger by delta."""
    linear = (2 * n - b + c) * delta - b - c
    root = math.sqrt(max(0.0, linear * linear + 8 * n * c * delta * (1 - delta)))
    return max(0.0, -delta, (root - linear) / (4 * n))


def _edge(inside, start: float, end: float) -> float:
    """Where `inside` ends on the way from start, which is inside, to end."""
    if inside(end):
        return end
    for _ in range(60):  # to the last bit of a float
        middle = (start + end) / 2
        start, end = (middle, end) if inside(middle) else (start, middle)
    return start
