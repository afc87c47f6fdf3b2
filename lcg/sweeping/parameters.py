"""The `parameters` of a W&B sweep file: what may be chosen, and how likely each choice is.

Only what both W&B and Optuna can draw is accepted; anything else is refused by its name.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from lcg.config.load import VALUES
from lcg.config.types import LARGEST, NUMBER, as_text
from lcg.registry import nearest

KEYS = ("value", "values", "distribution", "min", "max", "q")
DRAWN = (
    *("constant", "categorical", "uniform", "q_uniform", "int_uniform"),
    *("log_uniform", "log_uniform_values", "q_log_uniform_values"),
)
NOT_DRAWN = (
    *("normal", "q_normal", "log_normal", "q_log_normal", "beta", "q_beta"),
    *("inv_log_uniform", "inv_log_uniform_values", "q_log_uniform", "categorical_w_probabilities"),
)


@dataclass(frozen=True)
class Choice:
    """One of some texts, each as it stands on the command line; one text alone is fixed."""

    texts: tuple[str, ...]

    @property
    def first(self) -> str:
        """An example."""
        return self.texts[0]


@dataclass(frozen=True)
class Range:
    """A number in [low, high]: whole or not, in steps from `low` or not, uniform or log-uniform."""

    low: float
    high: float
    whole: bool = False
    step: float | None = None
    log: bool = False

    @property
    def first(self) -> str:
        """An example."""
        return as_text(self.low)

    def texts(self) -> tuple[str, ...]:
        """Every value, where there are finitely many. Raises ValueError where there are not."""
        if not self.whole or self.log:
            raise ValueError("a grid needs values: […]; a range has no end of them")
        if self.high - self.low >= VALUES:
            raise ValueError(f"a grid of more than {VALUES:,} values; write those that are meant")
        return tuple(as_text(n) for n in range(int(self.low), int(self.high) + 1))


def read_parameter(node: Any) -> Choice | Range:
    """One parameter. Raises ValueError, whose message goes on after `FILE: parameters.KEY: `."""
    if not isinstance(node, dict):
        raise ValueError(f"expected values: […], value: … or min and max, got {node!r}")
    if "parameters" in node:
        raise ValueError("nested parameters are not supported; write one dotted key for each")
    if "probabilities" in node:
        raise ValueError("probabilities cannot be had; Optuna draws all values alike")
    _check_distribution(node.get("distribution"))
    for key in node:
        if key not in KEYS:
            raise ValueError(f"{key} is not known; {nearest(str(key), list(KEYS))}")
    if "value" in node and "values" in node:
        raise ValueError("value and values are both given; keep one")
    kind = _kind(node)
    if kind in ("constant", "categorical"):
        return _choice(node, kind)
    return _range(node, kind)


def _check_distribution(named: Any) -> None:
    if named in NOT_DRAWN:
        raise ValueError(
            f"distribution {named} cannot be drawn by Optuna; use one of {', '.join(DRAWN)}"
        )
    if named is not None and named not in DRAWN:
        raise ValueError(f"distribution {named} is not known; {nearest(str(named), [*DRAWN])}")


def _kind(node: dict[str, Any]) -> str:
    """The distribution that is named, or that W&B takes for these keys."""
    if node.get("distribution") is not None:
        return node["distribution"]
    if "value" in node:
        return "constant"
    if "values" in node:
        return "categorical"
    if "min" in node and "max" in node:
        whole = all(type(node[key]) is int for key in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    raise ValueError("needs values: […], value: … or min and max")


def _choice(node: dict[str, Any], kind: str) -> Choice:
    key = "value" if kind == "constant" else "values"
    if key not in node:
        raise ValueError(f"distribution {kind} needs {key}")
    if extra := sorted(set(node) - {key, "distribution"}):
        raise ValueError(f"{', '.join(extra)} has no meaning beside {key}")
    values = [node["value"]] if key == "value" else node["values"]
    if not isinstance(values, list) or not values:
        raise ValueError(f"values must be a list of at least one, got {values!r}")
    texts = tuple(_text(value) for value in values)
    if repeated := sorted(text for text, times in Counter(texts).items() if times > 1):
        raise ValueError(f"values has {', '.join(repeated)} more than once")
    return Choice(texts)


def _text(value: Any) -> str:
    """A value as an override has it."""
    _no_disguised_number(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items()) + "}"
    if value == "":
        raise ValueError("a value is empty; null stands for none")
    return as_text(value)


def _range(node: dict[str, Any], kind: str) -> Range:
    for key in ("min", "max"):
        if key not in node:
            raise ValueError(f"distribution {kind} needs {key}")
    if "value" in node or "values" in node:
        raise ValueError(f"distribution {kind} takes min and max, not values")
    if "q" in node and not kind.startswith("q_"):
        raise ValueError(f"q has no meaning for distribution {kind}")
    low, high = (_number(node[key], key) for key in ("min", "max"))
    if kind == "log_uniform":  # W&B: the exponents of e
        if high > 700:
            raise ValueError(f"max={high:g} is an exponent of e and must be at most 700")
        low, high = math.exp(low), math.exp(high)
    if not low < high:
        raise ValueError(f"min={low:g} is not below max={high:g}")
    if "log" in kind and low <= 0:
        raise ValueError(f"min={low:g} must be positive for distribution {kind}")
    if kind == "int_uniform":
        return Range(_whole(low, "min"), _whole(high, "max"), whole=True)
    if kind == "q_uniform":
        return _quantised(low, high, _number(node.get("q", 1), "q"))
    if kind == "q_log_uniform_values":
        if node.get("q", 1) != 1:
            raise ValueError("q_log_uniform_values can only be drawn by Optuna with q: 1")
        return Range(_whole(low, "min"), _whole(high, "max"), whole=True, log=True)
    return Range(low, high, log="log" in kind)


def _quantised(low: float, high: float, q: float) -> Range:
    """The multiples of q in [low, high]."""
    if q <= 0:
        raise ValueError(f"q={q:g} must be positive")
    first, last = math.ceil(low / q - 1e-9), math.floor(high / q + 1e-9)
    if first >= last:
        raise ValueError(f"there are not two multiples of q={q:g} from {low:g} to {high:g}")
    return Range(first * q, last * q, step=q)


def _number(value: Any, key: str) -> float:
    _no_disguised_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(f"{key}: {value!r} is not a number")
    if not -LARGEST < value < LARGEST:
        raise ValueError(f"{key} is too large for any option")
    return float(value)


def _whole(value: float, key: str) -> int:
    if not value.is_integer():
        raise ValueError(f"{key}={value:g} is not a whole number")
    return int(value)


def _no_disguised_number(value: Any) -> None:
    """YAML 1.1 reads 1e-3 as text, which W&B would hand on as such."""
    if isinstance(value, str) and NUMBER.match(value):
        if math.isinf(float(value)):
            raise ValueError(f"{value!r:.60} is too large for any option")
        raise ValueError(
            f"{value!r} is text to YAML, not a number; write {float(value):.1e}"
            if "e" in value.lower()
            else f"{value!r} is text, not a number; leave the quotes out"
        )
