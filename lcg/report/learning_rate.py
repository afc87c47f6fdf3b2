"""How much a method's result depends on the learning rate, and whether the grid held the best."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from statistics import median
from typing import Any

from lcg.results.aggregate import Group, Run
from lcg.results.figure import Drawing, finish, look, multiples, stacked, svg_of, wrapped
from lcg.results.measures import Measure
from lcg.results.plot import PAPER, SHARED, legend_entry

Value = Callable[[Run], float | None]


def validation_at(length: int | None) -> Value:
    """Validation exact match at a length."""

    def value(run: Run) -> float | None:
        result = run.record.validation.get(length)
        return None if result is None else result.exact_match

    return value


def draw(
    name: str, task: str, groups: list[Group], styles: dict[str, dict[str, Any]], measure: Measure
) -> Drawing | str:
    """The figure of one task; a note where every method ran at one learning rate."""
    if all(len({run.record.lr for run in group.runs}) < 2 for group in groups):
        return f"{task}: each method ran at one learning rate, which is no grid."
    lengths = sorted({g.choice.monitored for g in groups if g.choice.monitored is not None})
    at = f" at {' / '.join(map(str, lengths))}" if lengths else ""

    def validation(group: Group) -> Value:
        return validation_at(group.choice.monitored)

    def test(group: Group) -> Value:
        return lambda run: run.mean_out_of_distribution(measure).value

    unit = measure.scale
    shown = [(f"validation{at} (%)", validation), (f"test, mean OOD ({unit})", test)]
    with look():
        if len(groups) <= SHARED:
            figure, panels = stacked([2.0, 2.0], gap=0.25)
            for panel, (label, value) in zip(panels, shown, strict=True):
                panel.set_ylabel(label)
                for index, group in enumerate(groups):
                    shift = 1 + 0.05 * (2 * index / max(1, len(groups) - 1) - 1)
                    _fill(panel, group, styles[group.name], value(group), shift)
            _rates(panels[-1], groups)
            title = wrapped(f"{task}, over learning rates", 40)
            panels[0].set_title(title, loc="left", weight="bold")
            _legend(panels[-1], groups, styles)
        else:
            figure, panels = multiples(f"{task}, over learning rates: {shown[1][0]}", len(groups))
            for panel, group in zip(panels, groups, strict=True):
                _fill(panel, group, styles[group.name] | {"linestyle": "-"}, test(group), 1.0)
                panel.set_title(wrapped(group.name, 24), loc="left", fontsize=8)
                _rates(panel, groups, 2)
                panel.set_xlabel("")
            figure.supxlabel("peak learning rate", fontsize=9.5)
        svg = svg_of(figure)
    return Drawing(name, "Learning-rate sensitivity", _caption(groups, at, measure), svg)


def _caption(groups: list[Group], at: str, measure: Measure) -> str:
    edges = [
        f"{group.name} ({group.lr:g}: try {group.beyond_grid:.3g})"
        for group in groups
        if group.beyond_grid is not None
    ]
    if len(edges) > SHARED:
        edges = [f"{len(edges)} of {len(groups)} methods (arrows; the notes have them)"]
    edge = (
        f"The best value is at the edge of the grid for {'; '.join(edges)}."
        if edges
        else "No learning rate was selected at the edge of its grid."
    )
    hollow = ""
    if any(run.trained is False for group in groups for run in group.runs):
        hollow = "A hollow dot is a run that did not train. "
    where = "" if len(groups) > SHARED else f"exact match in validation{at}, and "
    return (
        f"Results against peak learning rate: {where}{measure.title} as the mean over test lengths "
        "beyond training. Every run is a dot (methods are set a little apart), the line joins "
        f"medians, the ring is at the selected run. {hollow}{edge}"
    )


def _fill(panel: Any, group: Group, style: dict, value: Value, shift: float) -> None:
    """A method's runs as dots, a line through their medians, a ring around the selected run."""
    colour = style["color"]
    medians = []
    for lr in sorted({run.record.lr for run in group.runs}):
        own = [run for run in group.runs if run.record.lr == lr and value(run) is not None]
        for run in own:
            hollow = run.trained is False
            panel.plot(
                [lr * shift],
                [100 * value(run)],
                linestyle="none",
                marker=style["marker"],
                color=colour,
                markersize=5,
                markerfacecolor=PAPER if hollow else colour,
                markeredgecolor=colour if hollow else PAPER,
                markeredgewidth=1.1 if hollow else 0.5,
                zorder=3,
                clip_on=False,
            )
        if own:
            medians.append((lr * shift, 100 * median(value(run) for run in own)))
    if medians:
        line = {"color": colour, "linestyle": style["linestyle"], "linewidth": 1.6, "alpha": 0.75}
        panel.plot(*zip(*medians, strict=True), **line)
    if (selected := value(group.best)) is not None:
        _ring(panel, group, 100 * selected, shift, colour)
    panel.set_ylim(-5, 104)
    panel.set_yticks(range(0, 101, 25))
    finish(panel)


def _ring(panel: Any, group: Group, height: float, shift: float, colour: str) -> None:
    """Around the selected run; an arrow points to where the grid should be continued."""
    ring = {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.5}
    panel.plot(
        [group.lr * shift], [height], marker="o", markersize=11, zorder=5, clip_on=False, **ring
    )
    if group.beyond_grid is not None:
        outward = 1 if group.beyond_grid > group.lr else -1
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


def _rates(panel: Any, groups: list[Group], most: int = 99) -> None:
    """The axis of learning rates, of which at most `most` are written out."""
    from matplotlib.ticker import NullLocator

    rates = sorted({run.record.lr for group in groups for run in group.runs})
    panel.set_xscale("log")
    panel.set_xlim(rates[0] / 1.45, rates[-1] * 1.45)
    labelled: list[float] = []
    for rate in rates:  # where labels would touch, the lower one is named
        if not labelled or log(rate / labelled[-1]) > 0.15 * log(1.45**2 * rates[-1] / rates[0]):
            labelled.append(rate)
    if len(labelled) > most:
        labelled = [rates[0], rates[-1]]
    panel.set_xticks(rates, [f"{rate:g}" if rate in labelled else "" for rate in rates])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("peak learning rate")


def _legend(panel: Any, groups: list[Group], styles: dict[str, dict[str, Any]]) -> None:
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], label=wrapped(group.name), **styles[group.name]) for group in groups]
    ring = {"marker": "o", "markersize": 10, "markerfacecolor": "none"}
    entries.append(legend_entry("selected", linestyle="none", **ring))
    if any(run.trained is False for group in groups for run in group.runs):
        hollow = {"marker": "o", "markersize": 5, "markerfacecolor": PAPER}
        entries.append(legend_entry("did not train", linestyle="none", **hollow))
    if any(group.beyond_grid is not None for group in groups):
        entries.append(legend_entry("▸ ◂ at the edge of its grid", linestyle="none"))
    panel.legend(
        handles=entries,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.26),
        frameon=False,
        ncols=2 if max(len(entry.get_label()) for entry in entries) < 24 else 1,
    )
