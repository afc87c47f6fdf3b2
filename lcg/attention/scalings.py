"""Query scalings: a multiplier of q·k/√d per (batch, head, query) that grows with the context.

n is the number of keys that a query sees, at least 1, without padding. A scaling multiplies the
query and never affects an additive position bias. Shapes: x [b q w] the attention's input, n [q] or
[b q], result [b h q] or [h q] over the scaled heads, h = 1 if all are equal.

Two fields that are None are set when the config is read: `train_length`, the longest training
sequence in tokens, and `head_dim`. Scalings without learned tensors can be used at evaluation only:
`lcg eval RUN attention.scaling=log_ratio`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from lcg.positional.base import filled_in, torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass
class QueryScaling:
    """A scaling is a dataclass: its fields are its options; learned tensors are passed in."""

    name: ClassVar[str]

    def learned(self, heads: int, d_model: int) -> dict[str, Tensor]:
        """Return the initial values of the learned tensors, for the heads that are scaled."""
        return {}

    def __call__(self, x: Tensor, n: Tensor, learned: Mapping[str, Tensor]) -> Tensor | None:
        """Return the multiplier, or None for 1."""
        return None


@dataclass
class NoScaling(QueryScaling):
    """Scores are q·k/√d."""

    name: ClassVar[str] = "none"


def power_of_log(n: Tensor, offset: float, gamma: Tensor) -> Tensor:
    """log(n + offset)^γ."""
    return (gamma * (n + offset).log().log()).exp()


def check_offset(name: str, offset: float, least: float) -> None:
    """Raise ValueError for an offset with which log(n + offset) at n = 1 is not positive."""
    if not least < offset < math.inf:
        raise ValueError(f"{name}: offset must be greater than {least:g}, got {offset:g}")


def check_finite(name: str, **numbers: float) -> None:
    """Raise ValueError for a number that makes every multiplier infinite."""
    for key, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"{name}: {key} must be finite, got {number:g}")


@dataclass
class LogScaling(QueryScaling):
    """SSMax: s_h · log(n + offset), s_h learned per head from N(1, 0.01²) (2501.19399).

    The paper has offset 0; 1 is what the ASEntmax authors use for every length scaling. With `bias`
    the multiplier is s_h · log(n + offset) + b_h, a variant of the paper; b_h starts at 0.
    """

    name: ClassVar[str] = "log"

    offset: float = 1.0
    """Added to n inside the logarithm."""
    bias: bool = field(default=False, metadata={"identity": "unless default"})
    """Add a learned b_h."""

    def __post_init__(self) -> None:
        check_finite(self.name, offset=self.offset)
        if self.offset < 0:
            raise ValueError(f"log: offset must not be negative, got {self.offset:g}")

    def learned(self, heads, d_model):
        s = {"s": 1 + 0.01 * torch.randn(heads)}
        return s | ({"b": torch.zeros(heads)} if self.bias else {})

    def __call__(self, x, n, learned):
        scaler = learned["s"].float()[:, None] * (n + self.offset).log()[..., None, :]
        return scaler + learned["b"].float()[:, None] if self.bias else scaler


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


def check_filled_in(scaling: QueryScaling, name: str, least: int) -> None:
    """Raise ValueError for a field, set from the config, that is too small."""
    value = getattr(scaling, name)
    if value is not None and value < least:
        raise ValueError(f"{scaling.name}: {name} must be at least {least}, got {value}")


@dataclass
class LogRatio(QueryScaling):
    """log n / log L, L the training length (2202.12172): less than 1 on shorter rows.

    A query that sees one key only has the multiplier 0. Differs from the paper, which has one n for
    all queries, the length of the input.
    """

    name: ClassVar[str] = "log_ratio"

    train_length: int | None = None
    """L in tokens; null: the longest training sequence."""

    def __post_init__(self) -> None:
        check_filled_in(self, "train_length", 2)

    def __call__(self, x, n, learned):
        return (n.log() / math.log(filled_in(self, "train_length")))[..., None, :]


@dataclass
class QwenLog(LogRatio):
    """max(1, log n / log L), as in the code of Qwen (2309.16609): 1 up to the training length L."""

    name: ClassVar[str] = "qwen_log"

    def __call__(self, x, n, learned):
        return super().__call__(x, n, learned).clamp_min(1)


@dataclass
class Llama4(QueryScaling):
    """1 + factor · log(1 + ⌊n / floor⌋), as in the code of Llama 4, on its layers without rotation.

    To use it in some layers only, combine patterns: position=[rope,rope,rope,nope], and an
    attention pattern whose first three members have scaling none.
    """

    name: ClassVar[str] = "llama4"

    floor: int = 8192
    """Number of keys per step of the multiplier."""
    factor: float = 0.1
    """Factor of the logarithm."""

    def __post_init__(self) -> None:
        check_finite(self.name, factor=self.factor)
        if self.floor < 1:
            raise ValueError(f"llama4: floor must be at least 1, got {self.floor}")

    def __call__(self, x, n, learned):
        return (1 + self.factor * (n / self.floor).floor().log1p())[..., None, :]


@dataclass
class InfoScale(QueryScaling):
    """√((1 - n^(-2/d)) / (1 - L^(-2/d))), L the training length, d the head dimension (2501.08570).

    It is 1 at n = L and made for evaluation. A query that sees one key only has the multiplier 0.
    """

    name: ClassVar[str] = "info"

    train_length: int | None = None
    """L in tokens; null: the longest training sequence."""
    head_dim: int | None = None
    """d; null: that of the model."""

    def __post_init__(self) -> None:
        check_filled_in(self, "train_length", 2)
        check_filled_in(self, "head_dim", 1)

    def __call__(self, x, n, learned):
        length, power = filled_in(self, "train_length"), -2 / filled_in(self, "head_dim")
        ratio = torch.expm1(power * n.log()) / math.expm1(power * math.log(length))
        return ratio.sqrt()[..., None, :]


@dataclass
class YaRNTemperature(QueryScaling):
    """(0.1 · log s + 1)², the factor that YaRN puts on the scores, s = scale (2309.00071).

    `position.extension=yarn` has it already; this is for other encodings.
    """

    name: ClassVar[str] = "yarn_temperature"

    scale: float = 8.0
    """s: maximum length, as a multiple of the training length."""

    def __post_init__(self) -> None:
        if not 1 <= self.scale < math.inf:
            raise ValueError(
                f"yarn_temperature: scale must be finite and at least 1, got {self.scale:g}"
            )

    def __call__(self, x, n, learned):
        return torch.full_like(n, (0.1 * math.log(self.scale) + 1) ** 2)[..., None, :]
