"""Biases that are sums of gates over the tokens between query and key: FoX and CABLE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from lcg.positional.base import PositionEncoding, torch


@dataclass
class Forgetting(PositionEncoding):
    """Scores get Σ -softplus(±(w_h·x_u + b_h)) over the tokens u from j + 1 to i.

    x is the attention's input. The sum is kept in float64: over many tokens it is large, and what
    counts are small differences.
    """

    cumulative: ClassVar[tuple[str, ...]] = ("decay",)
    causal_only: ClassVar[bool] = True
    sign: ClassVar[int]
    """That of w·x + b inside the softplus."""

    gates: Literal["input", "bias"] = "input"
    """input: w_h·x_u + b_h; bias: b_h alone, the same for all tokens."""
    init: Literal["constant", "log_spaced"] = "constant"
    """Of b. constant: start in all heads; log_spaced: head by head such that b alone decays by a
    factor of e in `shortest` … `longest` tokens, in equal ratios."""
    start: float = 0.0
    """b at the start with init=constant."""
    shortest: float = 2.0
    """Tokens of the first head with init=log_spaced."""
    longest: float = 128.0
    """Tokens of the last head with init=log_spaced."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.start):
            raise ValueError(f"{self.name}: start must be finite, got {self.start}")
        if not 0 < self.shortest <= self.longest < math.inf:
            raise ValueError(
                f"{self.name}: expected 0 < shortest <= longest, "
                f"got shortest={self.shortest} and longest={self.longest}"
            )

    def learned(self, sizes):
        b = torch.full((sizes.heads,), self.start)
        if self.init == "log_spaced":
            tokens = torch.logspace(
                math.log10(self.shortest), math.log10(self.longest), sizes.heads
            )
            b = self.sign * tokens.reciprocal().expm1().log()  # softplus(±b) is 1/tokens
        if self.gates == "bias":
            return {"b": b}
        return {"b": b, "w": torch.randn(sizes.heads, sizes.d_model) / sizes.d_model**0.5}

    def state(self, x, learned):
        gate = learned["b"].float().expand(*x.shape[:2], -1)
        if self.gates == "input":
            gate = gate + torch.nn.functional.linear(x, learned["w"].to(x)).float()
        return {"decay": -torch.nn.functional.softplus(self.sign * gate).mT}

    def separable(self, q_state, k_state):
        return q_state["decay"], -k_state["decay"]


@dataclass
class FoX(Forgetting):
    """The forgetting transformer: scores get Σ ln f_u, f_u = σ(w_h·x_u + b_h), over the tokens u
    from j + 1 to i (2503.02130).

    With gates=bias this is ALiBi with learned slopes -ln σ(b_h). The entries of w_h are drawn from
    N(0, 1/model.d_model), those of b are 0 at the start. The paper's FoX-Pro has QK-norm and gates
    of the output besides, which are options of the attention.
    """

    name: ClassVar[str] = "fox"
    sign: ClassVar[int] = -1


@dataclass
class CABLE(Forgetting):
    """Scores get -Σ softplus(w_h·x_u + b_h) over the tokens u from j + 1 to i (2503.08067).

    This is FoX with the signs of w and b flipped.
    """

    name: ClassVar[str] = "cable"
    sign: ClassVar[int] = 1
