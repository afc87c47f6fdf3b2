"""A measure against test length: a panel per task or position encoding, a colour per method.

Lines are means over the seeds at the selected learning rate, bands their range. Up to eight methods
share a panel and are named at the ends of their lines; more get a small panel each, in which the
others are grey.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import count, groupby
from math import ceil, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lcg.results.aggregate import Group, group_runs, training_lengths
from lcg.results.figure import (
    COLOURS,
    DASHES,
    FAINT,
    FONTS,
    INK,
    MARKERS,
    PAPER,
    SHARED,
    SMALL_HEIGHT,
    SMALL_WIDTH,
    SOFT,
    frame,
    hollow,
    image,
    legend_entry,
    method_panels,
    wrapped,
)
from lcg.results.statistics import EXACT_MATCH, Measure, measure_named, wilson
from lcg.runs.record import RunRecord, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
FACETS = ("task", "position")
STATE_MARKERS = {"did_not_train": "x", "out_of_memory": "s", "skipped": ">", "not_finite": "d"}
WIDTH, HEIGHT = 6.3, 3.4  # of a panel with its labels, in inches

Styles = dict[str, dict[str, Any]]  # of methods, by their names


def plot(
    records: Iterable[RunRecord],
    path: str | os.PathLike,
    metric: str = EXACT_MATCH.name,
    facet: str = "task",
) -> Path:
    """Write the picture of `draw` (.png, .svg or .pdf) atomically; returns its path.

    Raises ValueError for another suffix, and as `draw` does.
    """
    return write_picture(path, lambda: draw(records, metric, facet))


def write_picture(path: str | os.PathLike, drawn: Callable[[], Figure]) -> Path:
    """Draw a figure and write it atomically; returns its path. Raises ValueError for a suffix that
    is none of SUFFIXES, before anything is drawn."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: cannot plot to {path.suffix!r}, use {', '.join(SUFFIXES)}")
    return write_atomic(path, image(drawn(), path.suffix[1:].lower()))


def draw(
    records: Iterable[RunRecord], metric: str = EXACT_MATCH.name, facet: str = "task"
) -> Figure:
    """Draw the runs' measure against length.

    A line is the mean over the seeds at a method's selected learning rate, its band their range,
    or, if no method has several seeds, the 95 % Wilson interval of exact match. Hollow points are
    of methods of which a seed did not train. Where no seed has a value a marker stands below the
    axis instead of a point at 0. Raises ValueError for another facet or metric, or no records.
    """
    if facet not in FACETS:
        raise ValueError(f"--facet {facet}: choose from {', '.join(FACETS)}")
    groups = group_runs(records)
    measure = measure_named(metric, [run.record for group in groups for run in group.runs])

    import matplotlib
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    blocks, styles = method_blocks(groups, facet), method_styles(groups, facet)
    shared = all(len(own) <= SHARED for _, own, _ in blocks)
    columns, width = (min(2, len(blocks)), WIDTH) if shared else (1, 1.6 * WIDTH)
    heights = [layout(len(own), width)[1] for _, own, _ in blocks]
    heights = [max(heights[i : i + columns]) for i in range(0, len(blocks), columns)]
    with matplotlib.rc_context(FONTS):
        figure = Figure(figsize=(columns * (width + 1.0), sum(heights)), layout="constrained")
        parts = figure.subfigures(len(heights), columns, height_ratios=heights, squeeze=False)
        for part, block in zip(parts.flat, blocks, strict=False):
            draw_methods(part, *block, styles, measure, width)
    return figure


# ---- panels and styles


def method_blocks(
    groups: Sequence[Group], facet: str = "task"
) -> list[tuple[str, list[Group], list[str]]]:
    """The title, methods, and their names there, of each task, or of each encoding of each task."""

    def panel(group: Group) -> tuple[str, str]:
        return group.task, _position(group) if facet == "position" else ""

    blocks = []
    for (task, position), members in groupby(sorted(groups, key=panel), panel):
        own = list(members)
        parts = filter(None, (task, position, f"trained at {training_lengths(own)}"))
        names = [_without_position(group) if position else group.name for group in own]
        blocks.append((", ".join(parts), own, names))
    return blocks


