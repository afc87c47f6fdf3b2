"""Columns of metrics.csv about heads and gradients; without torch."""

from __future__ import annotations

from typing import Literal, NamedTuple

from lcg.attention import Attention
from lcg.attention.mixers import AttentionMixer
from lcg.attention.normalizers.base import Normalizer
from lcg.attention.scalings import NoScaling, QueryScaling
from lcg.config import Config
from lcg.config.compatibility import cross_encoding
from lcg.positional.base import PositionEncoding

QUANTILES = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}
"""Quantiles of the scalers of one layer: name -> share of the queries at or below."""


def head_measures(normalizer: Normalizer) -> tuple[str, ...]:
    """Values that the probe logs of a group of heads: null is the share of rows without any weight,
    where rows need not sum to one."""
    return ("support", "max_weight", *(() if normalizer.rows_sum_to_one else ("null",)))


class AttentionLayer(NamedTuple):
    """One attention layer: its name in columns of metrics.csv, and what its queries see."""

    name: str
    kind: Literal["causal", "full", "cross"]

    @property
    def number(self) -> int:
        """Its place among the layers of its side of the model, from 0."""
        return int(self.name.rpartition("_")[2])


def attention_layers(config: Config) -> list[AttentionLayer]:
    """The attention layers of a config's model, in the order in which a forward pass calls them."""
    model = config.model
    if not isinstance(config.mixer, AttentionMixer):
        return []
    if model.kind != "encoder_decoder":
        kind = "causal" if model.kind == "decoder" else "full"
        return [AttentionLayer(f"layer_{i}", kind) for i in range(model.layers)]
    layers = [AttentionLayer(f"encoder_{i}", "full") for i in range(model.source_layers)]
    for i in range(model.layers):
        layers += [AttentionLayer(f"decoder_{i}", "causal"), AttentionLayer(f"cross_{i}", "cross")]
    return layers


def layer_attention(config: Config, layer: AttentionLayer) -> Attention:
    """The attention that a layer has."""
    return config.attention.of_layer(layer.number)


def layer_position(config: Config, layer: AttentionLayer) -> PositionEncoding:
    """The encoding that a layer has: none in cross-attention unless the config asks for one."""
    position = config.position.of_layer(layer.number)
    return cross_encoding(config.model, position) if layer.kind == "cross" else position


def head_groups(position: PositionEncoding, heads: int) -> dict[str, list[int]]:
    """The heads that a length scaling would apply to and the others, or all where that is all."""
    scaled = list(position.scaled_heads(heads))
    others = [head for head in range(heads) if head not in scaled]
    if not scaled or not others:
        return {"all": list(range(heads))}
    return {"unscaled": others, "scaled": scaled}


def head_text(config: Config, layer: AttentionLayer, head: int) -> str:
    """A head with what its encoding gives it alone, and `scaled` where some are: "head 4, no
    position, scaled"."""
    position, heads = layer_position(config, layer), config.model.heads
    slopes = position.slopes(heads)
    parts = [f"head {head}"]
    if slopes is not None:
        none = slopes[head] == 0 and not position.more_than_slopes
        parts.append("no position" if none else f"ALiBi slope {slopes[head]:.3g}")
    scales = not isinstance(layer_attention(config, layer).scaling, NoScaling)
    if scales and len(head_groups(position, heads)) > 1 and head in position.scaled_heads(heads):
        parts.append("scaled")
    return ", ".join(parts)


def probe_columns(config: Config) -> list[str]:
    """The columns that the probe of the heads fills at every validation step."""
    heads = config.model.heads
    names: list[str] = []
    for layer in attention_layers(config):
        position, attention = layer_position(config, layer), layer_attention(config, layer)
        measures = head_measures(attention.weighting)
        for group in head_groups(position, heads):
            names += [f"heads/{layer.name}/{group}/{measure}" for measure in measures]
        scaled = not isinstance(attention.scaling, NoScaling)
        if scaled and len(position.scaled_heads(heads)):
            names += [f"scaler/{layer.name}/{name}" for name in QUANTILES]
    return names


def alpha_columns(config: Config) -> list[str]:
    """The columns of learned α, in every row of the loss; none where α is not learned."""
    layers = attention_layers(config)
    learning = [n for n in layers if layer_attention(config, n).normalizer.learns_alpha]
    heads = range(config.model.heads)
    return [f"alpha/{layer.name}/head_{h}" for layer in learning for h in heads]


def gradient_groups(config: Config) -> list[str]:
    """The groups of parameters whose gradient norms a run logs: see `probe.group_of`."""
    every = config.attention.pattern or [config.attention]
    if not attention_layers(config):
        return ["embedding", "attention", "mlp", "norm", "head"]
    scaling = any(type(own.scaling).learned is not QueryScaling.learned for own in every)
    normalizer = any(type(own.weighting).learned is not Normalizer.learned for own in every)
    learned = [*["scaling"] * scaling, *["normalizer"] * normalizer]
    return ["embedding", "attention", *learned, "mlp", "norm", "head"]


def columns(config: Config) -> list[str]:
    """The metrics that a run writes, in the order of metrics.csv."""
    train = ("loss", "lr", "grad_norm", "tokens_per_second", "steps_per_second", "seconds")
    kinds = ("exact_match", "token_accuracy")
    return [
        *(f"train/{name}" for name in train),
        *(f"val/len_{n}/{kind}" for n in config.validation.lengths for kind in kinds),
        *(f"grad_norm/{group}" for group in gradient_groups(config)),
        *alpha_columns(config),
        *probe_columns(config),
    ]
