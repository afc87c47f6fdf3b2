"""Fronts as pictures, a column per length: a row per predictor, dashes what is joined to it, and a
row of all baselines; the other fronts are grey.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

from lcg.diagnostics.plots import write_png
from lcg.results.figure import FAINT, FONTS
from lcg.sparsefinder.study import LengthResult, Study
from lcg.sparsefinder.writing import front, fronts_of

WIDTH, HEIGHT = 3.1, 1.9  # of a panel, in inches
# One for every method of a grid, the strongest for the predictors, which come first.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A5ACD", "#8C564B"),
    *("#A6A600", "#1B4F2A", "#9E9E9E", "#E31A8C", "#00B3B3", "#B22222", "#000000", "#7CCD3A"),
)
MARKERS = (*"os^DvPXh<>pd*8H", (4, 1, 45))
JOINED = {
    "": "-",
    " + window": (0, (4, 1.6)),
    " + globals": (0, (1, 1.3)),
    " + window + globals": (0, (6, 1.5, 1, 1.5)),
}
BASELINES = "baselines"
OWN = {"label": "the model itself", "color": "#888888", "linewidth": 1.6, "zorder": 0}
VALUES = {"recall": "recall (%)", "token_accuracy": "token accuracy (%)"}


def draw(study: Study, value: str, title: str, path: Path) -> Path:
    """The fronts of sparsity and `value`, one of VALUES, as a PNG, written atomically."""
    import matplotlib
    from matplotlib.figure import Figure

    lengths = [result for result in study.lengths if result.skipped is None]
    styles = _styles(study)
    rows = _rows(study)
    with matplotlib.rc_context(FONTS | {"font.size": 9.5}):
        size = (WIDTH * len(lengths) + 0.6, HEIGHT * len(rows) + 1.3)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(rows), len(lengths), squeeze=False, sharex=True, sharey=True)
        for (name, fronts), own in zip(rows.items(), panels, strict=True):
            for panel, result in zip(own, lengths, strict=True):
                _fill(panel, result, value, fronts, styles)
            own[0].set_ylabel(name, fontsize=9, weight="bold")
        for panel, result in zip(panels[0], lengths, strict=True):
            heading = textwrap.fill(_heading(result, study), int(14 * WIDTH))
            panel.set_title(heading, fontsize=9.5, loc="left")
        for panel in panels[-1]:
            panel.set_xlabel("sparsity (%)")
        title = textwrap.fill(f"{title}: {VALUES[value]} against sparsity", int(9 * size[0]))
        figure.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
        _legend(figure, rows, styles, value, size[0])
        return write_png(figure, path, dpi=150)


def _rows(study: Study) -> dict[str, list[str]]:
    """Row by row its fronts: those of each predictor, then all baselines."""
    cells = {cell.front: cell for result in study.lengths for cell in result.cells}
    rows: dict[str, list[str]] = {}
    for name in fronts_of(study.lengths):
        cell = cells[name]
        rows.setdefault(cell.method if cell.learned else BASELINES, []).append(name)
    if BASELINES in rows:  # last, wherever they stand in the grid
        rows[BASELINES] = rows.pop(BASELINES)
    return rows


def _legend(figure: Any, rows: dict, styles: dict, value: str, width: float) -> None:
    """Dashes, which mean the same in every row, and the baselines, which share one.

    width: of the figure, in inches, which the columns do not exceed.
    """
    from matplotlib.lines import Line2D

    used = {styles[name]["linestyle"] for row in rows if row != BASELINES for name in rows[row]}
    entries = [
        Line2D([], [], color="#444444", linestyle=dashes, label=f"predictor{joined}")
        for joined, dashes in JOINED.items()
        if dashes in used
    ]
    entries += [Line2D([], [], label=name, **styles[name]) for name in rows.get(BASELINES, [])]
    if value == "token_accuracy":
        entries.append(Line2D([], [], **OWN))
    entry = 0.6 + 0.075 * max(len(entry.get_label()) for entry in entries)
    columns = max(1, int(width // entry))
    figure.legend(
        handles=entries, loc="outside lower left", frameon=False, fontsize=8.5, ncols=columns
    )


def _heading(result: LengthResult, study: Study) -> str:
    learned = ", where it was learned" if result.length == study.plan.learned_at else ""
    samples = f"{result.samples} sample{'s' * (result.samples > 1)}"
    return f"length {result.length} ({samples}){learned}"


def _styles(study: Study) -> dict[str, dict[str, Any]]:
    """Colour and marker of a method, dashes of what joins it; baselines are thin and dotted."""
    cells = [cell for result in study.lengths for cell in result.cells]
    methods = list(dict.fromkeys(cell.method for cell in cells))
    learned = {cell.front: cell.learned for cell in cells}
    method = {cell.front: cell.method for cell in cells}
    styles = {}
    for name in fronts_of(study.lengths):
        index = methods.index(method[name])
        joined = name.removeprefix(method[name])
        styles[name] = {
            "color": COLOURS[index],
            "marker": MARKERS[index],
            "linestyle": JOINED[joined] if learned[name] else (0, (1, 1.3)),
            "linewidth": 1.8 if learned[name] else 1.1,
            "markersize": 4 if learned[name] else 5,
        }
    return styles


def _fill(
    panel: Any, result: LengthResult, value: str, fronts: list[str], styles: dict[str, dict]
) -> None:
    """Some fronts in their colours, with a dot for every setting; the others in grey."""
    for name in fronts_of([result]):
        own = [cell for cell in result.cells if cell.front == name]
        points = [(100 * c.sparsity, 100 * getattr(c, value), c) for c in own]
        best = front(points)
        line = ([p[0] for p in best], [p[1] for p in best])
        if name not in fronts:
            panel.plot(*line, color=FAINT, linewidth=0.8, zorder=1)
            continue
        known = [point for point in points if not math.isnan(point[1])]
        panel.scatter(
            [p[0] for p in known],
            [p[1] for p in known],
            s=9,
            color=styles[name]["color"],
            alpha=0.35,
            linewidths=0,
            zorder=2,
        )
        panel.plot(*line, **styles[name], zorder=3)
    if value == "token_accuracy":
        panel.axhline(100 * result.token_accuracy, **OWN)
    panel.set_xlim(-3, 103)
    panel.set_ylim(-3, 103)
    panel.set_yticks(range(0, 101, 50))
    panel.grid(color="#000000", alpha=0.08, linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
