# ruff: noqa: F722  (shapes in annotations)
"""`attend()`: weights = normalizer(q·k/√d + bias), applied to the values, by one of its backends.

Shapes: b batch, h heads, g key heads (h is a multiple of g), q queries, k keys, d head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lcg.attention.backends import blockwise, check_backend, reference
from lcg.attention.backends.reference import attention_weights
from lcg.attention.mask import Bias, Learned
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

    Products are formed in the types of q, k and v, whatever autocast says. Differentiable once,
    backwards: `blockwise` and `triton` know neither second derivatives nor torch.func.

    Raises ValueError, in one line, when the normalizer has no such backend, when the backend cannot
    differentiate the slopes and they ask for it, and when sizes do not fit each other.
    """
    learned = {} if learned is None else learned
    check_backend(backend, normalizer)
    check_sizes(q, k, v, bias, learned)
    if bias.slopes is not None and bias.slopes.requires_grad and torch.is_grad_enabled():
        if backend not in ("auto", "reference"):
            raise ValueError(
                f"backend={backend} has no gradient of the slopes; use reference or auto, or "
                "detach them"
            )
        backend = "reference"
    if backend == "auto":
        backend = _fastest(q, normalizer, bias)
    if backend == "triton":
        from lcg.attention.backends import triton

        return triton.attend(q, k, v, normalizer, bias, learned)
    run = blockwise.attend if backend == "blockwise" else reference.attend
    return run(q, k, v, normalizer, bias, learned)


def check_sizes(q: Tensor, k: Tensor, v: Tensor, bias: Bias, learned: Learned) -> None:
    """Raise ValueError when tensors are not what `attend`, `Bias` and `Normalizer.learned` name."""
    for name, tensor in {"q": q, "k": k, "v": v}.items():
        if tensor.dim() != 4 or not tensor.is_floating_point():
            raise ValueError(
                f"{name} must be [batch heads tokens head_dim] of floating point, "
                f"got {list(tensor.shape)} of {tensor.dtype}"
            )
    b, h, queries, d = q.shape
    g, keys = k.shape[1:3]
    wanted = {
        "k": (k, (b, g, keys, d)),
        "v": (v, (b, g, keys, d)),
        "q_positions": (bias.q_positions, (queries,)),
        "k_positions": (bias.k_positions, (keys,)),
        "slopes": (bias.slopes, (h,)),
        "key_mask": (bias.key_mask, (b, keys)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must be {list(shape)} for q {list(q.shape)} and k {list(k.shape)}, "
                f"got {list(tensor.shape)}"
            )
    for name, tensor in learned.items():
        if tensor.shape[:1] != (h,):
            raise ValueError(
                f"learned {name} must be [{h} …], a row for each head, got {list(tensor.shape)}"
            )
    if g == 0 or h % g:
        raise ValueError(f"{h} heads of queries cannot share {g} heads of keys evenly")
    if bias.key_mask is not None and bias.key_mask.dtype != torch.bool:
        raise ValueError(f"key_mask must be of torch.bool, got {bias.key_mask.dtype}")


def _fastest(q: Tensor, normalizer: Normalizer, bias: Bias) -> str:
    """The backend that `auto` takes."""
    if q.is_cuda and "triton" in normalizer.backends:
        from lcg.attention.backends.triton import obstacle

        if obstacle(q, normalizer, bias) is None:
            return "triton"
    return "blockwise" if "blockwise" in normalizer.backends else normalizer.backends[0]
