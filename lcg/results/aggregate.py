"""Runs arranged for reading: one cell per length, did it train, groups, the best of each."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from lcg.results.labels import labels
from lcg.results.selection import Choice, choose
from lcg.results.statistics import (
    EXACT_MATCH,
    Mean,
    Measure,
    OverSeeds,
    effective_length,
    mean_out_of_distribution,
    over_seeds,
)
from lcg.runs.presets import named
from lcg.runs.record import Cell, RunRecord

UNDER_WAY = ("running", "interrupted")
TRAINED_AT = 0.5  # in-distribution exact match below this: the run did not train


@dataclass(frozen=True)
class RunResult:
    """A record as tables and plots read it: one cell per length, and did it train?"""

    record: RunRecord

    @cached_property
    def cells(self) -> dict[int, Cell]:
        """Length -> its cell: of the selected checkpoint, with a value, of the most samples."""
        chosen: dict[int, Cell] = {}
        for cell in sorted(self.record.ladder, key=self._preference):
            chosen.setdefault(cell.length, cell)
        return dict(sorted(chosen.items()))

    @property
    def key(self) -> tuple[str, str]:
        """Name and hash: two runs that differ in neither are one."""
        return self.record.run, self.record.hash

    def _preference(self, cell: Cell) -> tuple:
        selection = self.record.selection
        return (
            selection is not None and cell.step != selection.step,
            cell.state != "value",
            -cell.samples,
            cell.decode != "teacher_forcing",
            cell.seed,
            -(cell.step or 0),
        )

    @property
    def judged(self) -> bool:
        """True if exact match says whether it trained; not where the task has metrics of its own:
        good translations seldom match exactly."""
        return not any(cell.metrics for cell in self.cells.values())

    @cached_property
    def trained(self) -> bool | None:
        """True if in-distribution exact match is at least one half; None if it was never measured.

        Of runs that are not judged by it, only one that was not finite did not train.

        Read at the shortest test length within the training range, else at the longest such
        validation length. A length shorter than any in training says nothing.
        """
        if not self.judged:
            return False if self.record.training.status == "not_finite" else None
        shortest, longest = self.record.train_min, self.record.train_max
        for length, cell in self.cells.items():
            inside = shortest <= length <= longest
            if inside and cell.state in ("did_not_train", "not_finite"):
                return False
            if inside and cell.exact_match is not None:
                return cell.exact_match >= TRAINED_AT
        if self.record.training.status in UNDER_WAY:  # too early to say
            return None
        validation = self.record.validation
        for length in sorted((n for n in validation if shortest <= n <= longest), reverse=True):
            if validation[length].exact_match is not None:
                return validation[length].exact_match >= TRAINED_AT
        failed = any(cell.state == "did_not_train" for cell in self.cells.values())
        return False if failed or self.record.training.status == "not_finite" else None

    def state(self, length: int) -> str | None:
        """The state of the cell at `length`, or None if it was never evaluated."""
        cell = self.cells.get(length)
        return None if cell is None else cell.state

    def value(self, length: int, measure: Measure = EXACT_MATCH) -> float | None:
        """A measure at `length` as a fraction, or None."""
        cell = self.cells.get(length)
        return None if cell is None else measure.of(cell)

    def effective_length(self, measure: Measure = EXACT_MATCH) -> int | None:
        """See `statistics.effective_length`, at its default threshold."""
        return effective_length(self.cells.values(), measure=measure)

    def mean_out_of_distribution(self, measure: Measure = EXACT_MATCH) -> Mean:
        """The mean of a measure over the lengths beyond the training maximum."""
        return mean_out_of_distribution(self.cells.values(), self.record.train_max, measure=measure)


@dataclass(frozen=True)
class Group:
    """The runs of one experiment, which differ in seed and learning rate only.

    name: its label among the groups of its task, see `labels`.
    runs: by learning rate, then seed. best: the one that `choice` selects by validation.
    """

    key: str
    task: str
    name: str
    runs: tuple[RunResult, ...]
    best: RunResult
    choice: Choice

    @property
    def lr(self) -> float:
        """The selected learning rate: that of the best run."""
        return self.best.record.lr

    @property
    def seeds(self) -> tuple[RunResult, ...]:
        """The runs at the selected learning rate: what statistics over seeds are taken over."""
        return tuple(run for run in self.runs if run.record.lr == self.lr)

    @property
    def judged(self) -> bool:
        """True if all `seeds` are judged, see `RunResult.judged`."""
        return all(run.judged for run in self.seeds)

    @property
    def trained(self) -> int:
        """The number of `seeds` that trained, where they are judged."""
        return sum(run.trained is True for run in self.seeds)

    @property
    def unknown(self) -> int:
        """The number of `seeds` of which it cannot be said whether they trained."""
        return sum(run.trained is None for run in self.seeds)

    @property
    def untrained(self) -> bool:
        """True if any of `seeds` did not train."""
        return any(run.trained is False for run in self.seeds)

    def over_seeds(self, lengths: Iterable[int], measure: Measure = EXACT_MATCH) -> list[OverSeeds]:
        """Statistics over `seeds`: one per length, and last that of the mean beyond training.

        Over every value there is, those of runs that did not train included; what was skipped, ran
        out of memory or was not finite is no value, and never taken for 0.
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

        The grid continues by its own last ratio, at most tenfold; a single rate is no grid.
        """
        grid = sorted({run.record.lr for run in self.runs})
        if len(grid) < 2 or self.lr not in (grid[0], grid[-1]):
            return None
        inner = grid[1] if self.lr == grid[0] else grid[-2]
        return self.lr * min(10.0, max(0.1, self.lr / inner))


def group_runs(records: Iterable[RunRecord], selected_by: str = "exact_match") -> list[Group]:
    """Groups in the order of task and name; `selected_by`: see `choose`.

    Raises ValueError if there is no record.
    """
    together: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        together.setdefault((record.labels["task"], record.group), []).append(record)
    if not together:
        raise ValueError("no runs to show")
    by_key = {key: [RunResult(record) for record in named(own)] for key, own in together.items()}
    for runs in by_key.values():
        runs.sort(key=lambda run: (run.record.lr, run.record.seed, run.record.run))
    names: dict[tuple[str, str], str] = {}
    for task in {task for task, _ in by_key}:
        own = sorted(key for key in by_key if key[0] == task)
        names.update(zip(own, labels([by_key[key][0].record for key in own]), strict=True))
    groups = []
    for (task, key), runs in by_key.items():
        choice = choose([run.record for run in runs], selected_by)
        best = next(run for run in runs if run.record is choice.record)
        groups.append(Group(key, task, names[task, key], tuple(runs), best, choice))
    return sorted(groups, key=lambda group: (group.task, _natural(group.name), group.key))


def _natural(name: str) -> list[tuple[float, str]]:
    """A key that sorts alpha=1.5 before alpha=10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]


def training_lengths(groups: Iterable[Group]) -> str:
    """The groups' training ranges in words: "length 32", "lengths 8–32 and 8–64"."""
    ranges = sorted({group.train_range for group in groups})
    texts = [str(low) if low == high else f"{low}–{high}" for low, high in ranges]
    return ("length " if texts == [str(ranges[0][0])] else "lengths ") + " and ".join(texts)
