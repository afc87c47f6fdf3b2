"""The selected runs of two methods, compared on the test samples they share."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lcg.registry import nearest
from lcg.results.groups import Group, Run
from lcg.results.paired import Paired, compare

DEFAULT = "softmax"
RULE = """\
The baseline is softmax, or the first method where there is none (--baseline NAME chooses another);
of several the one of the same position encoding, always of the same steps, batch size and training
lengths."""


@dataclass(frozen=True)
class Difference:
    """A group's selected run against that of its baseline, by test length."""

    group: Group
    baseline: Group
    lengths: dict[int, Paired]


def differences(groups: Sequence[Group], baseline: str | None = None) -> list[Difference]:
    """Each method against a baseline of its task, where they have test lengths in common.

    The baseline is called `baseline`: a label, an attention, or any part of a label; by default
    softmax, and without any the task's first group. Of several, the one of the same position (else
    the first), and only one of the same budget and training lengths: steps, batch size; where none
    is, there is no comparison. Raises ValueError for a baseline that no task has.
    """
    if baseline is not None and not any(_called(group, baseline) for group in groups):
        names = {name for group in groups for name in _names(group)}
        raise ValueError(f"no method is called {baseline}; {nearest(baseline, sorted(names))}")
    found = []
    for group in groups:
        own = [other for other in groups if other.task == group.task]
        against = _baseline(group, own, baseline)
        if against is not None and against is not group:
            lengths = _paired(group.best, against.best)
            if lengths:
                found.append(Difference(group, against, lengths))
    return found


def _baseline(group: Group, own: Sequence[Group], name: str | None) -> Group | None:
    own = [other for other in own if _budget(other) == _budget(group)]
    candidates = [other for other in own if _called(other, name or DEFAULT)]
    if not candidates:
        return own[0] if name is None else None
    if group in candidates:
        return group if name is not None else candidates[0]
    position = group.best.record.labels["position"]
    same = [g for g in candidates if g.best.record.labels["position"] == position]
    return (same or candidates)[0]


def _budget(group: Group) -> tuple:
    settings = group.best.record.settings
    return (settings.get("steps"), settings.get("batch_size"), tuple(settings["train_lengths"]))


def _called(group: Group, name: str) -> bool:
    return name in _names(group)


def _names(group: Group) -> list[str]:
    """The label of a method, its attention, and the parts of its label: `shift=2`."""
    return [group.name, group.best.record.labels["attention"], *re.split(" · |, ", group.name)]


def _paired(first: Run, second: Run) -> dict[int, Paired]:
    """Where both have a value and saw the same samples.

    Tasks of one name but other options have other samples.
    """
    a, b = first.record.task, second.record.task
    if a and b and a != b:
        return {}
    lengths = {}
    for length in first.cells.keys() & second.cells.keys():
        if first.state(length) == second.state(length) == "value":
            pair = compare(first.cells[length], second.cells[length])
            if pair is not None:
                lengths[length] = pair
    return dict(sorted(lengths.items()))
