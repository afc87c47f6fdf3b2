"""Query scalings: a multiplier of q·k/√d per (batch, head, query), grown with the context.

n is the number of keys a query can see, padding excluded and at least 1. A scaling multiplies the
query, so it never touches an additive position bias. Shapes: x [b q w] the attention's input,
n [q] or [b q], result [b h q] or [h q] over the scaled heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from lcg.positional.base import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass
class QueryScaling:
    """A scaling is a dataclass: its fields are its options; learned tensors are handed to it."""

    name: ClassVar[str]

    def learned(self, heads: int, d_model: int) -> dict[str, Tensor]:
        """Initial values of the learned tensors, for the heads that are scaled."""
        return {}

    def __call__(self, x: Tensor, n: Tensor, learned: Mapping[str, Tensor]) -> Tensor | None:
        """The multiplier, or None for 1."""
        return None


@dataclass
class NoScaling(QueryScaling):
    """Scores are q·k/√d."""

    name: ClassVar[str] = "none"


def power_of_log(n: Tensor, offset: float, gamma: Tensor) -> Tensor:
    """log(n + offset)^γ."""
    return (gamma * (n + offset).log().log()).exp()


def check_offset(name: str, offset: float, least: float) -> None:
    """Raise ValueError when log(n + offset) at n = 1 is no use: 0 to a negative power is inf."""
    if not least < offset < math.inf:
        raise ValueError(f"{name}: offset must be greater than {least:g}, got {offset:g}")


def check_finite(name: str, **numbers: float) -> None:
    """Raise ValueError for a number that makes every scaler infinite."""
    for key, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"{name}: {key} must be finite, got {number:g}")


@dataclass
class LogScaling(QueryScaling):
    """SSMax: s_h · log(n + offset), s_h learned per head from N(1, 0.01²) (2501.19399).

    The paper has offset 0; 1 is what the ASEntmax authors use for every length scaling.
    """

    name: ClassVar[str] = "log"

    offset: float = 1.0
    """Added to n inside the logarithm."""

    def __post_init__(self) -> None:
        check_finite(self.name, offset=self.offset)
        if self.offset < 0:
            raise ValueError(f"log: offset must not be negative, got {self.offset:g}")

    def learned(self, heads, d_model):
        return {"s": 1 + 0.01 * torch.randn(heads)}

    def __call__(self, x, n, learned):
        return learned["s"].float()[:, None] * (n + self.offset).log()[..., None, :]


@dataclass
class AdaptiveScaling(QueryScaling):
    """ASEntmax: δ + β(x)·log(n + offset)^γ(x), one β and γ per query and head (2506.16640).

    β = softplus(x·W_β + b_β) and γ = gamma_range·tanh(x·W_γ + b_γ), x the attention's input.
    """

    name: ClassVar[str] = "adaptive"

    delta: float = 1.0
    """δ, not learned."""
    gamma_range: float = 2.0
    """Bound of γ: it lies in [-gamma_range, gamma_range]."""
    offset: float = 1.0
    """Added to n inside the logarithm."""
    bias: bool = True
    """Add biases to the two projections."""
    init: Literal["authors", "unit"] = "authors"
    """authors: weights N(0, 0.02²), biases 0, a scaler near 1.7 at the start with δ = 1;
    unit: weights 0 and softplus(b_β) = 0.05, a scaler of δ + 0.05 for every query."""

    def __post_init__(self) -> None:
        check_offset(self.name, self.offset, 0)
        check_finite(self.name, delta=self.delta, gamma_range=self.gamma_range)
        if self.gamma_range < 0:
            raise ValueError(f"adaptive: gamma_range must not be negative, got {self.gamma_range}")
        if self.init == "unit" and not self.bias:
            raise ValueError("adaptive: init=unit sets a bias, so it needs bias=true")

    def learned(self, heads, d_model):
        std = 0.02 if self.init == "authors" else 0.0
        shape = {"beta_weight": (heads, d_model), "gamma_weight": (heads, d_model)}
        tensors = {name: std * torch.randn(size) for name, size in shape.items()}
        if self.bias:
            start = 0.0 if self.init == "authors" else torch.expm1(torch.tensor(0.05)).log().item()
            tensors |= {"beta_bias": torch.full((heads,), start), "gamma_bias": torch.zeros(heads)}
        return tensors

    def __call__(self, x, n, learned):
        project = torch.nn.functional.linear
        beta = project(x, learned["beta_weight"], learned.get("beta_bias")).float()
        gamma = project(x, learned["gamma_weight"], learned.get("gamma_bias")).float()
        beta = torch.nn.functional.softplus(beta)
        gamma = self.gamma_range * gamma.tanh()
        return (self.delta + beta * power_of_log(n[..., None], self.offset, gamma)).mT


@dataclass
class HeadScaling(QueryScaling):
    """δ + β_h·log(n + offset)^γ_h with β and γ learned per head (2506.16640, `learn`).

    β starts from U(0.1, 1), γ from N(0, 0.1²), as in the authors' code.
    """

    name: ClassVar[str] = "head"

    delta: float = 1.0
    """δ, not learned."""
    offset: float = 1.0
    """Added to n inside the logarithm."""

    def __post_init__(self) -> None:
        check_offset(self.name, self.offset, 0)
        check_finite(self.name, delta=self.delta)

    def learned(self, heads, d_model):
        return {"beta": 0.1 + 0.9 * torch.rand(heads), "gamma": 0.1 * torch.randn(heads)}

    def __call__(self, x, n, learned):
        beta, gamma = learned["beta"].float()[:, None], learned["gamma"].float()[:, None]
        return self.delta + beta * power_of_log(n[..., None, :], self.offset, gamma)
