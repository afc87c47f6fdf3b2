"""Learned α of every head of a model, by the names of metrics.csv."""

from __future__ import annotations

from typing import Any

import torch

from lcg.diagnostics.watching import learned_alpha


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
