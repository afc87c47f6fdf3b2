"""Rotary position embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding, Sizes, torch


@dataclass
class RoPE(PositionEncoding):
    """Rotate pairs of dimensions by position·base^(-2m/r), m = 0 … r/2 - 1 (2104.09864).

    r = fraction·d is the rotated part of the head dimension; dimension m turns with m + r/2, as in
    the GPT-NeoX convention. With fraction < 1 the frequencies are spread anew over the r rotated
    dimensions and the remaining d - r stay as they are. Differs from common code in that angles are
    computed in float64: in float32 they are off by 0.004 rad at position 65,536.
    """

    name: ClassVar[str] = "rope"

    base: float = 10000.0
    """Wavelengths run from 2π to 2π·base tokens."""
    fraction: float = 1.0
    """Share of the head dimension that is rotated."""

    def __post_init__(self) -> None:
        if not 1 < self.base < math.inf:
            raise ValueError(f"rope: base must be greater than 1 and finite, got {self.base}")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"rope: fraction must be in (0, 1], got {self.fraction}")

    def check(self, sizes: Sizes) -> None:
        rotated = self.fraction * sizes.head_dim
        if abs(rotated - round(rotated)) > 1e-6 or round(rotated) % 2:
            raise ValueError(
                f"rope: fraction·head_dim must be an even number of dimensions, "
                f"got {self.fraction}·{sizes.head_dim} = {rotated:g}"
            )

    def rotate_queries(self, q, ids, learned):
        rotated = round(self.fraction * q.shape[-1])
        device = "cpu" if q.device.type == "mps" else q.device  # MPS has no float64
        exponents = torch.arange(0, rotated, 2, device=device, dtype=torch.float64) / rotated
        angles = ids.to(device).double()[..., None] * self.base**-exponents  # [t r/2]
        cos, sin = angles.cos().to(q), angles.sin().to(q)
        first, second, rest = q.split([rotated // 2, rotated // 2, q.shape[-1] - rotated], dim=-1)
        turned = [first * cos - second * sin, second * cos + first * sin, rest]
        return torch.cat(turned, dim=-1)

    rotate_keys = rotate_queries
