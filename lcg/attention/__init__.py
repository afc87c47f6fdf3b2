"""Attention in small choices: normalizer, query scaling, output norm; `attend()` joins them.

Importing this package does not import torch, so that a config can be checked at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.output_norms import NoNorm, OutputNorm
from lcg.attention.scalings import NoScaling, QueryScaling

if TYPE_CHECKING:
    from lcg.attention.normalizers.base import Normalizer

BACKENDS = ("reference",)


@dataclass
class Attention:
    """normalizer(scaling(query, n) · q·k/√d + position bias), then the output norm."""

    normalizer: Normalizer = field(default_factory=Softmax)
    """From a row of scores to a row of weights."""
    scaling: QueryScaling = field(default_factory=NoScaling)
    """Multiplier of the scores that grows with the number of visible keys."""
    output_norm: OutputNorm = field(default_factory=NoNorm)
    """Norm of the concatenated heads before the output projection."""
    backend: str = "auto"
    """auto, or reference: materialises all scores."""

    def __post_init__(self) -> None:
        check_backend(self.normalizer, self.backend)


def check_backend(normalizer: Normalizer, backend: str) -> None:
    """Raise ValueError, naming both options, when this normalizer cannot run on this backend."""
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend={backend} is not known; use one of auto, {', '.join(BACKENDS)}")
    if backend != "auto" and backend not in normalizer.backends:
        raise ValueError(
            f"normalizer={normalizer.name} has no {backend} backend; "
            f"use backend={' or '.join(normalizer.backends)}"
        )
