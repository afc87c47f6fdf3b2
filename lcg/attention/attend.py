# ruff: noqa: F722  (shapes in annotations)
"""`attend()`: weights = normalizer(q·k/√d + bias), applied to the values, by one of its backends.

Shapes: b batch, h heads, g key heads (h is a multiple of g), q queries, k keys, d head dimension.
"""

from __future__ import annotations

from torch import Tensor

from lcg.attention.backends import blockwise, check_backend, reference
from lcg.attention.backends.reference import attention_weights
from lcg.attention.bias import Bias, Learned
from lcg.attention.normalizers.base import Normalizer
from lcg.shapes import Float

__all__ = ["Bias", "attend", "attention_weights"]


def attend(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k d"],
    normalizer: Normalizer,
    bias: Bias,
    learned: Learned | None = None,
    backend: str = "auto",
) -> Float[Tensor, "b h q d"]:
    """Attend with queries q to keys k and values v.

    q carries any length scaling already; the 1/√d is applied here. Scores, row statistics and
    weights are float32 whatever the input; the result has the dtype of v. A query that sees no key
    gets zeros and passes no gradient. `auto` takes the fastest backend that can run it.

    Raises ValueError when the normalizer has no such backend.
    """
    check_backend(backend, normalizer)
    if backend == "auto":
        backend = _fastest(q, normalizer, bias)
    learned = {} if learned is None else learned
    if backend == "triton":
        from lcg.attention.backends import triton

        return triton.attend(q, k, v, normalizer, bias, learned)
    run = blockwise.attend if backend == "blockwise" else reference.attend
    return run(q, k, v, normalizer, bias, learned)


def _fastest(q: Tensor, normalizer: Normalizer, bias: Bias) -> str:
    """The backend that `auto` takes."""
    if q.is_cuda and "triton" in normalizer.backends:
        from lcg.attention.backends.triton import obstacle

        if obstacle(q, normalizer, bias) is None:
            return "triton"
    return "blockwise" if "blockwise" in normalizer.backends else normalizer.backends[0]
