"""Checks of the values that hooks of normalizers, scalings, output norms and encodings return.

Only shapes and types are checked, which takes microseconds and never waits for a device. Errors are
one line that names the class, the method, the value and what was expected.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn


def returned(owner: Any, method: str, value: Any, *shapes: tuple[int, ...]) -> Tensor:
    """Return `value` if it is a floating tensor of one of the shapes. Raises ValueError."""
    if not isinstance(value, Tensor) or tuple(value.shape) not in shapes:
        expected = " or ".join(str(list(shape)) for shape in shapes)
        raise ValueError(f"{_got(owner, method, value)}, expected a tensor of shape {expected}")
    if not value.is_floating_point():
        raise ValueError(f"{_got(owner, method, value)} of {value.dtype}, expected floating point")
    return value


def check_hooks(owner: Any, base: type) -> None:
    """Raise ValueError, in one line, for a hook with other arguments than in its base class."""
    _check_class(type(owner), base)


@cache
def _check_class(cls: type, base: type) -> None:
    for name, hook in vars(base).items():
        own = getattr(cls, name)
        if not inspect.isfunction(hook) or hook is own or name == "__init_subclass__":
            continue
        wanted = list(inspect.signature(hook).parameters)
        parameters = inspect.signature(own).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            continue
        required = [p.name for p in parameters if p.default is p.empty]
        if len(required) > len(wanted) or len(parameters) < len(wanted):
            raise ValueError(
                f"{cls.__name__}.{name}({', '.join(p.name for p in parameters)}) must take "
                f"({', '.join(wanted)})"
            )
        for argument, now in RENAMED_ARGUMENTS.items():
            if argument in required and argument not in wanted:
                raise ValueError(f"{cls.__name__}.{name} takes {now} of {argument}")
    for name, now in RENAMED.items():
        if hasattr(cls, name) and not hasattr(base, name):
            raise ValueError(f"{cls.__name__}.{name} {now}")
    hooks = [name for name, hook in vars(base).items() if inspect.isfunction(hook)]
    methods = [name for name, own in vars(cls).items() if inspect.isfunction(own)]
    for name in (name for name in methods if name[0] != "_" and not hasattr(base, name)):
        for hook in difflib.get_close_matches(name, hooks, 1, MISSPELT):
            raise ValueError(
                f"{cls.__name__}.{name}() is no hook and would never be called; did you mean "
                f"{hook}? (a method of your own needs a name less like it)"
            )


MISSPELT = 0.8  # so alike are two names of which one may be meant for the other
RENAMED = {
    "data_dependent": "is no longer needed: remove it; a bias that depends on x reads a `state`"
}
"""Members that hooks once had, and what to do about them."""
RENAMED_ARGUMENTS = {"width": "sizes (sizes.width, sizes.d_model, …) in the place"}
"""Arguments of hooks that are something else now, and what they are."""


def normalized(
    normalizer: Any, scores: Tensor, keys: Tensor, learned: Mapping[str, Tensor] | nn.ParameterDict
) -> Tensor:
    """Return the weights that a normalizer computes from scores. Raises ValueError."""
    weights = normalizer(scores, keys, learned)
    method = "__call__" if "__call__" in vars(type(normalizer)) else "weights"
    returned(normalizer, method, weights, scores.shape)
    if weights.dtype != scores.dtype:
        raise ValueError(
            f"{_got(normalizer, method, weights)} of {weights.dtype}, expected {scores.dtype}, "
            "the type of the scores"
        )
    return weights


def broadcastable(owner: Any, method: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """Return `value` if it is a floating tensor that broadcasts to `shape`. Raises ValueError."""
    if isinstance(value, Tensor) and value.dim() <= len(shape):
        wanted = shape[len(shape) - value.dim() :]
        if all(n in (1, m) for n, m in zip(value.shape, wanted, strict=True)):
            return value
    raise ValueError(
        f"{_got(owner, method, value)}, expected a tensor that broadcasts to {list(shape)}"
    )


def position_ids(owner: Any, value: Any, length: int) -> Tensor:
    """Return the ids of `positions(length)` if they are [length]. Raises ValueError."""
    if not isinstance(value, Tensor) or tuple(value.shape) != (length,):
        got = _got(owner, "positions", value)
        raise ValueError(f"{got}, expected a tensor of shape [{length}], an id for each token")
    return value


def learned_tensors(
    owner: Any, value: Any, method: str = "learned", rows: int | None = None
) -> nn.ParameterDict:
    """Turn the tensors of `learned` into parameters with `rows` rows each. Raises ValueError."""
    if not isinstance(value, Mapping):
        got = _got(owner, method, value)
        raise ValueError(f"{got}, expected a dict of names and tensors ({{}} for none)")
    for name, tensor in value.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"{type(owner).__name__}.{method}() returned a tensor called {name!r}, expected "
                "names of letters, digits and _"
            )
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(
                f"{type(owner).__name__}.{method}() returned {name!r} of {found}, expected a "
                "tensor of floating point"
            )
        if rows is not None and tensor.shape[:1] != (rows,):
            raise ValueError(
                f"{type(owner).__name__}.{method}() returned {name!r} of shape "
                f"{list(tensor.shape)}, expected [heads={rows} …]"
            )
    return nn.ParameterDict(value)


def _got(owner: Any, method: str, value: Any) -> str:
    description = f"a {type(value).__name__}"
    if value is None:
        description = "None"
    elif isinstance(value, Tensor):
        description = f"a tensor of shape {list(value.shape)}"
    elif isinstance(value, tuple):
        description = f"a tuple of {len(value)}"
    return f"{type(owner).__name__}.{method}() returned {description}"
