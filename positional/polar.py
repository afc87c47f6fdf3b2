"""PoPE, whose sizes and angles tell content and position apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from lcg.positional.base import PositionEncoding, device_of_float64, torch


@dataclass
class PoPE(PositionEncoding):
    """Score Σ_c μ(q_c) μ(k_c) cos((i - j)·θ_c - b_hc)/√d, μ = softplus, θ_c = base^(-c/d).

    c runs over all d dimensions (2509.10534). b is learned for each key head and dimension and kept
    in [-2π, 0]. Rotation makes queries and keys twice as wide; the scale stays 1/√d.
    """

    name: ClassVar[str] = "pope"
    widens: ClassVar[bool] = True

    base: float = 10000.0
    """Wavelengths run from 2π to 2π·base tokens."""
    init: Literal["zeros", "uniform"] = "zeros"
    """b at the start: 0, or drawn from [-2π, 0]."""

    def __post_init__(self) -> None:
        if not 1 < self.base < math.inf:
            raise ValueError(f"pope: base must be greater than 1 and finite, got {self.base}")

    def learned(self, sizes):
        shape = sizes.kv_heads, sizes.head_dim
        drawn = -2 * math.pi * torch.rand(shape)
        return {"b": drawn if self.init == "uniform" else torch.zeros(shape)}

    def polar(self, x, ids, turn):
        """The sizes μ(x) turned by the angles of their positions and `turn`: [b h t 2d]."""
        d, device = x.shape[-1], device_of_float64(x)
        theta = self.base ** -(torch.arange(d, device=device, dtype=torch.float64) / d)
        angles = ids.to(device).double()[..., None] * theta + turn
        size = torch.nn.functional.softplus(x)
        return torch.cat([size * angles.cos().to(x), size * angles.sin().to(x)], dim=-1)

    def rotate_queries(self, q, ids, learned):
        return self.polar(q, ids, 0.0)

    def rotate_keys(self, k, ids, learned):
        turn = learned["b"].double().clamp(-2 * math.pi, 0)[:, None]  # [h 1 d]
        return self.polar(k, ids, turn.to(device_of_float64(k)))
