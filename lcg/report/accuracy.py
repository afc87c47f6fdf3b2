"""A measure against test length: the figure of `lcg plot`, one task to a page's column."""

from __future__ import annotations

from typing import Any

from lcg.results.aggregate import Group, training_lengths
from lcg.results.figure import Drawing, look, seeds_text, svg_of
from lcg.results.measures import Measure
from lcg.results.plot import draw_block, task_block
from lcg.results.tables import samples_text

WIDTH = 5.4  # with the labels at the ends of lines, in inches


def draw(
    name: str, task: str, groups: list[Group], styles: dict[str, dict[str, Any]], measure: Measure
) -> Drawing:
    """The figure of one task."""
    from matplotlib.figure import Figure

    block = task_block(task, groups)
    with look():
        figure = Figure(figsize=(WIDTH, block.height(WIDTH)), layout="constrained")
        draw_block(figure, block, styles, measure, WIDTH)
        svg = svg_of(figure)
    samples = samples_text(groups)
    behind = f", {samples} samples per length" if samples else ""
    title = measure.title[:1].upper() + measure.title[1:]
    caption = (
        f"{title} on the test set against length (log₂), {task} trained at "
        f"{training_lengths(groups)}{behind}. Each line is the mean over the seeds at a method's "
        f"selected learning rate ({seeds_text(groups)} per method), each band their range, or the "
        f"95 % interval where every method has one seed. {_marks(groups)}"
    )
    return Drawing(name, f"{title} against length", caption.strip(), svg)


def _marks(groups: list[Group]) -> str:
    runs = [run for group in groups for run in group.seeds]
    parts = []
    if any(group.untrained for group in groups):
        parts.append("Hollow points: a seed of the method did not train.")
    if any(cell.state != "value" for run in runs for cell in run.cells.values()):
        parts.append("Marks below the axis stand where there is no value; they are not zeros.")
    return " ".join(parts)
