"""Token accuracy by part of the target, or by distance to the evidence: a panel per length."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lcg.results.aggregate import Group, group_runs, training_lengths
from lcg.results.figure import FONTS, SOFT, frame, legend_entry, wrapped
from lcg.results.plot import Styles, method_styles, write_picture
from lcg.runs.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

By = Literal["part", "distance"]
BREAKDOWNS = {"part": "part of the scored positions", "distance": "tokens to the evidence"}
HINTS = {"part": "", "distance": " on a task that states its evidence"}
"""Said where no run can be broken down this way."""
PANELS = 6  # in a row: of more lengths the first and the last and some between
WIDTH, HEIGHT = 1.9, 2.3  # inches of a panel

Counts = dict[int, list[int]]  # upper bound -> right and scored positions


def breakdowns(groups: Iterable[Group], by: By) -> dict[str, list[tuple[Group, int, Counts]]]:
    """Return, for each task with such counts, the counts of the selected runs at each length.

    Raises ValueError, in one line, if no run has any.
    """
    found = {
        task: [
            (group, length, counts)
            for group in members
            for length, cell in group.best.cells.items()
            if (counts := getattr(cell, f"by_{by}"))
        ]
        for task, members in groupby(groups, lambda group: group.task)
    }
    if held := {task: rows for task, rows in found.items() if rows}:
        return held
    raise ValueError(f"no run has token accuracy by {BREAKDOWNS[by]}: evaluate again{HINTS[by]}")


def plot_breakdown(records: Iterable[RunRecord], path: str | os.PathLike, by: By) -> Path:
    """Write the picture of `draw_breakdown` (.png, .svg or .pdf) atomically; returns its path.

    Raises ValueError for another suffix, and as `breakdowns` does.
    """
    return write_picture(path, lambda: draw_breakdown(records, by))


def draw_breakdown(records: Iterable[RunRecord], by: By) -> Figure:
    """Draw token accuracy by `by`: a row of panels per task, one per length, a line per method.

    Raises ValueError as `breakdowns` does.
    """
    import matplotlib
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    groups = group_runs(records)
    tasks, styles = breakdowns(groups, by), method_styles(groups)
    with matplotlib.rc_context(FONTS):
        figure = Figure(figsize=(PANELS * WIDTH, len(tasks) * (HEIGHT + 0.8)), layout="constrained")
        parts = figure.subfigures(len(tasks), 1, squeeze=False)
        for part, (task, rows) in zip(parts.flat, tasks.items(), strict=True):
            own = [group for group in groups if group.task == task]
            part.suptitle(f"{task}, trained at {training_lengths(own)}", x=0.01, ha="left")
            draw_lengths(part, rows, styles, by)
    return figure


def draw_lengths(
    figure: Any, rows: Sequence[tuple[Group, int, Counts]], styles: Styles, by: By
) -> None:
    """Draw the panels of one task into a figure, or a part of one."""
    lengths = spread(sorted({length for _, length, _ in rows}))
    panels = figure.subplots(1, len(lengths), sharex=True, sharey=True, squeeze=False)[0]
    for panel, length in zip(panels, lengths, strict=True):
        panel.set_title(f"length {length}", fontsize=9.5)
        for group, _, counts in (row for row in rows if row[1] == length):
            shares = [100 * right / scored for right, scored in counts.values()]
            style = styles[group.name] | {"markersize": 4, "linewidth": 1.6}
            panel.plot([*counts], shares, **style, clip_on=False)
        if by == "distance":
            panel.set_xscale("log", base=2)
        panel.set_ylim(0, 102)
        frame(panel)
        panel.tick_params(labelsize=8)
    panels[0].set_ylabel("token accuracy (%)")
    figure.supxlabel(
        {"part": "up to % of the target", "distance": "tokens to the evidence, below"}[by]
    )
    names = dict.fromkeys(group.name for group, _, _ in rows)
    entries = [legend_entry(wrapped(name, 40), **styles[name]) for name in names]
    below = {"loc": "outside lower left", "ncols": 3, "frameon": False, "fontsize": 9}
    figure.legend(handles=entries, **below, labelcolor=SOFT)


def spread(lengths: Sequence[int]) -> list[int]:
    """At most PANELS of them: the first, the last, and some at equal steps between."""
    if len(lengths) <= PANELS:
        return list(lengths)
    return [lengths[round(i * (len(lengths) - 1) / (PANELS - 1))] for i in range(PANELS)]
