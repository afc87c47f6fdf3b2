"""Exact attention in Triton kernels, forward and backward, memory linear in the length.

Entmax with a fixed or learned α, softmax and ReLU; biases that are slopes, tables over distances or
sums u_i + w_j, and windows. Scores, thresholds and sums are float32; nothing of the size of the
scores is kept but one byte per block of them.

Importing this package does not import triton.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lcg.attention import backends
from lcg.attention.mask import Bias, Learned
from lcg.attention.normalizers.base import Normalizer

WIDEST = 128
"""Largest head_dim."""
LEAST_SCALE, LARGEST_SCALE = 2e-3, 1e3
"""A hidden key has a score of -10³⁰ before the scale, and is to be known by it after."""
BEYOND = {
    "additive": "bias of an encoding",
    "score_map": "map_scores of an encoding",
    "softcap": "softcap",
}
"""Fields of a bias that the kernels do not know -> their names for a user."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, normalizer: Normalizer, bias: Bias, learned: Learned
) -> Tensor:
    """As `lcg.attention.functional`; raises ValueError where `obstacle` finds one."""
    problem = obstacle(q, v, normalizer, bias)
    if problem:
        others = " or ".join(name for name in normalizer.backends if name != "triton")
        raise ValueError(f"backend=triton {problem}; or use backend=auto or {others}")
    if not torch.compiler.is_compiling() and any(
        forward_ad.unpack_dual(tensor).tangent is not None
        for tensor in (q, k, v, *learned.values(), *bias.tensors().values())
    ):  # which would come out as zeros
        raise ValueError("backend=triton has no forward-mode derivatives; differentiate backwards")
    from lcg.attention.backends.triton.operators import run

    return run(q, k, v, normalizer, bias, learned)


def obstacle(q: Tensor, v: Tensor, normalizer: Normalizer, bias: Bias) -> str | None:
    """Why the kernels cannot run this here, or None."""
    if "triton" not in normalizer.backends or type(normalizer).kernel is Normalizer.kernel:
        return f"cannot run normalizer={normalizer.name}"
    if others := [name for field, name in BEYOND.items() if getattr(bias, field) is not None]:
        return f"does not run {' and '.join(others)}"
    if bias.slopes is not None and bias.slopes.requires_grad and torch.is_grad_enabled():
        return "has no gradient of the slopes"
    if not LEAST_SCALE <= bias.scale_for(q) <= LARGEST_SCALE:
        return f"runs scales from {LEAST_SCALE} to {LARGEST_SCALE:.0f}, got {bias.scale_for(q):.3g}"
    if v.shape[-1] != q.shape[-1]:
        return f"runs queries and values of one width, got {q.shape[-1]} and {v.shape[-1]}"
    if q.shape[-1] > WIDEST:
        return f"runs head_dim up to {WIDEST}, got {q.shape[-1]}"
    return backends.unrunnable("triton", q.device)
