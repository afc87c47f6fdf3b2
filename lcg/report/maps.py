"""Attention maps of chosen heads: one test sample through a run's selected checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lcg.diagnostics.columns import attention_layers, head_text
from lcg.report.figures import SCALED, Drawing, svg_of
from lcg.results.aggregate import Group
from lcg.runs.run import Run
from lcg.runs.sources import Trust

Head = tuple[int | str, int]  # layer, by its place among all or by its name; head
COPIES = 8  # of a layer's weights, with scores and a solver's own
MOST_TOKENS = 256  # a map of more is pooled: no screen shows more squares
SIDE = 2.1  # inches of a map: two stand side by side on a phone


@dataclass(frozen=True)
class MapChoice:
    """The maps to draw. length: None is each task's longest training length.

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


def default_heads(layers: int, heads: int, scaled: Sequence[int]) -> tuple[Head, ...]:
    """The first head of each group (unscaled, scaled) in the first and in the last layer."""
    other = scaled[0] if scaled else 0
    firsts = [0] if other == 0 else [0, other]
    return tuple((layer, head) for layer in dict.fromkeys((0, layers - 1)) for head in firsts)


def draw(name: str, group: Group, run: Run, choice: MapChoice) -> Drawing | str:
    """Draw the maps of a method's selected run, or return a note why there are none."""
    from lcg.diagnostics.plots import Map, draw_maps, tokens_of

    about, record = f"{group.task}, {group.name}: no attention maps", group.best.record
    length = record.train_max if choice.length is None else choice.length
    if not run.is_selected:
        return f"{about}, {record.run} has no selected checkpoint."
    try:
        config, answers, layers = _measured(Run(run.path, choice.trust), length)
    except (ValueError, OSError, RuntimeError) as error:
        return f"{about}, {' '.join(str(error).split())}."
    every, count = attention_layers(config), config.model.heads
    index_of = {key: i for i, layer in enumerate(every) for key in (i, layer.name)}
    heads = choice.heads or default_heads(len(every), count, config.position.scaled_heads(count))
    absent = [f"{layer}:{head}" for layer, head in heads if layer not in index_of or head >= count]
    if absent:
        return f"{about}, the model has no head {', '.join(absent)} (LAYER:HEAD, from 0)."
    sides = answers.reads[: 1 + config.model.separate_source]  # position ids are no text
    texts = [[config.task.text(token) for token in side[0].tolist()] for side in sides]
    maps = []
    for place, head in ((index_of[key], head) for key, head in heads):
        layer = layers[place]
        maps.append(
            Map(
                f"{layer.name.replace('_', ' ')}, {head_text(config, every[place], head)}",
                layer.map.blocks[head].numpy(),
                layer.kind,
                *tokens_of(layer.name, texts[0], texts[-1]),
                scored=None if layer.name.startswith("encoder") else int(answers.positions[0]),
            )
        )
    svg = svg_of(draw_maps(maps, group.name, 2, SIDE))
    size = max(layers[index_of[key]].map.size for key, _ in heads)
    wrong = int((answers.predicted != answers.target).sum())
    right = "all right" if wrong == 0 else f"{wrong} of {answers.target.size} wrong"
    future = ", grey is the future" if any(shown.kind == "causal" for shown in maps) else ""
    pooled = f" Each square is the largest weight of {size} × {size} pairs." if size > 1 else ""
    scaling = f" {SCALED}" if any(shown.title.endswith(", scaled") for shown in maps) else ""
    caption = (
        f"Attention weights of the selected run (seed {record.seed}, learning rate {record.lr:g}) "
        f"on the first test sample of length {length} ({len(texts[0])} input tokens; scored "
        f"symbols: {right}). Rows are queries, columns keys; square-root colour scale, "
        f"white is exactly 0{future}. Queries below the dashed line are scored.{scaling}{pooled}"
    )
    return Drawing(name, f"Attention maps: {group.name}", caption, svg)


def _measured(run: Run, length: int) -> tuple[Any, Any, list[Any]]:
    """A run's config, and what its selected checkpoint answers to the first test sample of a length
    and its heads do there; raises ValueError, in one line, where that cannot be had."""
    import torch

    from lcg.diagnostics.errors import answer
    from lcg.diagnostics.heads import measure
    from lcg.evaluation.evaluate import load_model
    from lcg.evaluation.memory import SHARE, available_bytes
    from lcg.evaluation.test_sets import TestSet

    config = run.config
    config.task.check_evaluation("test", length)
    run.check_selected()
    every = 4 * config.model.heads * int(config.task.token_length(length)) ** 2  # bytes of a layer
    need = every * (2 * len(attention_layers(config)) + COPIES)
    have = available_bytes(torch.device("cpu"))
    if need > SHARE * have:  # they would be had a few queries at a time, but not in an afternoon
        raise ValueError(
            f"the weights of one sample at length {length} need {need / 2**30:.1f} GiB of the "
            f"{have / 2**30:.1f} GiB available; choose a shorter --map-length"
        )
    model, _ = load_model(run.path, config)
    answers = answer(model, TestSet(config, "test", length, 1))
    return config, answers, measure(model, answers.reads, ("support",), mapped=0, side=MOST_TOKENS)
