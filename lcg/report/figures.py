"""The figures of a report, as SVG: accuracy, learning rates, loss and heads over training.

Each `draw_…` returns a Drawing, or a line that says why there is none. They draw within `look`.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import log
from statistics import median
from typing import Any

from lcg.results.aggregate import Group, RunResult
from lcg.results.figure import (
    FAINT,
    FONTS,
    INK,
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
from lcg.results.plot import draw_block, task_block
from lcg.results.statistics import Measure
from lcg.results.tables import capital, span, trained_at
from lcg.runs.metrics import Series

Styles = dict[str, dict[str, Any]]  # of methods, by their names

# Narrow, so that a phone shows the words at nearly their size; a wide screen sets two side by side.
WIDTH = 4.6  # inches of a figure
LABELLED_WIDTH = 5.4  # of one with labels at the ends of lines
LEGEND = 48  # characters of a label
LOOK = {
    **FONTS,
    "font.size": 10,
    "axes.titlesize": 11.5,
    "axes.labelsize": 10.5,
    "legend.fontsize": 9.5,
    "grid.color": INK,
    "svg.fonttype": "none",  # words stay words: searchable, and in the reader's own font
}
# What a page draws in its own colours, light or dark; methods keep theirs.
PAGE_COLOURS = {
    **dict.fromkeys((INK, "#444444", SOFT, "#888888", "#999999"), "currentColor"),
    PAPER: "var(--picture, #ffffff)",
    "#0072b2": "var(--blue, #0072b2)",  # too dark for dark paper
    "#6a5acd": "var(--violet, #6a5acd)",
    FAINT.lower(): "var(--faint, #c4c4c4)",
}
SCALED = "Scaled: the length scaling multiplies these heads' queries."


@dataclass(frozen=True)
class Drawing:
    """A finished figure. name: unique on the page, also its file's name. svg: a document."""

    name: str
    title: str
    caption: str
    svg: str

    @property
    def inline(self) -> str:
        """The SVG element for an HTML page: every id begins with the figure's name, and ink and
        paper are those of the page, so that it can be read in the dark."""
        element = self.svg[self.svg.index("<svg") :]
        element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
        element = re.sub(r'\bid="', f'id="{self.name}-', element)
        element = element.replace("url(#", f"url(#{self.name}-")
        for colour, of_page in PAGE_COLOURS.items():
            element = re.sub(rf"((?:fill|stroke): ){colour}\b", rf"\1{of_page}", element)
        element = re.sub(r'\bhref="#', f'href="#{self.name}-', element)
        # The picture's own words are its text; the label says what kind of picture they belong to.
        return element.replace("<svg ", '<svg role="img" ', 1)

    @property
    def data_url(self) -> str:
        """The document itself, for a link that downloads it without any script."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode()


@contextmanager
def look() -> Iterator[None]:
    """Fonts and SVG settings of every figure of a report."""
    import matplotlib

    with matplotlib.rc_context(LOOK):
        yield


def svg_of(figure: Any) -> str:
    """The figure as an SVG document without dates, so that the same input gives the same bytes."""
    text = io.StringIO()
    metadata = {"Date": None, "Creator": None}
    figure.savefig(
        text, format="svg", metadata=metadata, bbox_inches="tight", pad_inches=0.05, dpi=144
    )
    return text.getvalue()


def thinned(steps: list[int], values: list[float], most: int = 200) -> tuple[list, list]:
    """At most `most` points of a curve: means over stretches of equal length."""
    size = -(-len(steps) // most) or 1
    if size == 1:
        return steps, values
    stretches = [slice(start, start + size) for start in range(0, len(steps), size)]
    return (
        [round(sum(steps[s]) / len(steps[s])) for s in stretches],
        [sum(values[s]) / len(values[s]) for s in stretches],
    )


def shades(colour: str, count: int) -> list[str]:
    """`count` mixtures of a method's colour with white, the last one the colour itself."""
    from matplotlib.colors import to_hex, to_rgb

    steps = [0.5 * (count - 1 - i) / max(1, count - 1) for i in range(count)]
    return [to_hex([c + (1 - c) * step for c in to_rgb(colour)]) for step in steps]


def _stacked(title: str, heights: list[float]) -> tuple[Any, list[Any]]:
    """A figure of panels below each other, `heights` in inches, sharing their x."""
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    figure = Figure(figsize=(WIDTH, sum(heights) + 0.8), layout="constrained")
    panels = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)
    panels[0, 0].set_title(wrapped(title, 40), loc="left", weight="bold")
    return figure, list(panels.flat)


