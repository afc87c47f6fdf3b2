"""CoPE, contextual positions (2405.18719)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding, torch


@dataclass
class CoPE(PositionEncoding):
    """Scores get q_i·E[p_ij], p_ij = Σ σ(s_iu) over the keys u from j to i, at most `most` - 1.

    E is interpolated between whole numbers. Gates are those of the scaled scores.
    """

    name: ClassVar[str] = "cope"
    relative: ClassVar[bool] = True

    most: int = 16
    """Number of positions in E."""

    def learned(self, sizes):
        return {"e": torch.zeros(self.most, sizes.head_dim)}

    def map_scores(self, scores, tile, learned):
        gates = scores.sigmoid()
        if tile.hidden is not None:
            gates = gates.masked_fill(tile.hidden, 0.0)
        at = gates.flip(-1).cumsum(-1).flip(-1).clamp(max=self.most - 1)
        of_each = tile.q.float() @ learned["e"].float().mT  # [b h q most]
        low, high = (of_each.gather(-1, part.long()) for part in (at.floor(), at.ceil()))
        return scores + low + (at - at.floor()) * (high - low)
