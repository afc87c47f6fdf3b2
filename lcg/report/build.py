"""Build the page: find the runs, draw the figures one by one, fill the template."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lcg.report import figures, maps
from lcg.report.figures import Drawing
from lcg.results.aggregate import Group, training_lengths
from lcg.results.breakdown import BREAKDOWNS
from lcg.results.plot import method_styles
from lcg.results.statistics import EXACT_MATCH, Measure
from lcg.results.table import compare_runs
from lcg.results.tables import NOTHING, Table
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
    """The runs that can be read, and one line for every one that cannot."""

    runs: tuple[Run, ...]
    problems: tuple[str, ...]

    @property
    def records(self) -> list[RunRecord]:
        """The record of each run."""
        return [run.record for run in self.runs]


def find(paths: Iterable[str | os.PathLike]) -> Sources:
    """Find every run at or below `paths`; runs that cannot be read are logged and left out.

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


class Planned(NamedTuple):
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
    tasks: dict[str, _Task] = {}
    for group in shown.groups:  # an anchor of its own for each, whatever its name is made of
        slug = re.sub(r"[^a-z0-9]+", "-", group.task.lower()).strip("-")
        anchor = f"task-{len(tasks) + 1}{'-' * bool(slug)}{slug}"
        tasks.setdefault(group.task, _Task(group.task, anchor)).groups.append(group)
    for table in shown.tables:
        tasks[table.task].tables.append(table)
    plans = (_plan(task, styles, runs, choice, shown.measure) for task in tasks.values())
    drawings, missing = [], []
    for planned in watch([each for plan in plans for each in plan]):
        with matplotlib.rc_context(figures.LOOK):
            drawn = planned.draw()
        if isinstance(drawn, Drawing):
            drawings.append(drawn)
            planned.place.append(drawn)
        else:
            missing.append(drawn)
    trained = [group for group in shown.groups if not group.changes]
    html = _render(
        tasks=list(tasks.values()),
        groups=trained,
        records=sources.records,
        problems=sources.problems,
        styles=styles,
        notes=[*shown.notes, *missing],
        command=command,
        made=made,
        provenance=[_provenance(runs[run.key]) for group in trained for run in group.runs],
    )
    return Report(html, tuple(drawings))


def _plan(
    task: _Task,
    styles: figures.Styles,
    runs: dict[tuple[str, str], Run],
    choice: maps.MapChoice | None,
    measure: Measure,
) -> Iterator[Planned]:
    """The figures of a task."""

    def planned(title: str, place: str, name: str, draw: Callable, *arguments: Any) -> Planned:
        return Planned(
            title, task.figures[place], partial(draw, f"{task.anchor}-{name}", *arguments)
        )

    groups = [group for group in task.groups if not group.changes]
    tested, trained = ((shown, styles, measure) for shown in (task.groups, groups))
    yield planned("accuracy", RESULTS, "accuracy", figures.draw_accuracy, *tested)
    for by in BREAKDOWNS:
        if any(getattr(c, f"by_{by}") for g in task.groups for c in g.best.cells.values()):
            yield planned(
                f"accuracy by {by}", RESULTS, f"by-{by}", figures.draw_by, *tested[:2], by
            )
    yield planned("learning rates", RESULTS, "learning-rate", figures.draw_learning_rates, *trained)
    series = {
        run.record.run: runs[run.key].curves(figures.is_drawn)
        for group in groups
        for run in group.seeds
    }
    yield planned("loss", TRAINING, "loss", figures.draw_loss, groups, styles, series)
    for number, group in enumerate(groups, 1):
        shown = (group, styles[group.name], series[group.best.record.run])
        yield planned("heads", TRAINING, f"method-{number}-heads", figures.draw_heads, *shown)
    for number, group in enumerate(groups, 1) if choice is not None else ():
        shown = (group, runs[group.best.key], choice)
        yield planned("attention maps", MAPS, f"method-{number}-maps", maps.draw, *shown)


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
    environment.filters |= {"code": _code, "training_lengths": training_lengths}
    environment.globals |= {
        "glyphs": GLYPHS,
        "versions": f"lcg {package_version('lcg')}, Python {platform.python_version()}",
        "count": lambda things, what: f"{len(things)} {what}{'' if len(things) == 1 else 's'}",
    }
    return environment.get_template(TEMPLATE).render(page) + "\n"


def _code(text: str) -> str:
    """A note with what it has between backquotes set as code."""
    from markupsafe import Markup

    parts = re.split(r"`([^`]*)`", text)
    code = Markup("<code>{}</code>").format
    return Markup().join(code(part) if i % 2 else part for i, part in enumerate(parts))


def _provenance(run: Run) -> dict[str, str]:
    """The origin of a run's numbers; its date is that of training unless files were copied."""
    training, written = run.record.training, run.provenance
    git, packages = written.get("git") or {}, written.get("packages")
    changed = ", changed files" if git.get("dirty") else ""
    date = NOTHING
    with suppress(OSError):
        stamp = run.metrics_file.stat().st_mtime
        date = f"{datetime.fromtimestamp(stamp, UTC):%Y-%m-%d %H:%M}"
    shown = [f"{name} {packages[name]}" for name in PACKAGES if name in (packages or {})]
    return {
        "run": run.record.run,
        "hash": run.record.hash,
        "group": run.record.group,
        "state": training.status.replace("_", " "),
        "steps": str(training.step),
        "seconds": f"{training.seconds:.0f}",
        "device": str(written.get("device_name") or training.device or NOTHING),
        "code": str(written.get("code") or NOTHING),
        "git commit": f"{str(git['commit'])[:12]}{changed}" if git.get("commit") else NOTHING,
        "versions": NOTHING if packages is None else ", ".join(shown),
        "last step written (UTC)": date,
    }
