"""FIRE, a learned function of the distance relative to how far a query sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding, torch


@dataclass
class FIRE(PositionEncoding):
    """Scores get f_h(ψ(i - j) / ψ(max(L, i))), ψ(x) = ln(1 + c·x) (2310.04418).

    f is learned: one number → `hidden` ReLUs → a number for each head, both layers with a bias and
    torch's initial values. c and L are learned too: c = softplus(raw_c) and L = train_length times
    softplus(raw_length), 1 at the start. Up to i = L this is a function of the distance alone.
    Differs from the paper in that softplus, not an absolute value, keeps c and L positive, in that
    L starts at the training length, not at 512, and in that |i - j| stands for i - j.
    """

    name: ClassVar[str] = "fire"
    relative: ClassVar[bool] = False

    hidden: int = 32
    """Hidden width of f."""
    c: float = 0.1
    """c at the start."""
    train_length: int | None = None
    """L at the start; null: the tokens of the longest training sequence."""

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"fire: hidden must be at least 1, got {self.hidden}")
        if not 0 < self.c < math.inf:
            raise ValueError(f"fire: c must be positive and finite, got {self.c}")
        if self.train_length is not None and self.train_length < 1:
            raise ValueError(f"fire: train_length must be at least 1, got {self.train_length}")

    def check(self, sizes):
        if self.train_length is None:
            raise ValueError("fire: train_length is not known here; give the tokens of training")

    def learned(self, sizes):
        inner, outer = torch.nn.Linear(1, self.hidden), torch.nn.Linear(self.hidden, sizes.heads)
        tensors = {"inner": inner.weight, "inner_bias": inner.bias}
        tensors |= {"outer": outer.weight, "outer_bias": outer.bias}
        start = torch.tensor([self.c, 1.0]).expm1().log()
        raw = {"raw_c": start[0].clone(), "raw_length": start[1].clone()}
        return {name: tensor.detach() for name, tensor in tensors.items()} | raw

    def bias(self, tile, learned):
        softplus = torch.nn.functional.softplus
        c, multiple = (softplus(learned[name].float()) for name in ("raw_c", "raw_length"))
        farthest = torch.maximum(self.train_length * multiple, tile.q_ids.float())
        nearer = torch.log1p(c * tile.distance.abs().float())
        ratio = nearer / (torch.log1p(c * farthest) + 1e-6)
        if ratio.dim() > 2:  # ids of each sequence: [b 1 q k]
            ratio = ratio[:, 0]
        units = ratio[..., None] * learned["inner"].float()[:, 0] + learned["inner_bias"].float()
        with torch.autocast(ratio.device.type, enabled=False):  # else neighbours look the same
            found = units.relu() @ learned["outer"].float().mT
        return (found + learned["outer_bias"].float()).movedim(-1, -3)
