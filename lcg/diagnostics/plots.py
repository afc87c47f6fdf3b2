"""Draw what heads do: attention maps, and α, density, diversity and positional heads of runs.

Maps: weights above 0 are blue, the darker the larger; exactly 0 is white, and what a query cannot
see is grey. Analyses: runs have the same colour in every picture and a panel of their own.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lcg.diagnostics.heads import OFFSETS, LayerHeads, most_diverse
from lcg.diagnostics.tables import BINS, LARGEST, Analysed
from lcg.results.figure import COLOURS, FONTS
from lcg.runs.files import write_atomic

GREY = "#555555"
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
    found = LinearSegmentedColormap.from_list("weights", colours)
    return found.with_extremes(under=ZERO, bad=FUTURE)


def scale(top: float = 1.0) -> Any:
    """A square-root scale from 0, which is below its smallest value, to `top`."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=1e-30, vmax=max(top, 1e-12))


def tokens_of(layer: str, inputs: Sequence[str], source: Sequence[str]) -> tuple[Any, Any]:
    """The tokens that a layer's queries and its keys stand at; `layer` is its name."""
    kind = layer.partition("_")[0]
    return (
        source if kind == "encoder" else inputs,
        source if kind in ("encoder", "cross") else inputs,
    )


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
    for panel, drawn in zip(panels, maps, strict=False):
        _draw_map(panel, drawn, colours, norm, side)
    for panel in panels[len(maps) :]:
        panel.set_visible(False)
    for index, panel in enumerate(panels[: len(maps)]):
        panel.set_ylabel("query" if index % columns == 0 else "", fontsize=9)
        panel.set_xlabel("key" if index + columns >= len(maps) else "", fontsize=9)
    wrapped = textwrap.fill(title, int(size[0] * 11))
    figure.suptitle(wrapped, fontsize=10, weight="bold", x=0.01, ha="left")
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=panels, location="bottom", shrink=0.8, aspect=40
    )
    shares = [(share, f"{share * top:.2g}") for share in (0.01, 0.1, 0.25, 0.5, 1.0)]
    bar.set_ticks([share * top for share, _ in shares], labels=[text for _, text in shares])
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


def draw_analyses(runs: list[Analysed], length: int, folder: Path) -> list[Path]:
    """Write alpha_histogram, alpha_trajectories, density, head_diversity and positional_heads.

    The first two are left out where no run learns α, or logged none. Panels are named by the label
    of their run. Returns the paths.
    """
    pictures: dict[str, tuple[str, Callable[[list[Analysed]], Any]]] = {
        "density": ("share of visible keys with weight", _density),
        "head_diversity": ("diversity of a layer's heads (dashed: no common key)", _diversity),
        "positional_heads": ("where heads look", _positional),
    }
    if any(run.alphas() for run in runs):
        pictures["alpha_histogram"] = ("learned α of heads (1 softmax, 2 sparsemax)", _histogram)
    if any(run.trajectories for run in runs):
        pictures["alpha_trajectories"] = ("learned α over training", _trajectories)
    import matplotlib

    paths = []
    with matplotlib.rc_context(LOOK):
        for name, (title, draw) in sorted(pictures.items()):
            figure = draw(runs)
            of_test = "" if name.startswith("alpha") else f", test length {length}"
            title = textwrap.fill(f"{title[0].upper()}{title[1:]}{of_test}", _room(figure))
            figure.suptitle(title, fontsize=10, weight="bold")
            paths.append(write_png(figure, folder / f"{name}.png", dpi=150))
    return paths


def _room(figure: Any) -> int:
    """Characters of a bold title that have room in a figure."""
    return int(10 * figure.get_figwidth())


