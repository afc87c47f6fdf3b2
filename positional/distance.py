"""Encodings of the distance alone: T5, KERPLE, Sandwich, and scale-invariant attention."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from lcg.positional.base import PositionEncoding, torch
from lcg.positional.nope import NoPE
from lcg.positional.wrappers import Wrapper

if TYPE_CHECKING:
    from torch import Tensor


def angles(distances: Tensor, width: int, base: float) -> Tensor:
    """distance·base^(-2m/width), m from 0 to below width/2, of distances [n]: [n m] in float64."""
    device = "cpu" if distances.device.type == "mps" else distances.device  # MPS has no float64
    exponents = torch.arange(0, width, 2, device=device, dtype=torch.float64) / width
    return distances.to(device).double()[:, None] * base**-exponents


def whole_distances(owner: str, distance: Tensor) -> tuple[Tensor, Tensor]:
    """The distances [n] from the least to the largest that occurs, and the place of each in them.

    Raises ValueError for distances that are no whole numbers.
    """
    if distance.is_floating_point():
        raise ValueError(f"{owner}: position ids must be whole, got {distance.dtype}")
    least = distance.min()
    count = int(distance.max() - least) + 1
    return torch.arange(count, device=distance.device) + least, distance - least


@dataclass
class T5(PositionEncoding):
    """Scores get B_h[β(i - j)], B learned, one number for each head and bucket (1910.10683).

    β(δ) = δ for δ < K/2, else min(K - 1, K/2 + ⌊K/2·ln(2δ/K)/ln(2D/K)⌋), K = buckets and
    D = farthest. Where no causal mask hides the keys after a query, K/2 buckets, made in the same
    way, are for the keys up to it and K/2 for those after it. B starts from N(0, 1/w), w the model
    width. Differs from the paper in that scores keep their 1/√d and, unless share=true, in that
    each layer has a B of its own.
    """

    name: ClassVar[str] = "t5"

    buckets: int = 32
    """K, a multiple of 4."""
    farthest: int = 128
    """D: all distances from here on share one bucket."""
    share: bool = False
    """Share one B between all layers, as in the paper."""

    def __post_init__(self) -> None:
        if self.buckets < 4 or self.buckets % 4:
            raise ValueError(f"t5: buckets must be a multiple of 4, got {self.buckets}")
        if self.farthest <= self.buckets // 2:
            raise ValueError(
                f"t5: farthest must be greater than buckets/2 = {self.buckets // 2}, "
                f"got {self.farthest}"
            )

    @property
    def shared(self) -> tuple[str, ...]:
        return ("before", "after") if self.share else ()

    def learned(self, sizes):
        counts = {"before": self.buckets}
        if not sizes.causal:
            counts = {"before": self.buckets // 2, "after": self.buckets // 2}
        return {
            name: torch.randn(sizes.heads, count) / sizes.d_model**0.5
            for name, count in counts.items()
        }

    def table(self, distances, learned):
        found = self._numbers(learned["before"], distances)
        if "after" in learned:
            after = self._numbers(learned["after"], -distances)
            found = torch.where(distances < 0, after, found)
        return found

    def _numbers(self, table: Tensor, distances: Tensor) -> Tensor:
        """Look up the number [h n] of each distance in a table [h buckets]; below 0 it is 0."""
        count, near = table.shape[1], table.shape[1] // 2
        growth = (self.farthest / near) ** (1 / near)
        # The first distance of each bucket but the first. Integers: a logarithm of a distance at an
        # edge may be rounded to either side of it.
        starts = [*range(1, near), *(math.ceil(near * growth**m - 1e-9) for m in range(near))]
        first = torch.tensor(starts, device=distances.device)
        buckets = torch.searchsorted(first, distances.clamp(min=0).contiguous(), right=True)
        return table.float()[:, buckets.clamp(max=count - 1)]


@dataclass
class KERPLE(PositionEncoding):
    """Scores get -p·ln(1 + a·|i - j|) (`log`) or -a·|i - j|^p (`power`), a and p learned per head
    (2205.09921).

    a = softplus(raw_a) > 0; p = softplus(raw_p) > 0 in `log` and 2σ(raw_p), between 0 and 2, in
    `power`. At the start a is drawn from U(0.01, 1) and p from U(0.02, 1.98). Differs from the
    authors' code, which clamps a and p.
    """

    name: ClassVar[str] = "kerple"

    variant: Literal["log", "power"] = "log"
    """Logarithm or power of the distance."""

    def learned(self, sizes):
        a, p = 0.01 + 0.99 * torch.rand(sizes.heads), 0.02 + 1.96 * torch.rand(sizes.heads)
        raw_p = p.expm1().log() if self.variant == "log" else (p / 2).logit()
        return {"raw_a": a.expm1().log(), "raw_p": raw_p}

    def table(self, distances, learned):
        raw_a, raw_p = (learned[name].float()[:, None] for name in ("raw_a", "raw_p"))
        a, distance = torch.nn.functional.softplus(raw_a), distances.abs().float()
        if self.variant == "log":
            return -torch.nn.functional.softplus(raw_p) * torch.log1p(a * distance)
        # 0^p is 0 whatever p, but autograd makes NaN of ln 0.
        power = distance.clamp(min=1).pow(2 * raw_p.sigmoid()) * (distance > 0)
        return -a * power


@dataclass
class Sandwich(PositionEncoding):
    """Scores get H/(8h)·Σ cos((i - j)·base^(-2m/d̄)) over m = 0 … d̄/2 - 1, for heads h = 1 … H
    (2212.10356).

    Nothing is learned.
    """

    name: ClassVar[str] = "sandwich"

    width: int = 128
    """d̄, the number of sines and cosines whose product this is; even."""
    base: float = 10000.0
    """Wavelengths run from 2π to 2π·base tokens."""

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ValueError(f"sandwich: width must be even and at least 2, got {self.width}")
        if not 1 < self.base < math.inf:
            raise ValueError(f"sandwich: base must be greater than 1 and finite, got {self.base}")

    def learned(self, sizes):
        scale = sizes.heads / (8 * torch.arange(1.0, sizes.heads + 1))
        return {"scale": torch.nn.Parameter(scale, requires_grad=False)}  # not learned

    def table(self, distances, learned):
        waves = angles(distances, self.width, self.base).cos().sum(dim=-1)
        return learned["scale"].float()[:, None] * waves.float().to(distances.device)


@dataclass
class ScaleInvariant(Wrapper):
    """Scores become a·s + m, a = √(2·ln(1 + δ/τ) + 1) and m = -2·ln(1 + δ/τ), δ = |i - j|
    (2505.17083).

    So keys at distances from τ·b to τ·b² get as much attention together whatever b. m alone is
    KERPLE's logarithm with p = 2 and a = 1/τ. The paper uses it with a rotation of some dimensions
    (`position.inner=rope`). Differs from the paper where no causal mask hides the keys after a
    query: there δ is their distance too.
    """

    name: ClassVar[str] = "scale_invariant"

    inner: PositionEncoding = field(default_factory=NoPE)
    """Another encoding, whose rotations are in s and whose biases are added to a·s + m."""
    tau: float = 10.0
    """τ: the distance up to which keys count one by one."""

    def __post_init__(self) -> None:
        if not 0 < self.tau < math.inf:
            raise ValueError(f"scale_invariant: tau must be positive and finite, got {self.tau}")

    def map_scores(self, scores, tile, learned):
        scores = super().map_scores(scores, tile, learned)
        log = torch.log1p(tile.distance.abs().float() / self.tau)
        return (2 * log + 1).sqrt() * scores - 2 * log
