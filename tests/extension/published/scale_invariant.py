"""Scale-invariant attention (2505.17083)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding, torch


@dataclass
class ScaleInvariant(PositionEncoding):
    """Scores become a·s + m, a = √(2 ln(1 + δ/τ) + 1) and m = -2 ln(1 + δ/τ), δ = |i - j|.

    With `multiply=false` only m is left, which is KERPLE's logarithm with p = 2 and a = 1/τ.
    """

    name: ClassVar[str] = "scale_invariant"

    tau: float = 10.0
    """Distance from which keys are seen as groups."""
    multiply: bool = True
    """Multiply the scores by a."""

    def map_scores(self, scores, tile, learned):
        log = torch.log1p(tile.distance.abs().float() / self.tau)
        return ((2 * log + 1).sqrt() * scores if self.multiply else scores) - 2 * log
