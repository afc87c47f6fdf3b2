"""Fronts as pictures: a panel per length, what is learned as solid lines, the rest dashed."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from lcg.results import write_atomic
from lcg.results.plot import COLOURS, FONTS, MARKERS
from lcg.sparsefinder.fronts import front
from lcg.sparsefinder.study import LengthResult, Study
from lcg.sparsefinder.writing import fronts_of

WIDTH, HEIGHT = 4.3, 3.9  # of a panel, in inches
VALUES = {"recall": "recall (%)", "token_accuracy": "tokens right (%)"}


def draw(study: Study, value: str, title: str, path: Path) -> Path:
    """The fronts of sparsity and `value`, one of VALUES, as a PNG, written atomically."""
    import matplotlib
    from matplotlib.figure import Figure

    lengths = [result for result in study.lengths if result.skipped is None]
    styles = _styles(study)
    with matplotlib.rc_context(FONTS):
        figure = Figure(figsize=(WIDTH * len(lengths) + 3.3, HEIGHT + 0.7), layout="constrained")
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
        figure.legend(handles=list(handles.values()), loc="outside right center", frameon=False)
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=150, metadata={"Software": None})
    return write_atomic(path, image.getvalue())


def _heading(result: LengthResult, study: Study) -> str:
    learned = ", where it was learned" if result.length == study.plan.learned_at else ""
    samples = f"{result.samples} sample{'s' * (result.samples > 1)}"
    return f"length {result.length} ({samples}){learned}"


def _styles(study: Study) -> dict[str, dict[str, Any]]:
    """Colour and marker of a method, dashes of what joins it; baselines are thin."""
    cells = [cell for result in study.lengths for cell in result.cells]
    methods = list(dict.fromkeys(cell.method for cell in cells))
    learned = {cell.front: cell.learned for cell in cells}
    method = {cell.front: cell.method for cell in cells}
    styles = {}
    for name in fronts_of(study.lengths):
        index = methods.index(method[name])
        joined = name != method[name]
        dashes = "-" if learned[name] else (0, (1, 1.3))
        styles[name] = {
            "color": COLOURS[index % len(COLOURS)],
            "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
            "linestyle": (0, (4, 1.6)) if joined else dashes,
            "linewidth": 1.8 if learned[name] else 1.1,
            "markersize": 5 if learned[name] else 4,
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
        panel.axhline(100 * result.token_accuracy, color="#444444", linewidth=0.9, zorder=0)
    panel.set_xlabel("sparsity (%)")
    panel.set_xlim(-3, 103)
    panel.set_ylim(-3, 103)
    panel.grid(color="#000000", alpha=0.08, linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
