"""Runs arranged for reading: one cell per length, did it train, groups, the best of each."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lcg.results.record import Cell, RunRecord
from lcg.results.selection import Choice, choose
from lcg.results.statistics import (
    Mean,
    OverSeeds,
    effective_length,
    mean_out_of_distribution,
    over_seeds,
)

UNDER_WAY = ("running", "interrupted")
TRAINED_AT = 0.5  # in-distribution exact match below this: the run did not train
# What varies inside a group never names it; what every name begins with is not repeated.
UNTITLED = ("seed", "lr", "task", "name", "attention", "position")
CONSEQUENCES = ("parameters",)  # follow from the method: name a group only if nothing else does


@dataclass(frozen=True)
class Run:
    """A record as tables and plots read it."""

    record: RunRecord

    @cached_property
    def cells(self) -> dict[int, Cell]:
        """Length -> its cell: of the selected checkpoint, with a value, of the most samples."""
        chosen: dict[int, Cell] = {}
        for cell in sorted(self.record.ladder, key=self._preference):
            chosen.setdefault(cell.length, cell)
        return dict(sorted(chosen.items()))

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
        """Does exact match say whether it trained? Not where the task has metrics of its own: good
        translations have it seldom."""
        return not any(cell.metrics for cell in self.cells.values())

    @cached_property
    def trained(self) -> bool | None:
        """Is in-distribution exact match at least one half? None if it was never measured.

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
        """What to show at `length`: a cell state, or None if it was never evaluated.

        Beyond the training range a run that did not train is shown as that, whatever it scored.
        """
        cell = self.cells.get(length)
        if cell is None:
            return None
        measured = cell.state == "value" and length > self.record.train_max
        return "did_not_train" if measured and self.trained is False else cell.state

    def exact_match(self, length: int) -> float | None:
        """The fraction measured at `length`, or None."""
        cell = self.cells.get(length)
        return None if cell is None else cell.exact_match

    @property
    def effective_length(self) -> int | None:
        """See `statistics.effective_length`, at its default threshold."""
        return effective_length(self.cells.values())

    @property
    def mean_out_of_distribution(self) -> Mean:
        """Over the lengths beyond the training maximum."""
        return mean_out_of_distribution(self.cells.values(), self.record.train_max)


@dataclass(frozen=True)
class Group:
    """The runs of one experiment, which differ in seed and learning rate only.

    name: attention · position, and the settings that set it apart from others of its task.
    runs: by learning rate, then seed. best: the one that `choice` selects by validation.
    """

    key: str
    task: str
    name: str
    runs: tuple[Run, ...]
    best: Run
    choice: Choice

    @property
    def lr(self) -> float:
        """The selected learning rate: that of the best run."""
        return self.best.record.lr

    @property
    def seeds(self) -> tuple[Run, ...]:
        """The runs at the selected learning rate: what statistics over seeds are taken over."""
        return tuple(run for run in self.runs if run.record.lr == self.lr)

    @property
    def judged(self) -> bool:
        """Can it be said of all `seeds` whether they trained? See `Run.judged`."""
        return all(run.judged for run in self.seeds)

    @property
    def trained(self) -> int:
        """How many of `seeds` trained, where they are judged."""
        return sum(run.trained is True for run in self.seeds)

    def over_seeds(self, lengths: Iterable[int]) -> list[OverSeeds]:
        """Statistics over `seeds`: one per length, and last that of the mean beyond training.

        Of what a run is shown to have: what an untrained run scored beyond training, out of memory
        and not finite are no values, and never taken for 0.
        """
        columns = [
            [run.exact_match(n) if run.state(n) == "value" else None for run in self.seeds]
            for n in lengths
        ]
        beyond = [(run.trained, run.mean_out_of_distribution.value) for run in self.seeds]
        columns.append([None if trained is False else value for trained, value in beyond])
        return [over_seeds(column, [run.trained for run in self.seeds]) for column in columns]

    @property
    def train_range(self) -> tuple[int, int]:
        """The shortest and the longest training length."""
        return self.best.record.train_min, self.best.record.train_max

    @property
    def not_bracketed(self) -> float | None:
        """The learning rate to try next if the selected one is at the edge of a grid, else None.

        The grid continues by its own last ratio, at most tenfold; a single rate is no grid.
        """
        grid = sorted({run.record.lr for run in self.runs})
        if len(grid) < 2 or self.lr not in (grid[0], grid[-1]):
            return None
        inner = grid[1] if self.lr == grid[0] else grid[-2]
        return self.lr * min(10.0, max(0.1, self.lr / inner))


def group_runs(records: Iterable[RunRecord]) -> list[Group]:
    """Groups in the order of task, name and key. Raises ValueError if there is no record."""
    by_key: dict[tuple, list[Run]] = {}
    for record in records:
        task = record.labels["task"]
        by_key.setdefault((task, record.group), []).append(Run(record))
    if not by_key:
        raise ValueError("no runs to show")
    names: dict[tuple, str] = {}
    for task in {task for task, _ in by_key}:
        own = {key: runs[0].record for key, runs in by_key.items() if key[0] == task}
        names.update(zip(own, _names(list(own.values())), strict=True))
    groups = []
    for (task, key), runs in by_key.items():
        runs.sort(key=lambda run: (run.record.lr, run.record.seed, run.record.run))
        name = names[task, key]
        choice = choose([run.record for run in runs])
        best = next(run for run in runs if run.record is choice.record)
        groups.append(Group(key, task, name, tuple(runs), best, choice))
    return sorted(groups, key=lambda group: (group.task, group.name, group.key))


def _names(records: list[RunRecord]) -> list[str]:
    """Distinct names: the method, every setting that differs, at last the group's hash."""
    methods = [f"{r.labels['attention']} · {r.labels['position']}" for r in records]
    names = _append(methods, records, lambda key: key not in CONSEQUENCES)
    if len(set(names)) < len(names):
        names = _append(names, records, lambda key: key in CONSEQUENCES)
    repeated = {name for name, count in Counter(names).items() if count > 1}
    return [
        f"{name}, group {record.group}" if name in repeated else name
        for name, record in zip(names, records, strict=True)
    ]


def _append(names: list[str], records: list[RunRecord], wanted: Callable[[str], bool]) -> list[str]:
    """Add to each name the wanted settings and labels in which the records differ."""
    task_is_known = all(r.task for r in records)
    task = [r.task if task_is_known else {} for r in records]
    described = [
        {"kind": "decoder", **t, **r.settings, **r.labels}
        for t, r in zip(task, records, strict=True)
    ]
    keys = dict.fromkeys(key for settings in described for key in settings)
    for key in filter(wanted, keys):
        values = [setting_text(settings.get(key)) for settings in described]
        if key not in UNTITLED and len(set(values)) > 1:
            words = "train" if key == "train_lengths" else key.replace("_", " ")
            names = [f"{name}, {words} {value}" for name, value in zip(names, values, strict=True)]
    return names


def setting_text(value: Any) -> str:
    """A setting for a reader: 0.001, 8–32, —."""
    if value is None:
        return "—"
    if isinstance(value, list | tuple):
        return "–".join(setting_text(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def training_lengths(groups: Iterable[Group]) -> str:
    """The groups' training ranges in words: "length 32", "lengths 8–32 and 8–64"."""
    ranges = sorted({group.train_range for group in groups})
    texts = [str(low) if low == high else f"{low}–{high}" for low, high in ranges]
    return ("length " if texts == [str(ranges[0][0])] else "lengths ") + " and ".join(texts)
