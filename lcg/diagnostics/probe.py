# ruff: noqa: F722  (shapes in annotations)
"""A look at the heads that is cheap enough to take while training.

A few samples of one length pass through the model, and what is logged of every layer is a row of
numbers: see `headers.probe_columns`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from lcg.config import Config
from lcg.diagnostics.capture import Watched, learned_alpha, watching
from lcg.diagnostics.columns import QUANTILES, head_groups
from lcg.diagnostics.measures import max_weight, quantiles, support
from lcg.evaluation.test_sets import TestSet
from lcg.models.transformer import batch_tensors, model_inputs
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
        found = model_inputs(batch_tensors(test_set.batch()))
        longest = max(tokens.shape[1] for tokens in found)
        samples = min(SAMPLES, max(1, SCORES // (model.heads * longest**2)))
        self.reads: tuple[Int[Tensor, "b t"], ...] = tuple(tokens[:samples] for tokens in found)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """What is logged of the heads; leaves model, gradients and random state as they were."""
        device = next(model.parameters()).device
        training = model.training
        random = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=random), torch.no_grad(), watching(model) as seen:
            model.eval()
            try:
                first = torch.zeros(1, dtype=torch.long, device=device)
                model(*(tokens.to(device) for tokens in self.reads), select=first)
            finally:
                model.train(training)
            row: dict[str, float] = {}
            for watched in seen:
                row |= self._layer(watched)
        return row

    def _layer(self, watched: Watched) -> dict[str, float]:
        name, position = watched.name, watched.layer.position
        queries = self.queries(watched.x.shape[1], watched.key_count).to(watched.x.device)
        weights = watched.weights(queries)
        # By query, so that those that are padding can be left out.
        counts = _of_tokens(support(weights).float(), watched, queries)
        tops = _of_tokens(max_weight(weights), watched, queries)
        row = {}
        for group, heads in head_groups(position, self.config.model.heads).items():
            row[f"heads/{name}/{group}/support"] = float(counts[:, heads].mean())
            row[f"heads/{name}/{group}/max_weight"] = float(tops[:, heads].mean())
            if not watched.layer.attention.normalizer.rows_sum_to_one:
                row[f"heads/{name}/{group}/null"] = float((counts[:, heads] == 0).float().mean())
        # Of the scaled heads alone, where `watched.scaler` has all.
        scaler = watched.layer.scaler(watched.x, watched.positions, **watched.keywords)
        if scaler is not None and scaler.numel():
            if scaler.dim() == 3:
                scaler = _of_tokens(scaler, watched, slice(None))
            found = quantiles(scaler, QUANTILES)
            row |= {f"scaler/{name}/{key}": value for key, value in found.items()}
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


def _of_tokens(values: Tensor, watched: Watched, queries: Tensor | slice) -> Tensor:
    """Values [b h q] without those of queries that are padding: [rows h q], or [rows h 1]."""
    if watched.query_mask is None:
        return values
    real = watched.query_mask[:, queries]
    return values if bool(real.all()) else values.mT[real][..., None]


def learned_alphas(model: Any) -> dict[str, float]:
    """`headers.alpha_columns` -> value; empty where α is not learned. One read of the device."""
    found = {name: learned_alpha(layer) for name, layer in model.attention_layers().items()}
    known = {name: alpha for name, alpha in found.items() if alpha is not None}
    if not known:
        return {}
    rows = torch.stack(list(known.values())).tolist()
    return {
        f"alpha/{name}/head_{head}": value
        for name, row in zip(known, rows, strict=True)
        for head, value in enumerate(row)
    }


def group_of(name: str) -> str:
    """The group of a parameter by its name in a model of any kind; every parameter is in one.

    scaling: what the query scaling learns, β and γ of ASEntmax; normalizer: what the normalizer
    learns, α; attention: the projections, and what encoding and output norm learn; norm: RMSNorms.
    """
    parts = name.split(".")
    if parts[0] not in ("blocks", "source_blocks"):
        return {"norm": "norm", "source_norm": "norm", "head": "head"}.get(parts[0], "embedding")
    if parts[2] in ("attention", "cross"):
        return {"scaling_state": "scaling", "normalizer_state": "normalizer"}.get(
            parts[3], "attention"
        )
    return "mlp" if parts[2] == "mlp" else "norm"


def group_norms(model: nn.Module) -> dict[str, Tensor]:
    """Euclidean norm of the gradient of each group, in float32 on the model's device, unread."""
    gradients: dict[str, list[Tensor]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients[group_of(name)].append(parameter.grad)
    return {
        group: torch.stack(torch._foreach_norm(some)).float().norm()
        for group, some in gradients.items()
    }
