"""Fronts as pictures, a panel per length: colour and marker are a method, dashes what joins it."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from lcg.results import write_atomic
from lcg.results.plot import FONTS
from lcg.sparsefinder.fronts import front
from lcg.sparsefinder.study import LengthResult, Study
from lcg.sparsefinder.writing import fronts_of

WIDTH, HEIGHT = 4.3, 3.9  # of a panel, in inches
ENTRY = 0.185  # inches that a line of the legend takes
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
OWN = {"label": "the model itself", "color": "#888888", "linewidth": 1.6, "zorder": 0}
VALUES = {"recall": "recall (%)", "token_accuracy": "tokens right (%)"}


def draw(study: Study, value: str, title: str, path: Path) -> Path:
    """The fronts of sparsity and `value`, one of VALUES, as a PNG, written atomically."""
    import matplotlib
    from matplotlib.figure import Figure

    lengths = [result for result in study.lengths if result.skipped is None]
    styles = _styles(study)
    with matplotlib.rc_context(FONTS):
        height = max(HEIGHT + 0.7, ENTRY * (len(styles) + 2))
        figure = Figure(figsize=(WIDTH * len(lengths) + 3.6, height), layout="constrained")
        panels = figure.subplots(1, len(lengths), squeeze=False, sharey=True)[0]
        for panel, result in zip(panels, lengths, strict=True):
            _fill(panel, result, value, styles)
            panel.set_title(_heading(result, study), fontsize=10.5, loc="left")
        panels[0].set_ylabel(VALUES[value])
        figure.suptitle(title, fontsize=12, x=0.01, ha="left")
        handles = {
            handle.get_label(): handle
            for panel in panels
            for handle in panel.get_legend_handles_labels()[0]
        }
        figure.legend(
            handles=list(handles.values()), loc="outside right center", frameon=False, fontsize=8.5
        )
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=150, metadata={"Software": None})
    return write_atomic(path, image.getvalue())


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
            "markersize": 5 if learned[name] else 6,
        }
    return styles


def _fill(panel: Any, result: LengthResult, value: str, styles: dict[str, dict[str, Any]]) -> None:
    for name in fronts_of([result]):
        own = [cell for cell in result.cells if cell.front == name]
        points = [(100 * c.sparsity, 100 * getattr(c, value), c) for c in own]
        style = styles[name]
        known = [point for point in points if not math.isnan(point[1])]
        panel.scatter(
            [p[0] for p in known],
            [p[1] for p in known],
            s=9,
            color=style["color"],
            alpha=0.35,
            linewidths=0,
        )
        best = front(points)
        panel.plot([p[0] for p in best], [p[1] for p in best], label=name, **style)
    if value == "token_accuracy":
        panel.axhline(100 * result.token_accuracy, **OWN)
    panel.set_xlabel("sparsity (%)")
    panel.set_xlim(-3, 103)
    panel.set_ylim(-3, 103)
    panel.grid(color="#000000", alpha=0.08, linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
