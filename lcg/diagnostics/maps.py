"""Attention maps: one palette and one way to draw weights, for `lcg inspect` and the report.

Weights above 0 are blue, the darker the larger; exactly 0 is white, and what a query cannot see is
grey.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

MOST_TOKENS = 256  # a map of more is pooled: no screen shows more squares
MOST_NAMED = 40  # tokens that have room beside a map
FUTURE, ZERO = "#ececec", "#ffffff"
FAINT, FULL = 0.16, 1.0  # the part of the colour map that weights above 0 have
SCORED = {"color": "#D55E00", "linestyle": (0, (4, 3)), "linewidth": 0.9}


class Map(NamedTuple):
    """One head's weights [queries keys], which may be pooled.

    kind: of its layer, causal, full or cross. queries, keys: the tokens as text, and how many
    there are; tokens are shown where few enough. scored: the first query that is, or None.
    """

    title: str
    weights: np.ndarray
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


def pooled(weights: np.ndarray, most: int = MOST_TOKENS, causal: bool = True) -> np.ndarray:
    """[t k] with future keys as NaN, at most `most` wide: the largest weight of square blocks."""
    import numpy as np

    seen = np.where(np.tri(*weights.shape, dtype=bool), weights, np.nan) if causal else weights
    size = -(-max(weights.shape) // most)
    if size == 1:
        return seen
    rows, columns = (-(-count // size) for count in weights.shape)
    padded = np.full((rows * size, columns * size), -1.0, dtype=weights.dtype)
    padded[: len(weights), : weights.shape[1]] = np.nan_to_num(seen, nan=-1.0)
    blocks = padded.reshape(rows, size, columns, size).max(axis=(1, 3))
    return np.where(blocks < 0, np.nan, blocks)


def tokens_of(layer: str, inputs: Sequence[str], source: Sequence[str]) -> tuple[Any, Any]:
    """The tokens that a layer's queries and its keys stand at; `layer` is its name."""
    kind = layer.partition("_")[0]
    return (
        source if kind == "encoder" else inputs,
        source if kind in ("encoder", "cross") else inputs,
    )


def draw_maps(
    maps: Sequence[Map], title: str, columns: int, side: float, top: float = 1.0, most: int = 256
) -> Any:
    """A figure of maps, `columns` side by side, each about `side` inches wide.

    top: the weight of the darkest colour. most: the squares that a map has at most in a row.
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
        _draw(panel, drawn, colours, norm, side, most)
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


def _draw(panel: Any, drawn: Map, colours: Any, norm: Any, side: float, most: int) -> None:
    queries, keys = len(drawn.queries), len(drawn.keys)
    panel.imshow(
        pooled(drawn.weights, most, drawn.kind == "causal"),
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
