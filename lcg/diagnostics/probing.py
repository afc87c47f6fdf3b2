# ruff: noqa: F722  (shapes in annotations)
"""A look at the heads that is cheap enough to take while training.

A few samples of one length pass through the model, and what is logged of every layer is a row of
numbers: see `headers.probe_columns`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lcg.config import Config
from lcg.diagnostics.headers import QUANTILES, head_groups
from lcg.diagnostics.measures import max_weight, quantiles, support
from lcg.diagnostics.watching import Watched, watching
from lcg.models.decoder import Decoder
from lcg.shapes import Int
from tasks.streams import eval_batch

SAMPLES = 4
SCORES = 2**22
"""Weights of one layer that are looked at: fewer samples where they are more, then fewer queries,
evenly spaced."""


class Probe:
    """Probes a model on fixed samples of the validation stream, at the longest training length."""

    def __init__(self, config: Config) -> None:
        self.config = config
        length, heads = config.data.max_length, config.model.heads
        inputs = eval_batch(
            config.task, config.evaluation.seed, "validation", length, 0, SAMPLES
        ).inputs
        tokens = inputs.shape[1]
        samples = min(SAMPLES, max(1, SCORES // (heads * tokens**2)))
        self.inputs: Int[Tensor, "b t"] = torch.from_numpy(inputs[:samples])
        count = min(tokens, max(1, SCORES // (samples * heads * tokens)))
        self.queries: Int[Tensor, " q"] = torch.linspace(0, tokens - 1, count).round().long()

    def __call__(self, model: Decoder) -> dict[str, float]:
        """What is logged of the heads; leaves model, gradients and random state as they were."""
        device = next(model.parameters()).device
        training = model.training
        random = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=random), torch.no_grad(), watching(model) as seen:
            model.eval()
            try:
                model(self.inputs.to(device), torch.zeros(1, dtype=torch.long, device=device))
            finally:
                model.train(training)
            row: dict[str, float] = {}
            for watched in seen:
                row |= self._layer(watched)
        return row

    def _layer(self, watched: Watched) -> dict[str, float]:
        name, position = watched.name, watched.layer.position
        weights = watched.weights(self.queries.to(watched.x.device))
        counts, tops = support(weights).float(), max_weight(weights)
        row = {}
        for group, heads in head_groups(position, self.config.model.heads).items():
            row[f"heads/{name}/{group}/support"] = float(counts[:, heads].mean())
            row[f"heads/{name}/{group}/max_weight"] = float(tops[:, heads].mean())
        # Of the scaled heads alone, where `watched.scaler` has all.
        scaler = watched.layer.scaler(watched.x, watched.positions, watched.given)
        if scaler is not None and scaler.numel():
            found = quantiles(scaler, QUANTILES)
            row |= {f"scaler/{name}/{key}": value for key, value in found.items()}
        alpha = watched.alpha()
        if alpha is not None:
            row |= {f"alpha/{name}/head_{head}": a for head, a in enumerate(alpha.tolist())}
        return row