def _multiples(title: str, groups: list[Group]) -> tuple[Any, list[Any]]:
    """A figure of a small panel for each method over the same axes, three side by side."""
    from matplotlib.figure import Figure

    columns, count = 3, len(groups)
    rows = -(-count // columns)
    size = (columns * SMALL_WIDTH, rows * SMALL_HEIGHT + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for spare in panels[count:]:
        spare.remove()
    for index, (panel, group) in enumerate(zip(panels, groups, strict=False)):
        panel.set_title(wrapped(group.name, 24), loc="left", fontsize=8)
        panel.tick_params(labelsize=7.5, labelbottom=index + columns >= count)
    figure.suptitle(wrapped(title, LEGEND), x=0.01, ha="left", weight="bold", fontsize=10.5)
    return figure, panels[:count]


def _legend(figure: Any, entries: list[Any]) -> None:
    """A legend below the panels, which it takes no room from."""
    labels = [entry.get_label() for entry in entries]
    columns = 2 if max(map(len, labels)) < 24 else 1
    lines = -(-sum(label.count("\n") + 1 for label in labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * lines)
    figure.legend(handles=entries, loc="outside lower center", frameon=False, ncols=columns)


def _step_axis(panel: Any) -> None:
    """An axis of training steps, which are whole numbers."""
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))


def _curve(panel: Any, steps: list[int], values: list[float], **style: Any) -> None:
    """A line through at most 200 points; a few show themselves, since one alone has no line."""
    few = {"marker": "o", "markersize": 3.5} if len(steps) < 5 else {}
    panel.plot(*thinned(steps, values), **style, **few)


def _line(style: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in style.items() if key != "marker"}


# ---- accuracy


def draw_accuracy(name: str, groups: list[Group], styles: Styles, measure: Measure) -> Drawing:
    """A measure against test length: the figure of `lcg plot`, one task to a page's column."""
    from matplotlib.figure import Figure

    block = task_block(groups)
    size = (LABELLED_WIDTH, block.height(LABELLED_WIDTH))
    figure = Figure(figsize=size, layout="constrained")
    draw_block(figure, block, styles, measure, LABELLED_WIDTH)
    counts = [len(group.seeds) for group in groups]
    seeds = f"{span(counts)} seed{'' if set(counts) == {1} else 's'}"
    title = capital(measure.title)
    marks = ""
    if any(group.untrained for group in groups):
        marks += " Hollow points: a seed of the method did not train."
    cells = [cell for group in groups for run in group.seeds for cell in run.cells.values()]
    if any(cell.state != "value" for cell in cells):
        marks += " Marks below the axis stand where there is no value; they are not zeros."
    caption = (
        f"{title} on the test set against length (log₂), {groups[0].task} {trained_at(groups)}. "
        f"Each line is the mean over the seeds at a method's selected learning rate ({seeds} per "
        "method), each band their range, or the 95 % interval where every method has one seed."
        f"{marks}"
    )
    return Drawing(name, f"{title} against length", caption, svg_of(figure))


# ---- learning rates

Value = Callable[[RunResult], float | None]


def draw_learning_rates(
    name: str, groups: list[Group], styles: Styles, measure: Measure
) -> Drawing | str:
    """Results against the learning rate, which show whether the grid held the best one."""
    task = groups[0].task
    if all(len({run.record.lr for run in group.runs}) < 2 for group in groups):
        return f"{task}: each method ran at one learning rate, which is no grid."
    lengths = sorted({g.choice.monitored for g in groups if g.choice.monitored is not None})
    at = f" at {' / '.join(map(str, lengths))}" if lengths else ""

    def validation(run: RunResult, group: Group) -> float | None:
        result = run.record.validation.get(group.choice.monitored)
        return None if result is None else result.exact_match

    def test(run: RunResult, group: Group) -> float | None:
        return run.mean_out_of_distribution(measure).value

    title, tested = f"{task}, over learning rates", f"test, mean OOD ({measure.scale})"
    if len(groups) <= SHARED:
        figure, panels = _stacked(title, [2.0, 2.0])
        for panel, label, value in zip(
            panels, (f"validation{at} (%)", tested), (validation, test), strict=True
        ):
            panel.set_ylabel(label)
            for index, group in enumerate(groups):
                shift = 1 + 0.05 * (2 * index / max(1, len(groups) - 1) - 1)
                _rates(panel, group, styles[group.name], value, shift)
        _rate_axis(panels[-1], groups)
        panels[-1].set_xlabel("peak learning rate")
        _legend(figure, _rate_entries(groups, styles))
    else:
        figure, panels = _multiples(f"{title}: {tested}", groups)
        for panel, group in zip(panels, groups, strict=True):
            _rates(panel, group, styles[group.name] | {"linestyle": "-"}, test, 1.0)
            _rate_axis(panel, groups, 2)
        figure.supxlabel("peak learning rate", fontsize=9.5)
    caption = _rate_caption(groups, at, measure)
    return Drawing(name, "Learning-rate sensitivity", caption, svg_of(figure))


def _rates(panel: Any, group: Group, style: dict, value: Callable, shift: float) -> None:
    """A method's runs as dots, a line through their medians, a ring around the selected run; an
    arrow points to where the grid should be continued."""
    colour, medians = style["color"], {}
    for lr in sorted({run.record.lr for run in group.runs}):
        runs = [run for run in group.runs if run.record.lr == lr]
        values = [(100 * y, run) for run in runs if (y := value(run, group)) is not None]
        for height, run in values:
            dot = {"linestyle": "none", "marker": style["marker"], "markersize": 5, "color": colour}
            dot |= hollow(style, run.trained is False, 0.55)
            panel.plot([lr * shift], [height], **dot, zorder=3, clip_on=False)
        if values:
            medians[lr * shift] = median(height for height, _ in values)
    line = {"color": colour, "linestyle": style["linestyle"], "linewidth": 1.6, "alpha": 0.75}
    panel.plot([*medians], [*medians.values()], **line)
    panel.set_ylim(-5, 104)
    panel.set_yticks(range(0, 101, 25))
    frame(panel)
    selected = value(group.best, group)
    if selected is None:
        return
    place = (group.lr * shift, 100 * selected)
    ring = {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.5}
    panel.plot(*place, marker="o", markersize=11, zorder=5, clip_on=False, **ring)
    if group.beyond_grid is not None:
        larger = group.beyond_grid > group.lr
        panel.annotate(
            "▸" if larger else "◂",
            place,
            xytext=(11 if larger else -11, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=colour,
            fontsize=12,
        )


def _rate_axis(panel: Any, groups: list[Group], most: int = 99) -> None:
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


def _rate_entries(groups: list[Group], styles: Styles) -> list[Any]:
    entries = [legend_entry(wrapped(group.name, LEGEND), **styles[group.name]) for group in groups]
    ring = {"marker": "o", "markersize": 10, "markerfacecolor": "none"}
    entries.append(legend_entry("selected", linestyle="none", **ring))
    if any(run.trained is False for group in groups for run in group.runs):
        dot = {"marker": "o", "markersize": 5, "markerfacecolor": PAPER}
        entries.append(legend_entry("did not train", linestyle="none", **dot))
    if any(group.beyond_grid is not None for group in groups):
        entries.append(legend_entry("▸ ◂ at the edge of its grid", linestyle="none"))
    return entries


def _rate_caption(groups: list[Group], at: str, measure: Measure) -> str:
    edges = [
        f"{group.name} ({group.lr:g}: try {group.beyond_grid:.3g})"
        for group in groups
        if group.beyond_grid is not None
    ]
    if len(edges) > SHARED:
        edges = [f"{len(edges)} of {len(groups)} methods (arrows; the notes have them)"]
    edge = "No learning rate was selected at the edge of its grid."
    if edges:
        edge = f"The best value is at the edge of the grid for {'; '.join(edges)}."
    untrained = any(run.trained is False for group in groups for run in group.runs)
    dots = "A hollow dot is a run that did not train. " if untrained else ""
    where = "" if len(groups) > SHARED else f"exact match in validation{at}, and "
    return (
        f"Results against peak learning rate: {where}{measure.title} as the mean over test lengths "
        "beyond training. Every run is a dot (methods are set a little apart), the line joins "
        f"medians, the ring is at the selected run. {dots}{edge}"
    )


# ---- loss

LOSS = "train/loss"


def draw_loss(
    name: str, groups: list[Group], styles: Styles, series: dict[str, Series]
) -> Drawing | str:
    """The training loss of every seed, and when each left its plateau.

    series: the metrics of each run, by its name.
    """
    task = groups[0].task
    if not any(LOSS in series[run.record.run] for group in groups for run in group.seeds):
        return f"{task}: no loss curves, no run has a metrics.csv with {LOSS}."
    if len(groups) <= SHARED:
        figure, (panel,) = _stacked(f"{task}, training loss", [2.6])
        left = sum(_losses(panel, group, styles[group.name], series) for group in groups)
        panel.set_ylabel("training loss (nats)")
        panel.set_xlabel("step")
        _loss_axes(panel)
        entries = [
            legend_entry(wrapped(g.name, LEGEND), linewidth=2, **_line(styles[g.name]))
            for g in groups
        ]
        if left:
            diamond = {"marker": "D", "markersize": 6, "markerfacecolor": "none"}
            entries.append(legend_entry("left the plateau", linestyle="none", **diamond))
        _legend(figure, entries)
    else:
        figure, panels = _multiples(f"{task}, training loss (nats)", groups)
        left = 0
        for panel, group in zip(panels, groups, strict=True):
            for other in groups:
                curve = thinned(*series[other.best.record.run].get(LOSS, ([], [])))
                panel.plot(*curve, color=FAINT, linewidth=0.7, zorder=1)
            left += _losses(panel, group, styles[group.name] | {"linestyle": "-"}, series)
            _loss_axes(panel)
        figure.supxlabel("step", fontsize=9.5)
    plateau = " Diamonds: the step at which the run left its loss plateau." if left else ""
    caption = (
        "Training loss per scored token (log scale) against step. Thick: the selected run of each "
        "method; thin: the other seeds at its learning rate. Curves of more than 200 points are "
        f"means over stretches of equal length.{plateau}"
    )
    return Drawing(name, "Training loss", caption, svg_of(figure))


def _losses(panel: Any, group: Group, style: dict, series: dict[str, Series]) -> bool:
    """The lines of a method's seeds; returns whether any shows when its run left its plateau."""
    left = False
    for run in sorted(group.seeds, key=lambda run: run is group.best):
        steps, values = series[run.record.run].get(LOSS, ([], []))
        if not steps:
            continue
        best = run is group.best
        width = {"linewidth": 2 if best else 0.9, "alpha": 1 if best else 0.5}
        _curve(panel, steps, values, zorder=2 + best, **width, **_line(style))
        step = run.record.fate.get("plateau_left_at")
        if step is not None:
            at = min(range(len(steps)), key=lambda i: abs(steps[i] - step))
            diamond = {"marker": "D", "markersize": 6.5 if best else 4}
            diamond |= hollow(style, True, 0.7 if best else 0.5)
            panel.plot(step, values[at], **diamond, zorder=5)
            left = True
    return left


def _loss_axes(panel: Any) -> None:
    """A log axis of losses, with labels even where it covers less than a decade."""
    from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

    panel.set_yscale("log")
    low, high = panel.get_ylim()
    if high < 10 * low:
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.yaxis.set_minor_formatter(NullFormatter())
    _step_axis(panel)
    frame(panel)


# ---- heads over training

LAYERS = ("layer", "encoder", "decoder", "cross")
LAYER = rf"((?:{'|'.join(LAYERS)})_\d+)"
GROUP_DASHES = ("-", (0, (1, 1.2)), (0, (5, 2)), (0, (5, 1, 1, 1)))

Columns = dict[tuple[str, str], tuple[list[int], list[float]]]


@dataclass(frozen=True)
class Quantity:
    """A panel: the columns of metrics.csv it shows, by a layer and what a layer has several of."""

    label: str
    pattern: re.Pattern
    explained: str

    def columns(self, series: Series) -> Columns:
        """(layer, head, quantile or group) -> its points, in order."""
        columns = {}
        for name, points in series.items():
            if match := self.pattern.fullmatch(name):
                columns[match[1], match[2]] = points
        return dict(sorted(columns.items(), key=lambda item: _place(*item[0])))


def _place(layer: str, part: str = "") -> tuple:
    """Sort layers by stack, as in LAYERS, and number; then heads by number, other parts by name."""
    stack, _, number = layer.rpartition("_")
    return LAYERS.index(stack), int(number), int(part) if part.isdigit() else -1, part


ALPHA = Quantity("learned α", re.compile(rf"alpha/{LAYER}/head_(\d+)"), "α of every head")
SCALER = Quantity(
    "query scaler",
    re.compile(rf"scaler/{LAYER}/(p5|p50|p95|max)"),
    "the factor on the queries (line: median, band: 5th to 95th percentile, dots: largest)",
)
SUPPORT = Quantity(
    "support (keys)",
    re.compile(rf"heads/{LAYER}/(\w+)/support"),
    "keys with a weight above 0, mean over queries",
)
MAX_WEIGHT = Quantity(
    "largest weight",
    re.compile(rf"heads/{LAYER}/(\w+)/max_weight"),
    "largest weight of a row, mean over queries",
)
QUANTITIES = (ALPHA, SCALER, SUPPORT, MAX_WEIGHT)


def is_drawn(column: str) -> bool:
    """Tell whether a column of metrics.csv is in any figure."""
    return column == LOSS or any(quantity.pattern.fullmatch(column) for quantity in QUANTITIES)


def draw_heads(name: str, group: Group, style: dict[str, Any], series: Series) -> Drawing | str:
    """The heads of a method's selected run while it trained: α, scalers, support, weights."""
    shown = {quantity: columns for quantity in QUANTITIES if (columns := quantity.columns(series))}
    if not shown:
        return f"{group.task}, {group.name}: its metrics.csv has no columns about heads."
    layers = sorted({layer for columns in shown.values() for layer, _ in columns}, key=_place)
    colours = dict(zip(layers, shades(style["color"], len(layers)), strict=True))
    figure, panels = _stacked(f"{group.name}: heads over training", [1.35] * len(shown))
    panels[0].title.set_fontsize(10)
    for panel, (quantity, columns) in zip(panels, shown.items(), strict=True):
        _quantity(panel, quantity, columns, colours)
        panel.set_ylabel(quantity.label)
        frame(panel)
    panels[-1].set_xlabel("step")
    _step_axis(panels[-1])
    entries = [legend_entry(n.replace("_", " "), color=c, linewidth=2) for n, c in colours.items()]
    kinds = _kinds(shown, group.best.record.labels["position"])
    dashes = zip(kinds, GROUP_DASHES * len(kinds), strict=False)
    if len(kinds) > 1:
        entries += [legend_entry(kind, color="#444444", linestyle=dash) for kind, dash in dashes]
    _legend(figure, entries)
    record = group.best.record
    scaled = f" {SCALED}" if any(text.endswith(", scaled") for text in kinds) else ""
    caption = (
        f"The selected run (seed {record.seed}, learning rate {record.lr:g}) as it was logged: "
        f"{'; '.join(quantity.explained for quantity in shown)}.{scaled}"
    )
    return Drawing(name, f"Heads over training: {group.name}", caption, svg_of(figure))


def _quantity(panel: Any, quantity: Quantity, columns: Columns, colours: dict[str, str]) -> None:
    """Fill a panel: a line for each column, and a band between two quantiles of a scaler."""
    kinds = list(dict.fromkeys(kind for _, kind in columns))
    for (layer, kind), points in columns.items():
        style = {"color": colours[layer], "linewidth": 1.5}
        if quantity is ALPHA:
            style |= {"linewidth": 1.1, "alpha": 0.8}
        elif quantity is SCALER:
            style |= {"linewidth": 1.6, "linestyle": GROUP_DASHES[kind == "max"]}
        else:  # what a layer has several of differs in its dashes
            style["linestyle"] = GROUP_DASHES[kinds.index(kind) % len(GROUP_DASHES)]
        high = columns.get((layer, "p95"), ([], []))
        if kind == "p5" and points[0] == high[0]:
            steps, low = thinned(*points)
            band = {"color": colours[layer], "alpha": 0.2, "linewidth": 0}
            panel.fill_between(steps, low, thinned(*high)[1], **band)
        elif kind not in ("p5", "p95"):
            _curve(panel, *points, **style)
    if quantity is SUPPORT:
        panel.set_yscale("log", base=2)
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if quantity is MAX_WEIGHT:
        panel.set_ylim(0, 1.03)


def _kinds(shown: dict[Quantity, Columns], position: str) -> list[str]:
    """Labels of the dashes of support and largest weight, in the order of their columns.

    Columns tell the heads that a length scaling would apply to from the others; whether the run
    has one, its scaler columns say.
    """
    scaled = ", scaled" if SCALER in shown else ""
    texts = {"scaled": f"last heads{scaled}", "unscaled": "first heads"}
    if position == "nape":
        texts = {"scaled": f"no position{scaled}", "unscaled": "ALiBi slope"}
    kinds = [kind for q in (SUPPORT, MAX_WEIGHT) for _, kind in shown.get(q, ())]
    return [texts.get(kind, f"{kind} heads") for kind in dict.fromkeys(kinds)]
