"""FIRE (2310.04418)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding, torch


@dataclass
class FIRE(PositionEncoding):
    """Scores get f_h(ψ(i - j) / ψ(max(L, i))), ψ(x) = log(1 + c·x), f of one hidden layer.

    c and L are learned. Differs from the paper in that softplus keeps them positive.
    """

    name: ClassVar[str] = "fire"
    relative: ClassVar[bool] = False

    hidden: int = 32
    """Hidden width of f."""
    c: float = 0.1
    """c at the start."""
    train_length: int | None = None
    """L at the start; null: the tokens of the longest training sequence."""

    def learned(self, sizes):
        inner, outer = torch.nn.Linear(1, self.hidden), torch.nn.Linear(self.hidden, sizes.heads)
        start = torch.tensor([self.c, float(self.train_length)])
        tensors = {"inner": inner.weight, "inner_bias": inner.bias, "outer": outer.weight}
        tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        return tensors | {"outer_bias": outer.bias.detach(), "raw": start.expm1().log()}

    def bias(self, tile, learned):
        c, least = torch.nn.functional.softplus(learned["raw"].float().clamp(max=1e4))
        farthest = torch.maximum(least, tile.q_ids.float())
        ratio = torch.log1p(c * tile.distance.abs()) / torch.log1p(c * farthest)
        ratio = ratio[:, 0] if ratio.dim() > 2 else ratio  # ids of each sequence: [b 1 q k]
        inner = ratio[..., None] * learned["inner"].float()[:, 0] + learned["inner_bias"].float()
        found = inner.relu() @ learned["outer"].float().mT + learned["outer_bias"].float()
        return found.movedim(-1, -3)
