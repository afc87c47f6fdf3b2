"""Plots of heads: attention maps, and α, density, diversity and positional heads of runs.

Maps: weights above 0 are blue, darker for larger ones; exactly 0 is white, and keys that a query
cannot see are grey. Analyses: a run has the same colour in every figure and its own panel.
"""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lcg.diagnostics.heads import OFFSETS
from lcg.diagnostics.tables import BINS, LARGEST, Analysed
from lcg.results.figure import COLOURS, FONTS, SOFT
from lcg.runs.files import write_atomic

LOOK = {**FONTS, "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9.5, "legend.fontsize": 8}
WIDEST = 14  # inches that panels beside each other may take; further ones go to the next row
ANNOTATED = 16  # heads of a layer whose numbers have room in a picture


MOST_NAMED = 40  # tokens that have room beside a map
FUTURE, ZERO = "#ececec", "#ffffff"
FAINT, FULL = 0.16, 1.0  # the part of the colour map that weights above 0 have
SCORED = {"color": "#D55E00", "linestyle": (0, (4, 3)), "linewidth": 0.9}


class Map(NamedTuple):
    """One head's pooled weights [p r], as `PooledMap` makes them.

    kind: of its layer, causal, full or cross. queries, keys: the tokens as text, and how many
    there are; tokens are shown where few enough. scored: the first query that is, or None.
    """

    title: str
    weights: Any
    kind: str
    queries: Sequence[str]
    keys: Sequence[str]
    scored: int | None = None


def palette() -> Any:
    """The colours of weights, densities and shares: sequential, and zero is white."""
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    blues = matplotlib.colormaps["Blues"]
    colours = [blues(FAINT + (FULL - FAINT) * i / 63) for i in range(64)]
    colormap = LinearSegmentedColormap.from_list("weights", colours)
    return colormap.with_extremes(under=ZERO, bad=FUTURE)


def scale(top: float = 1.0) -> Any:
    """A square-root scale from 0, which is below its smallest value, to `top`."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=1e-30, vmax=max(top, 1e-12))


def tokens_of(layer: str, inputs: Sequence[str], source: Sequence[str]) -> tuple[Any, Any]:
    """The tokens that a layer's queries and its keys stand at; `layer` is its name."""
    kind = layer.partition("_")[0]
    queries = source if kind == "encoder" else inputs
    return queries, source if kind in ("encoder", "cross") else inputs


def draw_maps(maps: Sequence[Map], title: str, columns: int, side: float, top: float = 1.0) -> Any:
    """A figure of maps, `columns` side by side, each about `side` inches wide.

    top: the weight of the darkest colour.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    columns = min(columns, len(maps))
    rows = -(-len(maps) // columns)
    size = ((side + 0.25) * columns + 0.5, (side + 0.45) * rows + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    colours, norm = palette(), scale(top)
    for panel in panels[len(maps) :]:
        panel.set_visible(False)
    for index, drawn in enumerate(maps):
        _draw_map(panels[index], drawn, colours, norm, side)
        panels[index].set_ylabel("query" if index % columns == 0 else "", fontsize=9)
        panels[index].set_xlabel("key" if index + columns >= len(maps) else "", fontsize=9)
    wrapped = textwrap.fill(title, int(size[0] * 11))
    figure.suptitle(wrapped, fontsize=10, weight="bold", x=0.01, ha="left")
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=panels, location="bottom", shrink=0.8, aspect=40
    )
    ticks = [share * top for share in (0.01, 0.1, 0.25, 0.5, 1.0)]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2.5)
    bar.set_label("weight, square-root scale (white: exactly 0)", fontsize=9)
    figure.draw_without_rendering()  # square panels have their places from the second drawing on
    return figure


def _draw_map(panel: Any, drawn: Map, colours: Any, norm: Any, side: float) -> None:
    import numpy as np

    queries, keys, weights = len(drawn.queries), len(drawn.keys), np.asarray(drawn.weights)
    panel.imshow(
        np.where(np.tri(*weights.shape), weights, np.nan) if drawn.kind == "causal" else weights,
        cmap=colours,
        norm=norm,
        interpolation="none",
        extent=(-0.5, keys - 0.5, queries - 0.5, -0.5),  # ticks stand at the middle of cells
        aspect="auto" if drawn.kind == "cross" else "equal",
    )
    if drawn.scored is not None:
        panel.axhline(drawn.scored - 0.5, **SCORED)
    panel.set_title(textwrap.fill(drawn.title, int(15 * side)), fontsize=9, loc="left")
    panel.tick_params(length=2, color="#888888", labelsize=8)
    panel.locator_params(nbins=5, integer=True)
    font = max(3.5, min(8.0, 58 * side / max(queries, keys)))
    for axis, tokens in ((panel.yaxis, drawn.queries), (panel.xaxis, drawn.keys)):
        if len(tokens) <= MOST_NAMED and all(tokens):
            axis.set_ticks(range(len(tokens)), [token[:8] for token in tokens], fontsize=font)
            axis.set_tick_params(length=0, pad=1.5)
    if len(drawn.keys) <= MOST_NAMED and any(len(token) > 2 for token in drawn.keys):
        panel.tick_params(axis="x", labelrotation=90)


def write_png(figure: Any, path: Path, dpi: int = 160) -> Path:
    """Write a figure atomically, with nothing of the date or the program in it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return write_atomic(path, content.getvalue())


def draw_analyses(runs: list[Analysed], length: int, folder: Path) -> list[Path]:
    """Write alpha_histogram, alpha_trajectories, density, head_diversity and positional_heads.

    The first two are left out where no run learns α, or logged none. Panels are named by the label
    of their run. Returns the paths.
    """
    import matplotlib

    paths = []
    with matplotlib.rc_context(LOOK):
        for name, (title, draw) in PICTURES.items():
            figure = draw(runs)
            if figure is None:
                continue
            of_test = "" if name.startswith("alpha") else f", test length {length}"
            title = textwrap.fill(f"{title}{of_test}", int(10 * figure.get_figwidth()))
            figure.suptitle(title, fontsize=10, weight="bold")
            paths.append(write_png(figure, folder / f"{name}.png", dpi=150))
    return paths


def _panels(titles: Sequence[str], width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure with a panel of that size in inches for each title, in as many rows as it takes."""
    from matplotlib.figure import Figure

    columns = max(1, min(len(titles), int(WIDEST // width)))
    rows = math.ceil(len(titles) / columns)
    size = (max(4.2, width * columns + 0.8), height * rows + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[len(titles) :]:
        spare.remove()
    for panel, title in zip(panels, titles, strict=False):
        panel.set_title(title, fontsize=9, loc="left")
    return figure, panels[: len(titles)]


def _run_panels(runs: list[Analysed], width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure, and for each run its panel, itself and its colour."""
    titles = [textwrap.fill(run.attention, 34) for run in runs]
    figure, panels = _panels(titles, max(2.6, width), height)
    return figure, list(zip(panels, runs, itertools.cycle(COLOURS), strict=False))


def _alpha_panels(found: list[dict[str, Any]], runs: list[Analysed]) -> tuple[Any, list[Any]]:
    """A figure, and for what each run has of each attention kind a panel, it and the run's colour;
    no figure without any."""
    colours = zip(runs, found, itertools.cycle(COLOURS), strict=False)
    shown = [(run, kind, some[kind], colour) for run, some, colour in colours for kind in some]
    if not shown:
        return None, []
    several = len({kind for _, kind, *_ in shown}) > 1
    titles = [f"{textwrap.fill(r.attention, 34)}{f', {kind}' * several}" for r, kind, *_ in shown]
    figure, panels = _panels(titles, 3.2, 2.1)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, [(panel, *of[2:]) for panel, of in zip(panels, shown, strict=True)]


def _histogram(runs: list[Analysed]) -> Any:
    from matplotlib.ticker import MaxNLocator

    figure, shown = _alpha_panels([run.alphas() for run in runs], runs)
    edges = [1 + i / BINS for i in range(BINS + 1)]
    for panel, values, colour in shown:
        panel.hist(values, edges, color=colour, edgecolor="white", linewidth=0.6)
        panel.axvline(sum(values) / len(values), color=SOFT, linestyle="--", linewidth=1)
        panel.set_xlim(1, 2)
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylabel(f"heads of {len(values)}")
    if figure is not None:
        figure.supxlabel("learned α (dashed: mean)", fontsize=9.5)
    return figure


def _trajectories(runs: list[Analysed]) -> Any:
    from matplotlib.ticker import MaxNLocator

    shades = palette()
    figure, shown = _alpha_panels([run.trajectories for run in runs], runs)
    for panel, heads, _ in shown:
        layers = list(dict.fromkeys(head.layer for head in heads))
        labelled = {head.layer: head for head in reversed(heads)}  # the first of each
        for head in heads:
            place = layers.index(head.layer)
            few = {"marker": "."} if len(head.steps) < 20 else {}
            panel.plot(
                head.steps,
                head.values,
                color=shades(0.25 + 0.75 * place / max(1, len(layers) - 1)),
                linewidth=1.2,
                label=head.layer if head is labelled[head.layer] else None,
                **few,
            )
        panel.set_ylim(1, 2)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.legend(frameon=False, loc="best", fontsize=7, ncols=2, handlelength=1.2)
    if figure is not None:
        figure.supxlabel("step", fontsize=9.5)
        figure.supylabel("α of each head", fontsize=9.5)
    return figure


def _density(runs: list[Analysed]) -> Any:
    heads = max(len(layer.heads) for run in runs for layer in run.layers)
    layers = max(len(run.layers) for run in runs)
    figure, shown = _run_panels(runs, 0.42 * heads + 1.2, max(1.6, 0.36 * layers + 0.9))
    for panel, run, _ in shown:
        table = [layer.means["density"] for layer in run.layers]
        table = [row + [math.nan] * (heads - len(row)) for row in table]
        image = _heat(panel, table, scale(), [layer.name for layer in run.layers])
        for row, column in itertools.product(range(len(table)), range(heads)):
            value = table[row][column]
            if heads <= ANNOTATED and not math.isnan(value):
                text = f"{value:.2f}".removeprefix("0") if value < 1 else "1"
                middle = {"ha": "center", "va": "center", "fontsize": 7}
                colour = "white" if value > 0.4 else "black"  # where the scale is dark
                panel.text(column, row, text, color=colour, **middle)
        panel.set_xticks(range(heads))
        panel.set_xlabel("head")
    bar = figure.colorbar(image, ax=[panel for panel, *_ in shown], shrink=0.9)
    bar.set_label("density (square-root scale)")
    return figure


def _diversity(runs: list[Analysed]) -> Any:
    """A panel per run over the same axes, a bar per layer."""
    names = list(dict.fromkeys(layer.name for run in runs for layer in run.layers))
    most = max(layer.most_diverse for run in runs for layer in run.layers)
    figure, shown = _run_panels(runs, 0.32 * len(names) + 1.0, 2.0)
    for panel, run, colour in shown:
        positions = [names.index(layer.name) for layer in run.layers]
        panel.bar(
            positions, [layer.means["diversity"][0] for layer in run.layers], 0.7, color=colour
        )
        for limit in sorted({layer.most_diverse for layer in run.layers}):
            panel.axhline(limit, color=SOFT, linestyle="--", linewidth=1)
        panel.set_ylim(0, 1.08 * most)
        panel.set_xticks(range(len(names)), names, rotation=0 if len(names) < 4 else 60)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supylabel("Jensen–Shannon divergence (nats)", fontsize=9.5)
    return figure


def _positional(runs: list[Analysed]) -> Any:
    from matplotlib.colors import Normalize

    layers = [layer for run in runs for layer in run.layers]
    causal = all(layer.kind == "causal" for layer in layers)
    steps = [step for step in OFFSETS if step <= 0 or not causal]  # nothing is to the right then
    rows = max(sum(len(layer.heads) for layer in run.layers) for run in runs)
    height = 0.23 * rows + 0.8
    figure, shown = _run_panels(runs, 0.27 * len(steps) + 1.9, max(1.8, height))
    for panel, run, _ in shown:
        table = [row[: len(steps)] for layer in run.layers for row in layer.offsets.tolist()]
        labels = [
            f"{layer.name} · {head}  ({confidence:.2f})"
            for layer in run.layers
            for head, confidence in enumerate(layer.means["confidence"])
        ]
        image = _heat(panel, table, Normalize(1e-30, 1), labels)
        some = range(len(steps)) if len(steps) <= 9 else range(0, len(steps), 2)
        panel.set_xticks(some, [f"{steps[i]:+d}" if steps[i] else "0" for i in some])
        panel.tick_params(labelsize=7)
        panel.set_xlabel("strongest key less query")
    shown[0][0].set_ylabel(f"layer · head  ({LARGEST})")
    bar = figure.colorbar(image, ax=[panel for panel, *_ in shown], shrink=min(1.0, 3 / height))
    bar.set_label("share of queries")
    return figure


def _heat(panel: Any, table: list[list[float]], norm: Any, labels: list[str]) -> Any:
    image = panel.imshow(table, norm=norm, cmap=palette(), aspect="auto", interpolation="nearest")
    panel.set_yticks(range(len(labels)), labels)
    panel.tick_params(length=2)
    return image


PICTURES = {
    "alpha_histogram": ("Learned α of heads (1 softmax, 2 sparsemax)", _histogram),
    "alpha_trajectories": ("Learned α over training", _trajectories),
    "density": ("Share of visible keys with weight", _density),
    "head_diversity": ("Diversity of a layer's heads (dashed: no common key)", _diversity),
    "positional_heads": ("Where heads look", _positional),
}
"""The pictures of `draw_analyses` by file: titles, and functions that draw them, or give None."""
