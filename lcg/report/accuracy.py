"""Exact match against test length: the figure of `lcg plot`, one task to a page's column."""

from __future__ import annotations

from typing import Any

from lcg.report.drawing import WIDTH, Drawing, look, seeds_text, svg_of
from lcg.results.groups import Group, training_lengths
from lcg.results.plot import draw_accuracy

HEIGHT = 2.9


def draw(name: str, task: str, groups: list[Group], styles: dict[str, dict[str, Any]]) -> Drawing:
    """The figure of one task."""
    from matplotlib.figure import Figure

    with look():
        figure = Figure(figsize=(WIDTH + 1, HEIGHT + 1))
        size = (WIDTH / (WIDTH + 1), HEIGHT / (HEIGHT + 1))
        panel = figure.add_axes((0.15, 0.2, *size))
        draw_accuracy(panel, task, groups, styles, (WIDTH, HEIGHT))
        svg = svg_of(figure)
    caption = (
        f"Exact match on the test set against length (log₂), {task} trained at "
        f"{training_lengths(groups)}{_samples(groups)}. Thick line: the run that validation "
        "selected over seeds and learning rates, with its 95 % Wilson interval over samples. "
        f"Thin lines: the other seeds at its learning rate ({seeds_text(groups)} per method). "
        f"{_states(groups)}"
    )
    return Drawing(name, "Accuracy against length", caption, svg)


def _states(groups: list[Group]) -> str:
    runs = [run for group in groups for run in group.seeds]
    if all(run.state(length) == "value" for run in runs for length in run.cells):
        return ""
    return "Marks below the axis stand where there is no value to show; they are not zeros."


def _samples(groups: list[Group]) -> str:
    cells = [cell for g in groups for run in g.seeds for cell in run.cells.values()]
    counts = sorted({cell.samples for cell in cells if cell.state == "value"})
    if not counts:
        return ""
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    return f", {number} samples per length"
