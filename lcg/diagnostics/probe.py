# ruff: noqa: F722  (shapes in annotations)
"""Measure heads, gradients and α during training, cheaply, and read α back from metrics.csv.

A few samples of one length pass through the model, and a row of numbers is logged for every layer:
see `columns.probe_columns`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcg.attention.layer import run_of
from lcg.config import Config
from lcg.diagnostics.capture import LayerInput, capture_inputs, learned_alpha
from lcg.diagnostics.columns import QUANTILES, head_groups, head_measures
from lcg.diagnostics.heads import quantiles, row_measures
from lcg.evaluation.test_sets import TestSet
from lcg.models.transformer import batch_tensors, model_inputs
from lcg.runs.run import Run
from lcg.shapes import Int

SAMPLES = 4
SCORES = 2**22
"""Weights of one layer that are looked at: fewer samples where they are more, then fewer queries,
evenly spaced."""


class Probe:
    """Probes a model on fixed samples of the validation stream, at `probed_length`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        model = config.model
        test_set = TestSet(config, "validation", probed_length(config), SAMPLES)
        inputs = model_inputs(batch_tensors(test_set.batch()))
        longest = max(tokens.shape[1] for tokens in inputs)
        samples = min(SAMPLES, max(1, SCORES // (model.heads * longest**2)))
        self.reads: tuple[Int[Tensor, "b t"], ...] = tuple(tokens[:samples] for tokens in inputs)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Measure the heads; leaves model, gradients and random state as they were."""
        device = next(model.parameters()).device
        training = model.training
        random = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=random), torch.no_grad(), capture_inputs(model) as seen:
            model.eval()
            try:
                first = torch.zeros(1, dtype=torch.long, device=device)
                model(*(tokens.to(device) for tokens in self.reads), select=first)
            finally:
                model.train(training)
            row: dict[str, float] = {}
            for captured in seen:
                row |= self._layer(captured)
        return row

    def _layer(self, captured: LayerInput) -> dict[str, float]:
        name, layer = captured.name, captured.layer
        queries = self.queries(captured.x.shape[1], captured.key_count).to(captured.x.device)
        measures = head_measures(layer.normalizer)
        values = row_measures(captured, queries, measures)
        rows = {measure: _of_tokens(part, captured, queries) for measure, part in values.items()}
        row = {
            f"heads/{name}/{group}/{measure}": float(rows[measure][:, run_of(heads)].mean())
            for group, heads in head_groups(layer.position, self.config.model.heads).items()
            for measure in measures
        }
        scaler = layer.scaler(captured.x, captured.ids, **captured.keywords)
        if scaler is not None and layer.scaled_heads:
            scaler = scaler[..., run_of(layer.scaled_heads), :]
            if scaler.dim() == 3:
                scaler = _of_tokens(scaler, captured, slice(None))
            values = quantiles(scaler, QUANTILES)
            row |= {f"scaler/{name}/{key}": value for key, value in values.items()}
        return row

    def queries(self, tokens: int, keys: int) -> Int[Tensor, " q"]:
        """The queries of one layer that are looked at, of so many that see so many keys."""
        count = SCORES // (len(self.reads[0]) * self.config.model.heads * keys)
        return torch.linspace(0, tokens - 1, min(tokens, max(1, count))).round().long()


def probed_length(config: Config) -> int:
    """The longest training length, or, where no sample to validate on is as long (a corpus has no
    more), the longest validation length up to there; the shortest of all if none is."""
    longest, task = config.data.max_length, config.task
    if task.distinct_samples("validation", longest) != 0:
        return longest
    lengths = config.validation.lengths
    return max((n for n in lengths if n <= longest), default=min(lengths))


def _of_tokens(values: Tensor, captured: LayerInput, queries: Tensor | slice) -> Tensor:
    """Values [b h q] without those of queries that are padding: [rows h q], or [rows h 1]."""
    if captured.query_mask is None:
        return values
    real = captured.query_mask[:, queries]
    return values if bool(real.all()) else values.mT[real][..., None]


def learned_alphas(model: Any) -> dict[str, float]:
    """`columns.alpha_columns` -> value; empty where α is not learned. One read of the device."""
    layers = model.attention_layers().items()
    alphas = {name: alpha for name, layer in layers if (alpha := learned_alpha(layer)) is not None}
    rows = torch.stack(list(alphas.values())).tolist() if alphas else []
    return {
        f"alpha/{name}/head_{head}": value
        for name, row in zip(alphas, rows, strict=True)
        for head, value in enumerate(row)
    }


def group_of(name: str) -> str:
    """The group of a parameter by its name in a model of any kind; every parameter is in one.

    scaling: what the query scaling learns, β and γ of ASEntmax; normalizer: what the normalizer
    learns, α; attention: the projections, and what encoding and output norm learn; norm: RMSNorms.
    """
    first, *parts = name.split(".")
    if first not in ("blocks", "source_blocks"):
        return {"norm": "norm", "source_norm": "norm", "head": "head"}.get(first, "embedding")
    _, part, tensor, *_ = parts
    if part in ("attention", "cross"):
        states = {"scaling_state": "scaling", "normalizer_state": "normalizer"}
        return states.get(tensor, "attention")
    return "mlp" if part == "mlp" else "norm"


def group_norms(model: nn.Module) -> dict[str, Tensor]:
    """Euclidean norm of the gradient of each group, in float32 on the model's device, unread."""
    gradients: dict[str, list[Tensor]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients[group_of(name)].append(parameter.grad)
    return {
        group: torch.stack(torch._foreach_norm(group_gradients)).float().norm()
        for group, group_gradients in gradients.items()
    }


ALPHA = re.compile(r"alpha/(\w+)/head_(\d+)")


@dataclass(frozen=True)
class Trajectory:
    """α of one head at the steps at which it was logged."""

    layer: str
    head: int
    steps: list[int] = field(repr=False)
    values: list[float] = field(repr=False)


def alpha_trajectories(run: Path, kinds: Mapping[str, str]) -> dict[str, list[Trajectory]]:
    """Attention kind -> the trajectory of every head of that kind; empty where none was logged.

    kinds: the attention kind of each layer by its name: see `columns.attention_layers`. Of several
    values at one step the last counts.
    """
    curves = Run(run).curves(lambda name: bool((m := ALPHA.fullmatch(name)) and m[1] in kinds))
    by_kind: dict[str, list[Trajectory]] = {}
    for name, (steps, values) in curves.items():
        match = ALPHA.fullmatch(name)
        head = Trajectory(match[1], int(match[2]), steps, values)
        by_kind.setdefault(kinds[match[1]], []).append(head)
    return by_kind
