"""Attention maps of chosen heads: one test sample through a run's selected checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lcg.diagnostics.columns import attention_layers, head_text
from lcg.diagnostics.maps import MOST_TOKENS, Map, draw_maps, tokens_of
from lcg.report.figures import SCALED, Drawing, svg_of
from lcg.results.aggregate import Group
from lcg.runs.run import Run
from lcg.runs.sources import Trust

Head = tuple[int | str, int]  # layer, by its place among all or by its name; head
SIDE = 2.1  # inches of a map: two stand side by side on a phone


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


def draw(name: str, group: Group, run: Run, choice: MapChoice) -> Drawing | str:
    """The maps of a method's selected run, or a note why there are none."""
    from lcg.diagnostics import look as look_at

    about = f"{group.task}, {group.name}: no attention maps"
    record = group.best.record
    length = record.train_max if choice.length is None else choice.length
    if not run.is_selected:
        return f"{about}, {record.run} has no selected checkpoint."
    try:
        seen = look_at(run.path, length, 1, trust=choice.trust)
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
    texts = _texts(seen)
    maps = []
    for (key, _), (layer, head) in zip(heads, chosen, strict=True):
        about_head = head_text(seen.config, every[places[key]], head)
        maps.append(
            Map(
                f"{layer.name.replace('_', ' ')}, {about_head}",
                layer.weights[0, head].numpy(),
                layer.kind,
                *tokens_of(layer.name, *texts),
                scored=None if layer.name.startswith("encoder") else int(seen.positions[0]),
            )
        )
    svg = svg_of(draw_maps(maps, group.name, 2, SIDE))
    caption = _caption(group, seen, length, maps)
    return Drawing(name, f"Attention maps: {group.name}", caption, svg)


def _texts(seen: Any) -> tuple[list[str], list[str]]:
    """The tokens of the sample: those that the model reads in order, and an encoder's."""
    task = seen.config.task
    source = [] if seen.source is None else seen.source[0].tolist()
    return list(map(task.text, seen.inputs[0].tolist())), list(map(task.text, source))


def _caption(group: Group, seen: Any, length: int, maps: Sequence[Map]) -> str:
    record = group.best.record
    labels = seen.labels[0, seen.positions]
    wrong = int((seen.predicted[0] != labels).sum())
    right = "all right" if wrong == 0 else f"{wrong} of {len(labels)} wrong"
    tokens = seen.inputs.shape[1]
    size = -(-max(max(shown.weights.shape) for shown in maps) // MOST_TOKENS)
    future = ", grey is the future" if any(shown.kind == "causal" for shown in maps) else ""
    pooled = f" Each square is the largest weight of {size} × {size} pairs." if size > 1 else ""
    scaled = any(shown.title.endswith(", scaled") for shown in maps)
    scaling = f" {SCALED}" if scaled else ""
    return (
        f"The selected run's (seed {record.seed}, learning rate {record.lr:g}) attention "
        f"weights on the first test sample of length {length} ({tokens} input tokens; its scored "
        f"symbols are {right}). Rows are queries, columns keys; square-root colour scale, white "
        f"is exactly 0{future}. Below the dashed line queries are scored."
        f"{scaling}{pooled}"
    )
