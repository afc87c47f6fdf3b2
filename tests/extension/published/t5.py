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
        sides = {"before": self.buckets}
        if not sizes.causal:
            sides = dict.fromkeys(("before", "after"), self.buckets // 2)
        return {side: 0.02 * torch.randn(sizes.heads, count) for side, count in sides.items()}

    def table(self, distances, learned):
        found = self.bias_at(distances, learned["before"])
        if "after" in learned:
            found = torch.where(distances < 0, self.bias_at(-distances, learned["after"]), found)
        return found

    def bias_at(self, distances, biases):
        distances, count = distances.clamp(min=0), biases.shape[1]
        near = count // 2
        ratio = (distances.clamp(min=near).double() / near).log() / math.log(self.farthest / near)
        far = (near + (ratio * (count - near)).long()).clamp(max=count - 1)
        return biases[:, torch.where(distances < near, distances, far)]
