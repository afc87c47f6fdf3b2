"""A measure against test length: a panel per task or position encoding, a colour per method.

Lines are means over the seeds at the selected learning rate, bands their range. Up to eight methods
share a panel and are named at the ends of their lines; more get a small panel each, in which the
others are grey.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, isnan, log2
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

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
    legend_entry,
    wrapped,
)
from lcg.results.statistics import EXACT_MATCH, Measure, measure_named, wilson
from lcg.results.tables import state_text
from lcg.runs.record import RunRecord, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
FACETS = ("task", "position")
STATE_MARKERS = {"did_not_train": "x", "out_of_memory": "s", "skipped": ">", "not_finite": "d"}
NOTHING = float("nan")  # matplotlib leaves a gap there
WIDTH, HEIGHT = 6.3, 3.4  # of a panel with its labels, in inches


@dataclass(frozen=True)
class Block:
    """Methods that are drawn over the same axes. names: of the groups, as they stand there."""

    title: str
    groups: Sequence[Group]
    names: Sequence[str]

    @property
    def shared(self) -> bool:
        """All methods have room in one panel."""
        return len(self.groups) <= SHARED

    def columns(self, width: float) -> int:
        """The number of small panels that stand side by side in so many inches."""
        return 1 if self.shared else max(2, int(width // SMALL_WIDTH))

    def height(self, width: float) -> float:
        """Inches that it takes with its title and legend."""
        if self.shared:
            return HEIGHT + 1.25
        return ceil(len(self.groups) / self.columns(width)) * SMALL_HEIGHT + 1.5


def plot(
    records: Iterable[RunRecord],
    path: str | os.PathLike,
    metric: str = EXACT_MATCH.name,
    facet: str = "task",
) -> Path:
    """Write the picture of `draw` (.png, .svg or .pdf) atomically; returns its path.

    Raises ValueError for another suffix, and as `draw` does.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: cannot plot to {path.suffix!r}, use {', '.join(SUFFIXES)}")
    return write_atomic(path, image(draw(records, metric, facet), path.suffix[1:].lower()))


def image(figure: Figure, kind: str) -> bytes:
    """The content of a .png, .svg or .pdf file of a figure; the same figure has the same bytes."""
    import matplotlib

    content = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with matplotlib.rc_context(FONTS):
        figure.savefig(content, format=kind, dpi=160, metadata=metadata, bbox_inches="tight")
    return content.getvalue()


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

    blocks = _blocks(groups, facet)
    styles = method_styles(groups, facet)
    columns = min(2, len(blocks)) if all(block.shared for block in blocks) else 1
    width = WIDTH if columns == 2 or all(block.shared for block in blocks) else 1.6 * WIDTH
    rows = [blocks[i : i + columns] for i in range(0, len(blocks), columns)]
    heights = [max(block.height(width) for block in row) for row in rows]
    with matplotlib.rc_context(FONTS):
        figure = Figure(figsize=(columns * (width + 1.0), sum(heights)), layout="constrained")
        parts = figure.subfigures(len(rows), columns, height_ratios=heights, squeeze=False)
        for part, block in zip(parts.flat, blocks, strict=False):
            draw_block(part, block, styles, measure, width)
    return figure


def task_block(groups: Sequence[Group]) -> Block:
    """All methods of a task."""
    title = f"{groups[0].task}, trained at {training_lengths(groups)}"
    return Block(title, groups, [group.name for group in groups])


def _blocks(groups: Sequence[Group], facet: str) -> list[Block]:
    tasks = {task: [g for g in groups if g.task == task] for task in (g.task for g in groups)}
    if facet == "task":
        return [task_block(own) for own in tasks.values()]
    blocks = []
    for task, own in tasks.items():
        for position in sorted(set(map(_position, own))):
            at = [group for group in own if _position(group) == position]
            title = f"{task}, {position}, trained at {training_lengths(at)}"
            blocks.append(Block(title, at, list(map(_without_position, at))))
    return blocks


def method_styles(groups: Sequence[Group], facet: str = "task") -> dict[str, dict[str, Any]]:
    """Look of each method, by its name: the same in every panel, and unlike others of its panels.

    Panels of position encodings show attentions, which look the same in all of them. Where a
    task's methods outnumber the colours, an attention has one colour and marker, and dashes tell
    its position encodings apart, as far as these suffice; else dashes come where colours end.
    """
    attentions = _looks([((g.task, _position(g)), _without_position(g)) for g in groups])
    if facet == "position":
        return {g.name: _style(attentions[_without_position(g)]) for g in groups}
    methods = _looks([(g.task, g.name) for g in groups])
    positions = sorted({_position(group) for group in groups})
    fits = max(attentions.values()) < len(COLOURS) and len(positions) <= len(DASHES)
    if max(methods.values()) < len(COLOURS) or not fits:
        return {name: _style(index) for name, index in methods.items()}
    return {
        g.name: _style(attentions[_without_position(g)], positions.index(_position(g)))
        for g in groups
    }


