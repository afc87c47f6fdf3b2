"""Encodings that are added to the embeddings: absolute positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding, torch


@dataclass
class Sinusoidal(PositionEncoding):
    """x + scale·e(position) with e_2m = sin(position·base^(-2m/w)), e_2m+1 its cosine (1706.03762).

    w is the model width; of an odd one the last entry is a sine. Differs from the paper in that the
    size of e against the embeddings is an option, and in that angles are computed in float64.
    Embeddings have entries of about 1 where the blocks begin, e of 0.7 with scale=1.
    """

    name: ClassVar[str] = "sinusoidal"
    relative: ClassVar[bool] = False

    base: float = 10000.0
    """Wavelengths run from 2π to 2π·base tokens."""
    scale: float = 1.0
    """Factor on the embedding."""

    def __post_init__(self) -> None:
        if not 1 < self.base < math.inf:
            raise ValueError(f"sinusoidal: base must be greater than 1 and finite, got {self.base}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"sinusoidal: scale must be positive and finite, got {self.scale}")

    def embed(self, x, ids, learned):
        width = x.shape[-1]
        device = "cpu" if x.device.type == "mps" else x.device  # MPS has no float64
        exponents = torch.arange(0, width, 2, device=device, dtype=torch.float64) / width
        angles = ids.to(device).double()[..., None] * self.base**-exponents  # [t w/2]
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[:, :width]
        return x + (self.scale * waves).to(x)
