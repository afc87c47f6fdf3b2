"""The relative bias of T5 (1910.10683)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding, torch


@dataclass
class T5(PositionEncoding):
    """Scores get a learned number for each head and bucket of distances.

    Half of the buckets are single distances, the others grow up to `farthest`, beyond which all
    share the last. Differs from the paper in that each layer has a table of its own.
    """

    name: ClassVar[str] = "t5"

    buckets: int = 32
    """Buckets; without a causal mask half of them are for keys after the query."""
    farthest: int = 128
    """Distances from here on share one bucket."""

    def learned(self, sizes):
        return {"table": 0.02 * torch.randn(sizes.heads, self.buckets)}

    def table(self, distances, learned):
        buckets, after = self.buckets, 0
        if bool((distances < 0).any()):  # no causal mask
            buckets //= 2
            after = buckets * (distances < 0)
        distance, near = distances.abs(), buckets // 2
        ratio = (distance.clamp(min=near).double() / near).log() / math.log(self.farthest / near)
        far = (near + (ratio * (buckets - near)).long()).clamp(max=buckets - 1)
        return learned["table"][:, torch.where(distance < near, distance, far) + after]
