"""The figures of a report, as SVG: accuracy, learning rates, loss and heads over training.

Each `draw_…` returns a Drawing, or a line that says why there is none. They draw within `LOOK`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from math import log
from statistics import fmean, median
from typing import Any

from lcg.results.aggregate import Group, RunResult
from lcg.results.breakdown import BREAKDOWNS, By, breakdowns, draw_lengths
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
    image,
    legend_entry,
    method_panels,
    wrapped,
)
from lcg.results.plot import Styles, draw_methods, layout, method_blocks
from lcg.results.statistics import Measure
from lcg.results.tables import capital, span, trained_at
from lcg.runs.metrics import Series

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
        element = re.sub(r'(\bid="|url\(#|\bhref="#)', rf"\g<1>{self.name}-", element)
        for colour, of_page in PAGE_COLOURS.items():
            element = re.sub(rf"((?:fill|stroke): ){colour}\b", rf"\1{of_page}", element)
        # The picture's own words are its text; the label says what kind of picture they belong to.
        return element.replace("<svg ", '<svg role="img" ', 1)

    @property
    def data_url(self) -> str:
        """The document itself, for a link that downloads it without any script."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode()


def svg_of(figure: Any) -> str:
    """The figure as an SVG document without dates, so that the same input gives the same bytes."""
    metadata = {"Date": None, "Creator": None}
    return image(figure, "svg", LOOK, metadata=metadata, pad_inches=0.05, dpi=144).decode()


