"""Fronts as pictures, a column per length: a row per predictor, dashes what is joined to it, and a
row of all baselines; the other fronts are grey.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

from lcg.diagnostics.plots import write_png
from lcg.results.figure import FAINT, FONTS, legend_entry
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
    styles, rows = _styles(study), _rows(study)
    with matplotlib.rc_context(FONTS | {"font.size": 9.5}):
        size = (WIDTH * len(lengths) + 0.6, HEIGHT * len(rows) + 1.3)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(rows), len(lengths), squeeze=False, sharex=True, sharey=True)
        for (name, fronts), own in zip(rows.items(), panels, strict=True):
            for panel, result in zip(own, lengths, strict=True):
                _fill(panel, result, value, fronts, styles)
            own[0].set_ylabel(name, fontsize=9, weight="bold")
        for top, bottom, result in zip(panels[0], panels[-1], lengths, strict=True):
            learned = ", where it was learned" if result.length == study.plan.learned_at else ""
            heading = f"length {result.length} ({result.counted}){learned}"
            top.set_title(textwrap.fill(heading, int(14 * WIDTH)), fontsize=9.5, loc="left")
            bottom.set_xlabel("sparsity (%)")
        title = textwrap.fill(f"{title}: {VALUES[value]} against sparsity", int(9 * size[0]))
        figure.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
        _legend(figure, rows, styles, value)
        return write_png(figure, path, dpi=150)


def _rows(study: Study) -> dict[str, list[str]]:
    """Row by row its fronts: those of each predictor, then all baselines."""
    rows: dict[str, dict[str, None]] = {}
    cells = [cell for result in study.lengths for cell in result.cells]
    for cell in sorted(cells, key=lambda cell: not cell.learned):
        rows.setdefault(cell.method if cell.learned else BASELINES, {})[cell.front] = None
    return {name: list(fronts) for name, fronts in rows.items()}


def _styles(study: Study) -> dict[str, dict[str, Any]]:
    """Colour and marker of a method, dashes of what joins it; baselines are thin and dotted."""
    cells = [cell for result in study.lengths for cell in result.cells]
    methods = list(dict.fromkeys(cell.method for cell in cells))
    styles = {}
    for cell in cells:
        index = methods.index(cell.method)
        dashes = JOINED[cell.front.removeprefix(cell.method)]
        styles[cell.front] = {
            "color": COLOURS[index],
            "marker": MARKERS[index],
            "linestyle": dashes if cell.learned else (0, (1, 1.3)),
            "linewidth": 1.8 if cell.learned else 1.1,
            "markersize": 4 if cell.learned else 5,
        }
    return styles


def _legend(figure: Any, rows: dict[str, list[str]], styles: dict, value: str) -> None:
    """Dashes, which mean the same in every row, and the baselines, which share one; in columns that
    the figure has room for."""
    used = {styles[name]["linestyle"] for row in rows if row != BASELINES for name in rows[row]}
    entries = [
        legend_entry(f"predictor{joined}", color="#444444", linestyle=dashes)
        for joined, dashes in JOINED.items()
        if dashes in used
    ]
    entries += [legend_entry(name, **styles[name]) for name in rows.get(BASELINES, [])]
    if value == "token_accuracy":
        entries.append(legend_entry(**OWN))
    width = 0.6 + 0.075 * max(len(entry.get_label()) for entry in entries)
    columns = max(1, int(figure.get_figwidth() // width))
    place = {"loc": "outside lower left", "ncols": columns}
    figure.legend(handles=entries, frameon=False, fontsize=8.5, **place)


def _fill(
    panel: Any, result: LengthResult, value: str, fronts: list[str], styles: dict[str, dict]
) -> None:
    """Some fronts in their colours, with a dot for every setting; the others in grey."""
    for name in fronts_of([result]):
        cells = [cell for cell in result.cells if cell.front == name]
        points = [(100 * cell.sparsity, 100 * getattr(cell, value)) for cell in cells]
        line = list(zip(*front(points), strict=True)) or [(), ()]
        if name not in fronts:
            panel.plot(*line, color=FAINT, linewidth=0.8, zorder=1)
            continue
        colour = styles[name]["color"]
        dots = zip(*(point for point in points if not math.isnan(point[1])), strict=True)
        panel.scatter(
            *(list(dots) or [(), ()]), s=9, color=colour, alpha=0.35, linewidths=0, zorder=2
        )
        panel.plot(*line, **styles[name], zorder=3)
    if value == "token_accuracy":
        panel.axhline(100 * result.token_accuracy, **OWN)
    panel.set(xlim=(-3, 103), ylim=(-3, 103), yticks=range(0, 101, 50))
    panel.grid(color="#000000", alpha=0.08, linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
