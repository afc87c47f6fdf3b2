"""Errors in a config, each in one line."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from lcg import registry
from lcg.attention import Attention
from lcg.config.schema import ATTENTION_PARTS, COMPONENTS, PLAIN, SECTIONS


class ConfigError(ValueError):
    """An invalid config; the message is one line that says what to do."""


def one_line(error: Exception) -> str:
    """Return the message of an error in one line; Python's advice on long numbers is replaced."""
    message = " ".join(str(error).split())
    if "set_int_max_str_digits" in message:
        return "a number has thousands of digits; that is too large for any option"
    return message


@contextmanager
def config_errors(cls: type, where: str) -> Iterator[None]:
    """Turn an error that a class raises about its options into a ConfigError that begins with
    `where`.

    If a user's class fails, the message names the line of its file. If a built-in class fails, that
    is a bug and keeps its traceback.
    """
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where}: {one_line(error)}".removeprefix(": ")) from None
    except Exception as error:
        if cls.__module__.partition(".")[0] == "lcg":
            raise
        file = inspect.getfile(cls)
        raise ConfigError(f"{where}: {registry.where_it_broke(error, file)}") from error


def find_class(kind: str, name: str) -> type:
    """Return the class with this name. Raises ConfigError where `registry.find` raises."""
    try:
        return registry.find(kind, name)
    except ValueError as error:
        raise ConfigError(one_line(error)) from error.__cause__


OPTIONS = (*COMPONENTS, *SECTIONS, *PLAIN)


@cache
def kinds() -> dict[type, str]:
    """Return the kind of component of each base class; that of tasks imports numpy."""
    return {registry.base_class(kind): kind for kind in registry.HOMES}


def check_keys(keys: Iterable[Any], where: str = "") -> None:
    """Raise ConfigError unless every (dotted) key begins with an option of the whole config."""
    for key in map(str, keys):
        if key.partition(".")[0] not in OPTIONS:
            hint = suggestion(key, OPTIONS, all_options())
            raise ConfigError(f"{where}{key} is not an option{hint}")


def unknown_option(cls: type, where: str, key: str) -> str:
    """Return ` of copy, but of sort` or `; did you mean …?` for a key that is not a field of a
    dataclass."""
    own = [f"{where}.{f.name}".lstrip(".") for f in dataclasses.fields(cls) if f.init]
    kind = next((kind for base, kind in kinds().items() if issubclass(cls, base)), None)
    if kind is None:
        elsewhere = all_options() if where.partition(".")[0] in OPTIONS else ()
        return suggestion(key, own, elsewhere)
    classes = registry.available(kind).items()
    owners = [name for name, other in classes if key in other.__dataclass_fields__]
    return f" of {cls.name}, but of {', '.join(owners)}" if owners else suggestion(key, own)


def suggestion(key: str, own: Sequence[str], elsewhere: Sequence[str] = ()) -> str:
    """Return `; did you mean …?`: an option with the same last name, a similar one, or all of
    `own`."""
    everywhere, last = dict.fromkeys([*own, *elsewhere]), _last(key)
    same = [option for option in everywhere if _last(option) == last]
    for options in (same, own, everywhere):
        near = difflib.get_close_matches(last, map(_last, options), n=1, cutoff=0.6)
        if near:
            close = [option for option in options if _last(option) in near]
            return f"; did you mean {' or '.join(close)}?"
    return f"; choose from {', '.join(own) or 'none'}"


def _last(option: str) -> str:
    return option.rpartition(".")[2]


def all_options() -> list[str]:
    """Return the dotted paths of all options except those of tasks and position encodings."""
    classes = [*SECTIONS.items(), ("attention", Attention)]
    for part in ATTENTION_PARTS:
        classes += [(f"attention.{part}", cls) for cls in registry.available(part).values()]
    fields = [f"{path}.{f.name}" for path, cls in classes for f in dataclasses.fields(cls)]
    return list(dict.fromkeys([*OPTIONS, *fields]))


def options_called(name: str) -> list[str]:
    """Return the options of the config that a name may mean: `lr` is optimizer.lr."""
    options = ["experiment", *all_options()]
    return [option for option in options if name in (option, _last(option))]