def thinned(steps: list[int], values: list[float], most: int = 200) -> tuple[list, list]:
    """At most `most` points of a curve: means over stretches of equal length."""
    size = -(-len(steps) // most) or 1
    starts = range(0, len(steps), size)
    return (
        [round(fmean(steps[i : i + size])) for i in starts],
        [fmean(values[i : i + size]) for i in starts],
    )


def shades(colour: str, count: int) -> list[str]:
    """`count` mixtures of a method's colour with white, the last one the colour itself."""
    from matplotlib.colors import to_hex, to_rgb

    steps = [0.5 * (count - 1 - i) / max(1, count - 1) for i in range(count)]
    return [to_hex([c + (1 - c) * step for c in to_rgb(colour)]) for step in steps]


def _figure(
    subject: str, about: str, names: list[str], xlabel: str, labels: list[str], height: float
) -> tuple[Any, list[list[Any]]]:
    """A figure and the panels of each method: one for each of `labels`, so many inches high, or a
    small one for the last of them where the methods have no room in one."""
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    shared, columns = len(names) <= SHARED, 3
    size = (columns * SMALL_WIDTH, -(-len(names) // columns) * SMALL_HEIGHT + 0.7)
    if shared:
        size = (WIDTH, len(labels) * height + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    panels = method_panels(figure, names, columns, xlabel, len(labels))
    if shared:
        panels[0][0].set_title(wrapped(f"{subject}: {about}", 40), loc="left", weight="bold")
        for panel, label in zip(panels[0], labels, strict=True):
            panel.set_ylabel(label)
    else:
        title = wrapped(f"{subject}: {labels[-1]}", LEGEND)
        figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=10.5)
    return figure, panels


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
    panel.plot(*thinned(steps, values), **(style | {"marker": ""} | few))


# ---- accuracy


def draw_accuracy(name: str, groups: list[Group], styles: Styles, measure: Measure) -> Drawing:
    """A measure against test length: the figure of `lcg plot`, one task to a page's column."""
    from matplotlib.figure import Figure

    (block,) = method_blocks(groups)
    size = (LABELLED_WIDTH, layout(len(groups), LABELLED_WIDTH)[1])
    figure = Figure(figsize=size, layout="constrained")
    draw_methods(figure, *block, styles, measure, LABELLED_WIDTH)
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


def draw_by(name: str, groups: list[Group], styles: Styles, by: By) -> Drawing:
    """Token accuracy by part of the target, or by distance to the evidence, at some lengths."""
    from matplotlib.figure import Figure

    rows = breakdowns(groups, by)[groups[0].task]
    figure = Figure(figsize=(2 * WIDTH, 2.9), layout="constrained")
    draw_lengths(figure, rows, styles, by)
    caption = (
        f"Token accuracy by {BREAKDOWNS[by]}, {groups[0].task} {trained_at(groups)}: the selected "
        "run of each method, a panel per test length. Each point is of the positions above the "
        "bound before it and up to its own."
    )
    return Drawing(name, f"Token accuracy by {BREAKDOWNS[by]}", caption, svg_of(figure))


# ---- learning rates


def draw_learning_rates(
    name: str, groups: list[Group], styles: Styles, measure: Measure
) -> Drawing | str:
    """Results against the learning rate, which show whether the grid held the best one."""
    task, shared = groups[0].task, len(groups) <= SHARED
    runs = [run for group in groups for run in group.runs]
    if all(len({run.record.lr for run in group.runs}) < 2 for group in groups):
        return f"{task}: each method ran at one learning rate only, so there is no such figure."
    lengths = sorted({g.choice.monitored for g in groups if g.choice.monitored is not None})
    at = f" at {' / '.join(map(str, lengths))}" if lengths else ""

    def validation(run: RunResult, group: Group) -> float | None:
        result = run.record.validation.get(group.choice.monitored)
        return None if result is None else result.exact_match

    def test(run: RunResult, group: Group) -> float | None:
        return run.mean_out_of_distribution(measure).value

    labels = [f"validation{at} (%)", f"test, mean OOD ({measure.scale})"]
    names = [group.name for group in groups]
    figure, panels = _figure(task, "learning rates", names, "peak learning rate", labels, 2.0)
    for index, (group, own) in enumerate(zip(groups, panels, strict=True)):
        shift = 1 + 0.05 * (2 * index / max(1, len(groups) - 1) - 1) if shared else 1.0
        for panel, value in zip(own, (validation, test) if shared else (test,), strict=True):
            _rates(panel, group, styles[group.name], value, shift)
        _rate_axis(own[-1], sorted({run.record.lr for run in runs}), 99 if shared else 2)
    untrained = any(run.trained is False for run in runs)
    beyond = [(g, g.beyond_grid) for g in groups if g.beyond_grid is not None]
    if shared:
        entries = [legend_entry(wrapped(each, LEGEND), **styles[each]) for each in names]
        entries.append(legend_entry("selected", marker="o", markersize=10, markerfacecolor="none"))
        if untrained:
            entries.append(legend_entry("did not train", marker="o", markerfacecolor=PAPER))
        if beyond:
            entries.append(legend_entry("▸ ◂ at the edge of its grid"))
        _legend(figure, entries)
    edges = "; ".join(f"{g.name} ({g.lr:g}: try {rate:.3g})" for g, rate in beyond)
    if len(beyond) > SHARED:
        edges = f"{len(beyond)} of {len(groups)} methods (arrows; see the notes)"
    edge = "No learning rate was selected at the edge of its grid."
    if edges:
        edge = f"The best value is at the edge of the grid for {edges}."
    dots = "A hollow dot is a run that did not train. " if untrained else ""
    where = f"exact match in validation{at}, and " if shared else ""
    caption = (
        f"Results against peak learning rate: {where}{measure.title} as the mean over test lengths "
        "beyond training. Every run is a dot (methods are shifted slightly), the line joins "
        f"medians, and the ring marks the selected run. {dots}{edge}"
    )
    return Drawing(name, "Learning-rate sensitivity", caption, svg_of(figure))


def _rates(panel: Any, group: Group, style: dict, value: Any, shift: float) -> None:
    """A method's runs as dots, a line through their medians, a ring around the selected run; an
    arrow points to where the grid should be continued."""
    colour = style["color"]
    heights: dict[float, list[float]] = {}
    for run in group.runs:
        if (fraction := value(run, group)) is not None:
            heights.setdefault(run.record.lr * shift, []).append(100 * fraction)
            dot = {"marker": style["marker"], "markersize": 5, "color": colour}
            dot |= hollow(style, run.trained is False, 0.55)
            panel.plot(run.record.lr * shift, 100 * fraction, **dot, zorder=3, clip_on=False)
    line = {"color": colour, "linestyle": style["linestyle"], "linewidth": 1.6, "alpha": 0.75}
    panel.plot([*heights], [*map(median, heights.values())], **line)
    panel.set_ylim(-5, 104)
    panel.set_yticks(range(0, 101, 25))
    frame(panel)
    if (selected := value(group.best, group)) is None:
        return
    place = (group.lr * shift, 100 * selected)
    ring = {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.5}
    panel.plot(*place, marker="o", markersize=11, zorder=5, clip_on=False, **ring)
    if group.beyond_grid is not None:
        arrow, away = ("▸", 11) if group.beyond_grid > group.lr else ("◂", -11)
        offset = {"xytext": (away, 0), "textcoords": "offset points", "ha": "center"}
        panel.annotate(arrow, place, va="center", color=colour, fontsize=12, **offset)


def _rate_axis(panel: Any, rates: list[float], most: int) -> None:
    """The axis of learning rates, of which at most `most` are written out."""
    from matplotlib.ticker import NullLocator

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


# ---- loss

LOSS = "train/loss"


def draw_loss(
    name: str, groups: list[Group], styles: Styles, series: dict[str, Series]
) -> Drawing | str:
    """Draw the training loss of every seed, and when each left its plateau.

    series: the metrics of each run, by its name.
    """
    task, shared = groups[0].task, len(groups) <= SHARED
    curves = {run: of_run[LOSS] for run, of_run in series.items() if LOSS in of_run}
    if not curves:
        return f"{task}: no loss curves, because no run has a metrics.csv with {LOSS}."
    names, label = [group.name for group in groups], "training loss (nats)"
    figure, panels = _figure(task, "training loss", names, "step", [label], 2.6)
    left = False
    for (panel,), group in zip(panels, groups, strict=True):
        for other in () if shared else groups:
            curve = thinned(*curves.get(other.best.record.run, ([], [])))
            panel.plot(*curve, color=FAINT, linewidth=0.7, zorder=1)
        left |= _losses(panel, group, styles[group.name], curves)
        _loss_axes(panel)
    if shared:
        lines = {g.name: styles[g.name] | {"marker": "", "linewidth": 2} for g in groups}
        entries = [legend_entry(wrapped(method, LEGEND), **lines[method]) for method in lines]
        if left:
            entries.append(legend_entry("left the plateau", marker="D", markerfacecolor="none"))
        _legend(figure, entries)
    plateau = " Diamonds: the step at which the run left its loss plateau." if left else ""
    caption = (
        "Training loss per scored token (log scale) against step. Thick: the selected run of each "
        "method; thin: the other seeds at its learning rate. Curves of more than 200 points are "
        f"means over intervals of equal length.{plateau}"
    )
    return Drawing(name, "Training loss", caption, svg_of(figure))


def _losses(panel: Any, group: Group, style: dict, curves: Series) -> bool:
    """The lines of a method's seeds; returns whether any shows when its run left its plateau."""
    left = False
    for run in sorted(group.seeds, key=lambda run: run is group.best):
        if run.record.run not in curves:
            continue
        steps, values = curves[run.record.run]
        best = run is group.best
        width = {"linewidth": 2 if best else 0.9, "alpha": 1 if best else 0.5}
        _curve(panel, steps, values, zorder=2 + best, **(style | width))
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
ALPHA, SCALER, SUPPORT, MAX_WEIGHT = "learned α", "query scaler", "support (keys)", "largest weight"
# The label of a panel -> the columns of metrics.csv it shows.
PATTERNS = {
    ALPHA: rf"alpha/{LAYER}/head_(\d+)",
    SCALER: rf"scaler/{LAYER}/(p5|p50|p95|max)",
    SUPPORT: rf"heads/{LAYER}/(\w+)/support",
    MAX_WEIGHT: rf"heads/{LAYER}/(\w+)/max_weight",
}
EXPLAINED = {
    ALPHA: "α of every head",
    SCALER: "the factor on the queries (line: median, band: 5th to 95th percentile, dots: largest)",
    SUPPORT: "keys with a weight above 0, mean over queries",
    MAX_WEIGHT: "largest weight of a row, mean over queries",
}

Columns = dict[tuple[str, str], tuple[list[int], list[float]]]


def is_drawn(column: str) -> bool:
    """Tell whether a column of metrics.csv is in any figure."""
    return any(re.fullmatch(pattern, column) for pattern in (LOSS, *PATTERNS.values()))


def _columns(series: Series, pattern: str) -> Columns:
    """(layer, head, quantile or group) -> its points, in order."""
    matches = {name: re.fullmatch(pattern, name) for name in series}
    curves = {match.groups(): series[name] for name, match in matches.items() if match}
    return dict(sorted(curves.items(), key=lambda item: _place(*item[0])))


def _place(layer: str, part: str = "") -> tuple:
    """Sort layers by stack, as in LAYERS, and number; then heads by number, other parts by name."""
    stack, _, number = layer.rpartition("_")
    return LAYERS.index(stack), int(number), int(part) if part.isdigit() else -1, part


def draw_heads(name: str, group: Group, style: dict[str, Any], series: Series) -> Drawing | str:
    """The heads of a method's selected run while it trained: α, scalers, support, weights."""
    curves = {label: _columns(series, pattern) for label, pattern in PATTERNS.items()}
    shown = {label: columns for label, columns in curves.items() if columns}
    if not shown:
        return f"{group.task}, {group.name}: its metrics.csv has no columns for heads."
    layers = sorted({layer for columns in shown.values() for layer, _ in columns}, key=_place)
    colours = dict(zip(layers, shades(style["color"], len(layers)), strict=True))
    about = "heads over training"
    figure, (panels,) = _figure(group.name, about, [group.name], "step", [*shown], 1.35)
    for panel, (label, columns) in zip(panels, shown.items(), strict=True):
        _quantity(panel, label, columns, colours)
        frame(panel)
    _step_axis(panels[-1])
    entries = [legend_entry(n.replace("_", " "), color=c, linewidth=2) for n, c in colours.items()]
    kinds = _kinds(shown, group.best.record.labels["position"])
    if len(kinds) > 1:
        dashes = zip(kinds, GROUP_DASHES * len(kinds), strict=False)
        entries += [legend_entry(kind, color="#444444", linestyle=dash) for kind, dash in dashes]
    _legend(figure, entries)
    record = group.best.record
    scaled = f" {SCALED}" if any(text.endswith(", scaled") for text in kinds) else ""
    caption = (
        f"Logged values of the selected run (seed {record.seed}, learning rate {record.lr:g}): "
        f"{'; '.join(EXPLAINED[label] for label in shown)}.{scaled}"
    )
    return Drawing(name, f"Heads over training: {group.name}", caption, svg_of(figure))


def _quantity(panel: Any, label: str, columns: Columns, colours: dict[str, str]) -> None:
    """Fill a panel: a line for each column, and a band between two quantiles of a scaler."""
    kinds = list(dict.fromkeys(kind for _, kind in columns))
    for (layer, kind), points in columns.items():
        style = {"color": colours[layer], "linewidth": 1.1 if label == ALPHA else 1.5}
        if label == SCALER:
            style["linestyle"] = GROUP_DASHES[kind == "max"]
        elif label != ALPHA:  # what a layer has several of differs in its dashes
            style["linestyle"] = GROUP_DASHES[kinds.index(kind) % len(GROUP_DASHES)]
        high = columns.get((layer, "p95"), ([], []))
        if kind == "p5" and points[0] == high[0]:
            steps, low = thinned(*points)
            band = {"color": colours[layer], "alpha": 0.2, "linewidth": 0}
            panel.fill_between(steps, low, thinned(*high)[1], **band)
        elif kind not in ("p5", "p95"):
            _curve(panel, *points, **style)
    if label == SUPPORT:
        panel.set_yscale("log", base=2)
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if label == MAX_WEIGHT:
        panel.set_ylim(0, 1.03)


def _kinds(shown: dict[str, Columns], position: str) -> list[str]:
    """Labels of the dashes of support and largest weight, in the order of their columns.

    Columns tell the heads that a length scaling would apply to from the others; whether the run
    has one, its scaler columns say.
    """
    names = ("no position", "ALiBi slope") if position == "nape" else ("last heads", "first heads")
    texts = {"scaled": names[0] + ", scaled" * (SCALER in shown), "unscaled": names[1]}
    kinds = [kind for label in (SUPPORT, MAX_WEIGHT) for _, kind in shown.get(label, ())]
    return [texts.get(kind, f"{kind} heads") for kind in dict.fromkeys(kinds)]
