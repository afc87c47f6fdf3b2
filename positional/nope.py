"""No position encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding


@dataclass
class NoPE(PositionEncoding):
    """Nothing is added: order is known through the causal mask alone (2305.19466)."""

    name: ClassVar[str] = "nope"
