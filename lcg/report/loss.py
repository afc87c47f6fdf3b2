"""The training loss of every seed, and when each left its plateau."""

from __future__ import annotations

from typing import Any

from lcg.report.sources import Series, thinned
from lcg.results.aggregate import Group, Run
from lcg.results.figure import (
    Drawing,
    finish,
    look,
    marker_of,
    multiples,
    stacked,
    step_axis,
    svg_of,
    wrapped,
)
from lcg.results.plot import FAINT, PAPER, SHARED, legend_entry

LOSS = "train/loss"


def draw(
    name: str,
    task: str,
    groups: list[Group],
    styles: dict[str, dict[str, Any]],
    series: dict[str, Series],
) -> Drawing | str:
    """The figure of one task; `series` holds metrics by run name. A note if no run has a loss."""
    if not any(LOSS in series[run.record.run] for group in groups for run in group.seeds):
        return f"{task}: no loss curves, no run has a metrics.csv with {LOSS}."
    with look():
        if len(groups) <= SHARED:
            figure, (panel,) = stacked([2.6])
            left = sum(_curves(panel, group, styles[group.name], series) for group in groups)
            panel.set_ylabel("training loss (nats)")
            panel.set_xlabel("step")
            panel.set_title(wrapped(f"{task}, training loss", 40), loc="left", weight="bold")
            _scales(panel)
            _legend(panel, groups, styles, bool(left))
        else:
            figure, panels = multiples(f"{task}, training loss (nats)", len(groups))
            left = 0
            for panel, group in zip(panels, groups, strict=True):
                for other in groups:
                    x, y = thinned(*series[other.best.record.run].get(LOSS, ([], [])))
                    panel.plot(x, y, color=FAINT, linewidth=0.7, zorder=1)
                left += _curves(panel, group, styles[group.name] | {"linestyle": "-"}, series)
                panel.set_title(wrapped(group.name, 24), loc="left", fontsize=8)
                _scales(panel)
            figure.supxlabel("step", fontsize=9.5)
        svg = svg_of(figure)
    plateau = " Diamonds: the step at which the run left its loss plateau." if left else ""
    caption = (
        "Training loss per scored token (log scale) against step. Thick: the selected run of each "
        "method; thin: the other seeds at its learning rate. Curves of more than 200 points are "
        f"means over stretches of equal length.{plateau}"
    )
    return Drawing(name, "Training loss", caption, svg)


def _scales(panel: Any) -> None:
    """A log axis of losses, with labels even where it covers less than a decade."""
    from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

    panel.set_yscale("log")
    low, high = panel.get_ylim()
    if high < 10 * low:
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.yaxis.set_minor_formatter(NullFormatter())
    step_axis(panel)
    finish(panel)


def _legend(panel: Any, groups: list[Group], styles: dict, left: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linewidth=2, label=wrapped(group.name), **_line(styles[group.name]))
        for group in groups
    ]
    if left:
        diamond = {"marker": "D", "markersize": 6, "markerfacecolor": "none"}
        handles.append(legend_entry("left the plateau", linestyle="none", **diamond))
    columns = 2 if max(len(handle.get_label()) for handle in handles) < 24 else 1
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
    panel.legend(handles=handles, frameon=False, ncols=columns, **below)


def _line(style: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in style.items() if key != "marker"}


def _curves(panel: Any, group: Group, style: dict, series: dict[str, Series]) -> int:
    """The lines of a method's seeds; returns how many show when the run left its plateau."""
    ordered = (*(run for run in group.seeds if run is not group.best), group.best)
    return sum(_curve(panel, run, run is group.best, style, series) for run in ordered)


def _curve(
    panel: Any, run: Run, best: bool, style: dict[str, Any], series: dict[str, Series]
) -> bool:
    """One run's line; returns whether it shows when the run left its plateau."""
    steps, values = series[run.record.run].get(LOSS, ([], []))
    if not steps:
        return False
    x, y = thinned(steps, values)
    panel.plot(
        x,
        y,
        linewidth=2 if best else 0.9,
        alpha=1 if best else 0.5,
        zorder=2 + best,
        **_line(style),
        **marker_of(x),
    )
    step = run.record.fate.get("plateau_left_at")
    if step is None:
        return False
    at = min(range(len(steps)), key=lambda i: abs(steps[i] - step))
    panel.plot(
        [step],
        [values[at]],
        marker="D",
        markersize=6.5 if best else 4,
        markerfacecolor=PAPER,
        markeredgecolor=style["color"],
        markeredgewidth=1.4 if best else 1,
        zorder=5,
    )
    return True