def _looks(shown: Sequence[tuple[Any, str]]) -> dict[str, int]:
    """Name -> number of its look, from (panel, name): no two of a panel alike, few in all."""
    panels: dict[Any, set[str]] = {}
    for panel, name in shown:
        panels.setdefault(panel, set()).add(name)
    chosen: dict[str, int] = {}
    for name in dict.fromkeys(name for _, name in shown):
        beside = {other for own in panels.values() if name in own for other in own}
        taken = {chosen[other] for other in beside & chosen.keys()}
        chosen[name] = next(index for index in range(len(shown)) if index not in taken)
    return chosen


def _style(look: int, dashes: int | None = None) -> dict[str, Any]:
    count = len(COLOURS)
    return {
        "color": COLOURS[look % count],
        "marker": MARKERS[look % count],
        "linestyle": DASHES[(look // count if dashes is None else dashes) % len(DASHES)],
    }


def _position(group: Group) -> str:
    return group.best.record.labels["position"]


def _without_position(group: Group) -> str:
    return group.name.replace(f" · {_position(group)}", "", 1)


@dataclass(frozen=True)
class _Line:
    """A method as it is drawn: at each length the mean over its seeds and a band, in percent.

    states: length -> why a seed has no value there, and whether none has. hollow: a seed did not
    train.
    """

    name: str
    style: dict[str, Any]
    hollow: bool
    lengths: list[int]
    means: list[float]
    low: list[float]
    high: list[float]
    states: dict[int, tuple[str, bool]]

    @property
    def end(self) -> tuple[float, float] | None:
        """The last point, or None."""
        points = zip(self.lengths, self.means, strict=True)
        return next((point for point in reversed([*points]) if not isnan(point[1])), None)


def _line(group: Group, name: str, style: dict, measure: Measure, spread: bool) -> _Line:
    """The line of a group, whose band is the range over seeds, or, unless any method has several,
    the interval of its only one."""
    if group.untrained:
        name = f"{name} ({group.trained}/{len(group.seeds)}\N{NO-BREAK SPACE}trained)"
    line = _Line(name, style, group.untrained, [], [], [], [], {})
    for length in sorted({n for run in group.seeds for n in run.cells}):
        found = [run.value(length, measure) for run in group.seeds]
        values = [value for value in found if value is not None]
        low, high = min(values, default=NOTHING), max(values, default=NOTHING)
        if values and measure == EXACT_MATCH and not spread:
            cell = group.best.cells[length]
            low, high = wilson(cell.correct, cell.samples)
        line.lengths.append(length)
        line.means.append(100 * fmean(values) if values else NOTHING)
        line.low.append(100 * low)
        line.high.append(100 * high)
        for state in (run.state(length) for run in group.seeds):
            if state not in (None, "value"):
                line.states.setdefault(length, (state, not values))
    return line


def draw_block(
    figure: Any,
    block: Block,
    styles: dict[str, dict[str, Any]],
    measure: Measure,
    width: float = WIDTH,
) -> None:
    """Fill a figure, or a part of one, that is about `width` inches wide."""
    groups, spread = block.groups, any(len(group.seeds) > 1 for group in block.groups)
    lines = [
        _line(group, name, styles[group.name], measure, spread)
        for group, name in zip(groups, block.names, strict=True)
    ]
    columns = block.columns(width)
    rows = 1 if block.shared else ceil(len(lines) / columns)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    lengths = sorted({length for line in lines for length in line.lengths})
    ends = sorted({group.train_range[1] for group in groups})
    marked = sum(bool(line.states) for line in lines)
    depth = 5.0 * marked if block.shared else 14.0 * bool(marked)  # of the rows of marks below 0
    for panel in panels:
        room = 0.62 * width if block.shared else width / columns  # beside the labels
        _axes(panel, ends, lengths, depth, room)
    title, label = wrapped(block.title, 8 * width), f"{measure.title} ({measure.scale})"
    if block.shared:
        panels[0].set_title(title, loc="left", pad=20, weight="bold")
        _draw_shared(panels[0], lines, ends, depth)
        panels[0].set_ylabel(label)
        panels[0].set_xlabel("test length")
    else:
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
        _draw_apart(panels, lines, columns)
        figure.supylabel(label, fontsize=10)
    _legend(figure, lines, measure, spread, width)


def _draw_shared(panel: Any, lines: list[_Line], ends: list[int], depth: float) -> None:
    """All methods in one panel, with their names at the ends of their lines."""
    panel.annotate(
        f"training maximum {' and '.join(map(str, ends))}",
        (ends[0], 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        fontsize=9.5,
        color=SOFT,
    )
    for line in lines:
        _draw(panel, line, linewidth=2.0, markersize=6)
    row = 0
    for line in lines:
        row += bool(line.states)
        _draw_states(panel, line, row)
    _label_ends(panel, lines, depth)


def _draw_apart(panels: list[Any], lines: list[_Line], columns: int) -> None:
    """A small panel for each method, in which the others are grey."""
    for spare in panels[len(lines) :]:
        spare.remove()
    for index, (panel, line) in enumerate(zip(panels, lines, strict=False)):
        for other in lines:
            panel.plot(other.lengths, other.means, color=FAINT, linewidth=0.8, zorder=1)
        _draw(panel, line, linewidth=1.6, markersize=4, linestyle="-", marker="o")
        _draw_states(panel, line, 1)
        panel.set_title(wrapped(line.name, 24), loc="left", fontsize=8.5, pad=3)
        if index + columns >= len(lines):  # nothing stands below it
            panel.tick_params(labelbottom=True)
            panel.set_xlabel("test length", fontsize=8.5)


def _draw(panel: Any, line: _Line, **style: Any) -> None:
    """The line of the mean and its band."""
    band = {"color": line.style["color"], "alpha": 0.16, "linewidth": 0, "zorder": 1}
    panel.fill_between(line.lengths, line.low, line.high, **band)
    style = line.style | style | hollow(line.style, line.hollow)
    panel.plot(line.lengths, line.means, **style, zorder=4, clip_on=False)


def _draw_states(panel: Any, line: _Line, row: int) -> None:
    """Marks below the axis where seeds have no value."""
    for length, (state, alone) in line.states.items():
        panel.plot(
            [length],
            [-5.0 * row],
            linestyle="none",
            marker=STATE_MARKERS[state],
            markersize=6 if alone else 4.5,
            markeredgewidth=1.5 if alone else 1.0,
            markerfacecolor="none",
            color=line.style["color"],
            alpha=1.0 if alone else 0.6,
            zorder=4,
        )


def _label_ends(panel: Any, lines: list[_Line], depth: float) -> None:
    """The methods' names right of the panel, at the height of their last points and no closer than
    lines of text; a thin line leads from the point."""
    row = (depth + 106) / (HEIGHT * 72) * 13.5  # in percent, of one row of text
    texts = [wrapped(line.name, 36) for line in lines]
    heights = [row * (text.count("\n") + 1) for text in texts]
    wanted = [line.end[1] if line.end else -depth for line in lines]
    order = sorted(range(len(texts)), key=lambda i: (-wanted[i], i))
    places: dict[int, float] = {}
    ceiling = 102 + row / 2
    for i in order:
        places[i] = min(wanted[i], ceiling - heights[i] / 2)
        ceiling = places[i] - heights[i] / 2
    floor = -depth - 4
    for i in reversed(order):  # what was pushed out below the axis moves up again
        places[i] = max(places[i], floor + heights[i] / 2)
        floor = places[i] + heights[i] / 2
    leader = {"arrowstyle": "-", "alpha": 0.45, "linewidth": 0.8, "relpos": (0, 0.5)}
    for i, (text, line) in enumerate(zip(texts, lines, strict=True)):
        colour = line.style["color"]
        panel.annotate(
            text,
            line.end or (1, places[i]),
            xycoords="data" if line.end else ("axes fraction", "data"),
            xytext=(1.025, places[i]),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=9.5,
            color=colour,
            annotation_clip=False,
            arrowprops=leader | {"color": colour} if line.end else None,
        )


def _legend(figure: Any, lines: list[_Line], measure: Measure, spread: bool, width: float) -> None:
    """Name lines, bands and marks below the panels; methods are named where they are drawn."""
    from matplotlib.patches import Patch

    entries = [legend_entry("mean over seeds", linewidth=2)] if spread else []
    if spread or measure == EXACT_MATCH:
        label = "range over seeds" if spread else "95 % Wilson interval"
        entries.append(Patch(color=SOFT, alpha=0.25, linewidth=0, label=label))
    if any(line.hollow for line in lines):
        dot = {"marker": "o", "markerfacecolor": PAPER, "markersize": 6}
        entries.append(legend_entry("a seed did not train", linestyle="none", **dot))
    used = {state for line in lines for state, _ in line.states.values()}
    for state, marker in STATE_MARKERS.items():
        if state in used:
            mark = {"marker": marker, "markerfacecolor": "none", "markeredgewidth": 1.5}
            entries.append(legend_entry(state_text(state), linestyle="none", **mark))
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
