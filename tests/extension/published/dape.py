"""DAPE (2405.14722) around KERPLE's logarithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding, torch


@dataclass
class DAPE(PositionEncoding):
    """Scores become s + B + f([s; B]), f a network over the heads of one query and key.

    B is -log(1 + |i - j|) in every head.
    """

    name: ClassVar[str] = "dape"

    hidden: int = 32
    """Hidden width of f."""

    def learned(self, sizes):
        shapes = {"inner": (self.hidden, 2 * sizes.heads), "outer": (sizes.heads, self.hidden)}
        return {name: torch.randn(shape) / shape[1] ** 0.5 for name, shape in shapes.items()}

    def map_scores(self, scores, tile, learned):
        bias = -torch.log1p(tile.distance.abs().float()).expand_as(scores)
        both = torch.cat([scores, bias], dim=1).movedim(1, -1)
        hidden = torch.nn.functional.leaky_relu(both @ learned["inner"].to(both).mT)
        return scores + bias + (hidden @ learned["outer"].to(both).mT).movedim(-1, 1)
