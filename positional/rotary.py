"""Rotary position embeddings, and what extends them to more tokens than were trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lcg.positional.base import (
    PositionEncoding,
    Sizes,
    Tile,
    device_of_float64,
    filled_in,
    torch,
)

if TYPE_CHECKING:
    from torch import Tensor

ADDED_LATER = {"identity": "unless default"}


@dataclass
class RoPE(PositionEncoding):
    """Rotate pairs of dimensions by position·base^(-2m/r), m = 0 … r/2 - 1 (2104.09864).

    r = fraction·d is the rotated part of the head dimension; dimension m turns with m + r/2, as in
    the GPT-NeoX convention. With fraction < 1 the frequencies are spread anew over the r rotated
    dimensions and the remaining d - r stay as they are. Differs from common code in that angles are
    computed in float64: in float32 they are off by 0.004 rad at position 65,536.

    Of the r/2 frequencies θ_m = base^(-2m/r), `keep` leaves the highest, the others are 0 (p-RoPE,
    2410.06205); `cutoff` leaves those that turn at least once over the training length L, θ_m ≥
    2π/L (HoPE, 2410.21216). An `extension` is for scale = s times the training length, in training
    or, by `lcg eval RUN position.extension=yarn position.scale=8`, for what was trained without:

    - interpolation: θ_m/s, as if positions were divided by s (2306.15595)
    - ntk: base·s^(r/(r-2)) in the place of base: the lowest frequency is divided by s, the highest
      by 1
    - dynamic_ntk: the same with s = (i + 1)/L, at least 1, of each query's id i, so that keys turn
      for each query anew, as where a cache holds them unrotated; not for the triton backend
    - yarn: θ_m·(1 - ρ) + ρ·θ_m/s, ρ from 0 at the pair that turns 32 times over L to 1 at the one
      that turns once, the first rounded down and the second up; rotated queries and keys are each
      multiplied by 0.1·ln s + 1 (2309.00071)
    """

    name: ClassVar[str] = "rope"

    base: float = 10000.0
    """Wavelengths run from 2π to 2π·base tokens."""
    fraction: float = 1.0
    """Share of the head dimension that is rotated."""
    keep: float = field(default=1.0, metadata=ADDED_LATER)
    """Share of the frequencies, from the highest on, that rotate."""
    cutoff: Literal["none", "train_length"] = field(default="none", metadata=ADDED_LATER)
    """train_length: frequencies that turn less than once over it do not rotate."""
    extension: Literal["none", "interpolation", "ntk", "dynamic_ntk", "yarn"] = field(
        default="none", metadata=ADDED_LATER
    )
    """Change of the frequencies for sequences `scale` times as long as in training."""
    scale: float = field(default=1.0, metadata=ADDED_LATER)
    """s: how many times the training length the extension is for."""
    train_length: int | None = field(
        default=None,
        metadata=ADDED_LATER | {"needed": lambda rope: rope.reads_train_length},
    )
    """L in tokens, of yarn, dynamic_ntk and the cut-off; null: the longest training sequence."""

    def __post_init__(self) -> None:
        if not 1 < self.base < math.inf:
            raise ValueError(
                f"{self.name}: base must be greater than 1 and finite, got {self.base}"
            )
        for option in ("fraction", "keep"):
            share = getattr(self, option)
            if not 0 <= share <= 1 or (share == 0 and option == "fraction"):
                interval = "[0, 1]" if option == "keep" else "(0, 1]"
                raise ValueError(f"{self.name}: {option} must be in {interval}, got {share}")
        if not 1 <= self.scale < math.inf:
            raise ValueError(f"{self.name}: scale must be at least 1 and finite, got {self.scale}")
        if type(self) is RoPE and self.scale > 1 and self.extension in ("none", "dynamic_ntk"):
            raise ValueError(
                f"rope: scale={self.scale:g} means nothing with extension={self.extension}; set "
                "extension to interpolation, ntk or yarn"
            )

    @property
    def reads_train_length(self) -> bool:
        """True where L counts; elsewhere no config fills it in, and no run's name contains it."""
        return self.extension in ("yarn", "dynamic_ntk") or self.cutoff == "train_length"

    @property
    def relative(self) -> bool:
        return self.extension != "dynamic_ntk"

    def has(self, hook: str) -> bool:
        if hook == "map_scores" and type(self).map_scores is RoPE.map_scores:
            return self.extension == "dynamic_ntk"
        return super().has(hook)

    def check(self, sizes: Sizes) -> None:
        rotated = self.fraction * sizes.head_dim
        if abs(rotated - round(rotated)) > 1e-6 or round(rotated) % 2:
            raise ValueError(
                f"{self.name}: fraction·head_dim must be an even number of dimensions, "
                f"got {self.fraction}·{sizes.head_dim} = {rotated:g}"
            )
        pairs = self.keep * round(rotated) / 2
        if abs(pairs - round(pairs)) > 1e-6:
            raise ValueError(
                f"{self.name}: keep·{round(rotated) // 2} frequencies must be a whole number, "
                f"got {pairs:g}"
            )

    def frequencies(self, rotated: int, device: Any = None) -> Tensor:
        """θ of each pair of the rotated dimensions, [r/2] in float64."""
        theta = frequencies(self.base, rotated, device)
        found = self.extended(theta)
        if self.keep < 1:
            found = found * (torch.arange(len(theta), device=device) < self.keep * len(theta) - 0.5)
        if self.cutoff == "train_length":
            found = found * (theta >= 2 * math.pi / filled_in(self, "train_length"))
        return found

    def extended(self, theta: Tensor) -> Tensor:
        """The frequencies that the extension makes of these [r/2]."""
        pairs, s = len(theta), self.scale
        if self.extension == "interpolation":
            return theta / s
        if self.extension == "ntk":
            return ntk(theta, torch.full_like(theta[:1], s))
        if self.extension == "yarn":
            turns = filled_in(self, "train_length") / (2 * math.pi)  # of θ = 1
            low, high = (pairs * math.log(turns / n) / math.log(self.base) for n in (32, 1))
            low, high = max(math.floor(low), 0), min(math.ceil(high), 2 * pairs - 1)
            m = torch.arange(pairs, device=theta.device, dtype=torch.float64)
            slow = ((m - low) / max(high - low, 1e-3)).clamp(0, 1)
            return theta * (1 - slow + slow / s)
        return theta

    def rotate_queries(self, q, ids, learned):
        if self.extension == "dynamic_ntk":
            return q
        rotated = round(self.fraction * q.shape[-1])
        device = device_of_float64(q)
        angles = ids.to(device).double()[..., None] * self.frequencies(rotated, device)  # [t r/2]
        return turned(q, angles, 0.1 * math.log(self.scale) + 1 if self.extension == "yarn" else 1)

    rotate_keys = rotate_queries

    def map_scores(self, scores, tile, learned):
        """Compute the scores of dynamic_ntk, whose queries and keys are not rotated before."""
        if self.extension != "dynamic_ntk":
            return scores
        d, device = tile.q.shape[-1], device_of_float64(tile.q)
        rotated = round(self.fraction * d)
        s = (tile.q_ids.to(device).double() + 1) / filled_in(self, "train_length")
        theta = ntk(self.frequencies(rotated, device), s.clamp_min(1)[..., None])  # [q 1 r/2]
        distance = tile.distance.to(device)
        q, k = tile.q.float(), keys_of_heads(tile)
        found = q[..., rotated:] @ k[..., rotated:].mT
        for m in range(rotated // 2):
            angle = distance * theta[..., m]
            cos, sin = angle.cos().to(q), angle.sin().to(q)
            first, second = q[..., m, None], q[..., m + rotated // 2, None]
            across, up = k[..., None, :, m], k[..., None, :, m + rotated // 2]
            found += (first * across + second * up) * cos + (first * up - second * across) * sin
        return found / math.sqrt(d)


def frequencies(base: float, rotated: int, device: Any = None) -> Tensor:
    """base^(-2m/r), [r/2] in float64."""
    return base ** -(torch.arange(0, rotated, 2, device=device, dtype=torch.float64) / rotated)


def ntk(theta: Tensor, s: Tensor) -> Tensor:
    """θ_m with base·s^(r/(r-2)) for base, that is θ_m·s^(-m/(r/2 - 1)); s broadcasts with θ."""
    m = torch.arange(theta.shape[-1], device=theta.device, dtype=torch.float64)
    return theta * s ** -(m / max(theta.shape[-1] - 1, 1))


def turned(x: Tensor, angles: Tensor, factor: float = 1) -> Tensor:
    """Rotate dimensions m and m + r/2 of x [b h t d] by angles [t r/2], and stretch them."""
    half = angles.shape[-1]
    cos, sin = (factor * angles.cos()).to(x), (factor * angles.sin()).to(x)
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def keys_of_heads(tile: Tile) -> Tensor:
    """The keys of a tile in float32, for each of the query heads [b h k d]."""
    return tile.k.float().repeat_interleave(tile.q.shape[1] // tile.k.shape[1], dim=1)


ROWS = 128
"""Queries whose xPos factors are taken relative to one of them."""


@dataclass
class XPos(PositionEncoding):
    """RoPE whose pair m is multiplied by ζ_m^((i - j)/512), ζ_m = (2m/d + 0.4)/1.4 (2212.10554).

    Queries get ζ^((i - c)/512) and keys ζ^((c - j)/512), where c is the last of some 128 queries:
    factors of keys are at most 1 and become 0 far away, as the formula does, so that nothing
    overflows in a million tokens and no cached key depends on a centre. Differs from the paper's
    code in that; the triton backend does not run it.
    """

    name: ClassVar[str] = "xpos"
    causal_only: ClassVar[bool] = True  # keys after a query would grow with their distance

    base: float = 10000.0
    """Wavelengths run from 2π to 2π·base tokens."""
    scale_base: float = 512.0
    """Distance over which pair m is multiplied by ζ_m."""

    def __post_init__(self) -> None:
        if not 1 < self.base < math.inf:
            raise ValueError(f"xpos: base must be greater than 1 and finite, got {self.base}")
        if not 0 < self.scale_base < math.inf:
            raise ValueError(f"xpos: scale_base must be positive, got {self.scale_base}")

    def check(self, sizes: Sizes) -> None:
        if sizes.head_dim % 2:
            raise ValueError(f"xpos: head_dim must be even, got {sizes.head_dim}")

    def map_scores(self, scores, tile, learned):
        d, device = tile.q.shape[-1], device_of_float64(tile.q)
        theta = frequencies(self.base, d, device)
        m = torch.arange(0, d, 2, device=device, dtype=torch.float64)
        decay = ((m / d + 0.4) / 1.4).log() / self.scale_base  # log ζ for each token
        k, k_ids = keys_of_heads(tile), tile.k_ids.to(device)
        k_ids = k_ids[:, None] if k_ids.dim() == 1 else k_ids.mT  # [k 1]
        found = []
        for start in range(0, tile.q.shape[2], ROWS):
            rows = slice(start, start + ROWS)
            q, q_ids = tile.q[:, :, rows].float(), tile.q_ids[..., rows, :].to(device)
            center = q_ids.max()
            after, ahead = q_ids - center, k_ids - center
            of_keys = (-ahead * decay).clamp_max(60)  # of what is hidden: finite, for gradients
            q = turned(q, after * theta) * twice((after * decay).exp()).to(q)
            found.append(q @ (turned(k, ahead * theta) * twice(of_keys.exp()).to(q)).mT)
        return torch.cat(found, dim=2) / math.sqrt(d)


def twice(factors: Tensor) -> Tensor:
    """The factors of pairs [… d/2] at both of their dimensions."""
    return torch.cat([factors, factors], dim=-1)
