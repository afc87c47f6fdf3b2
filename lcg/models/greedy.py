# ruff: noqa: F722  (shapes in annotations)
"""Greedy decoding, one token at a time.

Shapes: b batch, t tokens, q selected positions, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lcg.shapes import Float, Int

Read = Callable[[Tensor, Tensor | None], Tensor]
"""read(tokens [b t], select [q] or None): the logits [b q v] after tokens that continue all those
read before, at tokens[:, select] or at all."""


def continued(read: Read, tokens: Int[Tensor, "b t"], count: int) -> Int[Tensor, "b {count}"]:
    """The `count` greedy tokens that follow; -1 where logits are not finite."""
    last = torch.tensor([tokens.shape[1] - 1], device=tokens.device)
    decoded = [best_tokens(read(tokens, last))]  # [b 1] each
    for _ in range(count - 1):
        decoded.append(best_tokens(read(decoded[-1].clamp_min(0), None)))
    return torch.cat(decoded, dim=1)


def best_tokens(logits: Float[Tensor, "b q v"]) -> Int[Tensor, "b q"]:
    """The best token at each position; -1 where logits are not finite."""
    return logits.argmax(dim=-1).masked_fill_(~logits.isfinite().all(dim=-1), -1)
