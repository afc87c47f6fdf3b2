"""Two methods on the same test samples: how far apart they are, and whether that can be chance.

Samples that both got right, or both wrong, say nothing about the difference; what counts is how
many only the one and only the other got right. All of it is about test samples: it does not say
what another training seed would have done.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from lcg.registry import nearest
from lcg.results.aggregate import Group, RunResult
from lcg.results.labels import config_fields
from lcg.runs.record import Cell


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
    a, b = first.bits, second.bits
    if a is None or b is None or not same_samples(first, second):
        return None
    return Paired(first.samples, (a & ~b).bit_count(), (b & ~a).bit_count())


def same_samples(first: Cell, second: Cell) -> bool:
    """Tell whether two cells are of one test set, answered in one way."""
    fields = ("length", "samples", "seed", "decode")
    return all(getattr(first, name) == getattr(second, name) for name in fields)


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
    """The last point that is `inside` on the way from start, which is, to end."""
    if inside(end):
        return end
    for _ in range(60):  # to the last bit of a float
        middle = (start + end) / 2
        start, end = (middle, end) if inside(middle) else (start, middle)
    return start


DEFAULT = "softmax"


@dataclass(frozen=True)
class Difference:
    """A group's selected run against that of its baseline, by test length."""

    group: Group
    baseline: Group
    lengths: dict[int, Paired]

    def obstacle(self, length: int) -> str:
        """Say in a few words why two values at a length are not compared."""
        first, second = (side.best.cells[length] for side in (self.group, self.baseline))
        if not _same_task(self.group.best, self.baseline.best) or not same_samples(first, second):
            return "other test set"
        return "outcomes not kept"


def rule(baseline: str | None = None) -> str:
    """Say which method is the baseline of another."""
    default = "softmax, or the first method where there is none (--baseline NAME chooses another)"
    return f"""\
The baseline is {baseline or default}.
Of several it is the one that was tested on the same samples, then the one whose config differs in
the fewest fields, then one of the same position encoding, then the first; always one of the same
steps, batch size and training lengths."""


def differences(groups: Sequence[Group], baseline: str | None = None) -> list[Difference]:
    """Each method against a baseline of its task; without lengths where no samples are shared.

    The baseline is called `baseline`: a label, an attention, or any part of a label; by default
    softmax, and without any the task's first group. Of several candidates the nearest, see `rule`;
    of several softmaxes each is compared with the nearest before it. There is no comparison where
    no candidate has the same steps, batch size and training lengths, see `not_compared`.
    Raises ValueError for a baseline that no task has.
    """
    if baseline is not None and not any(_called(group, baseline) for group in groups):
        names = {name for group in groups for name in _names(group)}
        raise ValueError(f"no method is called {baseline}; {nearest(baseline, sorted(names))}")
    found = []
    for group in groups:
        candidates = _candidates(group, groups, baseline)
        if group in candidates:
            candidates = [] if baseline is not None else candidates[: candidates.index(group)]
        if candidates:
            chosen = min(candidates, key=partial(_distance, group))
            pairs = _paired(group.best, chosen.best)
            found.append(Difference(group, chosen, pairs))
    return found


def not_compared(groups: Sequence[Group], baseline: str | None = None) -> Iterator[str]:
    """A sentence for each method of several that has no baseline, and is none itself."""
    for group in groups:
        others = [other for other in groups if other.task == group.task and other is not group]
        if baseline is None:
            known = _called(group, DEFAULT) or any(_budget(o) == _budget(group) for o in others)
        else:
            known = _candidates(group, groups, baseline)
        if others and not known:
            yield (
                f"{group.task}, {group.name}: not compared, as there is no "
                f"{baseline or 'other method'} of the same steps, batch size and training lengths."
            )


def _candidates(group: Group, groups: Sequence[Group], name: str | None) -> list[Group]:
    """The baselines of the group's task and budget; the first of all where none is named."""
    own = [g for g in groups if g.task == group.task and _budget(g) == _budget(group)]
    called = [other for other in own if _called(other, name or DEFAULT)]
    return called or (own[:1] if name is None else [])


def _distance(group: Group, other: Group) -> tuple[bool, int, bool]:
    """Sort baselines: those with samples in common, of few other fields, of the same position."""
    a, b = group.best.record, other.best.record
    first, second = config_fields(a), config_fields(b)
    keys = (first.keys() | second.keys()) - {"parameters"}  # they follow from the others
    differing = sum(first.get(key) != second.get(key) for key in keys)
    return (
        not _paired(group.best, other.best),
        differing,
        a.labels["position"] != b.labels["position"],
    )


def _budget(group: Group) -> tuple:
    settings = group.best.record.settings
    return (settings.get("steps"), settings.get("batch_size"), tuple(settings["train_lengths"]))


def _called(group: Group, name: str) -> bool:
    return name in _names(group)


def _names(group: Group) -> list[str]:
    """The label of a method, its attention, and the parts of its label: `shift=2`."""
    return [group.name, group.best.record.labels["attention"], *re.split(" · |, ", group.name)]


def _paired(first: RunResult, second: RunResult) -> dict[int, Paired]:
    """A pair for each length at which both have a value of the same samples."""
    if not _same_task(first, second):
        return {}
    pairs = {
        length: compare(first.cells[length], second.cells[length])
        for length in sorted(first.cells.keys() & second.cells.keys())
        if first.state(length) == second.state(length) == "value"
    }
    return {length: pair for length, pair in pairs.items() if pair is not None}


def _same_task(first: RunResult, second: RunResult) -> bool:
    """Tell tasks of one name but other options, whose samples are others, apart."""
    a, b = first.record.task, second.record.task
    return not a or not b or a == b
