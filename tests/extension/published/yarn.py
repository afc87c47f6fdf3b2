"""YaRN (2309.00071), for training and for evaluation of a model trained with RoPE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import torch
from lcg.positional.rotary import RoPE


@dataclass
class YaRN(RoPE):
    """RoPE with its slow frequencies divided by s, and queries and keys times 0.1·ln s + 1.

    θ_m becomes θ_m·(1 - ρ_m) + ρ_m·θ_m/s, where ρ goes from 0 to 1 between the frequencies that
    turn 32 times and once over the training length.
    """

    name: ClassVar[str] = "yarn"

    scale: float = 8.0
    """s: how many times the training length."""
    train_length: int | None = None
    """Training length in tokens; null: that of the run."""

    def rotate_queries(self, q, ids, learned):
        d = q.shape[-1]
        low, high = (
            d * math.log(self.train_length / (2 * math.pi * turns)) / (2 * math.log(self.base))
            for turns in (32, 1)
        )
        low, high = max(math.floor(low), 0), min(math.ceil(high), d - 1)
        m = torch.arange(d // 2, device=q.device, dtype=torch.float64)
        ramp = ((m - low) / max(high - low, 1e-3)).clamp(0, 1)
        theta = self.base ** (-2 * m / d) * (1 - ramp + ramp / self.scale)
        angles = ids.double()[..., None] * theta
        factor = 0.1 * math.log(self.scale) + 1
        cos, sin = (factor * wave for wave in (angles.cos().to(q), angles.sin().to(q)))
        first, second = q.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    rotate_keys = rotate_queries
