"""The training loss of every seed, and when each left its plateau."""

from __future__ import annotations

import textwrap
from typing import Any

from lcg.report.drawing import WIDTH, Drawing, finish, look, stacked, svg_of
from lcg.report.sources import Series, thinned
from lcg.results.groups import Group, Run
from lcg.results.plot import legend_entry

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
    from matplotlib.ticker import NullFormatter

    left = 0
    with look():
        figure, (panel,) = stacked([2.6])
        handles = []
        for group in groups:
            for run in (*(r for r in group.seeds if r is not group.best), group.best):
                left += _curve(panel, run, run is group.best, styles[group.name], series)
            line = {k: v for k, v in styles[group.name].items() if k != "marker"}
            label = textwrap.fill(group.name, int(13 * WIDTH))
            handles += panel.plot([], [], linewidth=2, label=label, **line)
        if left:
            diamond = {"marker": "D", "markersize": 6, "markerfacecolor": "none"}
            handles.append(legend_entry("left the plateau", linestyle="none", **diamond))
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())  # labels of less than a decade are TeX
        panel.set_ylabel("training loss (nats)")
        panel.set_xlabel("step")
        panel.set_title(f"{task}, training loss", loc="left", weight="bold")
        finish(panel)
        columns = 2 if max(len(handle.get_label()) for handle in handles) < 24 else 1
        panel.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            frameon=False,
            ncols=columns,
        )
        svg = svg_of(figure)
    plateau = " Diamonds: the step at which the run left its loss plateau." if left else ""
    caption = (
        "Training loss per scored token (log scale) against step. Thick: the selected run of each "
        "method; thin: the other seeds at its learning rate. Curves of more than 200 points are "
        f"means over stretches of equal length.{plateau}"
    )
    return Drawing(name, "Training loss", caption, svg)


def _curve(
    panel: Any, run: Run, best: bool, style: dict[str, Any], series: dict[str, Series]
) -> bool:
    """One run's line; returns whether it shows when the run left its plateau."""
    steps, values = series[run.record.run].get(LOSS, ([], []))
    if not steps:
        return False
    line = {k: v for k, v in style.items() if k != "marker"}
    x, y = thinned(steps, values)
    panel.plot(
        x, y, linewidth=2 if best else 0.9, alpha=1 if best else 0.5, zorder=2 + best, **line
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
        markerfacecolor="white",
        markeredgecolor=style["color"],
        markeredgewidth=1.4 if best else 1,
        zorder=5,
    )
    return True
