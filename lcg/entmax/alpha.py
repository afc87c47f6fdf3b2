"""The exponent argument of alpha-entmax: what callers may pass, and what the solvers receive.

Every formula uses epsilon = alpha - 1, so that is what travels. ``Exponent`` also says what the
host knows about it, because the host chooses the solver: a float and a CPU tensor are known, a
CUDA tensor is not (reading it would wait for the device).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lcg.text import as_number

Alpha = float | Tensor
ALPHA_MIN, ALPHA_MAX = 1.01, 32.0
# float32(1.01) - 1 is 0.00999999; the slack admits it and nothing a user would call "below 1.01".
_SLACK = 1e-6


@dataclass(frozen=True)
class Exponent:
    """epsilon = alpha - 1 of every row.

    ``rows`` is a float64 tensor [rows, 1] or [1, 1]; it carries the gradient to the caller's
    tensor. ``value`` is the one number all rows share, where the host knows it. ``has_low`` and
    ``has_high`` say whether rows with epsilon <= 1 and with epsilon > 1 occur. ``unread`` names
    the argument, and what to add to epsilon for its value, if nobody could read it.
    """

    rows: Tensor
    value: float | None
    has_low: bool
    has_high: bool
    unread: tuple[str, float] | None = None

    def at(self, rows: Tensor) -> Exponent:
        """The same with epsilon in ``rows``, which is read now if it lies on a CPU and could not
        be before."""
        if self.unread is None or rows.device.type != "cpu":
            return replace(self, rows=rows)
        name, base = self.unread
        return Exponent(rows, *_inspect(name, rows.detach() + base, base))


def make_exponent(
    alpha: Alpha, alpha_minus_one: Alpha | None, scores: Tensor, dim: int
) -> Exponent:
    """Validates the argument and lays it out as one epsilon per row of ``scores`` along ``dim``.

    Raises ValueError for an alpha outside {1} and [1.01, 32], for an alpha_minus_one outside
    [0, 31], and for a shape that does not broadcast over the rows; TypeError for what is neither
    a number, of whatever library, nor a floating-point tensor.
    """
    if alpha_minus_one is None:
        given, name, base = alpha, "alpha", 1.0
    else:
        given, name, base = alpha_minus_one, "alpha_minus_one", 0.0
        if isinstance(alpha, Tensor) or as_number(alpha) != 1.5:
            raise ValueError("give either alpha or alpha_minus_one, not both")
    if not isinstance(given, Tensor) or not (given.dim() or given.is_floating_point()):
        value = as_number(given)
        if value is None:
            raise TypeError(f"{name} must be a number or a tensor; got {type(given).__name__}")
        _check_range(name, value, value, value == base, base)
        epsilon = value - base
        rows = torch.full((1, 1), epsilon, dtype=torch.float64, device=scores.device)
        return Exponent(rows, epsilon, epsilon <= 1, epsilon > 1)
    if not given.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor; got {given.dtype}")
    known = None, True, False, (name, base)
    if given.device.type == "cpu" and given.numel():
        look = _inspect if torch.compiler.is_compiling() else _inspect_outside_vmap
        known = look(name, given.detach().double(), base)
    rows = (given.double() - base).to(scores.device, non_blocking=True)
    return Exponent(_per_row(name, rows, scores, dim), *known)


def _inspect_outside_vmap(name: str, given: Tensor, base: float) -> tuple[Any, ...]:
    """As ``_inspect``; inside torch.vmap, where no value can be read, what is then known."""
    try:
        return _inspect(name, given, base)
    except RuntimeError:
        return None, True, False, (name, base)


def _inspect(name: str, given: Tensor, base: float) -> tuple[float | None, bool, bool]:
    """Read what the host knows of an Exponent. Raises ValueError for values out of range."""
    low, high = (bound.item() - base for bound in given.aminmax())
    rest = given[given != base]
    if rest.numel():
        _check_range(name, rest.min().item(), rest.max().item(), False, base)
    return (low if low == high else None), low <= 1, high > 1


def _check_range(name: str, low: float, high: float, exact: bool, base: float) -> None:
    floor = ALPHA_MIN if base else 0.0
    ceiling = ALPHA_MAX - 1 + base
    # Negated comparisons also refuse NaN.
    if exact or (low >= floor - _SLACK * base and high <= ceiling):
        return
    wrong = high if low >= floor - _SLACK * base else low
    allowed = "1 or lie in [1.01, 32]" if base else "lie in [0, 31]"
    raise ValueError(f"{name} must {'be ' if base else ''}{allowed}; got {wrong:g}")


def _per_row(name: str, epsilon: Tensor, scores: Tensor, dim: int) -> Tensor:
    if epsilon.numel() == 1:
        return epsilon.reshape(1, 1)
    target = list(scores.shape)
    target[dim] = 1
    try:
        expanded = epsilon.expand(target)
    except RuntimeError:
        raise ValueError(
            f"{name} of shape {list(epsilon.shape)} does not broadcast over the rows of scores "
            f"{list(scores.shape)} along dim {dim} (it needs size 1 there)"
        ) from None
    return expanded.movedim(dim, -1).reshape(-1, 1)
