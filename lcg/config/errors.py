"""Mistakes in a config, each in one line."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lcg import registry
from lcg.config.schema import COMPONENTS, PLAIN, SECTIONS


class ConfigError(ValueError):
    """A config that cannot be used; the message is one line that says what to do."""


def one_line(error: Exception) -> str:
    """The message of an error, its lines joined; Python's advice on long numbers replaced."""
    message = " ".join(str(error).split())
    if "set_int_max_str_digits" in message:
        return "a whole number has thousands of digits, too large for any option"
    return message


def find_class(kind: str, name: str) -> type:
    """The class that `name` stands for. Raises ConfigError, as `registry.find` says."""
    try:
        return registry.find(kind, name)
    except ValueError as error:
        raise ConfigError(one_line(error)) from error.__cause__


@contextmanager
def config_errors(cls: type, where: str) -> Iterator[None]:
    """Turn what a class says of its own options into a ConfigError that begins with `where`.

    A user's class that breaks is answered by the line of its file; one of ours that breaks is a
    fault of ours and keeps its traceback.
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


OPTIONS = (*COMPONENTS, *SECTIONS, *PLAIN)


def check_keys(keys: Iterable[Any], where: str = "") -> None:
    """Raise ConfigError unless every (dotted) key begins with an option of the whole config."""
    for key in map(str, keys):
        if key.partition(".")[0] not in OPTIONS:
            hint = suggestion(key, OPTIONS, all_fields())
            raise ConfigError(f"{where}{key} is not an option{hint}")


def hint_in(section: str, cls: type) -> Callable[[str], str]:
    """Make the hint for a key that is no field of a section."""
    own = [f"{section}.{f.name}" for f in dataclasses.fields(cls)]
    return lambda key: suggestion(f"{section}.{key}", own, all_fields())


def hint_of(kind: str, path: str, cls: type) -> Callable[[str], str]:
    """Make the hint for a key that is no field of a component: another class may have it."""
    own = [f.name for f in dataclasses.fields(cls)]

    def hint(key: str) -> str:
        close = difflib.get_close_matches(key, own, n=1, cutoff=0.6)
        if close:
            return f"; did you mean {path}.{close[0]}?"
        others = registry.available(kind).items()
        owners = [name for name, other in others if key in other.__dataclass_fields__]
        if owners:
            return f" of {cls.name}, but of {', '.join(owners)}"
        return f" of {cls.name}, which has {', '.join(own) or 'none'}"

    return hint


def suggestion(key: str, own: Sequence[str], elsewhere: Sequence[str] = ()) -> str:
    """`; did you mean …?`: one of the same last name, a near one, or all of `own`."""
    everywhere = dict.fromkeys([*own, *elsewhere])
    last = _last(key)
    same = [option for option in everywhere if _last(option) == last]
    near_own = difflib.get_close_matches(last, map(_last, own), n=1, cutoff=0.6)
    near = difflib.get_close_matches(last, map(_last, everywhere), n=1, cutoff=0.6)
    close = same or [option for option in own if _last(option) in near_own]
    close = close or [option for option in everywhere if _last(option) in near]
    return f"; did you mean {' or '.join(close)}?" if close else f"; choose from {', '.join(own)}"


def _last(option: str) -> str:
    return option.rpartition(".")[2]


def all_fields() -> list[str]:
    """Dotted paths of the fields of every section."""
    return [f"{s}.{f.name}" for s, cls in SECTIONS.items() for f in dataclasses.fields(cls)]


def options_called(name: str) -> list[str]:
    """The options of the whole config that somebody may mean by a name: `lr` is optimizer.lr."""
    known = ["experiment", *OPTIONS, *all_fields()]
    return [option for option in known if name in (option, _last(option))]
