"""The public functions: alpha-entmax with gradients, and its row statistics for attention backends.

Sources: the map and its gradient arXiv:1905.05702; the gradient in alpha arXiv:1909.00015; the
iterated threshold on tiles arXiv:2502.12082. Differences: the threshold is not bisected but found
by a safeguarded Newton method on a convex form (``solver``); alpha <= 1.05 needs no special case;
rows are not renormalised afterwards; a fully masked row gives zeros, not NaN.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcg.entmax import gradient, solver
from lcg.entmax.alpha import Alpha, Exponent, make_exponent

# Elements per chunk of rows, on a CPU per thread: a chunk and its scratch buffers stay in the
# second-level cache. On an accelerator the limit only bounds the scratch memory.
_CHUNK_CPU = 1 << 18
_CHUNK_DEVICE = 1 << 26


Into = Callable[[Tensor, Tensor], Any]
"""Called with epsilon and the tensor to write into."""
_NOTHING = torch.empty(0)
_LAST = threading.local()


def entmax(
    scores: Tensor, alpha: Alpha = 1.5, dim: int = -1, *, alpha_minus_one: Alpha | None = None
) -> Tensor:
    """alpha-entmax along ``dim``: p_i = [(alpha-1) z_i - tau]_+^(1/(alpha-1)), tau so sum p = 1.

    alpha = 1 is softmax, 2 sparsemax. Scores of -inf get weight 0; a row of nothing else gets
    zeros and zero gradients; NaN or +inf makes its row NaN. Weights off the support are exactly 0.

    Args:
        scores: floating point, any shape. float16 and bfloat16 are computed in float32 and
            rounded once, the gradient too; float64 is computed in float64.
        alpha: 1, or within [1.01, 32]; a number, Python's or numpy's, or a tensor that broadcasts
            over the rows and has size 1 along ``dim``: [heads, 1, 1] for scores [batch, heads,
            queries, keys]. Several values that are not all 2 or less, or not all more, cost two
            solves.
        dim: the dimension whose weights sum to one.
        alpha_minus_one: alpha - 1 in place of alpha, within [0, 31], small values included. A
            learned alpha = 1 + sigmoid(a) should pass sigmoid(a): the sum rounds it away.

    Returns:
        Weights of the shape and type of scores; differentiable once, backwards, in scores and
        alpha. Works inside torch.vmap and torch.func.grad, vjp and jacrev; second derivatives and
        forward mode (jvp, jacfwd, hessian) raise RuntimeError.

    Raises:
        ValueError: alpha out of range, or not broadcastable over the rows.
        TypeError: scores or alpha not floating point.

    A tensor alpha on the CPU is checked, wherever the scores are. One on an accelerator is not
    read, as that would wait for the device: its entries may be 1 <= alpha <= 2, and rows with
    any other come out as NaN. Pass alpha > 2 as a number or as a CPU tensor.

    Under torch.compile it is one opaque operator.

    >>> entmax(torch.tensor([2.0, 1.0, -1.0]), alpha=2.0)
    tensor([1., 0., 0.])
    """
    rows, exponent, unflatten = _as_rows(scores, alpha, dim, alpha_minus_one)
    if scores.numel() == 0:
        return scores.clone()
    if torch.compiler.is_compiling():
        known = (exponent.value, exponent.has_low, exponent.has_high)
        return unflatten(_entmax_rows(rows, exponent.rows, *known).to(scores.dtype))
    return unflatten(_Entmax.apply(rows, exponent.rows, replace(exponent, rows=_NOTHING))[0])


def threshold(
    scores: Tensor, alpha: Alpha = 1.5, dim: int = -1, *, alpha_minus_one: Alpha | None = None
) -> Tensor:
    """The statistic that fixes the weights of a row: float64, of size 2 along ``dim``.

    The two entries are (anchor, log_weight): a key whose score is ``anchor`` has the weight
    exp(log_weight). The usual threshold follows as tau = (alpha-1) anchor - exp((alpha-1)
    log_weight), for alpha = 1 the log-sum-exp as anchor - log_weight; as one number, either
    would cost the accuracy of the weights (see ``solver``). Above alpha = 2 the
    anchor is the lowest supported score, for 1.5 and 2 it or a number a few ulps below, elsewhere
    the row maximum. A fully masked row gives
    (inf, -inf), for which all weights are 0. Not differentiable. Arguments as in ``entmax``.
    """
    rows, exponent, unflatten = _as_rows(scores.detach(), alpha, dim, alpha_minus_one)
    if scores.numel() == 0:
        statistic = rows.new_full((rows.shape[0], 2), math.inf, dtype=torch.float64)
        statistic[:, 1] = -math.inf
        return unflatten(statistic)
    found, spare = [], None
    with torch.no_grad():
        for chunk in _chunks(rows, exponent):
            spare = torch.empty_like(chunk.x) if spare is None else spare
            found.append(_solve_chunk(chunk, spare[: len(chunk.x)], True))
    return unflatten(torch.cat(found))


def support_edge(
    scores: Tensor, alpha: Alpha = 1.5, dim: int = -1, *, alpha_minus_one: Alpha | None = None
) -> Tensor:
    """tau / (alpha-1): the score below which weights are 0, in float64.

    A key that scores exactly this much has no weight either, but where the two numbers differ by
    less than float64 tells: from alpha = 8 on, the lowest key with weight may lie at the edge (at
    alpha = 32 with a weight of 1/4), and so may any key where scores are large.

    The shape of scores with size 1 along ``dim``. It only grows when keys are added to a row.
    -inf for alpha = 1, inf for a fully masked row. Not differentiable. Arguments as in ``entmax``.
    """
    statistic = threshold(scores, alpha, dim, alpha_minus_one=alpha_minus_one)
    anchor, log_weight = statistic.split(1, dim=dim)
    given, base = (alpha, 1.0) if alpha_minus_one is None else (alpha_minus_one, 0.0)
    if not isinstance(given, Tensor):
        given = torch.tensor(float(given))
    epsilon = given.detach().to(scores.device, torch.float64) - base
    return anchor - (epsilon * log_weight).exp() / epsilon


def weights_from_threshold(
    scores: Tensor,
    statistic: Tensor,
    alpha: Alpha = 1.5,
    dim: int = -1,
    *,
    alpha_minus_one: Alpha | None = None,
) -> Tensor:
    """The weights of any part of the rows that ``statistic`` came from, elementwise.

    ``weights_from_threshold(z, threshold(z))`` equals ``entmax(z)``; ``scores`` may hold a
    subset of the keys along ``dim``. Not differentiable. Arguments as in ``entmax``.
    """
    rows, exponent, unflatten = _as_rows(scores.detach(), alpha, dim, alpha_minus_one)
    if scores.numel() == 0:
        return scores.clone()
    flat = statistic.detach().movedim(dim, -1).reshape(-1, 2)
    with torch.no_grad():
        result = torch.empty_like(rows, dtype=_compute_type(rows))
        for chunk in _chunks(rows, exponent):
            _weights(chunk, flat[chunk.part], result[chunk.part])
        return unflatten(result.to(rows.dtype))


def _as_rows(
    scores: Tensor, alpha: Alpha, dim: int, alpha_minus_one: Alpha | None
) -> tuple[Tensor, Exponent, Any]:
    """The scores as [rows, keys], the exponent of each row, and the way back to their shape."""
    if not scores.is_floating_point():
        raise TypeError(f"entmax needs floating-point scores; got {scores.dtype}")
    scalar = scores.dim() == 0
    if scalar:
        scores = scores.unsqueeze(0)
    if not -scores.dim() <= dim < scores.dim():
        raise IndexError(f"dim {dim} is out of range for scores of {scores.dim()} dimensions")
    dim = dim % scores.dim()
    exponent = make_exponent(alpha, alpha_minus_one, scores, dim)
    moved = scores.movedim(dim, -1)
    leading = moved.shape[:-1]

    def unflatten(rows: Tensor) -> Tensor:
        result = rows.reshape(*leading, rows.shape[-1]).movedim(-1, dim)
        return result.squeeze(0) if scalar else result

    return moved.reshape(leading.numel(), moved.shape[-1]).contiguous(), exponent, unflatten


def _compute_type(scores: Tensor) -> torch.dtype:
    return torch.float64 if scores.dtype == torch.float64 else torch.float32


class Chunk(NamedTuple):
    """Some of the rows, as scores or weights in the compute type, their epsilon, and scratch
    buffers that all chunks share."""

    part: slice
    x: Tensor
    epsilon: Tensor
    exponent: Exponent
    work: solver.Workspace


def _chunks(rows: Tensor, exponent: Exponent) -> Iterator[Chunk]:
    count, keys = rows.shape
    on_cpu = rows.device.type == "cpu"
    budget = _CHUNK_CPU * torch.get_num_threads() if on_cpu else _CHUNK_DEVICE
    size = min(count, max(1, budget // keys))
    dtype = _compute_type(rows)
    work = _workspace(size, keys, rows.new_empty(0, dtype=dtype))
    epsilon = exponent.rows.detach()
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        some = epsilon if epsilon.shape[0] == 1 else epsilon[part]
        yield Chunk(part, rows[part].to(dtype), some, exponent, work)


def _workspace(rows: int, keys: int, like: Tensor) -> solver.Workspace:
    """Scratch buffers; on a CPU those of this thread's last call if they are as large, since new
    memory costs as much as a pass over it. Rows longer than a chunk leave nothing behind."""
    if like.device.type != "cpu" or rows * keys > _CHUNK_CPU * torch.get_num_threads():
        return solver.Workspace(rows, keys, like)
    key = (rows, keys, like.dtype)
    if getattr(_LAST, "key", None) != key:
        with torch.inference_mode(False):  # made in there, nobody else could write to them
            _LAST.key, _LAST.work = key, solver.Workspace(rows, keys, torch.empty_like(like))
    return _LAST.work


def _solve(scores: Tensor, exponent: Exponent) -> Tensor:
    """The weights [rows, keys] in the compute type."""
    weights = torch.empty_like(scores, dtype=_compute_type(scores))
    for chunk in _chunks(scores, exponent):
        _solve_chunk(chunk, weights[chunk.part], False)
    return weights


def _solve_chunk(chunk: Chunk, out: Tensor, wanted: bool) -> Tensor | None:
    """Writes the weights of one chunk; returns its statistics, where wanted."""
    _, z, epsilon, exponent, work = chunk
    if exponent.value in (0.5, 1.0):
        solved = solver.solve_closed(z, exponent.value, work, out)
        return solver.closed_statistic(*solved, exponent.value) if wanted else None
    if exponent.value == 0.0:
        return solver.solve_softmax(z, out)
    statistic = z.new_empty(len(z), 2, dtype=torch.float64)
    low = partial(solver.solve_low, z, work, out)
    _low_or_high(chunk, statistic, low, partial(solver.solve_high, z))
    if exponent.has_high:
        _weights(chunk, statistic, out)
    elif exponent.value is None and not solver.host_reads_free(z):
        outside = (epsilon < 0) | (epsilon > 1)
        out.masked_fill_(outside, math.nan)
        statistic.masked_fill_(outside, math.nan)
    return statistic


def _weights(chunk: Chunk, statistic: Tensor, out: Tensor) -> None:
    _, z, _, exponent, work = chunk
    if exponent.value in (0.5, 1.0):
        solver.weights_closed(z, statistic, exponent.value, out)
    elif exponent.value == 0.0:
        solver.weights_softmax(z, statistic, out)
    else:
        low = partial(solver.weights_low, z, statistic, work)
        _low_or_high(chunk, out, low, partial(solver.weights_high, z, statistic))


def _low_or_high(chunk: Chunk, out: Tensor, low: Into, high: Into) -> None:
    """Has rows up to alpha = 2 written into ``out`` by low(epsilon, out), those above by high."""
    if not chunk.exponent.has_high:
        low(chunk.epsilon, out)
        return
    high(chunk.epsilon.clamp(min=1.0), out)
    if chunk.exponent.has_low:
        # A row of the other kind computes something finite or not; it is overwritten.
        others = torch.empty_like(out)
        low(chunk.epsilon.clamp(max=1.0), others)
        torch.where(chunk.epsilon > 1, out, others, out=out)


class _Once(torch.autograd.Function):
    """Differentiable once, backwards."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(
            "entmax has no forward-mode derivatives, and no second ones: differentiate backwards"
        )


