"""Attention in small choices: normalizer, query scaling, output norm; `attend()` joins them.

Importing this package does not import torch, so that a config can be checked at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lcg.attention.backends import check_backend
from lcg.attention.normalizers.base import Normalizer
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.output_norms import NoNorm, OutputNorm
from lcg.attention.scalings import NoScaling, QueryScaling

if TYPE_CHECKING:
    from lcg.attention.functional import attend as attend


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
    """auto; reference: materialises all scores; blockwise: exact, memory linear in the length;
    triton: the same in kernels for CUDA devices, for biases that are slopes."""

    def __post_init__(self) -> None:
        check_backend(self.backend, self.normalizer)


def __getattr__(name: str) -> Any:
    """`from lcg.attention import attend`, which imports torch when it is first asked for."""
    if name == "attend":
        from lcg.attention.functional import attend

        return attend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
