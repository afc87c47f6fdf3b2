"""Mistakes in a config, each in one line."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

from lcg import registry


class ConfigError(ValueError):
    """A config that cannot be used; the message is one line that says what to do."""


def one_line(error: Exception) -> str:
    """The message of an error, its lines joined."""
    return " ".join(str(error).split())


def find_class(kind: str, name: str) -> type:
    """The class that `name` stands for. Raises ConfigError, as `registry.find` says."""
    try:
        return registry.find(kind, name)
    except ValueError as error:
        raise ConfigError(one_line(error)) from error.__cause__


@contextmanager
def told_by(cls: type, where: str) -> Iterator[None]:
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
