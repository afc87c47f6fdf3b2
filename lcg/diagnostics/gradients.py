"""Gradient norms of the parts of a model."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn


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
