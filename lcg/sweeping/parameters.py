"""The `parameters` of a W&B sweep file: their values and distributions.

Only what both W&B and Optuna can draw is accepted; anything else is an error that names it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from lcg.config.load import VALUES
from lcg.config.types import LARGEST, NUMBER, as_text, convert
from lcg.registry import nearest

ENDS = ("min", "max")
DRAWN = {
    "constant": ("value",),
    "categorical": ("values",),
    **dict.fromkeys(("uniform", "int_uniform", "log_uniform", "log_uniform_values"), ENDS),
    **dict.fromkeys(("q_uniform", "q_log_uniform_values"), (*ENDS, "q")),
}
"""The keys of each distribution; q may be left out."""
NOT_DRAWN = (
    *("normal", "q_normal", "log_normal", "q_log_normal", "beta", "q_beta"),
    *("inv_log_uniform", "inv_log_uniform_values", "q_log_uniform", "categorical_w_probabilities"),
)
KEYS = ("distribution", "value", "values", *ENDS, "q")
REFUSED = {
    "parameters": "cannot be nested; write one dotted key for each",
    "probabilities": "is not supported; Optuna draws all values with equal probability",
}


@dataclass(frozen=True)
class Choice:
    """One of several texts, written as on the command line; a single text is fixed."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """A number in [low, high]: whole or not, in steps from `low` or not, uniform or log-uniform."""

    low: float
    high: float
    whole: bool = False
    step: float | None = None
    log: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """The lower end, as an example."""
        return (as_text(self.low),)

    def as_choice(self) -> Choice:
        """Return every value, if there are finitely many. Raises ValueError otherwise."""
        if not self.whole or self.log:
            raise ValueError("a grid needs values: […]; not a range")
        if self.high - self.low >= VALUES:
            raise ValueError(f"a grid of more than {VALUES:,} values; list fewer")
        return Choice(tuple(as_text(n) for n in range(int(self.low), int(self.high) + 1)))


def read_parameter(node: Any) -> Choice | Range:
    """Read one parameter. Raises ValueError, with a message to append to `FILE: parameters.KEY:
    `."""
    if not isinstance(node, dict):
        raise ValueError(f"expected values: […], value: … or min and max, got {node!r}")
    kind = node.get("distribution")
    if kind not in (None, *DRAWN):
        problem = f"is not known; {nearest(str(kind), [*DRAWN])}"
        if kind in NOT_DRAWN:
            problem = f"cannot be drawn by Optuna; use one of {', '.join(DRAWN)}"
        raise ValueError(f"distribution {kind} {problem}")
    for key in node:
        if key not in KEYS:
            problem = f"is not known; {nearest(str(key), [*KEYS])}"
            raise ValueError(f"{key} {REFUSED.get(key, problem)}")
    kind = kind or _implied(node)
    keys = DRAWN[kind]
    if lacking := [key for key in keys if key not in node and key != "q"]:
        raise ValueError(f"distribution {kind} needs {' and '.join(lacking)}")
    if extra := sorted(node.keys() - {*keys, "distribution"}):
        raise ValueError(f"{', '.join(extra)} cannot be combined with {' and '.join(keys)}")
    if "min" in keys:
        return _range(kind, *(_number(node.get(key, 1), key) for key in (*ENDS, "q")))
    return _choice([node["value"]] if kind == "constant" else node["values"])


def _implied(node: dict[str, Any]) -> str:
    """Return the distribution that W&B infers from these keys."""
    if "value" in node or "values" in node:
        return "constant" if "value" in node else "categorical"
    if not {*ENDS} <= node.keys():
        raise ValueError("needs values: […], value: … or min and max")
    return "int_uniform" if all(type(node[key]) is int for key in ENDS) else "uniform"


def _choice(values: Any) -> Choice:
    if not isinstance(values, list) or not values:
        raise ValueError(f"values must be a list of at least one, got {values!r}")
    texts = tuple(map(_text, values))
    if repeated := sorted(text for text, times in Counter(texts).items() if times > 1):
        raise ValueError(f"values has {', '.join(repeated)} more than once")
    return Choice(texts)


def _text(value: Any) -> str:
    """Return a value as text for an override."""
    _refuse_disguised(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items()) + "}"
    if value == "":
        raise ValueError("a value is empty; null stands for none")
    return as_text(value)


def _range(kind: str, low: float, high: float, q: float) -> Range:
    whole, log = kind in ("int_uniform", "q_log_uniform_values"), "log" in kind
    if kind == "log_uniform":  # W&B: the exponents of e
        if high > 700:
            raise ValueError(f"max={high:g} is an exponent of e and must be at most 700")
        low, high = math.exp(low), math.exp(high)
    if not low < high:
        raise ValueError(f"min={low:g} is not below max={high:g}")
    if log and low <= 0:
        raise ValueError(f"min={low:g} must be positive for distribution {kind}")
    if whole and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"min={low:g} and max={high:g} must be whole numbers")
    if log and q != 1:
        raise ValueError(f"{kind} can only be drawn by Optuna with q: 1")
    if kind != "q_uniform":
        return Range(int(low), int(high), True, log=log) if whole else Range(low, high, log=log)
    if q <= 0:
        raise ValueError(f"q={q:g} must be positive")
    first, last = math.ceil(low / q - 1e-9), math.floor(high / q + 1e-9)  # its multiples
    if first >= last:
        raise ValueError(f"there are fewer than two multiples of q={q:g} from {low:g} to {high:g}")
    return Range(first * q, last * q, step=q)


def _number(value: Any, key: str) -> float:
    _refuse_disguised(value)
    number = convert(float, value, key)
    if not -LARGEST < number < LARGEST:
        raise ValueError(f"{key} is too large for any option")
    return number


def _refuse_disguised(value: Any) -> None:
    """Raise ValueError for a number that YAML 1.1 reads as text, such as 1e-3, as W&B would pass
    it on."""
    if isinstance(value, str) and NUMBER.match(value):
        if math.isinf(float(value)):
            raise ValueError(f"{value!r:.60} is too large for any option")
        written = "leave the quotes out"
        if "e" in value.lower():
            written = f"write {float(value):.1e}"
        raise ValueError(f"{value!r} is text to YAML, not a number; {written}")