def layout(methods: int, width: float) -> tuple[int, float]:
    """Columns of panels in so many inches, and the height with title and legend."""
    if methods <= SHARED:
        return 1, HEIGHT + 1.25
    columns = max(2, int(width // SMALL_WIDTH))
    return columns, ceil(methods / columns) * SMALL_HEIGHT + 1.5


def method_styles(groups: Sequence[Group], facet: str = "task") -> Styles:
    """Look of each method, by its name: the same in every panel, and unlike others of its panels.

    Panels of position encodings show attentions, which look the same in all of them. Where a
    task's methods outnumber the colours, an attention has one colour and marker, and dashes tell
    its position encodings apart, as far as these suffice; else dashes come where colours end.
    """
    attentions = _looks([((g.task, _position(g)), _without_position(g)) for g in groups])
    methods = _looks([(g.task, g.name) for g in groups])
    positions = sorted({_position(group) for group in groups})
    outnumber = max(methods.values()) >= len(COLOURS) > max(attentions.values())
    shared = outnumber and len(positions) <= len(DASHES)
    styles = {}
    for group in groups:
        dashes, colour = divmod(methods[group.name], len(COLOURS))
        if facet == "position":
            dashes, colour = divmod(attentions[_without_position(group)], len(COLOURS))
        elif shared:
            dashes = positions.index(_position(group))
            colour = attentions[_without_position(group)]
        styles[group.name] = {
            "color": COLOURS[colour],
            "marker": MARKERS[colour],
            "linestyle": DASHES[dashes % len(DASHES)],
        }
    return styles


def _looks(shown: Sequence[tuple[Any, str]]) -> dict[str, int]:
    """Name -> number of its look, from (panel, name): no two of a panel alike, few in all."""
    looks: dict[str, int] = {}
    for name in dict.fromkeys(name for _, name in shown):
        panels = {panel for panel, other in shown if other == name}
        taken = {looks.get(other) for panel, other in shown if panel in panels}
        looks[name] = next(number for number in count() if number not in taken)
    return looks


def _position(group: Group) -> str:
    return group.best.record.labels["position"]


def _without_position(group: Group) -> str:
    return group.name.replace(f" · {_position(group)}", "", 1)


# ---- drawing


class _Line(NamedTuple):
    """A method as it is drawn: at each length the mean over its seeds and a band, in percent.

    states: length -> why a seed has no value there, and whether none has. end: the last point.
    """

    name: str
    style: dict[str, Any]
    hollow: bool
    lengths: list[int]
    mean: Any
    low: Any
    high: Any
    states: dict[int, tuple[str, bool]]
    end: tuple[float, float] | None


def _line(group: Group, name: str, style: dict, measure: Measure, spread: bool) -> _Line:
    """The line of a group, whose band is the range over seeds, or, unless any method has several,
    the interval of its only one."""
    import numpy as np

    if group.untrained:
        name = f"{name} ({group.trained}/{len(group.seeds)}\N{NO-BREAK SPACE}trained)"
    points, states, end = [], {}, None
    statistics = group.over_seeds(group.lengths, measure)
    for length, stats in zip(group.lengths, statistics, strict=False):
        mean, band = stats.mean_all.value, (stats.low, stats.high)
        if mean is not None:
            end = (length, 100 * mean)
            if measure == EXACT_MATCH and not spread:
                cell = group.best.cells[length]
                band = wilson(cell.correct, cell.samples)
        points.append((mean, *band))
        for state in (run.state(length) for run in group.seeds):
            if state not in (None, "value"):
                states.setdefault(length, (state, mean is None))
    mean, low, high = 100 * np.array(points, float).reshape(-1, 3).T  # a gap where there is none
    return _Line(name, style, group.untrained, group.lengths, mean, low, high, states, end)


def draw_methods(
    figure: Any,
    title: str,
    groups: Sequence[Group],
    names: Sequence[str],
    styles: Styles,
    measure: Measure,
    width: float,
) -> None:
    """Draw a block of methods into a figure, or a part of one, about `width` inches wide."""
    spread = any(len(group.seeds) > 1 for group in groups)
    pairs = zip(groups, names, strict=True)
    lines = [_line(group, name, styles[group.name], measure, spread) for group, name in pairs]
    columns, shared = layout(len(groups), width)[0], len(groups) <= SHARED
    names = [line.name for line in lines]
    panels = [panel for (panel,) in method_panels(figure, names, columns, "test length")]
    lengths = sorted({length for line in lines for length in line.lengths})
    ends = sorted({group.train_range[1] for group in groups})
    marked = sum(bool(line.states) for line in lines)
    depth = 5.0 * marked if shared else 14.0 * bool(marked)  # of the rows of marks below 0
    for panel in dict.fromkeys(panels):
        room = 0.62 * width if shared else width / columns  # beside the labels
        _axes(panel, ends, lengths, depth, room)
    size = {"linewidth": 2.0, "markersize": 6} if shared else {"linewidth": 1.6, "markersize": 4}
    row = 0
    for panel, line in zip(panels, lines, strict=True):
        for other in () if shared else lines:
            panel.plot(other.lengths, other.mean, color=FAINT, linewidth=0.8, zorder=1)
        row = row + bool(line.states) if shared else 1
        _draw(panel, line, row, size)
    title, label = wrapped(title, 8 * width), f"{measure.title} ({measure.scale})"
    if shared:
        panels[0].set_title(title, loc="left", pad=20, weight="bold")
        panels[0].set_ylabel(label)
        text = f"training maximum {' and '.join(map(str, ends))}"
        above = {
            "xytext": (0, 4),
            "textcoords": "offset points",
            "fontsize": 9.5,
            "color": SOFT,
        }
        panels[0].annotate(text, (ends[0], 1), xycoords=("data", "axes fraction"), **above)
        _label_ends(panels[0], lines, depth)
    else:
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
        figure.supylabel(label, fontsize=10)
    _legend(figure, lines, measure, spread, width)


def _draw(panel: Any, line: _Line, row: int, size: dict[str, float]) -> None:
    """The line of the mean, its band, and below the axis marks where seeds have no value."""
    colour = line.style["color"]
    band = {"color": colour, "alpha": 0.16, "linewidth": 0, "zorder": 1}
    panel.fill_between(line.lengths, line.low, line.high, **band)
    style = line.style | size | hollow(line.style, line.hollow)
    panel.plot(line.lengths, line.mean, **style, zorder=4, clip_on=False)
    for length, (state, alone) in line.states.items():
        mark = {"marker": STATE_MARKERS[state], "markerfacecolor": "none", "color": colour}
        mark |= {"markersize": 6 if alone else 4.5, "markeredgewidth": 1.5 if alone else 1.0}
        panel.plot([length], [-5.0 * row], **mark, alpha=1.0 if alone else 0.6, zorder=4)


def _label_ends(panel: Any, lines: list[_Line], depth: float) -> None:
    """The methods' names right of the panel, at the height of their last points and no closer than
    lines of text; a thin line leads from the point."""
    row = (depth + 106) / (HEIGHT * 72) * 13.5  # in percent, of one row of text
    texts = [wrapped(line.name, 36) for line in lines]
    halves = [row * (text.count("\n") + 1) / 2 for text in texts]
    heights = [line.end[1] if line.end else -depth for line in lines]
    order = sorted(range(len(texts)), key=lambda i: (-heights[i], i))
    ceiling = 102 + row / 2
    for i in order:
        heights[i] = min(heights[i], ceiling - halves[i])
        ceiling = heights[i] - halves[i]
    floor = -depth - 4
    for i in reversed(order):  # what was pushed out below the axis moves up again
        heights[i] = max(heights[i], floor + halves[i])
        floor = heights[i] + halves[i]
    beside = {"va": "center", "fontsize": 9.5, "annotation_clip": False}
    for text, line, height in zip(texts, lines, heights, strict=True):
        colour = line.style["color"]
        leader = {"arrowstyle": "-", "alpha": 0.45, "linewidth": 0.8, "relpos": (0, 0.5)}
        panel.annotate(
            text,
            line.end or (1, height),
            xycoords="data" if line.end else ("axes fraction", "data"),
            xytext=(1.025, height),
            textcoords=("axes fraction", "data"),
            color=colour,
            arrowprops=leader | {"color": colour} if line.end else None,
            **beside,
        )


def _legend(figure: Any, lines: list[_Line], measure: Measure, spread: bool, width: float) -> None:
    """Name lines, bands and marks below the panels; methods are named where they are drawn."""
    from matplotlib.patches import Patch

    entries = [legend_entry("mean over seeds", linewidth=2)] if spread else []
    if spread or measure == EXACT_MATCH:
        label = "range over seeds" if spread else "95 % Wilson interval"
        entries.append(Patch(color=SOFT, alpha=0.25, linewidth=0, label=label))
    if any(line.hollow for line in lines):
        entries.append(legend_entry("a seed did not train", marker="o", markerfacecolor=PAPER))
    used = {state for line in lines for state, _ in line.states.values()}
    for state, marker in STATE_MARKERS.items():
        if state in used:
            mark = {"marker": marker, "markerfacecolor": "none", "markeredgewidth": 1.5}
            entries.append(legend_entry(state.replace("_", " "), **mark))
    if entries:
        below = {"loc": "outside lower left", "ncols": int(width // 1.8), "handlelength": 1.8}
        figure.legend(handles=entries, **below, frameon=False, fontsize=9.5)


def _axes(panel: Any, ends: list[int], lengths: list[int], depth: float, width: float) -> None:
    """Axes over lengths and percent, with the training maxima and room for rows of marks."""
    from matplotlib.ticker import FixedLocator, NullLocator

    first = min([*lengths, ends[0]]) / 2**0.35
    panel.axvspan(first, ends[0], color=INK, alpha=0.05, linewidth=0, zorder=0)
    for end in ends:
        panel.axvline(end, color=SOFT, linestyle=(0, (4, 3)), linewidth=1.0, zorder=1)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(FixedLocator(lengths))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlim(first, max([*lengths, ends[-1]]) * 2**0.35)
    panel.set_ylim(-depth - 4, 102)
    small = width < WIDTH / 2
    panel.set_yticks(range(0, 101, 50 if small else 20))
    frame(panel)
    if depth:
        panel.axhline(0, color="#999999", linewidth=0.8, zorder=1)
    panel.tick_params(labelsize=8 if small else None)
    panel.set_xticks(lengths, _tick_labels(lengths, ends[0], width))


def _tick_labels(lengths: list[int], first: int, width: float) -> list[str]:
    """Lengths as text; where labels would touch, `first` and powers of two go before the rest.

    width: of the panel, in inches.
    """
    span = log2(lengths[-1] / lengths[0]) if len(lengths) > 1 else 1.0
    labelled: list[int] = []
    for length in sorted(lengths, key=lambda n: (n != first, n & (n - 1) != 0, n)):
        room = (0.007 * 6.3 / width * span * (len(f"{length}{other}") + 2) for other in labelled)
        gaps = (abs(log2(length / other)) for other in labelled)
        if all(gap > needed for gap, needed in zip(gaps, room, strict=True)):
            labelled.append(length)
    return [str(length) if length in labelled else "" for length in lengths]
