"""From runs to a page: find them, draw the figures one by one, fill the template."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from lcg.report import figures, maps
from lcg.report.figures import Drawing
from lcg.results.aggregate import Group, training_lengths
from lcg.results.plot import method_styles
from lcg.results.statistics import EXACT_MATCH, Measure
from lcg.results.table import Comparison, compare_runs
from lcg.results.tables import NOTHING, Table, state_text
from lcg.runs.provenance import package_version
from lcg.runs.record import RecordError, RunRecord
from lcg.runs.run import Run

TEMPLATE = "report.html.j2"
RESULTS, TRAINING, MAPS = "", "Over training", "Attention maps"  # headings above figures
GLYPHS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "h": "⬢"}
PACKAGES = ("lcg", "torch", "lightning", "wandb")  # whose versions are shown


@dataclass(frozen=True)
class Report:
    """A finished page and the figures in it."""

    html: str
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True)
class Sources:
    """Runs that can be read, and one line for every one that cannot."""

    runs: tuple[Run, ...]
    problems: tuple[str, ...]

    @property
    def records(self) -> list[RunRecord]:
        """The record of each run."""
        return [run.record for run in self.runs]


def find(paths: Iterable[str | os.PathLike]) -> Sources:
    """Every run at or below `paths`; what cannot be read is told and left out.

    Raises ValueError if no run is left.
    """
    problems: list[str] = []
    try:
        return Sources(tuple(Run.find(paths, problems.append)), tuple(problems))
    except RecordError as error:
        raise ValueError(" | ".join(["no runs to report", *problems, str(error)])) from None


@dataclass
class _Task:
    """One task's part of the page; `figures` fill as they are drawn, by their heading."""

    name: str
    anchor: str
    groups: list[Group] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, list[Drawing]] = field(
        default_factory=lambda: {RESULTS: [], TRAINING: [], MAPS: []}
    )

    @property
    def about(self) -> str:
        runs = sum(len(group.runs) for group in self.groups)
        return (
            f"Trained at {training_lengths(self.groups)}. {_count(len(self.groups), 'method')}, "
            f"{_count(runs, 'run')}. Validation selects one run of each method over seeds and "
            "learning rates; test results play no part in it."
        )


@dataclass(frozen=True)
class Planned:
    """A figure that `draw` makes, or says in a line why it cannot, and the list it goes to."""

    title: str
    place: list[Drawing]
    draw: Callable[[], Drawing | str]


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
    import matplotlib

    shown = compare_runs(sources.records, metric, baseline)
    styles = method_styles(shown.groups)
    runs = {(run.record.run, run.record.hash): run for run in sources.runs}
    tasks = _tasks(shown)
    drawings, missing = [], []
    plan = [each for task in tasks for each in _plan(task, styles, runs, choice, shown.measure)]
    for planned in watch(plan):
        with matplotlib.rc_context(figures.LOOK):
            drawn = planned.draw()
        if isinstance(drawn, Drawing):
            drawings.append(drawn)
            planned.place.append(drawn)
        else:
            missing.append(drawn)
    html = _render(
        title=f"Length generalization: {', '.join(task.name for task in tasks)}",
        lead=_lead(shown.groups),
        problems=sources.problems,
        tasks=tasks,
        styles=styles,
        notes=[*shown.notes, *missing],
        command=command,
        made=made,
        provenance=[_provenance(runs[run.key]) for group in shown.groups for run in group.runs],
    )
    return Report(html, tuple(drawings))


def _tasks(shown: Comparison) -> list[_Task]:
    """The tasks in order, each with an anchor of its own whatever its name is made of."""
    tasks: dict[str, _Task] = {}
    for group in shown.groups:
        slug = re.sub(r"[^a-z0-9]+", "-", group.task.lower()).strip("-")
        anchor = f"task-{len(tasks) + 1}{'-' * bool(slug)}{slug}"
        tasks.setdefault(group.task, _Task(group.task, anchor)).groups.append(group)
    for table in shown.tables:
        tasks[table.task].tables.append(table)
    return list(tasks.values())


def _plan(
    task: _Task,
    styles: figures.Styles,
    runs: dict[tuple[str, str], Run],
    choice: maps.MapChoice | None,
    measure: Measure,
) -> Iterator[Planned]:
    """The figures of a task."""

    def planned(title: str, place: str, draw: Callable, name: str, *arguments: Any) -> Planned:
        return Planned(title, task.figures[place], partial(draw, name, *arguments))

    own = (task.groups, styles)
    name = f"{task.anchor}-accuracy"
    yield planned("accuracy", RESULTS, figures.draw_accuracy, name, *own, measure)
    name = f"{task.anchor}-learning-rate"
    yield planned("learning rates", RESULTS, figures.draw_learning_rates, name, *own, measure)
    series = {
        run.record.run: runs[run.key].curves(figures.is_drawn)
        for group in task.groups
        for run in group.seeds
    }
    yield planned("loss", TRAINING, figures.draw_loss, f"{task.anchor}-loss", *own, series)
    for number, group in enumerate(task.groups, 1):
        shown = (group, styles[group.name], series[group.best.record.run])
        name = f"{task.anchor}-method-{number}-heads"
        yield planned("heads", TRAINING, figures.draw_heads, name, *shown)
    if choice is not None:
        for number, group in enumerate(task.groups, 1):
            shown = (group, runs[group.best.key], choice)
            name = f"{task.anchor}-method-{number}-maps"
            yield planned("attention maps", MAPS, maps.draw, name, *shown)


def _render(**page: Any) -> str:
    """The template filled in."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    environment.globals["glyphs"] = GLYPHS
    versions = f"lcg {package_version('lcg')}, Python {platform.python_version()}"
    environment.globals["versions"] = versions
    return environment.get_template(TEMPLATE).render(page) + "\n"


def _code(text: str) -> str:
    """A note with what it has between backquotes set as code."""
    from markupsafe import Markup

    parts = re.split(r"`([^`]*)`", text)
    code = Markup("<code>{}</code>").format
    return Markup().join(code(part) if i % 2 else part for i, part in enumerate(parts))


def _lead(groups: list[Group]) -> str:
    records = [run.record for group in groups for run in group.runs]
    return (
        f"{_count(len(records), 'run')} of {_count(len({g.name for g in groups}), 'method')} on "
        f"{_count(len({g.task for g in groups}), 'task')}, "
        f"{_count(len({record.seed for record in records}), 'seed')}. Trained on short "
        "sequences, how far does each carry?"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _provenance(run: Run) -> dict[str, str]:
    """The origin of a run's numbers; its date is that of training unless files were copied."""
    training, written = run.record.training, run.provenance
    git, packages = written.get("git") or {}, written.get("packages")
    changed = ", changed files" if git.get("dirty") else ""
    try:
        stamp = run.metrics_file.stat().st_mtime
        date = f"{datetime.fromtimestamp(stamp, UTC):%Y-%m-%d %H:%M}"
    except OSError:
        date = NOTHING
    shown = [f"{name} {packages[name]}" for name in PACKAGES if name in (packages or {})]
    return {
        "run": run.record.run,
        "hash": run.record.hash,
        "group": run.record.group,
        "state": state_text(training.status),
        "steps": str(training.step),
        "seconds": f"{training.seconds:.0f}",
        "device": str(written.get("device_name") or training.device or NOTHING),
        "code": str(written.get("code") or NOTHING),
        "git commit": f"{str(git['commit'])[:12]}{changed}" if git.get("commit") else NOTHING,
        "versions": NOTHING if packages is None else ", ".join(shown),
        "last step written (UTC)": date,
    }
