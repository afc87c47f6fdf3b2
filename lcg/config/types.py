"""Conversion of YAML values and command-line text to the types of a dataclass's fields.

A command line gives only text, and YAML 1.1 reads some numbers as text too. Text is therefore read
as the type of its field; a value of another type is an error.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import types
import typing
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf

from lcg import registry
from lcg.config.errors import ConfigError, config_errors, find_class, kinds, unknown_option
from lcg.positional.base import PositionEncoding

COMPOSED = (PositionEncoding,)
"""Kinds of components that others are made of, each given by its name alone or as a mapping."""
NULL = ("null", "~", "None")  # W&B passes null as None
BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
WHOLE = re.compile(r"[-+]?\d+(_\d+)*$")
NUMBER = re.compile(r"[-+]?(\d+(_\d+)*\.?\d*|\.\d+)([eE][-+]?\d+)?$")
INFINITE = re.compile(r"[-+]?\.?inf$", re.IGNORECASE)
LARGEST = 10**300  # of whole numbers: beyond, floats cannot follow, nor does Python print all


def build(cls: type, values: Any, where: str) -> Any:
    """Return an instance of a dataclass from a mapping, each value converted to its field's type.

    `where` is the dotted path of the mapping. Raises ConfigError.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected fields, got {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    types_of = types_of_fields(cls, where)
    paths = {key: f"{where}.{key}".lstrip(".") for key in (*fields, *values)}
    converted = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"{paths[key]} is not an option{unknown_option(cls, where, key)}")
        default = getattr(fields[key].default_factory, "name", None)
        if default and isinstance(value, dict):  # of a part of an attention
            value = {"name": default} | value
        converted[key] = convert(types_of[key], value, paths[key])
    for name, f in fields.items():
        if name not in converted and f.default is f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{paths[name]} must be given, it has no default")
    with config_errors(cls, where):
        return cls(**converted)


def convert(kind: Any, value: Any, where: str) -> Any:
    """Convert a value to the type `kind`. Raises ConfigError, naming `where`."""
    arms = typing.get_args(kind)
    origin = typing.get_origin(kind) or kind
    if origin is Annotated:
        value = convert(arms[0], value, where)
        try:
            for rule in arms[1:]:
                rule.check(where, value)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return value
    if origin in (typing.Union, types.UnionType):
        return _union(arms, value, where)
    if kind in kinds():  # a class by its name, and its fields beside it
        value = {"name": value} if isinstance(value, str) and kind in COMPOSED else value
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ConfigError(f"{where}: expected a name and its fields, got {value!r}")
        cls = find_class(kinds()[kind], value["name"])
        return build(cls, {key: v for key, v in value.items() if key != "name"}, where)
    if origin in (Any, dict) or dataclasses.is_dataclass(kind):
        value = read_text(value) if isinstance(value, str) else value
    if dataclasses.is_dataclass(kind):
        return build(kind, {} if value is None else value, where)
    if kind is Any:
        return value
    if _is_null(value):
        raise ConfigError(f"{where}: null is not allowed")
    if origin is Literal:
        return _literal(arms, value, where)
    if origin in (list, tuple):
        return origin(_elements(origin, arms, value, where))
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected a mapping, got {value!r}")
        keys, values = arms or (Any, Any)
        items = value.items()
        return {convert(keys, k, where): convert(values, v, f"{where}.{k}") for k, v in items}
    if kind not in SIMPLE:
        return value
    read, words = SIMPLE[kind]
    if (converted := read(value)) is None:
        raise ConfigError(f"{where}: {value!r:.60} is not {words}")
    if type(converted) is int and abs(converted) >= LARGEST:
        raise ConfigError(f"{where}: {value!r:.60} is too large for any option")
    return converted


def read_text(text: str) -> Any:
    """Read a text as YAML; return the text itself if that fails."""
    try:
        return OmegaConf.to_container(OmegaConf.create(f"value: {text}"))["value"]
    except Exception:
        return text


def as_text(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | range):
        return ",".join(map(as_text, value)) or "[]"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


@cache
def types_of_fields(cls: type, where: str = "") -> dict[str, Any]:
    """Return the types of a dataclass's fields. Raises ConfigError for an unknown type."""
    tasks = {"Task": registry.base_class("task")}  # which the schema does not import
    try:
        return typing.get_type_hints(cls, localns=tasks, include_extras=True)
    except Exception as error:
        raise ConfigError(f"{where}: {cls.__name__} has an unknown type: {error}") from None


def _union(arms: tuple, value: Any, where: str) -> Any:
    others = [arm for arm in arms if arm is not type(None)]
    if len(others) < len(arms) and _is_null(value):
        return None
    if type(value) in others and not isinstance(value, str):
        return value
    if len(others) == 1:
        return convert(others[0], value, where)
    for arm in others:
        with suppress(ConfigError):
            return convert(arm, value, where)
    names = " or ".join(getattr(arm, "__name__", str(arm)) for arm in others)
    raise ConfigError(f"{where}: {value!r} is not {names}")


def _literal(options: tuple, value: Any, where: str) -> Any:
    known = {str(option): option for option in options}
    if str(value) not in known:
        hint = registry.nearest(str(value), list(known))
        raise ConfigError(f"{where}={value} is not known; {hint}")
    return known[str(value)]


def _elements(origin: type, arms: tuple, value: Any, where: str) -> list:
    """Return the elements of 64,128 or [64, 128]; a single value is a list of one."""
    if isinstance(value, dict):
        raise ConfigError(f"{where}: expected a list, got {value!r}")
    if isinstance(value, str) and value.startswith(("['", '["')):
        value = read_text(value)
    if isinstance(value, str):
        inner = value.strip().removeprefix("[").removesuffix("]").strip()
        value = [part.strip() for part in inner.split(",")] if inner else []
    parts = value if isinstance(value, list | tuple) else [value]
    each = arms if origin is tuple and arms and Ellipsis not in arms else None
    each = (arms[:1] or (Any,)) * len(parts) if each is None else each
    if len(each) != len(parts):
        raise ConfigError(f"{where}: expected {len(each)} values, got {len(parts)}")
    return [convert(kind, part, where) for kind, part in zip(each, parts, strict=True)]


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value in NULL)


# ---- None of a value that is not of the type


def _bool(value: Any) -> bool | None:
    value = BOOLS.get(value.lower()) if isinstance(value, str) else value
    return value if isinstance(value, bool) else None


def _int(value: Any) -> int | None:
    if isinstance(value, str) and NUMBER.match(value):
        value = int(value) if WHOLE.match(value) and len(value) < 500 else float(value)
    if isinstance(value, float):
        value = LARGEST if math.isinf(value) else int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Any) -> float | None:
    """Return a number as a float; a whole number beyond floats unchanged."""
    if isinstance(value, str) and (NUMBER.match(value) or INFINITE.match(value)):
        value = float(value.replace(".inf", "inf"))
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
        return None
    return float(value) if abs(value) <= sys.float_info.max or isinstance(value, float) else value


def _str(value: Any) -> str | None:
    return None if isinstance(value, bool | list | dict) else str(value)


SIMPLE = {
    bool: (_bool, "true or false"),
    int: (_int, "a whole number"),
    float: (_float, "a number"),
    str: (_str, "text; put it in quotes if it is"),
}
