"""PoPE, polar positions (2509.10534)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding, torch


@dataclass
class PoPE(PositionEncoding):
    """Score Σ_c μ(q_c) μ(k_c) cos((i - j)·θ_c - b_hc)/√d, μ = softplus, θ_c = base^(-c/d).

    Queries and keys become twice as wide; the scale stays 1/√d. b is kept in [-2π, 0].
    """

    name: ClassVar[str] = "pope"

    base: float = 10000.0
    """Wavelengths run from 2π to 2π·base tokens."""

    def learned(self, sizes):
        return {"b": torch.zeros(sizes.kv_heads, sizes.head_dim)}

    def _polar(self, x, ids, turn):
        d = x.shape[-1]
        theta = self.base ** -(torch.arange(d, device=x.device, dtype=torch.float64) / d)
        angle = ids.double()[..., None] * theta + turn.double()
        size = torch.nn.functional.softplus(x)
        return torch.cat([size * angle.cos().to(x), size * angle.sin().to(x)], dim=-1)

    def rotate_queries(self, q, ids, learned):
        return self._polar(q, ids, torch.zeros(()))

    def rotate_keys(self, k, ids, learned):
        return self._polar(k, ids, learned["b"].clamp(-2 * math.pi, 0)[:, None])
