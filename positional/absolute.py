"""Encodings that are added to the embeddings: absolute positions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from lcg.positional.base import PositionEncoding, device_of_float64, torch
from lcg.positional.nope import NoPE
from lcg.positional.wrappers import Wrapper

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Sinusoidal(PositionEncoding):
    """x + scale·e(position) with e_2m = sin(position·base^(-2m/w)), e_2m+1 its cosine (1706.03762).

    w is the model width; of an odd one the last entry is a sine. Differs from the paper in that the
    size of e against the embeddings is an option, and in that angles are computed in float64.
    Embeddings have entries of about 1 where the blocks begin, e of 0.7 with scale=1.
    """

    name: ClassVar[str] = "sinusoidal"
    relative: ClassVar[bool] = False

    base: float = 10000.0
    """Wavelengths run from 2π to 2π·base tokens."""
    scale: float = 1.0
    """Factor on the embedding."""

    def __post_init__(self) -> None:
        if not 1 < self.base < math.inf:
            raise ValueError(f"sinusoidal: base must be greater than 1 and finite, got {self.base}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"sinusoidal: scale must be positive and finite, got {self.scale}")

    def waves(self, x: Tensor, ids: Tensor) -> Tensor:
        """e [t w] of the position ids [t], or [b t w], in float64."""
        width, device = x.shape[-1], device_of_float64(x)
        exponents = torch.arange(0, width, 2, device=device, dtype=torch.float64) / width
        angles = ids.to(device).double()[..., None] * self.base**-exponents  # [t w/2]
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :width]

    def embed(self, x, ids, learned):
        return x + (self.scale * self.waves(x, ids)).to(x)


@dataclass
class ScaledSinusoidal(Sinusoidal):
    """x + s·e(position), e as in `sinusoidal`, s learned from scale/√w on.

    So the embedding of positions begins with entries of about 1/√(2w), and grows as far as needed.
    """

    name: ClassVar[str] = "scaled_sinusoidal"

    def learned_embedding(self, sizes):
        return {"s": torch.tensor(self.scale / math.sqrt(sizes.d_model))}

    def embed(self, x, ids, learned):
        return x + learned["s"] * self.waves(x, ids).to(x)


@dataclass
class LearnedAbsolute(PositionEncoding):
    """x + P_(o + t), P learned [longest w] from N(0, std²), o an offset (2410.02140, C-RASP's APE).

    In training each sequence of n tokens has an o of its own, uniform in 0 … longest - n, so that
    every row is trained; in evaluation o is 0. Where a task numbers the tokens, o is added to its
    numbers. Numbers of several levels (2410.15787) have tables of their own, which are added up.
    A position beyond the table is refused.
    """

    name: ClassVar[str] = "ape"
    relative: ClassVar[bool] = False

    longest: int = 2048
    """Rows of the table: at least as many as the longest sequence has tokens."""
    random_offset: bool = True
    """Draw an offset in training; false: row t for token t, as in GPT-2."""
    levels: int = 1
    """Levels of the numbers that the task gives to tokens."""
    std: float = 0.02
    """Standard deviation at the start."""

    def __post_init__(self) -> None:
        for option in ("longest", "levels"):
            if getattr(self, option) < 1:
                raise ValueError(f"ape: {option} must be at least 1, got {getattr(self, option)}")
        if not 0 <= self.std < math.inf:
            raise ValueError(f"ape: std must not be negative, got {self.std:g}")

    def has(self, hook: str) -> bool:
        return super().has(hook) and (hook != "draw_positions" or self.random_offset)

    def check_ids(self, counts):
        check_rows("ape", max(counts), self.longest)

    def learned_embedding(self, sizes):
        shape = self.longest, sizes.d_model
        return {f"table{n}": self.std * torch.randn(shape) for n in range(self.levels)}

    def draw_positions(self, rng, lengths, training):
        import numpy as np

        self.check_ids([int(lengths.max())])
        offsets = rng.integers(0, self.longest - lengths + 1) if training else 0 * lengths
        tokens = np.minimum(np.arange(lengths.max()), lengths[:, None] - 1)  # padding as the last
        return offsets[:, None] + tokens

    def embed(self, x, ids, learned):
        levels = [ids] if ids.dim() < 3 else ids.unbind(1)
        if len(levels) != self.levels:
            raise ValueError(
                f"ape: tokens have numbers of {len(levels)} levels, but levels={self.levels}; set "
                f"position.levels={len(levels)}"
            )
        for n, own in enumerate(levels):
            x = x + rows_of(learned[f"table{n}"], own).to(x)
        return x


@dataclass
class Abacus(Wrapper):
    """x + P_id, id the last level of the numbers that the task gives to tokens (2405.17399).

    These say where in its number a digit stands, shifted in training by what the task draws. The
    encoding within sees the first level, so that it may go by the order of tokens.
    """

    name: ClassVar[str] = "abacus"
    relative: ClassVar[bool] = False

    inner: PositionEncoding = field(default_factory=NoPE)
    """The encoding that attention has besides."""
    longest: int = 512
    """Rows of the table: ids are less than this."""
    std: float = 0.02
    """Standard deviation at the start."""

    def check_ids(self, counts):
        check_rows("abacus", counts[-1], self.longest)
        super().check_ids(counts[:1])

    def learned_embedding(self, sizes):
        table = self.std * torch.randn(self.longest, sizes.d_model)
        return super().learned_embedding(sizes) | {"abacus": table}

    def embed(self, x, ids, learned):
        of_digits, first = (ids, ids) if ids.dim() < 3 else (ids[:, -1], ids[:, 0])
        return super().embed(x, first, learned) + rows_of(learned["abacus"], of_digits).to(x)


def check_rows(name: str, count: int, longest: int) -> None:
    """Raise ValueError for more ids than a table has rows."""
    if count > longest:
        raise ValueError(
            f"{name}: {count} positions need as many rows, but longest={longest}; set it to "
            f"{count} or more"
        )


def rows_of(table: Tensor, ids: Tensor) -> Tensor:
    """Rows [t w], or [b t w], of a table; an id beyond it is an error of the device."""
    return torch.nn.functional.embedding(ids, table)
