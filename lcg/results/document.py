"""A document of tables: a table per task of the selected runs, of differences and of every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lcg.results.aggregate import Group, training_lengths
from lcg.results.measures import EXACT_MATCH, Measure, task_measures
from lcg.results.paired import Difference
from lcg.results.published import Block
from lcg.results.tables import (
    Table,
    best_table,
    difference_table,
    metric_table,
    run_table,
    samples_text,
)


@dataclass(frozen=True)
class Section:
    """Tables that show the same of several tasks, each under the name of its task."""

    tables: Sequence[tuple[str, Table]]

    @property
    def title(self) -> str:
        """The title of each table."""
        return self.tables[0][1].title

    @property
    def about(self) -> str:
        """The notes that explain each table."""
        return self.tables[0][1].about


@dataclass(frozen=True)
class Document:
    """Sections of tables, and a sentence per note."""

    sections: Sequence[Section]
    notes: Sequence[str] = ()


def document(
    groups: Sequence[Group],
    notes: Sequence[str],
    differences: Sequence[Difference],
    published: Mapping[str, Block],
    measure: Measure = EXACT_MATCH,
    whole: bool = True,
    baseline: str | None = None,
) -> Document:
    """All tables of the groups; only those of the selected runs unless `whole`.

    published: by task, the rows under ours. Differences are of exact match, and left out where
    another measure is shown. baseline: the name that was asked for.
    """
    tasks: dict[str, list[Group]] = {}
    for group in groups:
        tasks.setdefault(group.task, []).append(group)
    exact = measure == EXACT_MATCH
    best = {
        _heading(task, own): best_table(own, measure, published.get(task) if exact else None)
        for task, own in tasks.items()
    }
    sections = [_section(best)]
    if not whole:
        return Document(sections)
    records = [run.record for group in groups for run in group.runs]
    for other in task_measures(records) if exact else []:
        own = {
            task: metric_table(of, other)
            for task, of in tasks.items()
            if other in task_measures(run.record for group in of for run in group.runs)
        }
        sections.append(_section(own))
    if exact and differences:
        compared = {
            task: difference_table(found, own, baseline)
            for task, own in tasks.items()
            if (found := [each for each in differences if each.group.task == task])
        }
        sections.append(_section(compared))
    sections.append(_section({task: run_table(own, measure) for task, own in tasks.items()}))
    return Document(sections, notes)


def _section(tables: Mapping[str, Table]) -> Section:
    return Section(list(tables.items()))


def _heading(task: str, groups: Sequence[Group]) -> str:
    samples = samples_text(groups)
    behind = f", {samples} samples per length" if samples else ""
    return f"{task}, trained at {training_lengths(groups)}{behind}"