class _Entmax(_Once):
    """scores [rows, keys], epsilon [rows or 1, 1]; returns the weights, and where these are rounded
    also as computed, for the backward pass."""

    @staticmethod
    def forward(scores: Tensor, epsilon: Tensor, exponent: Exponent) -> tuple[Tensor, ...]:
        weights = _solve(scores, exponent.at(epsilon))
        if weights.dtype == scores.dtype:
            return (weights,)
        return weights.to(scores.dtype), weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        scores, epsilon, ctx.exponent = inputs
        ctx.dtype = scores.dtype
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[-1], epsilon)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None
        weights, epsilon = ctx.saved_tensors
        wants_scores, wants_alpha = ctx.needs_input_grad[:2]
        gradients = _Gradients.apply(
            weights, grad, epsilon, ctx.exponent, ctx.dtype, wants_scores, wants_alpha
        )
        of_alpha = gradients[-1] if wants_alpha else None
        if of_alpha is not None and epsilon.shape[0] == 1:
            of_alpha = of_alpha.sum(0, keepdim=True)
        return gradients[0] if wants_scores else None, of_alpha, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _vmapped(_Entmax, info.batch_size, in_dims, inputs, epsilon_at=1)


class _Gradients(_Once):
    """Those of `_Entmax` that are wanted: in the scores, and in the epsilon of each row."""

    @staticmethod
    def forward(
        weights: Tensor, grad: Tensor, epsilon: Tensor, exponent: Exponent, *wanted: Any
    ) -> tuple[Tensor, ...]:
        gradients = _gradients(weights, grad, exponent.at(epsilon), *wanted)
        return tuple(gradient for gradient in gradients if gradient is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("entmax has no second derivative: it is differentiable once")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _vmapped(_Gradients, info.batch_size, in_dims, inputs, epsilon_at=2)


def _vmapped(
    function: Any, batch: int, in_dims: tuple[Any, ...], inputs: tuple[Any, ...], epsilon_at: int
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """A function of rows, of a batch of them: as many rows more. The tensors before ``epsilon_at``
    are [rows, ...], that at it is [rows or 1, 1]."""

    def fold(tensor: Tensor, dim: int | None) -> Tensor:
        moved = tensor.expand(batch, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        return moved.expand(batch, rows, moved.shape[-1]).flatten(0, 1)

    first = inputs[0] if in_dims[0] is None else inputs[0].movedim(in_dims[0], 0)
    rows = first.shape[-2]
    folded = list(inputs)
    for place in range(epsilon_at + 1):
        shared = place == epsilon_at and in_dims[place] is None and len(inputs[place]) == 1
        if not shared:
            folded[place] = fold(inputs[place], in_dims[place])
    outputs = function.apply(*folded)
    return tuple(x.unflatten(0, (batch, rows)) for x in outputs), (0,) * len(outputs)


def _gradients(
    weights: Tensor,
    grad: Tensor,
    exponent: Exponent,
    dtype: torch.dtype,
    wants_scores: bool,
    wants_alpha: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """dL/dscores [rows, keys] in ``dtype`` and dL/depsilon [rows, 1] in float64."""
    grad = grad.contiguous()
    grad_scores = torch.empty_like(weights, dtype=dtype) if wants_scores else None
    grad_rows = weights.new_empty(weights.shape[0], 1) if wants_alpha else None
    for chunk in _chunks(weights, exponent):
        p, incoming = chunk.x, grad[chunk.part].to(weights.dtype)
        if grad_scores is not None:
            direct = dtype == weights.dtype
            spare, scratch, _ = chunk.work.take(len(p))
            out = grad_scores[chunk.part] if direct else scratch
            low = partial(gradient.scores_gradient_low, p, incoming, exponent.value, spare)
            _low_or_high(chunk, out, low, partial(gradient.scores_gradient_high, p, incoming))
            if not direct:
                grad_scores[chunk.part] = _rounded(out, dtype, exponent)
        if grad_rows is not None:
            low, high = gradient.alpha_gradient_low, gradient.alpha_gradient_high
            of_alpha = partial(low, p, incoming), partial(high, p, incoming)
            _low_or_high(chunk, grad_rows[chunk.part], *of_alpha)
    return grad_scores, None if grad_rows is None else grad_rows.double()


def _rounded(grad: Tensor, dtype: torch.dtype, exponent: Exponent) -> Tensor:
    """A gradient in the scores in their type; above alpha = 2, where it is unbounded, saturated."""
    if not exponent.has_high:
        return grad.to(dtype)
    limit = torch.finfo(dtype).max
    return grad.clamp(-limit, limit).to(dtype)


# torch.compile ---------------------------------------------------------------------------------
# The solvers' loops depend on the data, so a compiled program calls them as two opaque operators,
# and no CUDA graph may hold them: they wait for the device.
_TAGS = (torch.Tag.cudagraph_unsafe,)


@torch.library.custom_op("lcg::entmax_rows", mutates_args=(), tags=_TAGS)
def _entmax_rows(
    scores: Tensor, epsilon: Tensor, value: float | None, has_low: bool, has_high: bool
) -> Tensor:
    return _solve(scores, Exponent(epsilon, value, has_low, has_high))


@_entmax_rows.register_fake
def _(scores: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(scores, dtype=_compute_type(scores))


@torch.library.custom_op("lcg::entmax_rows_backward", mutates_args=(), tags=_TAGS)
def _entmax_rows_backward(
    weights: Tensor,
    grad: Tensor,
    epsilon: Tensor,
    value: float | None,
    has_low: bool,
    has_high: bool,
    wants_alpha: bool,
) -> tuple[Tensor, Tensor]:
    exponent = Exponent(epsilon, value, has_low, has_high)
    scores, alpha = _gradients(weights, grad, exponent, weights.dtype, True, wants_alpha)
    assert scores is not None
    if alpha is None:
        return scores, torch.zeros_like(epsilon)
    return scores, alpha.sum(0, keepdim=True) if epsilon.shape[0] == 1 else alpha


@_entmax_rows_backward.register_fake
def _(weights: Tensor, grad: Tensor, epsilon: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(weights), torch.empty_like(epsilon)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    scores, epsilon, *ctx.known = inputs
    ctx.dtype = scores.dtype
    ctx.save_for_backward(output, epsilon)


def _compiled_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    weights, epsilon = ctx.saved_tensors
    wants_alpha = ctx.needs_input_grad[1]
    scores, alpha = _entmax_rows_backward(weights, grad, epsilon, *ctx.known, wants_alpha)
    scores = _rounded(scores, ctx.dtype, Exponent(epsilon, *ctx.known))
    return scores, alpha if wants_alpha else None, None, None, None


_entmax_rows.register_autograd(_compiled_backward, setup_context=_remember)
