"""Output norms: changes of the values before they are weighted, and of the heads before the
projection."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from lcg.positional.base import Sizes, torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass
class OutputNorm:
    """An output norm is a dataclass: its fields are its options; learned tensors are passed in.

    Most output norms override only `__call__`.
    """

    name: ClassVar[str]
    backends: ClassVar[tuple[str, ...]] = ("reference", "blockwise", "triton")
    """The backends that run its `values`; triton only those as wide as queries."""

    def check(self, sizes: Sizes) -> None:
        """Raise ValueError, in one line, for unsupported sizes."""

    def learned(self, sizes: Sizes) -> dict[str, Tensor]:
        """Return the initial values of the learned tensors of one attention layer."""
        return {}

    def values(self, v: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Change the values v [b kv_heads t d] of each token; their width may change too."""
        return v

    def join(self, heads: Tensor, x: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Map the output of the heads [b h q d] to the input of the output projection [b q width].

        x [b q w] is the attention's input at the queries.
        """
        return self(heads.transpose(1, 2).flatten(2), learned)

    def __call__(self, x: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Change the concatenated heads x [b q width]."""
        return x


@dataclass
class NoNorm(OutputNorm):
    """The heads are projected unchanged."""

    name: ClassVar[str] = "none"


@dataclass
class RMSNorm(OutputNorm):
    """scale · x · rsqrt(mean x² + eps), and · sigmoid(gate · x) when gated (ReLA, 2104.07012).

    scale starts at 1, gate from U(-√(3/width), √(3/width)). `gated` is the paper's ReLA-g.
    """

    name: ClassVar[str] = "rms"

    gated: bool = False
    """Multiply by sigmoid(gate · x), elementwise."""
    eps: float = 1.0e-6
    """Keeps an all-zero row from dividing by zero."""

    def learned(self, sizes):
        width = sizes.width
        tensors = {"scale": torch.ones(width)}
        if self.gated:
            tensors["gate"] = (2 * torch.rand(width) - 1) * (3 / width) ** 0.5
        return tensors

    def __call__(self, x, learned):
        wide = x.float()
        normed = learned["scale"] * wide * torch.rsqrt(wide.square().mean(-1, True) + self.eps)
        if self.gated:
            normed = normed * torch.sigmoid(learned["gate"] * wide)
        return normed.to(x.dtype)


@dataclass
class Gated(OutputNorm):
    """The joined heads times σ(W·x), x the attention's input (gated attention, 2505.06708).

    W starts from N(0, 1/d_model); it has no bias.
    """

    name: ClassVar[str] = "gated"

    per: Literal["element", "head"] = "element"
    """element: a gate for each dimension of each head; head: one gate for each head."""

    def learned(self, sizes):
        gates = sizes.width if self.per == "element" else sizes.heads
        return {"gate": torch.randn(gates, sizes.d_model) / sizes.d_model**0.5}

    def join(self, heads, x, learned):
        gate = torch.nn.functional.linear(x, learned["gate"].to(x.dtype)).sigmoid()
        joined = super().join(heads, x, learned)
        return joined * gate.repeat_interleave(joined.shape[-1] // gate.shape[-1], dim=-1)


@dataclass
class Differential(OutputNorm):
    """Differential attention, over any normalizer (2410.05258).

    Heads 2p and 2p + 1 are a pair: (A_2p - λ·A_2p+1) times the values of both, of width 2d, then
    an RMSNorm with a scale of that width, times 1 - λ_init. λ = exp(λq1·λk1) - exp(λq2·λk2) +
    λ_init, the four vectors learned by each layer from N(0, 0.1²) on; λ_init = 0.8 -
    0.6·exp(-0.3·l), l the number of the layer from 0. A model of as many heads as one without it
    has half as many pairs, and no more weights.
    """

    name: ClassVar[str] = "differential"
    backends: ClassVar[tuple[str, ...]] = ("reference", "blockwise")

    eps: float = 1.0e-5
    """Keeps an all-zero pair from dividing by zero."""

    def check(self, sizes):
        if sizes.heads % 2 or sizes.kv_heads != sizes.heads:
            raise ValueError(
                "differential: needs pairs of heads with keys of their own, so an even number of "
                f"heads and as many kv_heads, got heads={sizes.heads}, kv_heads={sizes.kv_heads}"
            )

    def learned(self, sizes):
        tensors = {f"{k}{n}": 0.1 * torch.randn(sizes.head_dim) for k in "qk" for n in (1, 2)}
        init = torch.tensor(0.8 - 0.6 * math.exp(-0.3 * sizes.layer))
        tensors["init"] = torch.nn.Parameter(init, requires_grad=False)  # a constant of the layer
        return tensors | {"scale": torch.ones(2 * sizes.head_dim)}

    def values(self, v, learned):
        pairs = torch.cat([v[:, 0::2], v[:, 1::2]], dim=-1)
        return pairs.repeat_interleave(2, dim=1)

    def join(self, heads, x, learned):
        first, second = ((learned[f"q{n}"] * learned[f"k{n}"]).sum().exp() for n in (1, 2))
        init = learned["init"]
        pairs = wide(heads[:, 0::2]) - (first - second + init) * wide(heads[:, 1::2])
        normed = pairs * torch.rsqrt(pairs.square().mean(-1, keepdim=True) + self.eps)
        out = (1 - init) * learned["scale"] * normed
        return out.transpose(1, 2).flatten(2).to(heads.dtype)


@dataclass
class Laser(OutputNorm):
    """ln Σ_j p_j·exp(v_j) in each dimension in the place of Σ_j p_j·v_j (LASER, 2411.03493).

    v is bound·tanh(v / bound) of the projected values. Differs from the paper, which subtracts the
    largest value in each dimension before exp and adds it after ln: bounded values do not overflow
    without it, and do not change when keys are added, so that they can be cached. A head without
    any weight at a query gives 0; where rows sum to less than one, ln of that sum is in the output.
    """

    name: ClassVar[str] = "laser"

    bound: float = 15.0
    """Soft bound of the values, in (0, 40]; in float16 at most 11."""

    def __post_init__(self) -> None:
        if not 0 < self.bound <= 40:
            raise ValueError(f"laser: bound must be in (0, 40], got {self.bound:g}")

    def values(self, v, learned):
        bound = min(self.bound, math.log(torch.finfo(v.dtype).max))
        return (bound * (wide(v) / bound).tanh()).exp().to(v.dtype)

    def __call__(self, x, learned):
        return wide(x).masked_fill(x <= 0, 1.0).log().to(x.dtype)


def wide(x: Tensor) -> Tensor:
    """Return x in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
