# ruff: noqa: F722  (shapes in annotations)
"""`attend()`: weights = normalizer(scale·q·k + bias), applied to values by one of its backends.

Shapes: b batch, h heads, g key heads (h is a multiple of g), q queries, k keys, d
dimensions of queries and keys, e of values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lcg import registry
from lcg.attention.backends import blockwise, check_backend, reference
from lcg.attention.backends.reference import attention_weights
from lcg.attention.mask import Bias, Learned
from lcg.attention.normalizers.base import Normalizer
from lcg.shapes import Bool, Float

__all__ = ["Bias", "attend", "attention_weights", "scores_at_once"]


def attend(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    /,
    normalizer: Normalizer | str = "softmax",
    bias: Bias | None = None,
    learned: Learned | None = None,
    backend: str = "auto",
    *,
    slopes: Float[Tensor, " h"] | None = None,
    causal: bool = True,
    key_mask: Bool[Tensor, "b k"] | None = None,
    scale: float | None = None,
    **options: Any,
) -> Float[Tensor, "b h q e"]:
    """Attend with queries q to keys k and values v.

    Scores, row statistics and weights are float32 whatever the input; the result has the dtype of
    v. The scale is applied here, so that q carries no scaling but one by length. A query that sees
    no key gets zeros and passes no gradient. Products are formed in the types of q, k and v,
    whatever autocast says. Differentiable once, backwards: `blockwise` and `triton` know neither
    second derivatives nor torch.func.

    Args:
        q, k, v: heads of queries may share heads of keys.
        normalizer: a name that `lcg list` shows, or `file.py:Class`, with its options as keywords:
            normalizer="entmax", alpha=1.5; or a normalizer itself.
        bias: positions, what is added to the scores, and who sees whom; if not given it is made of
            the next four and of positions 0, 1, 2, …: causal queries are the last of the keys.
        slopes: m of each head in a bias -m·|i - j|.
        causal: a query sees no key after it.
        key_mask: False on keys that nobody sees, as padding.
        scale: factor of q·k; None: 1/√d.
        learned: the tensors, by name, of a normalizer that learns: see its `learned`.
        backend: reference, blockwise or triton; auto takes the fastest that can run this.

    Raises:
        ValueError: in one line, for an unknown normalizer, when the backend cannot run the
            normalizer or the bias, and when sizes do not fit each other.

    >>> q = k = v = torch.eye(2).view(1, 1, 2, 2)
    >>> attend(8 * q, k, v, normalizer="entmax", alpha=2.0)
    tensor([[[[1., 0.],
              [0., 1.]]]])
    """
    if isinstance(normalizer, str):
        normalizer = registry.find("normalizer", normalizer)(**options)
    elif options:
        raise ValueError(f"options go with the name of a normalizer: {', '.join(options)}")
    if bias is None:
        first = k.shape[-2] - q.shape[-2] if causal else 0
        if first < 0:
            raise ValueError(
                f"{q.shape[-2]} causal queries cannot be the last of {k.shape[-2]} keys"
            )
        queries = torch.arange(first, first + q.shape[-2], device=q.device)
        keys = torch.arange(k.shape[-2], device=k.device)
        bias = Bias(queries, keys, slopes, causal=causal, key_mask=key_mask, scale=scale)
    elif any(part is not None for part in (slopes, key_mask, scale)) or bias.causal > causal:
        raise ValueError("give either a bias or slopes, causal, key_mask and scale, not both")
    learned = {} if learned is None else learned
    check_backend(backend, normalizer)
    check_sizes(q, k, v, bias, learned)
    if backend == "auto":
        backend = _fastest(q, v, normalizer, bias)
    if backend == "triton":
        from lcg.attention.backends import triton

        return triton.attend(q, k, v, normalizer, bias, learned)
    run = blockwise.attend if backend == "blockwise" else reference.attend
    return run(q, k, v, normalizer, bias, learned)


def check_sizes(q: Tensor, k: Tensor, v: Tensor, bias: Bias, learned: Learned) -> None:
    """Raise ValueError for tensors of other shapes than `attend`, `Bias` and `learned` state."""
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
        "v": (v, (b, g, keys, v.shape[-1])),
        "q_positions": (bias.q_positions, (queries,)),
        "k_positions": (bias.k_positions, (keys,)),
        "slopes": (bias.slopes, (h,)),
        "window": (bias.window, (h,)),
        "rows": (bias.rows, (b, h, queries)),
        "columns": (bias.columns, (b, h, keys)),
        "key_mask": (bias.key_mask, (b, keys)),
    }
    for name, ids, count in (("q_ids", bias.q_ids, queries), ("k_ids", bias.k_ids, keys)):
        if ids is not None and tuple(ids.shape) not in ((count,), (b, count)):
            raise ValueError(f"{name} must be [{count}] or [{b}, {count}], got {list(ids.shape)}")
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must be {list(shape)} for q {list(q.shape)} and k {list(k.shape)}, "
                f"got {list(tensor.shape)}"
            )
    rows = {f"learned {name}": tensor for name, tensor in learned.items()}
    for name, tensor in (rows | ({} if bias.table is None else {"table": bias.table})).items():
        if tensor.shape[:1] != (h,):
            raise ValueError(
                f"{name} must be [{h} …], a row for each head, got {list(tensor.shape)}"
            )
    if g == 0 or h % g:
        raise ValueError(f"{h} heads of queries cannot share {g} heads of keys evenly")
    if bias.key_mask is not None and bias.key_mask.dtype != torch.bool:
        raise ValueError(f"key_mask must be of torch.bool, got {bias.key_mask.dtype}")


def _fastest(q: Tensor, v: Tensor, normalizer: Normalizer, bias: Bias) -> str:
    """Return the backend that `auto` selects."""
    if q.is_cuda and "triton" in normalizer.backends:
        from lcg.attention.backends.triton import obstacle

        if obstacle(q, v, normalizer, bias) is None:
            return "triton"
    return "blockwise" if "blockwise" in normalizer.backends else normalizer.backends[0]


def scores_at_once(backend: str, queries: int, keys: int) -> int:
    """Return the largest number of scores that a backend materialises at a time, over all heads
    and samples."""
    most = queries * keys
    return most if backend == "reference" else min(most, blockwise.most_scores(queries))
