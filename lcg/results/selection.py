"""Select the run of a group by validation only.

The rule: exact match at the monitored length, then token accuracy there (the reverse if token
accuracy is requested). Runs that tie in both are compared at the next longer validation length, and
so on. Runs that no validation distinguishes are reported as a tie. Test results are not used.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lcg.runs.record import RunRecord

METRICS = ("exact_match", "token_accuracy")  # what validation measures
MONITOR = re.compile(r"val/len_(\d+)/exact_match")


@dataclass(frozen=True)
class Choice:
    """The selected run, and how it was selected.

    monitored: the length that decides first; None if nothing was validated.
    path: the lengths that were compared, in that order; at the last one the runs separated, or all
        those tied stayed tied.
    tied: the runs that tie to the end, the selected one first; only that one if it won.
    contenders: the runs that tie at the monitored length.
    degenerate: why the monitor could not choose, or "".
    """

    record: RunRecord
    monitored: int | None
    path: tuple[int, ...]
    tied: tuple[RunRecord, ...]
    contenders: tuple[RunRecord, ...]
    degenerate: str = ""

    @property
    def resolved(self) -> bool:
        """True if validation singled out one run."""
        return len(self.tied) == 1


def choose(records: Sequence[RunRecord], metric: str = "exact_match") -> Choice:
    """Select among the runs of a group, see above; a tie goes to the lowest seed, then rate, name.

    metric: the one of METRICS that decides first.

    A run without a result at the monitored length ranks below one whose result is not finite, and
    that below any number. Lengths above it count only if all that are still tied have them.
    Raises ValueError for no runs, or another metric.
    """
    if not records:
        raise ValueError("no runs to choose from")
    if metric not in METRICS:
        raise ValueError(f"--metric {metric}: validation measures {' and '.join(METRICS)}")
    tied = sorted(records, key=lambda record: (record.seed, record.lr, record.run))
    monitored = monitored_length(tied)
    if monitored is None:
        return Choice(tied[0], None, (), tuple(tied), tuple(tied))
    degenerate = _degenerate(tied, monitored, metric)
    path, contenders = [monitored], tied
    for length in [monitored, *longer_lengths(tied, monitored)]:
        if len(tied) == 1:
            break
        if length != monitored:
            if any(length not in record.validation for record in tied):
                break
            path.append(length)
        ranks = [_rank(record, length, metric) for record in tied]
        tied = [record for record, rank in zip(tied, ranks, strict=True) if rank == max(ranks)]
        contenders = tied if length == monitored else contenders
    return Choice(tied[0], monitored, tuple(path), tuple(tied), tuple(contenders), degenerate)


def monitored_length(records: Sequence[RunRecord]) -> int | None:
    """The length most runs monitor (the longer of two); if none has it, the longest validated."""
    validated = {length for record in records for length in record.validation}
    monitors = (record.selection.monitor for record in records if record.selection)
    lengths = (int(match[1]) for match in map(MONITOR.fullmatch, monitors) if match)
    counts = Counter(length for length in lengths if length in validated)
    if counts:
        return max(counts, key=lambda length: (counts[length], length))
    return max(validated, default=None)


def longer_lengths(records: Iterable[RunRecord], length: int) -> list[int]:
    """Return all validation lengths of the runs that are above `length`, ascending."""
    return sorted({n for record in records for n in record.validation if n > length})


def _rank(record: RunRecord, length: int, metric: str) -> tuple[float, ...]:
    result = record.validation.get(length)
    if result is None:
        return (-2.0, -2.0)
    values = [getattr(result, name) for name in sorted(METRICS, key=lambda name: name != metric)]
    return tuple(-1.0 if value is None else value for value in values)


def _degenerate(records: Sequence[RunRecord], monitored: int, metric: str) -> str:
    results = [record.validation.get(monitored) for record in records]
    values = {getattr(result, metric) for result in results if result is not None}
    runs = f"all {len(records)} runs" if len(records) > 1 else "the run"
    if values == {0.0}:
        return f"{metric.replace('_', ' ')} at validation length {monitored} is 0 in {runs}"
    unmoved = all(record.selection and record.selection.degenerate for record in records)
    if metric == "exact_match" and unmoved:
        return f"exact match at validation length {monitored} chose no checkpoint in {runs}"
    return ""
