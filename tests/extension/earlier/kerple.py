"""Kernelised relative positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding, torch


@dataclass
class Kerple(PositionEncoding):
    """Scores get -a·log(1 + b·|i - j|), a and b learned per head (KERPLE, 2205.09921).

    a = softplus(raw_a) and b = softplus(raw_b) stay positive.
    """

    name: ClassVar[str] = "kerple"

    start: float = 1.0
    """a and b at the start."""

    def __post_init__(self) -> None:
        if self.start <= 0:
            raise ValueError(f"kerple: start must be positive, got {self.start:g}")

    def learned(self, sizes):
        raw = math.log(math.expm1(self.start))  # softplus of it is `start`
        return {name: torch.full((sizes.heads,), raw) for name in ("raw_a", "raw_b")}

    def bias(self, context, learned):
        softplus = torch.nn.functional.softplus
        a, b = (softplus(learned[name].float()) for name in ("raw_a", "raw_b"))
        distance = (context.q_positions[:, None] - context.k_positions).abs()  # [q k]
        return -a[:, None, None] * torch.log1p(b[:, None, None] * distance)  # [h q k]
