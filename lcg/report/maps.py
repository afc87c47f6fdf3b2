"""Attention maps of chosen heads: one test sample through a run's selected checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lcg.diagnostics.headers import attention_layers, layer_position
from lcg.keeping.sources import Trust
from lcg.report.drawing import WIDTH, Drawing, look, svg_of
from lcg.results.groups import Group

if TYPE_CHECKING:
    import numpy as np

    from lcg.positional.base import PositionEncoding

Head = tuple[int | str, int]  # layer, by its place among all or by its name; head
MOST_TOKENS = 256  # a map of more is pooled: no screen shows more squares
FUTURE, ZERO = "#ececec", "#ffffff"
FAINT, FULL = 0.16, 1.0  # the part of the colour scale that weights above 0 have


@dataclass(frozen=True)
class MapChoice:
    """Which maps to draw. length: None is each task's longest training length.

    heads: (layer, head) pairs, a layer being its number or its name; none means those of
    `default_heads`. trust: which code of users' classes may run for them.
    """

    length: int | None = None
    heads: tuple[Head, ...] = ()
    trust: Trust = "none"


def parse_heads(text: str) -> tuple[Head, ...]:
    """ "0:3,cross_1:0" as ((0, 3), ("cross_1", 0)). Raises ValueError for anything else."""
    heads = []
    for word in text.split(","):
        layer, colon, head = word.strip().partition(":")
        if not (colon and layer.isidentifier() | layer.isdecimal() and head.isdecimal()):
            raise ValueError(f"--heads {text}: {word!r} is not LAYER:HEAD, such as 0:3")
        heads.append((int(layer) if layer.isdecimal() else layer, int(head)))
    return tuple(dict.fromkeys(heads))


def default_heads(layers: int, heads: int, scaled: range) -> tuple[Head, ...]:
    """The first head of each group (unscaled, scaled) in the first and in the last layer."""
    firsts = [0] if scaled.start in (0, heads) else [0, scaled.start]
    return tuple((layer, head) for layer in dict.fromkeys((0, layers - 1)) for head in firsts)


def draw(name: str, group: Group, directory: Path, choice: MapChoice) -> Drawing | str:
    """The maps of a method's selected run, or a note why there are none."""
    from lcg.diagnostics import look as look_at

    about = f"{group.task}, {group.name}: no attention maps"
    record = group.best.record
    length = record.train_max if choice.length is None else choice.length
    if not os.path.lexists(directory / "checkpoints" / "best.ckpt"):
        return f"{about}, {record.run} has no selected checkpoint."
    try:
        seen = look_at(directory, length, 1, trust=choice.trust)
    except (ValueError, OSError, RuntimeError) as error:
        return f"{about}, {' '.join(str(error).split())}."
    every = attention_layers(seen.config)
    places = {key: i for i, layer in enumerate(every) for key in (i, layer.name)}
    count = len(every), seen.config.model.heads
    heads = choice.heads or default_heads(*count, seen.config.position.scaled_heads(count[1]))
    absent = [f"{layer}:{head}" for layer, head in heads if layer not in places or head >= count[1]]
    if absent:
        return f"{about}, the model has no head {', '.join(absent)} (LAYER:HEAD, from 0)."
    chosen = [(seen.layers[places[layer]], head) for layer, head in heads]
    maps = [Map(layer.weights[0, head].numpy(), layer.kind) for layer, head in chosen]
    titles = [
        _title(layer.name, head, layer_position(seen.config, every[places[key]]), count[1])
        for (key, _), (layer, head) in zip(heads, chosen, strict=True)
    ]
    with look():
        svg = svg_of(_figure(group.name, maps, titles, int(seen.positions[0])))
    return Drawing(
        name,
        f"Attention maps: {group.name}",
        _caption(group, seen, length, maps),
        svg,
    )


def _title(layer: str, head: int, position: PositionEncoding, heads: int) -> str:
    scaled = position.scaled_heads(heads)
    one_group = scaled.start in (0, heads)
    kind = "" if one_group else (", scaled" if head in scaled else ", unscaled")
    return f"{layer.replace('_', ' ')}, head {head}{kind}"


def _caption(group: Group, seen: Any, length: int, maps: Sequence[Map]) -> str:
    record = group.best.record
    labels = seen.labels[0, seen.positions]
    wrong = int((seen.predicted[0] != labels).sum())
    right = "all right" if wrong == 0 else f"{wrong} of {len(labels)} wrong"
    tokens = seen.inputs.shape[1]
    size = -(-max(max(shown.weights.shape) for shown in maps) // MOST_TOKENS)
    future = ", grey is the future" if any(shown.kind == "causal" for shown in maps) else ""
    pooled = f" Each square is the largest weight of {size} × {size} pairs." if size > 1 else ""
    return (
        f"The selected run's (seed {record.seed}, learning rate {record.lr:g}) attention "
        f"weights on the first test sample of length {length} ({tokens} input tokens; its scored "
        f"symbols are {right}). Rows are queries, columns keys; square-root colour scale, white "
        f"is exactly 0{future}. Below the dashed line queries are scored."
        f"{pooled}"
    )


class Map(NamedTuple):
    """One head's weights [queries keys], and the kind of its layer."""

    weights: np.ndarray
    kind: str


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


def _figure(name: str, maps: Sequence[Map], titles: list[str], first_scored: int) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure

    columns = min(2, len(maps))
    rows = -(-len(maps) // columns)
    side = (WIDTH + 0.6 - 0.35 * (columns - 1)) / columns
    width, height = WIDTH + 1.3, rows * (side + 0.5) + 1.0
    figure = Figure(figsize=(width, height))
    import matplotlib

    blues = matplotlib.colormaps["Blues"]
    colours = [blues(FAINT + (FULL - FAINT) * i / 63) for i in range(64)]
    scale = LinearSegmentedColormap.from_list("weights", colours).with_extremes(
        under=ZERO, bad=FUTURE
    )
    norm = PowerNorm(0.5, vmin=1e-30, vmax=1.0)
    for index, ((weights, kind), title) in enumerate(zip(maps, titles, strict=True)):
        row, column = divmod(index, columns)
        left, bottom = 0.45 + column * (side + 0.35), height - 0.65 - side - row * (side + 0.5)
        panel = figure.add_axes((left / width, bottom / height, side / width, side / height))
        queries, keys = weights.shape
        panel.imshow(
            pooled(weights, causal=kind == "causal"),
            cmap=scale,
            norm=norm,
            interpolation="none",
            extent=(0, keys, queries, 0),
            aspect="auto",
        )
        line = {"color": "#D55E00", "linestyle": (0, (4, 3)), "linewidth": 0.9}
        if not title.startswith("encoder"):  # whose queries are of the source
            panel.axhline(first_scored, **line)
        panel.set_title(title, fontsize=9.5, loc="left")
        panel.tick_params(length=2.5, color="#888888", labelsize=8.5)
        panel.locator_params(nbins=5)
        if column == 0:
            panel.set_ylabel("query")
        if index + columns >= len(maps):
            panel.set_xlabel("key")
    figure.text(0.45 / width, 1 - 0.28 / height, name[:52], weight="bold", fontsize=10)
    place = figure.add_axes((0.45 / width, -0.02 / height, (WIDTH + 0.6) / width, 0.1 / height))
    bar = figure.colorbar(ScalarMappable(norm, scale), cax=place, orientation="horizontal")
    bar.set_ticks([0.001, 0.01, 0.1, 0.25, 0.5, 1.0], labels=["", ".01", ".1", ".25", ".5", "1"])
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8.5, length=2.5)
    bar.set_label("weight", fontsize=9)
    return figure
