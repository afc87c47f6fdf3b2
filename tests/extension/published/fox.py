"""FoX, the forgetting transformer (2503.02130)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding, torch


@dataclass
class FoX(PositionEncoding):
    """Scores get Σ log σ(w_h·x_u + b_h) over the tokens u from j + 1 to i.

    With `gates=bias` the decay of a head is the same at every token, and this is ALiBi with slopes
    -log σ(b_h).
    """

    name: ClassVar[str] = "fox"
    cumulative: ClassVar[tuple[str, ...]] = ("decay",)

    gates: str = "data"
    """data: gates from x; bias: from the bias alone."""
    start: float = 2.0
    """b_h at the start."""

    def learned(self, sizes):
        tensors = {"b": torch.full((sizes.heads,), self.start)}
        if self.gates == "data":
            tensors["w"] = torch.randn(sizes.heads, sizes.d_model) / sizes.d_model**0.5
        return tensors

    def state(self, x, learned):
        gate = learned["b"].expand(len(x), x.shape[1], -1)
        if self.gates == "data":
            gate = gate + x @ learned["w"].mT
        return {"decay": torch.nn.functional.logsigmoid(gate.float()).mT}

    def separable(self, q_state, k_state):
        return q_state["decay"], -k_state["decay"]
