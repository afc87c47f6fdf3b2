"""What a method's heads did while it trained: learned α, query scalers, support, largest weight."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lcg.report.sources import Series, thinned
from lcg.results.aggregate import Group
from lcg.results.figure import (
    SCALED,
    Drawing,
    finish,
    look,
    marker_of,
    shades,
    stacked,
    step_axis,
    svg_of,
    wrapped,
)

LAYERS = ("layer", "encoder", "decoder", "cross")
LAYER = rf"((?:{'|'.join(LAYERS)})_\d+)"
ALPHA = re.compile(rf"alpha/{LAYER}/head_(\d+)")
SCALER = re.compile(rf"scaler/{LAYER}/(p5|p50|p95|max)")
SUPPORT = re.compile(rf"heads/{LAYER}/(\w+)/support")
MAX_WEIGHT = re.compile(rf"heads/{LAYER}/(\w+)/max_weight")
GROUP_DASHES = ("-", (0, (1, 1.2)), (0, (5, 2)), (0, (5, 1, 1, 1)))

Columns = dict[tuple[str, str], tuple[list[int], list[float]]]

Colours = dict[str, str]  # of each layer


@dataclass(frozen=True)
class Quantity:
    """A panel: the columns of metrics.csv it shows, and how.

    pattern: groups are the layer and what there are several of in it. fill: draws the columns.
    """

    label: str
    pattern: re.Pattern
    explained: str
    fill: Callable[[Any, Columns, Colours], None]

    def columns(self, series: Series) -> Columns:
        """(layer, head, quantile or group) -> its points, ordered."""
        found = {}
        for name, points in series.items():
            if match := self.pattern.fullmatch(name):
                found[match[1], match[2]] = points
        return dict(
            sorted(found.items(), key=lambda item: (_place(item[0][0]), _natural(item[0][1])))
        )


def _place(layer: str) -> tuple[int, int]:
    """The order of layers: encoder, decoder, cross, each by its number."""
    kind, _, number = layer.rpartition("_")
    return LAYERS.index(kind), int(number)


def _natural(text: str) -> tuple:
    return (0, int(text), "") if text.isdigit() else (1, 0, text)


def _lines(panel: Any, columns: Columns, colours: Colours, width: float) -> None:
    """A line for each; what there are several of in a layer differs in its dashes."""
    kinds = list(dict.fromkeys(kind for _, kind in columns))
    for (layer, kind), points in columns.items():
        dashes = GROUP_DASHES[kinds.index(kind) % len(GROUP_DASHES)]
        line = {"color": colours[layer], "linestyle": dashes, "linewidth": width}
        panel.plot(*thinned(*points), **line, **marker_of(points[0]))


def _alpha(panel: Any, columns: Columns, colours: Colours) -> None:
    for (layer, _), points in columns.items():
        line = {"color": colours[layer], "linewidth": 1.1, "alpha": 0.8}
        panel.plot(*thinned(*points), **line, **marker_of(points[0]))


def _scaler(panel: Any, columns: Columns, colours: Colours) -> None:
    for layer in dict.fromkeys(layer for layer, _ in columns):
        own = {kind: points for (of, kind), points in columns.items() if of == layer}
        if "p5" in own and "p95" in own and own["p5"][0] == own["p95"][0]:
            steps, low = thinned(*own["p5"])
            _, high = thinned(*own["p95"])
            panel.fill_between(steps, low, high, color=colours[layer], alpha=0.2, linewidth=0)
        for kind, dashes in (("p50", "-"), ("max", GROUP_DASHES[1])):
            if kind in own:
                line = {"color": colours[layer], "linestyle": dashes, "linewidth": 1.6}
                panel.plot(*thinned(*own[kind]), **line, **marker_of(own[kind][0]))


def _support(panel: Any, columns: Columns, colours: Colours) -> None:
    _lines(panel, columns, colours, 1.5)
    panel.set_yscale("log", base=2)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _max_weight(panel: Any, columns: Columns, colours: Colours) -> None:
    _lines(panel, columns, colours, 1.5)
    panel.set_ylim(0, 1.03)


QUANTITIES = (
    Quantity("learned α", ALPHA, "α of every head", _alpha),
    Quantity(
        "query scaler",
        SCALER,
        "the factor on the queries (line: median, band: 5th to 95th percentile, dots: largest)",
        _scaler,
    ),
    Quantity("support (keys)", SUPPORT, "keys with a weight above 0, mean over queries", _support),
    Quantity(
        "largest weight", MAX_WEIGHT, "largest weight of a row, mean over queries", _max_weight
    ),
)


def is_shown(column: str) -> bool:
    """Whether a column of metrics.csv is in this figure."""
    return any(quantity.pattern.fullmatch(column) for quantity in QUANTITIES)


def recorded(series: Series) -> bool:
    """Whether the run logged anything that this figure shows."""
    return any(quantity.columns(series) for quantity in QUANTITIES)


def draw(name: str, group: Group, style: dict[str, Any], series: Series) -> Drawing | str:
    """The figure of a method's selected run; a note if it logged nothing of the kind."""
    shown = [
        (quantity, columns) for quantity in QUANTITIES if (columns := quantity.columns(series))
    ]
    if not shown:
        return f"{group.task}, {group.name}: its metrics.csv has no columns about heads."
    layers = sorted({layer for _, columns in shown for layer, _ in columns}, key=_place)
    colours = dict(zip(layers, shades(style["color"], len(layers)), strict=True))
    with look():
        figure, panels = stacked([1.35] * len(shown), gap=0.2)
        for panel, (quantity, columns) in zip(panels, shown, strict=True):
            quantity.fill(panel, columns, colours)
            panel.set_ylabel(quantity.label)
            finish(panel)
        panels[-1].set_xlabel("step")
        step_axis(panels[-1])
        title = wrapped(f"{group.name}: heads over training")
        panels[0].set_title(title, loc="left", weight="bold", fontsize=10)
        kinds = _kinds(shown, group.best.record.labels["position"])
        _legend(panels[-1], kinds, colours)
        svg = svg_of(figure)
    record = group.best.record
    scaled = f" {SCALED}" if any(text.endswith(", scaled") for text in kinds) else ""
    caption = (
        f"The selected run (seed {record.seed}, learning rate {record.lr:g}) as it was logged: "
        f"{'; '.join(quantity.explained for quantity, _ in shown)}.{scaled}"
    )
    return Drawing(name, f"Heads over training: {group.name}", caption, svg)


