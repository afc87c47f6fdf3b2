"""From what YAML and a command line give to what the fields of a dataclass ask for.

A command line gives text only, and YAML 1.1 reads some numbers as text too; so text is read as
what the field's type asks for, and anything that is not of that type is refused.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from omegaconf import OmegaConf

from lcg import registry
from lcg.config.errors import ConfigError, config_errors

NULL = ("null", "~", "None")  # W&B passes null as None
BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
WHOLE = re.compile(r"[-+]?\d+(_\d+)*$")
NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?$")
LARGEST = 10**300  # of whole numbers: beyond, floats cannot follow, nor does Python print all
SHOWN = 60  # characters of a value in a message
INFINITE = re.compile(r"[-+]?\.?inf$", re.IGNORECASE)


def build(cls: type, values: Any, where: str, unknown: Callable[[str], str] | None = None) -> Any:
    """An instance of a dataclass from a mapping, each value converted to its field's type.

    `where` is the dotted path of the mapping, and `unknown(key)` what to say of a key that is no
    field. Raises ConfigError.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected fields, got {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    types_ = _types(cls, where)
    converted = {}
    for key, value in values.items():
        path = f"{where}.{key}".lstrip(".")
        if key not in fields:
            paths = [f"{where}.{name}".lstrip(".") for name in fields]
            hint = unknown(key) if unknown else f"; {registry.nearest(path, paths)}"
            raise ConfigError(f"{path} is not an option{hint}")
        converted[key] = convert(types_[key], value, path)
    for f in fields.values():
        if f.name not in converted and f.default is f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}.{f.name} must be given, it has no default")
    with config_errors(cls, where):
        return cls(**converted)


def convert(kind: Any, value: Any, where: str) -> Any:
    """A value as the type `kind`. Raises ConfigError, naming `where`."""
    arms = typing.get_args(kind)
    origin = typing.get_origin(kind) or kind
    if origin in (typing.Union, types.UnionType):
        return _union(arms, value, where)
    if kind is Any:
        return read_text(value) if isinstance(value, str) else value
    if _is_null(value):
        raise ConfigError(f"{where}: null is not possible here")
    if origin is Literal:
        return _literal(arms, value, where)
    if origin in (list, tuple):
        return origin(_elements(origin, arms, value, where))
    if origin is dict:
        value = read_text(value) if isinstance(value, str) else value
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected a mapping, got {value!r}")
        key_type, value_type = arms or (Any, Any)
        return {
            convert(key_type, k, where): convert(value_type, v, f"{where}.{k}")
            for k, v in value.items()
        }
    if dataclasses.is_dataclass(kind):
        return build(kind, read_text(value) if isinstance(value, str) else value, where)
    simple = {bool: _bool, int: _int, float: _float, str: _str}
    return simple[kind](value, where) if kind in simple else value


def read_text(text: str) -> Any:
    """Read a text as YAML; the text itself where YAML makes nothing of it."""
    try:
        return OmegaConf.to_container(OmegaConf.create(f"value: {text}"))["value"]
    except Exception:
        return text


def as_text(value: Any) -> str:
    """A value as it can be given on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(as_text, value)) or "[]"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value in NULL)


@cache
def _types(cls: type, where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except Exception as error:
        raise ConfigError(f"{where}: a type of {cls.__name__} is unknown: {error}") from None


def _union(arms: tuple, value: Any, where: str) -> Any:
    others = [arm for arm in arms if arm is not type(None)]
    if len(others) < len(arms) and _is_null(value):
        return None
    if type(value) in others and not isinstance(value, str):
        return value
    if len(others) == 1:
        return convert(others[0], value, where)
    for arm in others:
        try:
            return convert(arm, value, where)
        except ConfigError:
            continue
    names = " or ".join(getattr(arm, "__name__", str(arm)) for arm in others)
    raise ConfigError(f"{where}: {value!r} is not {names}")


def _literal(options: tuple, value: Any, where: str) -> Any:
    for option in options:
        if str(option) == str(value):
            return option
    known = [str(option) for option in options]
    raise ConfigError(f"{where}={value} is not known; {registry.nearest(str(value), known)}")


def _elements(origin: type, arms: tuple, value: Any, where: str) -> list:
    parts = _parts(value, where)
    places = arms if origin is tuple and arms and Ellipsis not in arms else None
    places = (arms[:1] or (Any,)) * len(parts) if places is None else places
    if len(places) != len(parts):
        raise ConfigError(f"{where}: expected {len(places)} values, got {len(parts)}")
    return [convert(place, part, where) for place, part in zip(places, parts, strict=True)]


def _parts(value: Any, where: str) -> list:
    """64,128 and [64, 128] as a list; a single value is a list of one."""
    if isinstance(value, dict):
        raise ConfigError(f"{where}: expected a list, got {value!r}")
    if not isinstance(value, str):
        return list(value) if isinstance(value, list | tuple) else [value]
    inner = value.strip().removeprefix("[").removesuffix("]").strip()
    return [part.strip() for part in inner.split(",")] if inner else []


def _bool(value: Any, where: str) -> bool:
    if isinstance(value, str):
        value = BOOLS.get(value.lower(), value)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {value!r} is not true or false")
    return value


def _int(value: Any, where: str) -> int:
    number = _whole(value)
    if number is None:
        raise ConfigError(f"{where}: {_shown(value)} is not a whole number")
    if not -LARGEST < number < LARGEST:
        raise ConfigError(f"{where}: {_shown(value)} is too large for any option")
    return number


def _whole(value: Any) -> int | float | None:
    """The whole number that a value stands for, infinity for one with thousands of digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and WHOLE.match(value):
        return int(value) if len(value) < 500 else math.inf
    numeric = isinstance(value, float) or (isinstance(value, str) and NUMBER.match(value))
    if not numeric:
        return None
    number = float(value)
    if math.isinf(number) and isinstance(value, str):  # 1e400
        return number
    return int(number) if number.is_integer() else None


def _shown(value: Any) -> str:
    """A value for a message: of a long one, its beginning."""
    text = repr(value) if not isinstance(value, int) or -LARGEST < value < LARGEST else "the number"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _float(value: Any, where: str) -> float:
    if isinstance(value, str) and (NUMBER.match(value) or INFINITE.match(value)):
        value = float(value.replace(".inf", "inf"))
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
        raise ConfigError(f"{where}: {_shown(value)} is not a number")
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{where}: {_shown(value)} is too large") from None


def _str(value: Any, where: str) -> str:
    if isinstance(value, bool | list | dict):
        raise ConfigError(f"{where}: {value!r} is not text; put it in quotes if it is")
    return str(value)
