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
        """How many small panels stand side by side in so many inches."""
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
    figure = draw(records, metric, facet)

    import matplotlib

    image = io.BytesIO()
    kind = path.suffix[1:].lower()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with matplotlib.rc_context(FONTS):
        figure.savefig(image, format=kind, dpi=160, metadata=metadata, bbox_inches="tight")
    return write_atomic(path, image.getvalue())


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


def draw_block(
    figure: Any,
    block: Block,
    styles: dict[str, dict[str, Any]],
    measure: Measure,
    width: float = WIDTH,
) -> None:
    """Fill a figure, or a part of one, that is about `width` inches wide."""
    columns = block.columns(width)
    rows = 1 if block.shared else ceil(len(block.groups) / columns)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    shown = list(panels.flat) if not block.shared else [panels[0][0]]
    lengths = sorted({n for group in block.groups for run in group.seeds for n in run.cells})
    spread = any(len(group.seeds) > 1 for group in block.groups)
    depth = _room_below(block, measure)
    for panel in shown:
        room = 0.62 * width if block.shared else width / columns  # beside the labels
        _axes(panel, block.groups, lengths, depth, room)
    if block.shared:
        panel = shown[0]
        panel.set_title(wrapped(block.title, 8 * width), loc="left", pad=20, weight="bold")
        _name_training_maximum(panel, block.groups)
        ends = [_draw(panel, group, styles[group.name], measure, spread) for group in block.groups]
        row = 0
        for group in block.groups:
            row += _draw_states(panel, group, styles[group.name], measure, row + 1)
        _label_ends(panel, block, styles, ends, depth)
        panel.set_ylabel(f"{measure.title} ({measure.scale})")
        panel.set_xlabel("test length")
    else:
        title = wrapped(block.title, 8 * width)
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
        for panel, group, name in zip(shown, block.groups, block.names, strict=False):
            for other in block.groups:
                panel.plot(*_mean(other, measure), color=FAINT, linewidth=0.8, zorder=1)
            _draw(
                panel,
                group,
                styles[group.name] | {"linestyle": "-", "marker": "o"},
                measure,
                spread,
                small=True,
            )
            _draw_states(panel, group, styles[group.name], measure, 1)
            panel.set_title(wrapped(_named(group, name), 24), loc="left", fontsize=8.5, pad=3)
        for panel in shown[len(block.groups) :]:
            panel.remove()
        for index, panel in enumerate(shown[: len(block.groups)]):
            if index + columns >= len(block.groups):  # nothing stands below it
                panel.tick_params(labelbottom=True)
                panel.set_xlabel("test length", fontsize=8.5)
        figure.supylabel(f"{measure.title} ({measure.scale})", fontsize=10)
    _legend(figure, block, measure, spread, width)


def _mean(group: Group, measure: Measure) -> tuple[list[int], list[float]]:
    """Lengths, and in percent the mean over seeds; a length without any value breaks the line."""
    lengths = sorted({n for run in group.seeds for n in run.cells})
    values = [_values(group, n, measure) for n in lengths]
    return lengths, [100 * fmean(own) if own else NOTHING for own in values]


def _values(group: Group, length: int, measure: Measure) -> list[float]:
    found = (run.value(length, measure) for run in group.seeds)
    return [value for value in found if value is not None]


def _draw(
    panel: Any,
    group: Group,
    style: dict[str, Any],
    measure: Measure,
    spread: bool,
    small: bool = False,
) -> tuple[float, float] | None:
    """The mean's line and its band; returns where the line ends, None if it has no point."""
    lengths, means = _mean(group, measure)
    bounds = [_band(group, length, measure, spread) for length in lengths]
    low, high = ([100 * bound[side] for bound in bounds] for side in (0, 1))
    band = {"color": style["color"], "alpha": 0.16, "linewidth": 0, "zorder": 1}
    panel.fill_between(lengths, low, high, **band)
    sizes = {"linewidth": 1.6 if small else 2.0, "markersize": 4 if small else 6}
    face = hollow(style, group.untrained)
    panel.plot(lengths, means, **sizes, **face, **style, zorder=4, clip_on=False)
    points = [(x, y) for x, y in zip(lengths, means, strict=True) if not isnan(y)]
    return points[-1] if points else None


def _band(group: Group, length: int, measure: Measure, spread: bool) -> tuple[float, float]:
    """The range over seeds, or the interval of a single one where none has several."""
    values = _values(group, length, measure)
    if not values:
        return NOTHING, NOTHING
    if spread or measure != EXACT_MATCH:
        return min(values), max(values)
    cell = group.best.cells[length]
    return wilson(cell.correct, cell.samples)


def _named(group: Group, name: str) -> str:
    """The method, and how many of its seeds trained where not all did."""
    if not group.untrained:
        return name
    return f"{name} ({group.trained}/{len(group.seeds)}\N{NO-BREAK SPACE}trained)"


