"""Exact attention in Triton kernels, forward and backward, memory linear in the length.

Entmax with a fixed or learned α, softmax and ReLU; biases that are slopes. Scores, thresholds and
sums are float32; nothing of the size of the scores is kept but one byte per block of them.

Importing this package does not import triton.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lcg.attention import backends
from lcg.attention.mask import Bias, Learned
from lcg.attention.normalizers.base import Normalizer

WIDEST = 128
"""Largest head_dim."""


BEYOND = ("additive", "score_map", "softcap", "table", "rows", "window", "q_ids")
"""Fields of a bias that the kernels do not know."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, normalizer: Normalizer, bias: Bias, learned: Learned
) -> Tensor:
    """As `lcg.attention.functional`; raises ValueError where `obstacle` finds one."""
    problem = obstacle(q, v, normalizer, bias)
    if problem:
        others = " or ".join(name for name in normalizer.backends if name != "triton")
        raise ValueError(f"backend=triton {problem}; or use backend=auto or {others}")
    tensors = [q, k, v, *learned.values()] + ([] if bias.slopes is None else [bias.slopes])
    if not torch.compiler.is_compiling() and any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    ):  # which would come out as zeros
        raise ValueError("backend=triton has no forward-mode derivatives; differentiate backwards")
    from lcg.attention.backends.triton.operators import run

    return run(q, k, v, normalizer, bias, learned)


def obstacle(q: Tensor, v: Tensor, normalizer: Normalizer, bias: Bias) -> str | None:
    """Why the kernels cannot run this here, or None."""
    if "triton" not in normalizer.backends or type(normalizer).kernel is Normalizer.kernel:
        return f"cannot run normalizer={normalizer.name}"
    if others := [form for form in BEYOND if getattr(bias, form) is not None]:
        return f"cannot run a bias with {' and '.join(others)}"
    if bias.slopes is not None and bias.slopes.requires_grad and torch.is_grad_enabled():
        return "has no gradient of the slopes"
    if bias.scale_for(q) != 1 / math.sqrt(q.shape[-1]):
        return "has no scale but 1/√d"
    if v.shape[-1] != q.shape[-1]:
        return f"runs queries and values of one width, got {q.shape[-1]} and {v.shape[-1]}"
    if q.shape[-1] > WIDEST:
        return f"runs head_dim up to {WIDEST}, got {q.shape[-1]}"
    return backends.unrunnable("triton", q.device)