def _kinds(shown: list[tuple[Quantity, Columns]], position: str) -> list[str]:
    """Labels of the dashes of support and largest weight, in the order of their columns.

    Columns tell the heads that a length scaling would apply to from the others; whether the run
    has one, its scaler columns say.
    """
    scaled = ", scaled" if any(quantity.pattern is SCALER for quantity, _ in shown) else ""
    texts = {"scaled": f"last heads{scaled}", "unscaled": "first heads"}
    if position == "nape":
        texts = {"scaled": f"no position{scaled}", "unscaled": "ALiBi slope"}
    found = [
        kind
        for quantity, columns in shown
        if quantity.pattern in (SUPPORT, MAX_WEIGHT)
        for _, kind in columns
    ]
    return [texts.get(kind, f"{kind} heads") for kind in dict.fromkeys(found)]


def _legend(panel: Any, kinds: list[str], colours: Colours) -> None:
    from matplotlib.lines import Line2D

    layers = [
        Line2D([], [], color=colour, linewidth=2, label=layer.replace("_", " "))
        for layer, colour in colours.items()
    ]
    dashes = [
        Line2D([], [], color="#444444", linestyle=GROUP_DASHES[i % 4], label=kind)
        for i, kind in enumerate(kinds)
    ]
    panel.legend(
        handles=[*layers, *(dashes if len(kinds) > 1 else [])],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.36),
        frameon=False,
        ncols=2,
    )
