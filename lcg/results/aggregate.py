"""Runs arranged for tables: one cell per length, whether it trained, groups, the best of each."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lcg.results.labels import change_labels, labels
from lcg.results.selection import Choice, choose
from lcg.results.statistics import (
    EXACT_MATCH,
    OF_BASE,
    Mean,
    Measure,
    OverSeeds,
    base_value,
    effective_length,
    mean,
    nnch_score,
    over_seeds,
)
from lcg.runs.presets import named
from lcg.runs.record import Cell, RunRecord

TRAINED_AT = 0.5  # in-distribution exact match below this: the run did not train


@dataclass(frozen=True)
class RunResult:
    """A record for tables and plots: one cell per length, and whether the run trained.

    changes: its cells are those of the run evaluated with these changes, see `Cell`; {}: unchanged.
    """

    record: RunRecord
    changes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def cells(self) -> dict[int, Cell]:
        """Length -> its cell: of the selected checkpoint, with a value, of the most samples."""
        selection = self.record.selection

        def preference(cell: Cell) -> tuple:
            return (
                selection is not None and cell.step != selection.step,
                cell.state != "value",
                -cell.samples,
                cell.decode != "teacher_forcing",
                cell.seed,
                -(cell.step or 0),
            )

        cells = (cell for cell in self.record.ladder if cell.changes == self.changes)
        ladder = sorted(cells, key=preference, reverse=True)  # the last one stays
        return dict(sorted({cell.length: cell for cell in ladder}.items()))

    @property
    def key(self) -> tuple[str, str]:
        """Name and hash: two runs with equal ones are the same run."""
        return self.record.run, self.record.hash

    @property
    def judged(self) -> bool:
        """True if exact match determines whether it trained.

        It does not if the task has metrics of its own: good translations seldom match exactly.
        """
        return not any(cell.metrics for cell in self.cells.values())

    @cached_property
    def trained(self) -> bool | None:
        """True if in-distribution exact match is at least one half; None if it was never measured.

        It is that of the shortest test length within the training range, else of the longest such
        validation length. Lengths shorter than any in training are ignored. A run that is not
        judged by exact match counts as not trained only if it was not finite. Changes at evaluation
        are ignored.
        """
        if self.changes:
            return RunResult(self.record).trained
        record, status = self.record, self.record.training.status
        diverged = False if status == "not_finite" else None
        if not self.judged:
            return diverged
        inside = range(record.train_min, record.train_max + 1)
        for cell in (self.cells[length] for length in self.cells if length in inside):
            if cell.state in ("did_not_train", "not_finite"):
                return False
            if cell.exact_match is not None:
                return cell.exact_match >= TRAINED_AT
        if status in ("running", "interrupted"):  # too early to say
            return None
        validated = [
            result.exact_match
            for length, result in sorted(record.validation.items())
            if length in inside and result.exact_match is not None
        ]
        if validated:
            return validated[-1] >= TRAINED_AT
        failed = any(cell.state == "did_not_train" for cell in self.cells.values())
        return False if failed else diverged

    def state(self, length: int) -> str | None:
        """The state of the cell at `length`, or None if it was never evaluated."""
        cell = self.cells.get(length)
        return None if cell is None else cell.state

    def value(self, length: int, measure: Measure = EXACT_MATCH) -> float | None:
        """A measure at `length` as a fraction, or None."""
        cell = self.cells.get(length)
        return None if cell is None else measure.of(cell)

    def effective_length(self, measure: Measure = EXACT_MATCH, of_base: bool = False) -> int | None:
        """See `statistics.effective_length`; of_base: what counts is 85 % of the base value, the
        best within the training lengths, and where that is 0 or unknown no length does."""
        if not of_base:
            return effective_length(self.cells.values(), measure=measure)
        base = base_value(self.cells.values(), self.record.train_max, measure)
        return effective_length(self.cells.values(), OF_BASE * base, measure) if base else None

    @property
    def nnch_score(self) -> float | None:
        """See `statistics.nnch_score`."""
        return nnch_score(self.cells.values(), self.record.train_max)

    def mean_out_of_distribution(
        self, measure: Measure = EXACT_MATCH, lengths: Iterable[int] = ()
    ) -> Mean:
        """The mean of a measure over those of `lengths` (by default its own) beyond the training
        maximum; `n` < `of` if some have no value."""
        beyond = (n for n in lengths or self.cells if n > self.record.train_max)
        return mean(self.value(n, measure) for n in beyond)


@dataclass(frozen=True)
class Group:
    """The runs of one experiment, which differ in seed and learning rate only.

    name: its label among the groups of its task, see `labels`. changes: at evaluation, see `Cell`;
    {}: none. runs: by learning rate, then seed. best: the run that `choice` selects by validation.
    """

    key: str
    task: str
    name: str
    runs: tuple[RunResult, ...]
    best: RunResult
    choice: Choice
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def lr(self) -> float:
        """The selected learning rate: that of the best run."""
        return self.best.record.lr

    @cached_property
    def seeds(self) -> tuple[RunResult, ...]:
        """The runs at the selected learning rate, over which statistics are taken."""
        return tuple(run for run in self.runs if run.record.lr == self.lr)

    @property
    def trained(self) -> int:
        """The number of `seeds` that trained."""
        return sum(run.trained is True for run in self.seeds)

    @property
    def untrained(self) -> bool:
        """True if any of `seeds` did not train."""
        return any(run.trained is False for run in self.seeds)

    @property
    def counts(self) -> dict[str, int] | None:
        """Count of `seeds` that trained, k of n, and of how many it is unknown; None if of all, or
        where not all are judged."""
        n, unknown = len(self.seeds), sum(run.trained is None for run in self.seeds)
        known = unknown < n and all(run.judged for run in self.seeds)
        return {"k": self.trained, "n": n, "unknown": unknown} if known else None

    @cached_property
    def lengths(self) -> list[int]:
        """All lengths at which any of `seeds` was evaluated."""
        return sorted({length for run in self.seeds for length in run.cells})

    def over_seeds(self, lengths: Iterable[int], measure: Measure = EXACT_MATCH) -> list[OverSeeds]:
        """Return statistics over `seeds`: one per length, and last that of the mean beyond
        training.

        Runs that did not train are included; lengths that were skipped, ran out of memory or were
        not finite have no value and are never counted as 0.
        """
        columns = [[run.value(n, measure) for run in self.seeds] for n in lengths]
        columns.append([run.mean_out_of_distribution(measure).value for run in self.seeds])
        return [over_seeds(column, [run.trained for run in self.seeds]) for column in columns]

    @property
    def train_range(self) -> tuple[int, int]:
        """The shortest and the longest training length."""
        return self.best.record.train_min, self.best.record.train_max

    @property
    def beyond_grid(self) -> float | None:
        """The learning rate to try next if the selected one is at the edge of a grid, else None.

        It continues the grid by its last ratio, at most tenfold; a single rate is not a grid.
        """
        grid = sorted({run.record.lr for run in self.runs})
        if len(grid) < 2 or self.lr not in (grid[0], grid[-1]):
            return None
        inner = grid[1] if self.lr == grid[0] else grid[-2]
        return self.lr * min(10.0, max(0.1, self.lr / inner))


def group_runs(records: Iterable[RunRecord], selected_by: str = "exact_match") -> list[Group]:
    """Return groups in the order of task and name; `selected_by`: see `choose`.

    Evaluations of a group's runs with changed options are groups of their own, after it.

    Raises ValueError if there is no record.
    """
    tasks: dict[str, dict[str, list[RunRecord]]] = {}
    for record in records:
        tasks.setdefault(record.labels["task"], {}).setdefault(record.group, []).append(record)
    if not tasks:
        raise ValueError("no runs to show")
    groups = []
    for task, together in tasks.items():
        by_key = {
            key: sorted(named(own), key=lambda record: (record.lr, record.seed, record.run))
            for key, own in sorted(together.items())
        }
        names = labels([own[0] for own in by_key.values()])
        for (key, own), name in zip(by_key.items(), names, strict=True):
            cells = [cell for record in own for cell in record.ladder if cell.changes]
            changes = list({cell.key[5]: cell.changes for cell in cells}.values())
            endings = (f" → {label} at evaluation" for label in change_labels(changes))
            for each, ending in zip([{}, *changes], ["", *endings], strict=True):
                evaluated = [r for r in own if not each or any(each == c.changes for c in r.ladder)]
                choice = choose(evaluated, selected_by)
                runs = tuple(RunResult(record, each) for record in evaluated)
                best = next(run for run in runs if run.record is choice.record)
                groups.append(Group(key, task, name + ending, runs, best, choice, each))
    return sorted(groups, key=lambda group: (group.task, _natural(group.name), group.key))


def _natural(name: str) -> list[tuple[float, str]]:
    """A key that sorts alpha=1.5 before alpha=10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]


def training_lengths(groups: Sequence[Group]) -> str:
    """The groups' training ranges in words: "length 32", "lengths 8–32 and 8–64"."""
    ranges = sorted({group.train_range for group in groups})
    texts = [str(low) if low == high else f"{low}–{high}" for low, high in ranges]
    return ("length " if texts == [str(ranges[0][0])] else "lengths ") + " and ".join(texts)
