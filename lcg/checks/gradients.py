"""Autograd against finite differences, along random directions.

A hook that computes in float32 whatever it gets needs wide steps; one that keeps float64 is held to
narrow ones. Where the slopes to both sides differ there is a kink, and nothing is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import Parameter

from lcg.checks.properties import expect

STEPS = ((1e-6, 1e-5), (2e-2, 5e-3))
"""(step, relative tolerance) in float64, and where float32 lies between."""


def check_gradients(
    function: Callable[..., Tensor],
    given: Mapping[str, Tensor],
    learned: Mapping[str, Tensor],
) -> None:
    """Raise Fails, naming the input, where the gradient of `function` is not its slope.

    It is called with each given tensor and the dict of learned ones, all float64; entries that are
    not finite are constants.
    """

    def call(inputs: Mapping[str, Tensor]) -> Tensor:
        own = {n: inputs.get(n, t) for n, t in learned.items()}
        return function(*(inputs[n] for n in given), own)

    draw = torch.Generator().manual_seed(0)
    fixed = {n: t for n, t in learned.items() if isinstance(t, Parameter) and not t.requires_grad}
    inputs = {**given, **{n: t for n, t in learned.items() if n not in fixed}}
    inputs = {name: tensor.detach().clone().requires_grad_() for name, tensor in inputs.items()}
    out = call(inputs)
    cotangent = torch.randn(out.shape, generator=draw, dtype=torch.float64)
    if not out.requires_grad:
        gradients = [None] * len(inputs)
    else:
        total = (out.double() * cotangent).sum()
        gradients = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
    for (name, tensor), gradient in zip(inputs.items(), gradients, strict=True):
        gradient = torch.zeros_like(tensor) if gradient is None else gradient
        movable = tensor.detach().isfinite()
        expect(gradient[movable].isfinite().all(), f"the gradient in {name} is not finite")
        for _ in range(3):
            direction = torch.randn(tensor.shape, generator=draw, dtype=torch.float64)
            direction = direction.masked_fill(~movable, 0.0)
            direction /= direction.norm().clamp_min(1e-12)
            slope = float((gradient.masked_fill(~movable, 0.0) * direction).sum())

            def moved(step: float, name=name, direction=direction) -> float:
                with torch.no_grad():
                    at = inputs[name].masked_fill(~inputs[name].isfinite(), 0.0) + step * direction
                    at = torch.where(inputs[name].isfinite(), at, inputs[name])
                    return float((call({**inputs, name: at}).double() * cotangent).sum())

            _compare(name, slope, moved)


def _compare(name: str, slope: float, moved: Callable[[float], float]) -> None:
    slopes = []
    for step, tolerance in STEPS:
        here, ahead, behind = moved(0.0), moved(step), moved(-step)
        right, left = (ahead - here) / step, (here - behind) / step
        if step > 1e-3:  # removes the error of second order, which is no kink
            half = (moved(step / 2) - moved(-step / 2)) / step
            central = (4 * half - (ahead - behind) / (2 * step)) / 3
        else:
            central = (ahead - behind) / (2 * step)
        bound = tolerance * (1 + abs(slope))
        if abs(central - slope) <= bound:
            return
        kink = abs(right - left) > max(bound, 0.5 * abs(central - slope))
        slopes.append((central, kink))
    central, kink = slopes[0]
    what = f"the gradient in {name} is {slope:.4g} along some direction"
    expect(kink, f"{what} where finite differences give {central:.4g}")