def _label_ends(
    panel: Any, block: Block, styles: dict, ends: Sequence[tuple[float, float] | None], depth: float
) -> None:
    """The methods' names right of the panel, at the height of their last points and no closer than
    lines of text; a thin line leads from the point."""
    line = (depth + 106) / (HEIGHT * 72) * 13.5  # in percent, of one line of text
    texts = [
        wrapped(_named(group, name), 36)
        for group, name in zip(block.groups, block.names, strict=True)
    ]
    heights = [line * (text.count("\n") + 1) for text in texts]
    wanted = [end[1] if end else -depth for end in ends]
    order = sorted(range(len(texts)), key=lambda i: (-wanted[i], i))
    places: dict[int, float] = {}
    ceiling = 102 + line / 2
    for i in order:
        places[i] = min(wanted[i], ceiling - heights[i] / 2)
        ceiling = places[i] - heights[i] / 2
    floor = -depth - 4
    for i in reversed(order):  # what was pushed out below the axis moves up again
        places[i] = max(places[i], floor + heights[i] / 2)
        floor = places[i] + heights[i] / 2
    leader = {"arrowstyle": "-", "alpha": 0.45, "linewidth": 0.8, "relpos": (0, 0.5)}
    for i, (text, end) in enumerate(zip(texts, ends, strict=True)):
        colour = styles[block.groups[i].name]["color"]
        panel.annotate(
            text,
            end or (1, places[i]),
            xycoords="data" if end else ("axes fraction", "data"),
            xytext=(1.025, places[i]),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=9.5,
            color=colour,
            annotation_clip=False,
            arrowprops=leader | {"color": colour} if end else None,
        )


def _missing(group: Group, measure: Measure) -> dict[int, tuple[str, bool]]:
    """length -> (state, has no seed a value there?) where a seed has none."""
    marks: dict[int, tuple[str, bool]] = {}
    for run in group.seeds:
        for length in run.cells:
            state = run.state(length)
            if state != "value":
                marks.setdefault(length, (state, not _values(group, length, measure)))
    return marks


def _room_below(block: Block, measure: Measure) -> float:
    """How far below 0 the rows of markers reach."""
    rows = sum(bool(_missing(group, measure)) for group in block.groups)
    return 5.0 * rows if block.shared else 14.0 * bool(rows)


def _draw_states(panel: Any, group: Group, style: dict, measure: Measure, row: int) -> bool:
    """Markers below the axis where seeds have no value; returns whether there are any."""
    marks = _missing(group, measure)
    for length, (state, alone) in marks.items():
        panel.plot(
            [length],
            [-5.0 * row],
            linestyle="none",
            marker=STATE_MARKERS[state],
            markersize=6 if alone else 4.5,
            markeredgewidth=1.5 if alone else 1.0,
            markerfacecolor="none",
            color=style["color"],
            alpha=1.0 if alone else 0.6,
            zorder=4,
        )
    return bool(marks)


def _legend(figure: Any, block: Block, measure: Measure, spread: bool, width: float) -> None:
    """What lines, bands and marks are; methods are named where they are drawn."""
    from matplotlib.patches import Patch

    if spread:
        entries = [
            legend_entry("mean over seeds", linewidth=2),
            Patch(color=SOFT, alpha=0.25, linewidth=0, label="range over seeds"),
        ]
    elif measure == EXACT_MATCH:
        entries = [Patch(color=SOFT, alpha=0.25, linewidth=0, label="95 % Wilson interval")]
    else:
        entries = []
    if any(group.untrained for group in block.groups):
        hollow = {"marker": "o", "markerfacecolor": PAPER, "markersize": 6}
        entries.append(legend_entry("a seed did not train", linestyle="none", **hollow))
    used = {state for group in block.groups for state, _ in _missing(group, measure).values()}
    for state, marker in STATE_MARKERS.items():
        if state in used:
            look = {"marker": marker, "markerfacecolor": "none", "markeredgewidth": 1.5}
            entries.append(legend_entry(state_text(state), linestyle="none", **look))
    if entries:
        figure.legend(
            handles=entries,
            loc="outside lower left",
            ncols=int(width // 1.8),
            frameon=False,
            handlelength=1.8,
            fontsize=9.5,
        )


def _axes(
    panel: Any, groups: Sequence[Group], lengths: list[int], depth: float, width: float
) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    ends = sorted({group.train_range[1] for group in groups})
    first = min([*lengths, ends[0]]) / 2**0.35
    panel.axvspan(first, ends[0], color=INK, alpha=0.05, linewidth=0, zorder=0)
    for end in ends:
        panel.axvline(end, color=SOFT, linestyle=(0, (4, 3)), linewidth=1.0, zorder=1)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(FixedLocator(lengths))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlim(first, max([*lengths, ends[-1]]) * 2**0.35)
    panel.set_ylim(-depth - 4 if depth else -4, 102)
    small = width < WIDTH / 2
    panel.set_yticks(range(0, 101, 50 if small else 20))
    frame(panel)
    if depth:
        panel.axhline(0, color="#999999", linewidth=0.8, zorder=1)
    panel.tick_params(labelsize=8 if small else None)
    panel.set_xticks(lengths, _tick_labels(lengths, ends[0], width))


def _name_training_maximum(panel: Any, groups: Sequence[Group]) -> None:
    ends = sorted({group.train_range[1] for group in groups})
    panel.annotate(
        f"training maximum {' and '.join(map(str, ends))}",
        (ends[0], 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        fontsize=9.5,
        color=SOFT,
    )


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
