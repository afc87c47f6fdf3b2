"""The components of an attention: normalizer, query scaling, output norm; `attend()` combines them.

Importing this package does not import torch, so that a config can be checked quickly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lcg.attention.backends import OPTIONS, check_backend
from lcg.attention.normalizers.base import Normalizer
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.output_norms import NoNorm, OutputNorm
from lcg.attention.scalings import NoScaling, QueryScaling
from lcg.attention.sink import WithSink

if TYPE_CHECKING:
    from lcg.attention.functional import attend as attend

ADDED_LATER = {"identity": "unless default"}
"""Metadata of a field that was added later, so that runs made before keep their names."""


@dataclass
class Attention:
    """normalizer(scaling(query, n) · q·k/√d + position bias), then the output norm."""

    normalizer: Normalizer = field(default_factory=Softmax)
    """Map from a row of scores to a row of weights."""
    scaling: QueryScaling = field(default_factory=NoScaling)
    """Multiplier of the scores that grows with the number of visible keys."""
    output_norm: OutputNorm = field(default_factory=NoNorm)
    """Norm, gate or other change of the heads before the output projection, or of the values."""
    backend: str = "auto"
    """auto; reference: materialises all scores; blockwise: exact, memory linear in the length;
    triton: the same in kernels for CUDA devices, for biases that are slopes."""
    qk_norm: bool = field(default=False, metadata=ADDED_LATER)
    """RMSNorm of each head's queries and keys, with a learned scale, before they are rotated."""
    sink: Literal["none", "zero", "learned"] = field(default="none", metadata=ADDED_LATER)
    """Extra score in every row, whose weight is dropped: 0, or learned per head, starting at 0."""
    softcap: float | None = field(default=None, metadata=ADDED_LATER)
    """Bound c of the scores: c·tanh(z/c), before a bias is added (2408.00118); null: none."""
    selective: bool = field(default=False, metadata=ADDED_LATER)
    """Selective attention (2410.02703): positive scores of head 0 are subtracted from the scores of
    the same key, in all heads, for later queries. Causal attention only."""

    pattern: list[Attention] = field(default_factory=list, metadata=ADDED_LATER)
    """Attentions of the layers in turn, instead of a single one: attention=[softmax,asentmax]."""

    def of_layer(self, layer: int) -> Attention:
        """The attention of one layer of a model, numbered from 0."""
        return self.pattern[layer % len(self.pattern)] if self.pattern else self

    def __post_init__(self) -> None:
        if self.softcap is not None and not 0 < self.softcap < math.inf:
            raise ValueError(f"attention.softcap must be positive, got {self.softcap:g}")
        check_backend(self.backend, self.normalizer)
        for part, able in self._limits().items():
            if self.backend not in ("auto", *able):
                raise ValueError(
                    f"{part} has no {self.backend} backend; use backend={' or '.join(able)}"
                )
        check_backend(self.backend, self.weighting)
        if self.selective:  # memory is estimated by the backend
            self.backend = "reference"

    def _limits(self) -> dict[str, tuple[str, ...]]:
        """Return the backends that run each option in use, and the output norm."""
        used = self.sink != "none", self.softcap is not None, self.selective
        options = (option for option, is_used in zip(OPTIONS, used, strict=True) if is_used)
        limits = {f"attention.{option}": OPTIONS[option] for option in options}
        return limits | {f"output_norm={self.output_norm.name}": self.output_norm.backends}

    @property
    def backends(self) -> list[str]:
        """Return the backends that run the normalizer, all options and the output norm."""
        limits = self._limits().values()
        return [name for name in self.normalizer.backends if all(name in able for able in limits)]

    @property
    def weighting(self) -> Normalizer:
        """The normalizer, with its sink."""
        return self.normalizer if self.sink == "none" else WithSink(self.normalizer, self.sink)


def __getattr__(name: str) -> Any:
    """Import `attend`, and with it torch, on first access."""
    if name == "attend":
        from lcg.attention.functional import attend

        return attend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
