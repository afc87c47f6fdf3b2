"""Exact match against test length: one panel per task, one colour per method."""

import io
import os
import textwrap
from collections.abc import Iterable
from math import log2
from pathlib import Path
from typing import Any

from lcg.results.groups import Group, Run, group_runs, training_lengths
from lcg.results.record import RunRecord, write_atomic
from lcg.results.statistics import wilson
from lcg.results.wording import state_text

SUFFIXES = (".png", ".svg", ".pdf")
# Okabe and Ito's colours that stay apart under colour blindness, without yellow and black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A5ACD", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)))  # one more round of colours each
STATE_MARKERS = {"did_not_train": "x", "out_of_memory": "s", "skipped": ">", "not_finite": "d"}
NOTHING = float("nan")  # matplotlib leaves a gap there
WIDTH, HEIGHT = 6.3, 3.2  # of one panel, in inches
FONTS = {
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.labelsize": 11.5,
    "legend.fontsize": 10,
    "svg.hashsalt": "lcg",
    "text.parse_math": False,  # a dollar in a label is a dollar
}


def plot(records: Iterable[RunRecord], path: str | os.PathLike) -> Path:
    """Draw the runs and write the picture (.png, .svg or .pdf) atomically; returns its path.

    The best run by validation is a thick line with its 95 % Wilson interval as a band, the other
    seeds at its learning rate are thin lines. Where a run has no value a marker stands below the
    axis instead of a point at 0. Raises ValueError for another suffix or no records.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: cannot plot to {path.suffix!r}, use {', '.join(SUFFIXES)}")
    groups = group_runs(records)

    import matplotlib
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    tasks = list(dict.fromkeys(group.task for group in groups))
    styles = method_styles(groups)
    with matplotlib.rc_context(FONTS):
        figure = Figure()
        panels, legend_rows = [], []
        for task in tasks:
            panels.append(figure.add_axes((0, 0, 1, 1), label=task))
            own = [group for group in groups if group.task == task]
            legend_rows.append(draw_accuracy(panels[-1], task, own, styles))
        _arrange(figure, panels, max(legend_rows))
        image = io.BytesIO()
        kind = path.suffix[1:].lower()
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        figure.savefig(image, format=kind, dpi=160, metadata=metadata, bbox_inches="tight")
    return write_atomic(path, image.getvalue())


def _arrange(figure: Any, panels: list[Any], legend_rows: int) -> None:
    """Panels of one size, at most two side by side, with room for titles and legends (inches)."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    cell_width = WIDTH + 1.1
    cell_height = HEIGHT + 1.5 + 0.22 * legend_rows
    total_width, total_height = columns * cell_width, rows * cell_height
    figure.set_size_inches(total_width, total_height)
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        left = column * cell_width + 0.85
        bottom = total_height - row * cell_height - 0.7 - HEIGHT
        size = (WIDTH / total_width, HEIGHT / total_height)
        panel.set_position((left / total_width, bottom / total_height, *size))


