"""NoPE: no position encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.positional.base import PositionEncoding


@dataclass
class NoPE(PositionEncoding):
    """Nothing is added: only the causal mask conveys order (2305.19466)."""

    name: ClassVar[str] = "nope"
