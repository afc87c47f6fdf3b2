"""Two methods on the same test samples: their difference, and whether it is statistically
significant.

Samples that both got right, or both wrong, carry no information on the difference; only those that
exactly one got right do. All of this concerns test samples, not other training seeds.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from lcg.registry import nearest
from lcg.results.aggregate import Group, RunResult
from lcg.results.labels import config_fields
from lcg.runs.record import Cell

DEFAULT = "softmax"


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
    """Compare two cells sample by sample; None unless both have outcomes of the same samples."""
    a, b = first.bits, second.bits
    if a is None or b is None or not same_samples(first, second):
        return None
    return Paired(first.samples, (a & ~b).bit_count(), (b & ~a).bit_count())


def same_samples(first: Cell, second: Cell) -> bool:
    """Tell whether two cells are of one test set, scored in the same way."""
    return first.key[:4] == second.key[:4]  # all but the checkpoint and what was changed


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
    b, c = only_first, only_second

    def inside(delta: float) -> bool:
        linear = (2 * n - b + c) * delta - b - c
        root = math.sqrt(max(0.0, linear * linear + 8 * n * c * delta * (1 - delta)))
        q = max(0.0, -delta, (root - linear) / (4 * n))
        variance = n * (2 * q + delta * (1 - delta))
        return abs(b - c - n * delta) <= z * math.sqrt(max(0.0, variance))

    return _edge(inside, (b - c) / n, -1.0), _edge(inside, (b - c) / n, 1.0)


def _edge(inside: Callable[[float], bool], start: float, end: float) -> float:
    """Return the last point from start to end that is `inside`; start is."""
    if inside(end):
        return end
    for _ in range(60):  # to the last bit of a float
        middle = (start + end) / 2
        start, end = (middle, end) if inside(middle) else (start, middle)
    return start


# ---- baselines


@dataclass(frozen=True)
class Difference:
    """A group's selected run compared with that of its baseline, by test length."""

    group: Group
    baseline: Group
    lengths: dict[int, Paired]

    def obstacle(self, length: int) -> str:
        """Return, in a few words, why the values at a length are not compared."""
        first, second = self.group.best, self.baseline.best
        same = same_samples(first.cells[length], second.cells[length])
        return "outcomes not kept" if same and _same_task(first, second) else "other test set"


def rule(baseline: str | None = None) -> str:
    """Return the rule that selects the baseline of a method."""
    default = "softmax, or the first method if there is none (--baseline NAME chooses another)"
    return f"""\
The baseline is {baseline or default}.
It has the same steps, batch size and training lengths. Among several, one tested on the same
samples comes first, then the one whose config differs in the fewest fields, then one with the same
position encoding, then the first."""


def differences(groups: Sequence[Group], baseline: str | None = None) -> list[Difference]:
    """Each method against a baseline of its task; without lengths where no samples are shared.

    The baseline is called `baseline`: a label, an attention, or any part of a label; by default
    softmax, and without any the task's first group. Of several candidates the nearest, see `rule`;
    of several softmaxes each is compared with the nearest before it. A method that was changed at
    evaluation is by default compared with itself as it was trained. There is no comparison where
    no candidate has the same steps, batch size and training lengths, see `not_compared`.
    Raises ValueError for a baseline that no task has.
    """
    names = {name for group in groups for name in _names(group)}
    if baseline is not None and baseline not in names:
        raise ValueError(f"no method is called {baseline}; {nearest(baseline, sorted(names))}")
    compared = []
    for group in groups:
        peers = _peers(group, groups)
        candidates = [other for other in peers if (baseline or DEFAULT) in _names(other)]
        candidates = candidates or (peers[:1] if baseline is None else [])
        if group.changes and baseline is None:
            candidates = [other for other in groups if _is_unchanged(group, other)]
        elif group in candidates:
            candidates = candidates[: candidates.index(group)] if baseline is None else []
        if candidates:
            nearest_one = min(candidates, key=partial(_distance, group))
            pairs = _paired(group.best, nearest_one.best)
            compared.append(Difference(group, nearest_one, pairs))
    return compared


def not_compared(groups: Sequence[Group], baseline: str | None = None) -> Iterator[str]:
    """A sentence for each method of several that has no baseline, and is none itself."""
    for group in groups:
        peers = _peers(group, groups)
        known = any((baseline or DEFAULT) in _names(other) for other in peers)
        alone = all(other is group or other.task != group.task for other in groups)
        if not (alone or known or (baseline is None and len(peers) > 1)):
            yield (
                f"{group.task}, {group.name}: not compared, because there is no "
                f"{baseline or 'other method'} with the same steps, batch size and lengths."
            )


def _peers(group: Group, groups: Sequence[Group]) -> list[Group]:
    """Return the groups of the same task and budget, this one included."""

    def budget(group: Group) -> tuple:
        settings = group.best.record.settings
        return group.task, settings.get("steps"), settings.get("batch_size"), group.train_range

    return [other for other in groups if budget(other) == budget(group)]


def _distance(group: Group, other: Group) -> tuple[bool, int, bool]:
    """Return a sort key of baselines: samples in common, few other fields, the same position."""
    a, b = group.best.record, other.best.record
    first, second = config_fields(a), config_fields(b)
    keys = (first.keys() | second.keys()) - {"parameters"}  # they follow from the others
    differing = sum(first.get(key) != second.get(key) for key in keys)
    other_position = a.labels["position"] != b.labels["position"]
    return not _paired(group.best, other.best), differing, other_position


def _names(group: Group) -> list[str]:
    """Return the label of a method, its attention, and the parts of its label: `shift=2`.

    For one that was changed at evaluation, only the label of the change.
    """
    if group.changes:
        _, change = group.name.split(" → ", 1)
        return [group.name, change, *re.split(", ", change.removesuffix(" at evaluation"))]
    return [group.name, group.best.record.labels["attention"], *re.split(" · |, ", group.name)]


def _is_unchanged(group: Group, other: Group) -> bool:
    """Tell whether a group is the unchanged method of a changed one."""
    return not other.changes and (other.task, other.key) == (group.task, group.key)


def _paired(first: RunResult, second: RunResult) -> dict[int, Paired]:
    """A pair for each length at which both have a value of the same samples."""
    shared = sorted(first.cells.keys() & second.cells.keys()) if _same_task(first, second) else ()
    pairs = {length: compare(first.cells[length], second.cells[length]) for length in shared}
    return {length: pair for length, pair in pairs.items() if pair is not None}


def _same_task(first: RunResult, second: RunResult) -> bool:
    """Tell tasks of the same name with other options, and so other samples, apart."""
    a, b = first.record.task, second.record.task
    return not a or not b or a == b