def method_styles(groups: list[Group]) -> dict[str, dict[str, Any]]:
    """A method looks the same in every panel, and like no other method of its panels.

    As few looks as that allows, so that dashes come only where the colours are used up.
    """
    tasks: dict[str, set[str]] = {}
    for group in groups:
        tasks.setdefault(group.task, set()).add(group.name)
    chosen: dict[str, int] = {}
    for name in sorted({group.name for group in groups}):
        beside = {other for own in tasks.values() if name in own for other in own}
        taken = {chosen[other] for other in beside & chosen.keys()}
        chosen[name] = next(index for index in range(len(groups)) if index not in taken)
    count = len(COLOURS)
    return {
        name: {
            "color": COLOURS[index % count],
            "marker": MARKERS[index % count],
            "linestyle": DASHES[index // count % len(DASHES)],
        }
        for name, index in chosen.items()
    }


def draw_accuracy(
    panel: Any,
    task: str,
    groups: list[Group],
    styles: dict[str, dict[str, Any]],
    size: tuple[float, float] = (WIDTH, HEIGHT),
) -> int:
    """Fill one panel of `size` inches; returns how many lines its legend has."""
    width, height = size
    lengths = sorted({n for group in groups for run in group.seeds for n in run.cells})
    handles = []
    for index, group in enumerate(groups):
        style = styles[group.name]
        for run in group.seeds:
            if run is not group.best:
                quiet = {"color": style["color"], "linestyle": style["linestyle"]}
                panel.plot(*_points(run), linewidth=1, alpha=0.5, zorder=2, **quiet)
        inward = index / (len(groups) - 1) if len(groups) > 1 else 0.5
        handles.append(_draw_best(panel, group, style, inward))
        handles[-1].set_label(textwrap.fill(handles[-1].get_label(), int(13 * width)))
    states, depth = _draw_states(panel, groups, styles)
    if any(len(group.seeds) > 1 for group in groups):
        states = [legend_entry("another seed", linewidth=1, alpha=0.7), *states]
    _training_range(panel, groups, lengths)
    _axes(panel, lengths, depth)
    labels = _tick_labels(lengths, groups[0].train_range[1], width)
    panel.set_xticks(lengths, labels)
    title = f"{task}, trained at {training_lengths(groups)}"
    panel.set_title(title, loc="left", pad=20, weight="bold")
    entries = [*handles, *states]
    columns = 2 if max(len(entry.get_label()) for entry in entries) < 42 * width / WIDTH else 1
    panel.legend(
        handles=entries,
        title="best run by validation, band: 95 % Wilson interval",
        title_fontsize=10,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.55 / height),
        ncols=columns,
        frameon=False,
        handlelength=2.6,
    )
    lines = sum(entry.get_label().count("\n") + 1 for entry in entries)
    return -(-lines // columns)


def _points(run: Run) -> tuple[list[int], list[float]]:
    """Lengths and percentages; a length without a value to show breaks the line."""
    shown = {n: run.state(n) == "value" for n in run.cells}
    return list(shown), [100 * run.exact_match(n) if ok else NOTHING for n, ok in shown.items()]


def _draw_best(panel: Any, group: Group, style: dict[str, Any], inward: float) -> Any:
    """The best run's line and band; later ones (`inward` up to 1) are slimmer.

    Curves that coincide, as many do at 100 %, then show as nested outlines.
    """
    lengths, percent = _points(group.best)
    bounds = []
    for length in lengths:
        cell = group.best.cells[length]
        shown = group.best.state(length) == "value"
        bounds.append(wilson(cell.correct, cell.samples) if shown else (NOTHING, NOTHING))
    low, high = ([100 * bound[side] for bound in bounds] for side in (0, 1))
    band = {"color": style["color"], "alpha": 0.16, "linewidth": 0, "zorder": 1}
    panel.fill_between(lengths, low, high, **band)
    (line,) = panel.plot(
        lengths,
        percent,
        linewidth=3.4 - 1.4 * inward,
        markersize=9 - 4 * inward,
        markeredgecolor="white",
        markeredgewidth=0.8,
        zorder=4,
        clip_on=False,
        label=_label(group),
        **style,
    )
    return line


def _label(group: Group) -> str:
    """The method, and how many of its seeds trained, where exact match says that."""
    if not group.judged:
        return group.name
    return f"{group.name}, {group.trained}/{len(group.seeds)} seeds trained"


def _draw_states(
    panel: Any, groups: list[Group], styles: dict[str, dict[str, Any]]
) -> tuple[list[Any], float]:
    """Markers below the axis, one row per method; returns legend entries and the rows' depth."""
    used: set[str] = set()
    depth = 0.0
    for group in groups:
        marks = _missing(group)
        if not marks:
            continue
        depth += 5.0
        for length, (state, best) in marks.items():
            used.add(state)
            panel.plot(
                [length],
                [-depth],
                linestyle="none",
                marker=STATE_MARKERS[state],
                markersize=6.5 if best else 4.5,
                markeredgewidth=1.8 if best else 1.1,
                markerfacecolor="none",
                color=styles[group.name]["color"],
                alpha=1.0 if best else 0.6,
                zorder=4,
            )
    entries = [
        legend_entry(
            state_text(state),
            linestyle="none",
            marker=marker,
            markerfacecolor="none",
            markeredgewidth=1.6,
        )
        for state, marker in STATE_MARKERS.items()
        if state in used
    ]
    return entries, depth


def legend_entry(label: str, **style: Any) -> Any:
    """A legend entry that belongs to no method."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color="#444444", label=label, **style)


def _missing(group: Group) -> dict[int, tuple[str, bool]]:
    """length -> (state, is it the best run's): the best run's state, else another seed's."""
    marks: dict[int, tuple[str, bool]] = {}
    for run in (group.best, *(run for run in group.seeds if run is not group.best)):
        for length in run.cells:
            state = run.state(length)
            if state != "value":
                marks.setdefault(length, (state, run is group.best))
    return marks


def _training_range(panel: Any, groups: list[Group], lengths: list[int]) -> None:
    """Shade up to the training maximum, and name it on a dashed line."""
    ends = sorted({group.train_range[1] for group in groups})
    first = min([*lengths, ends[0]]) / 2**0.35
    panel.axvspan(first, ends[0], color="#000000", alpha=0.05, linewidth=0, zorder=0)
    for end in ends:
        panel.axvline(end, color="#666666", linestyle=(0, (4, 3)), linewidth=1.1, zorder=1)
    panel.annotate(
        f"training maximum {' and '.join(map(str, ends))}",
        (ends[0], 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        fontsize=9.5,
        color="#555555",
    )
    panel.set_xlim(first, max([*lengths, ends[-1]]) * 2**0.35)


def _axes(panel: Any, lengths: list[int], depth: float) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(FixedLocator(lengths))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("test length")
    panel.set_ylabel("exact match (%)")
    panel.set_ylim(-depth - 4 if depth else -4, 102)
    panel.set_yticks(range(0, 101, 20))
    panel.grid(axis="y", color="#000000", alpha=0.08, linewidth=0.8)
    if depth:
        panel.axhline(0, color="#999999", linewidth=0.8, zorder=1)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(length=3.5, color="#888888")


def _tick_labels(lengths: list[int], first: int, width: float) -> list[str]:
    """Lengths as text; where labels would touch, `first` and powers of two go before the rest.

    width: of the panel, in inches.
    """
    span = log2(lengths[-1] / lengths[0]) if len(lengths) > 1 else 1.0
    labelled: list[int] = []
    for length in sorted(lengths, key=lambda n: (n != first, n & (n - 1) != 0, n)):
        room = (0.007 * WIDTH / width * span * (len(f"{length}{other}") + 2) for other in labelled)
        gaps = (abs(log2(length / other)) for other in labelled)
        if all(gap > needed for gap, needed in zip(gaps, room, strict=True)):
            labelled.append(length)
    return [str(length) if length in labelled else "" for length in lengths]
