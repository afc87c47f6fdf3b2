"""Closed-form gradients of alpha-entmax in the scores and in alpha, from the weights alone.

With u = p^(2-alpha) on the support and 0 elsewhere, and p~ = u / sum u (arXiv:1905.05702,
arXiv:1909.00015):

    dL/dz = u * (dL/dp - sum_j p~_j dL/dp_j)
    dp/dalpha = (p - p~)/epsilon^2 + (h - p~ sum h)/epsilon,      h = -p log p

The second is a difference of nearly equal numbers as alpha -> 1. Written with w = log(p~/p) and
functions that are regular at 0 it is accurate at every alpha, alpha = 1 included.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def slope(p: Tensor, epsilon: Tensor, value: float | None, out: Tensor) -> Tensor:
    """u = p^(1-epsilon) on the support, 0 elsewhere; p [rows, keys], epsilon [rows or 1, 1]."""
    if value == 0.5:
        # The square root of an exact 0 is 25 times slower than any other in torch's CPU build.
        least = torch.finfo(p.dtype).tiny
        return torch.clamp(p, min=least, out=out).sqrt_().sub_(math.sqrt(least))
    if value == 1.0:
        return torch.gt(p, 0, out=out)
    if value == 0.0:
        return out.copy_(p)
    if value is not None and value < 1:
        return torch.pow(p, 1 - value, out=out)
    return torch.pow(p, (1 - epsilon).to(p.dtype), out=out).masked_fill_(p <= 0, 0.0)


def scores_gradient_low(
    p: Tensor, grad: Tensor, value: float | None, spare: Tensor, epsilon: Tensor, out: Tensor
) -> None:
    """alpha <= 2. A fully masked row has u = 0 and gets a zero gradient."""
    u = slope(p, epsilon, value, spare)
    torch.mul(u, grad, out=out)
    mass = u.sum(-1, keepdim=True)
    mean = out.sum(-1, keepdim=True).div_(mass.masked_fill_(mass == 0, 1.0))
    out.sub_(u.mul_(mean))


def scores_gradient_high(p: Tensor, grad: Tensor, epsilon: Tensor, out: Tensor) -> None:
    """alpha > 2, in float64: u grows without bound as p -> 0, so it is normalised in log space.

    The gradient at the lowest supported key, whose u may exceed all others by 10^50, is minus the
    sum of the others, taken from differences to its own dL/dp. Values beyond the range of ``out``
    saturate.
    """
    p = p.double()
    support = p > 0
    log_u = (1 - epsilon) * p.log()
    log_u.masked_fill_(~support, -torch.inf)
    peak, lowest = log_u.max(-1, keepdim=True)
    peak = peak.masked_fill(peak == -torch.inf, 0.0)
    grad = grad.double()
    difference = grad - grad.gather(-1, lowest)
    relative = (log_u - peak).exp_()
    mass = relative.sum(-1, keepdim=True)
    mass = mass.masked_fill_(mass == 0, 1.0)
    mean = (relative * difference).sum(-1, keepdim=True) / mass
    u = log_u.clamp_(max=700.0).exp_()
    result = u * (difference - mean)
    others = (u * difference).sum(-1, keepdim=True)
    # At the lowest key: -u mean = -(sum of u * difference over the others) * (its share of u).
    result.scatter_(-1, lowest, -others / mass)
    limit = torch.finfo(out.dtype).max
    out.copy_(result.clamp_(-limit, limit).masked_fill_(~support, 0.0))


def _curve(x: Tensor) -> Tensor:
    """(e^x - 1 - x) / x^2, 1/2 at 0."""
    small = x.abs() < 0.5
    safe = x.masked_fill(small, 1.0)
    tame = x.masked_fill(~small, 0.0)
    series = torch.full_like(x, 1 / 3628800 / 132)
    for factorial in (39916800, 3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2):
        series = series.mul_(tame).add_(1 / factorial)
    return torch.where(small, series, (torch.expm1(safe) - safe) / (safe * safe))


def _rate(x: Tensor) -> Tensor:
    """(e^x - 1) / x, 1 at 0."""
    zero = x == 0
    safe = x.masked_fill(zero, 1.0)
    return (torch.expm1(safe) / safe).masked_fill(zero, 1.0)


def alpha_gradient_low(p: Tensor, grad: Tensor, epsilon: Tensor, out: Tensor) -> None:
    """dL/dalpha of each row [rows, 1] for alpha <= 2, regular down to alpha = 1.

    Weights below 1e-30 count as off the support: their u would overflow float32 at alpha near 2.
    """
    live = p > 1e-30
    eps = epsilon.to(p.dtype)
    log_p = p.clamp(min=1e-30).log_()
    p = p * live
    mean_log = (p * log_p).sum(-1, keepdim=True)
    centred = log_p - mean_log
    # normaliser = log(sum p e^(-epsilon centred)) / epsilon^2, finite at epsilon = 0
    moment = (p * centred.square() * _curve(-eps * centred)).sum(-1, keepdim=True)
    scaled = eps.square() * moment
    zero = scaled == 0
    safe = scaled.masked_fill(zero, 1.0)
    normaliser = moment * (torch.log1p(safe) / safe).masked_fill(zero, 1.0)
    v = -centred - eps * normaliser
    rate = normaliser - v.square() * _curve(eps * v) + mean_log * v * _rate(eps * v)
    change = p * rate
    centre = (p * grad).sum(-1, keepdim=True)
    out.copy_((change * (grad - centre)).sum(-1, keepdim=True))


def alpha_gradient_high(p: Tensor, grad: Tensor, epsilon: Tensor, out: Tensor) -> None:
    """dL/dalpha of each row [rows, 1] for alpha > 2, in float64 and log space."""
    p = p.double()
    support = p > 0
    log_p = p.clamp(min=1e-300).log_()
    mean_log = (p * log_p).sum(-1, keepdim=True)
    centred = log_p - mean_log
    log_tilted = (log_p - epsilon * centred).masked_fill_(~support, -torch.inf)
    normaliser = log_tilted.logsumexp(-1, keepdim=True)
    normaliser = normaliser.masked_fill(normaliser == -torch.inf, 0.0)
    tilted = (log_tilted - normaliser).exp_()
    shift = -epsilon * centred - normaliser
    change = (p * (1 + shift + normaliser) - tilted) / epsilon.square()
    change = change + mean_log * (tilted - p) / epsilon
    grad = grad.double()
    centre = (p * grad).sum(-1, keepdim=True)
    change = (change * (grad - centre)).masked_fill_(~support, 0.0)
    out.copy_(change.sum(-1, keepdim=True))
