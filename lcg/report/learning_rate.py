"""How much a method's result depends on the learning rate, and whether the grid held the best."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from math import log
from statistics import median
from typing import Any

from lcg.report.drawing import WIDTH, Drawing, finish, look, stacked, svg_of
from lcg.results.groups import Group, Run
from lcg.results.plot import STATE_MARKERS, legend_entry

Metric = Callable[[Run], float | None]


def validation_at(length: int | None) -> Metric:
    """Validation exact match at a length."""

    def metric(run: Run) -> float | None:
        result = run.record.validation.get(length)
        return None if result is None else result.exact_match

    return metric


def out_of_distribution(run: Run) -> float | None:
    """Mean test exact match over the lengths beyond training."""
    return run.mean_out_of_distribution.value


def draw(name: str, task: str, groups: list[Group], styles: dict[str, dict[str, Any]]) -> Drawing:
    """The figure of one task: two panels over one axis of learning rates."""
    lengths = sorted({g.choice.monitored for g in groups if g.choice.monitored is not None})
    at = f" at {' / '.join(map(str, lengths))}" if lengths else ""
    metrics: list[tuple[str, Callable[[Group], Metric]]] = [
        (f"validation{at} (%)", lambda group: validation_at(group.choice.monitored)),
        ("test, mean OOD (%)", lambda group: out_of_distribution),
    ]
    with look():
        figure, panels = stacked([2.0, 2.0], gap=0.25)
        for panel, (label, metric) in zip(panels, metrics, strict=True):
            panel.set_ylabel(label)
            _fill(panel, groups, styles, metric)
        _learning_rates(panels[-1], groups)
        panels[0].set_title(f"{task}, over learning rates", loc="left", weight="bold")
        _legend(panels[-1], groups, styles)
        svg = svg_of(figure)
    return Drawing(name, "Learning-rate sensitivity", _caption(groups, at), svg)


def _caption(groups: list[Group], at: str) -> str:
    edges = [
        f"{group.name} ({group.lr:g}: extend to {group.not_bracketed:.3g})"
        for group in groups
        if group.not_bracketed is not None
    ]
    bracket = (
        f"Selected at the edge of its grid, so not bracketed: {'; '.join(edges)}."
        if edges
        else "No learning rate was selected at the edge of its grid."
        if any(len({run.record.lr for run in group.runs}) > 1 for group in groups)
        else "Each method ran at one learning rate, which is no grid."
    )
    states = ""
    if any(out_of_distribution(run) is None or not _shown(run) for g in groups for run in g.runs):
        states = (
            "Below the axis: a cross is a run that did not train, an open dot one without value. "
        )
    return (
        f"Exact match against peak learning rate: in validation{at}, where checkpoints are "
        "chosen, and as the mean over test lengths beyond training. Every run is a dot (methods "
        "are set a little apart), the line joins the medians of the runs that trained, the ring "
        f"is at the selected run. {states}{bracket}"
    )


def _fill(panel: Any, groups: list[Group], styles: dict, of: Callable[[Group], Metric]) -> None:
    depth = 0.0
    for index, group in enumerate(groups):
        style, metric = styles[group.name], of(group)
        shift = 1.0 + 0.05 * (index - (len(groups) - 1) / 2) / max(1, (len(groups) - 1) / 2)
        medians = []
        below = []
        for lr in sorted({run.record.lr for run in group.runs}):
            own = [run for run in group.runs if run.record.lr == lr]
            values = [100 * v for run in own if _shown(run) and (v := metric(run)) is not None]
            below += [(lr * shift, run.trained is False) for run in own if not _shown(run)]
            below += [(lr * shift, False) for run in own if _shown(run) and metric(run) is None]
            if values:
                medians.append((lr * shift, median(values)))
                panel.plot(
                    [lr * shift] * len(values),
                    values,
                    linestyle="none",
                    marker=style["marker"],
                    color=style["color"],
                    markersize=5,
                    markeredgecolor="white",
                    markeredgewidth=0.5,
                    alpha=0.85,
                    zorder=3,
                    clip_on=False,
                )
        line = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1.6}
        panel.plot(*zip(*medians, strict=True), **line, alpha=0.75) if medians else None
        if below:
            depth += 8.0
            _below(panel, below, depth, style["color"])
        _ring(panel, group, metric, shift, depth, style["color"])
    panel.set_ylim(-depth - 6 if depth else -5, 104)
    panel.set_yticks(range(0, 101, 25))
    if depth:
        panel.axhline(0, color="#999999", linewidth=0.8, zorder=1)
    finish(panel)


def _shown(run: Run) -> bool:
    return run.trained is not False


def _below(panel: Any, marks: list[tuple[float, bool]], depth: float, colour: str) -> None:
    for lr, untrained in marks:
        panel.plot(
            [lr],
            [-depth],
            marker=STATE_MARKERS["did_not_train"] if untrained else "o",
            color=colour,
            markerfacecolor="none",
            markersize=5.5,
            markeredgewidth=1.4,
            zorder=4,
        )


def _ring(panel: Any, group: Group, metric: Metric, shift: float, depth: float, colour: str):
    """Around the selected run; an arrow points to where the grid should go on."""
    value = metric(group.best)
    height = 100 * value if _shown(group.best) and value is not None else -depth
    ring = {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.5}
    panel.plot(
        [group.lr * shift], [height], marker="o", markersize=11, zorder=5, clip_on=False, **ring
    )
    if group.not_bracketed is not None:
        outward = 1 if group.not_bracketed > group.lr else -1
        panel.annotate(
            "▸" if outward > 0 else "◂",
            (group.lr * shift, height),
            xytext=(11 * outward, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=colour,
            fontsize=12,
        )


def _learning_rates(panel: Any, groups: list[Group]) -> None:
    from matplotlib.ticker import NullLocator

    rates = sorted({run.record.lr for group in groups for run in group.runs})
    panel.set_xscale("log")
    panel.set_xlim(rates[0] / 1.45, rates[-1] * 1.45)
    labelled: list[float] = []
    for rate in rates:  # where labels would touch, the lower one is named
        if not labelled or log(rate / labelled[-1]) > 0.15 * log(1.45**2 * rates[-1] / rates[0]):
            labelled.append(rate)
    panel.set_xticks(rates, [f"{rate:g}" if rate in labelled else "" for rate in rates])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("peak learning rate")


def _legend(panel: Any, groups: list[Group], styles: dict[str, dict[str, Any]]) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], label=textwrap.fill(group.name, int(13 * WIDTH)), **styles[group.name])
        for group in groups
    ]
    ring = {"marker": "o", "markersize": 10, "markerfacecolor": "none"}
    entries.append(legend_entry("selected", linestyle="none", **ring))
    if any(run.trained is False for group in groups for run in group.runs):
        cross = STATE_MARKERS["did_not_train"]
        entries.append(legend_entry("did not train", linestyle="none", marker=cross))
    if any(group.not_bracketed is not None for group in groups):
        entries.append(legend_entry("▸ ◂ at the edge of its grid", linestyle="none"))
    panel.legend(
        handles=entries,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.26),
        frameon=False,
        ncols=2 if max(len(entry.get_label()) for entry in entries) < 24 else 1,
    )