def _panel_each(shown: list[Any], width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure with a panel of that size for each, in as many rows as it takes."""
    columns = max(1, min(len(shown), int(WIDEST // width)))
    figure, panels = _grid(math.ceil(len(shown) / columns), columns, width, height)
    for spare in panels.flat[len(shown) :]:
        spare.remove()
    return figure, list(panels.flat[: len(shown)])


def _grid(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """A figure of panels of that size in inches, and the panels [rows columns]."""
    from matplotlib.figure import Figure

    size = (max(4.2, width * columns + 0.8), height * rows + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _colours(runs: list[Analysed]) -> dict[str, str]:
    return {run.label: COLOURS[i % len(COLOURS)] for i, run in enumerate(runs)}


def _name(run: Analysed, width: int = 34) -> str:
    return textwrap.fill(run.attention, width)


def _alpha_panels(found: dict[str, dict[str, Any]], runs: list[Analysed]):
    """A panel for what each run has of each attention kind; returns them with run and values."""
    pairs = [(run, kind) for run in runs for kind in found[run.label]]
    figure, panels = _panel_each(pairs, 3.2, 2.1)
    several = len({kind for _, kind in pairs}) > 1
    shown = []
    for panel, (run, kind) in zip(panels, pairs, strict=True):
        panel.set_title(f"{_name(run)}{f', {kind}' * several}", fontsize=9, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
        shown.append((panel, run, found[run.label][kind]))
    return figure, shown


def _histogram(runs: list[Analysed]) -> Any:
    from matplotlib.ticker import MaxNLocator

    colours = _colours(runs)
    figure, shown = _alpha_panels({run.label: run.alphas() for run in runs}, runs)
    edges = [1 + i / BINS for i in range(BINS + 1)]
    for panel, run, values in shown:
        panel.hist(values, edges, color=colours[run.label], edgecolor="white", linewidth=0.6)
        panel.axvline(sum(values) / len(values), color=GREY, linestyle="--", linewidth=1)
        panel.set_xlim(1, 2)
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylabel(f"heads of {len(values)}")
    figure.supxlabel("learned α (dashed: mean)", fontsize=9.5)
    return figure


def _trajectories(runs: list[Analysed]) -> Any:
    from matplotlib.ticker import MaxNLocator

    shades = palette()
    figure, shown = _alpha_panels({run.label: run.trajectories for run in runs}, runs)
    for panel, _, heads in shown:
        layers = list(dict.fromkeys(head.layer for head in heads))
        for head in heads:
            place = layers.index(head.layer)
            few = {"marker": "."} if len(head.steps) < 20 else {}
            panel.plot(
                head.steps,
                head.values,
                color=shades(0.25 + 0.75 * place / max(1, len(layers) - 1)),
                linewidth=1.2,
                label=head.layer if head is _first(heads, head.layer) else None,
                **few,
            )
        panel.set_ylim(1, 2)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.legend(frameon=False, loc="best", fontsize=7, ncols=2, handlelength=1.2)
    figure.supxlabel("step", fontsize=9.5)
    figure.supylabel("α of each head", fontsize=9.5)
    return figure


def _first(heads: list, layer: str) -> Any:
    return next(head for head in heads if head.layer == layer)


def _density(runs: list[Analysed]) -> Any:
    heads = max(len(layer.heads) for run in runs for layer in run.layers)
    layers = max(len(run.layers) for run in runs)
    size = (0.42 * heads + 1.2, 0.36 * layers + 0.9)
    figure, panels = _panel_each(runs, max(2.6, size[0]), max(1.6, size[1]))
    for panel, run in zip(panels, runs, strict=True):
        table = [_padded(layer.means["density"], heads) for layer in run.layers]
        image = _heat(panel, table, scale(), [layer.name for layer in run.layers])
        if heads <= ANNOTATED:
            _annotate(panel, table)
        panel.set_xticks(range(heads))
        panel.set_xlabel("head")
        panel.set_title(_name(run), fontsize=9, loc="left")
    bar = figure.colorbar(image, ax=panels, shrink=0.9)
    bar.set_label("density (square-root scale)")
    return figure


def _diversity(runs: list[Analysed]) -> Any:
    """A panel per run over the same axes, a bar per layer."""
    colours = _colours(runs)
    names = list(dict.fromkeys(layer.name for run in runs for layer in run.layers))
    most = max(most_diverse(layer) for run in runs for layer in run.layers)
    figure, panels = _panel_each(runs, max(2.6, 0.32 * len(names) + 1.0), 2.0)
    for panel, run in zip(panels, runs, strict=True):
        places = [names.index(layer.name) for layer in run.layers]
        panel.bar(
            places,
            [layer.means["diversity"][0] for layer in run.layers],
            0.7,
            color=colours[run.label],
        )
        for limit in sorted({most_diverse(layer) for layer in run.layers}):
            panel.axhline(limit, color=GREY, linestyle="--", linewidth=1)
        panel.set_ylim(0, 1.08 * most)
        panel.set_xticks(range(len(names)), names, rotation=0 if len(names) < 4 else 60)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_title(_name(run), fontsize=9, loc="left")
    figure.supylabel("Jensen–Shannon divergence (nats)", fontsize=9.5)
    return figure


def _positional(runs: list[Analysed]) -> Any:
    from matplotlib.colors import Normalize

    rows = max(sum(len(layer.heads) for layer in run.layers) for run in runs)
    steps = _steps(runs)
    size = (0.27 * len(steps) + 1.9, 0.23 * rows + 0.8)
    figure, panels = _panel_each(runs, max(2.6, size[0]), max(1.8, size[1]))
    for panel, run in zip(panels, runs, strict=True):
        table, labels = [], []
        for layer in run.layers:
            for head in range(len(layer.heads)):
                table.append(layer.offsets[head, : len(steps)].tolist())
                labels.append(f"{layer.name} · {head}  ({layer.means['confidence'][head]:.2f})")
        image = _heat(panel, table, Normalize(1e-30, 1), labels)
        some = range(len(steps)) if len(steps) <= 9 else range(0, len(steps), 2)
        panel.set_xticks(some, [f"{steps[i]:+d}" if steps[i] else "0" for i in some])
        panel.tick_params(labelsize=7)
        panel.set_xlabel("strongest key less query")
        panel.set_title(_name(run), fontsize=9, loc="left")
    panels[0].set_ylabel(f"layer · head  ({LARGEST})")
    bar = figure.colorbar(image, ax=panels, shrink=min(1.0, 3 / size[1]))
    bar.set_label("share of queries")
    return figure


def _steps(runs: list[Analysed]) -> list[int]:
    """The offsets to show: none to the right where all attention is causal."""
    layers: list[LayerHeads] = [layer for run in runs for layer in run.layers]
    causal = all(layer.kind == "causal" for layer in layers)
    return [step for step in OFFSETS if step <= 0 or not causal]


def _heat(panel: Any, table: list[list[float]], norm: Any, labels: list[str]) -> Any:
    image = panel.imshow(table, norm=norm, cmap=palette(), aspect="auto", interpolation="nearest")
    panel.set_yticks(range(len(labels)), labels)
    panel.tick_params(length=2)
    return image


def _annotate(panel: Any, table: list[list[float]]) -> None:
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            if value == value:
                dark = value > 0.4  # where the scale is dark
                text = f"{value:.2f}".removeprefix("0") if value < 1 else "1"
                panel.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if dark else "black",
                )


def _padded(values: list[float], count: int) -> list[float]:
    return values + [float("nan")] * (count - len(values))


def write_png(figure: Any, path: Path, dpi: int = 160) -> Path:
    """Write a figure atomically, with nothing of the date or the program in it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return write_atomic(path, content.getvalue())
