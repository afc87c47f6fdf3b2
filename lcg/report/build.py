"""From runs to a page: which figures there are, drawn one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from lcg.report import accuracy, heads, learning_rate, loss, maps, provenance
from lcg.report.page import Block, page
from lcg.report.sources import Series, Sources, read_metrics
from lcg.report.tables import html_table
from lcg.results.aggregate import Group, group_runs, training_lengths
from lcg.results.figure import Drawing, Planned
from lcg.results.measures import EXACT_MATCH, Measure, measure_named, task_measures
from lcg.results.notes import notes, published_notes
from lcg.results.paired import Difference, differences, not_compared
from lcg.results.plot import method_styles
from lcg.results.published import Block as Published
from lcg.results.published import published_beside
from lcg.results.tables import best_table, difference_table, metric_table, run_table

RESULTS, TRAINING, MAPS = "results", "Over training", "Attention maps"


@dataclass(frozen=True)
class Report:
    """A finished page and the figures in it."""

    html: str
    drawings: tuple[Drawing, ...]


@dataclass
class _Task:
    """What one task's part of the page is made of; `drawn` and `missing` fill as figures are."""

    name: str
    anchor: str
    groups: list[Group]
    drawn: dict[str, list[Drawing]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def make(
    sources: Sources,
    command: str,
    made: datetime,
    choice: maps.MapChoice | None,
    watch: Callable[[list[Planned]], Iterable[Planned]] = lambda planned: planned,
    metric: str = EXACT_MATCH.name,
    baseline: str | None = None,
) -> Report:
    """The page of all runs. choice: of attention maps, None leaves them out.

    metric: what tables and figures show of every length. baseline: see `differences`.

    watch: wraps the list of figures, each of which is drawn as it is reached: a progress bar.
    """
    groups = group_runs(sources.records)
    measure = measure_named(metric, sources.records)
    compared = differences(groups, baseline) if measure == EXACT_MATCH else []
    styles = method_styles(groups)
    tasks = _tasks(groups)
    plans = [
        (task, *plan) for task in tasks for plan in _plan(task, styles, sources, choice, measure)
    ]
    for (task, part, _), planned in zip(plans, watch([plan[2] for plan in plans]), strict=True):
        drawn = planned.draw()
        if isinstance(drawn, Drawing):
            task.drawn.setdefault(part, []).append(drawn)
        else:
            task.missing.append(drawn)
    beside = published_beside(groups)
    blocks = [
        _block(task, styles, beside.get(task.name), compared, measure, baseline) for task in tasks
    ]
    alone = not_compared(groups, baseline) if measure == EXACT_MATCH else []
    missing = [line for task in tasks for line in task.missing]
    html = page(
        _title(tasks),
        _lead(groups, tasks),
        sources.problems,
        blocks,
        [*notes(groups, measure), *published_notes(groups, beside), *alone, *missing],
        provenance.section(groups, sources, command, made),
    )
    return Report(html, tuple(d for t in tasks for part in t.drawn.values() for d in part))


def _tasks(groups: list[Group]) -> list[_Task]:
    """The tasks in order, each with an anchor of its own whatever its name is made of."""
    tasks: dict[str, _Task] = {}
    for group in groups:
        slug = re.sub(r"[^a-z0-9]+", "-", group.task.lower()).strip("-")
        anchor = f"task-{len(tasks) + 1}{'-' * bool(slug)}{slug}"
        tasks.setdefault(group.task, _Task(group.task, anchor, [])).groups.append(group)
    return list(tasks.values())


def _plan(
    task: _Task,
    styles: dict,
    sources: Sources,
    choice: maps.MapChoice | None,
    measure: Measure,
) -> Iterator[tuple[str, Planned]]:
    """The figures of a task with the part of the block that each belongs to."""
    names = _names(task)
    own = (task.name, task.groups, styles)
    lengths = partial(accuracy.draw, f"{task.anchor}-accuracy", *own, measure)
    yield RESULTS, Planned("accuracy", lengths)
    rates = partial(learning_rate.draw, f"{task.anchor}-learning-rate", *own, measure)
    yield RESULTS, Planned("learning rates", rates)
    series = {
        run.record.run: read_metrics(sources.directory(run.record), _is_drawn)
        for group in task.groups
        for run in group.seeds
    }
    curves = partial(loss.draw, f"{task.anchor}-loss", *own, series)
    yield TRAINING, Planned("loss", curves)
    yield from _plan_heads(task, names, styles, series)
    if choice is not None:
        for group, name in zip(task.groups, names, strict=True):
            directory = sources.directory(group.best.record)
            drawing = partial(maps.draw, f"{name}-maps", group, directory, choice)
            yield MAPS, Planned("attention maps", drawing)


def _is_drawn(column: str) -> bool:
    return column == loss.LOSS or heads.is_shown(column)


def _plan_heads(
    task: _Task, names: list[str], styles: dict, series: dict[str, Series]
) -> Iterator[tuple[str, Planned]]:
    for group, name in zip(task.groups, names, strict=True):
        columns = series[group.best.record.run]
        drawing = partial(heads.draw, f"{name}-heads", group, styles[group.name], columns)
        yield TRAINING, Planned("heads", drawing)


def _names(task: _Task) -> list[str]:
    return [f"{task.anchor}-method-{index + 1}" for index in range(len(task.groups))]


def _block(
    task: _Task,
    styles: dict,
    beside: Published | None,
    compared: list[Difference],
    measure: Measure,
    baseline: str | None,
) -> Block:
    runs = sum(len(group.runs) for group in task.groups)
    about = (
        f"Trained at {training_lengths(task.groups)}. {_count(len(task.groups), 'method')}, "
        f"{_count(runs, 'run')}. Validation selects one run of each method over seeds and "
        "learning rates; test results play no part in it."
    )
    exact = measure == EXACT_MATCH
    tables = [best_table(task.groups, measure, beside if exact else None)]
    records = [run.record for group in task.groups for run in group.runs]
    tables += [metric_table(task.groups, other) for other in task_measures(records) if exact]
    if own := [difference for difference in compared if difference.group.task == task.name]:
        tables.append(difference_table(own, task.groups, baseline))
    tables.append(run_table(task.groups, measure))
    parts = [(table.title, html_table(table, styles), table is tables[-1]) for table in tables]
    return Block(
        anchor=task.anchor,
        title=task.name,
        about=about,
        results=task.drawn.get(RESULTS, []),
        tables=parts,
        more=[(part, task.drawn.get(part, [])) for part in (TRAINING, MAPS)],
    )


def _title(tasks: list[_Task]) -> str:
    return f"Length generalization: {', '.join(task.name for task in tasks)}"


def _lead(groups: list[Group], tasks: list[_Task]) -> str:
    runs = [run for group in groups for run in group.runs]
    seeds = {run.record.seed for run in runs}
    return (
        f"{_count(len(runs), 'run')} of {_count(len({g.name for g in groups}), 'method')} on "
        f"{_count(len(tasks), 'task')}, {_count(len(seeds), 'seed')}. Trained on short "
        "sequences, how far does each carry?"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
