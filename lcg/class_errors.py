"""From an exception to one line on the user's class whose method raised it."""

from __future__ import annotations

import inspect
import traceback
from contextlib import suppress

from lcg import registry


def fault(error: BaseException) -> str | None:
    """`Rotate.sample(): rotate.py:12: KeyError: 'x'`; None when no user's class was at work.

    A ValueError that a class words itself, beginning with its `name:`, is left as it is.
    """
    classes = registry.user_classes()
    files = {file for cls in classes for file in _files(cls)}
    steps = [f for f, _ in traceback.walk_tb(error.__traceback__) if f.f_code.co_filename in files]
    if not steps:
        return None
    if isinstance(error, SystemExit) and innermost(error) not in files:
        return None  # of a signal that came while the class was at work
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and text.startswith(tuple(f"{c.name}: " for c in classes)):
        return text
    hook = steps[0].f_code.co_qualname.partition(".<locals>")[0]
    return f"{hook}(): {registry.where_it_broke(error, steps[-1].f_code.co_filename)}"


def innermost(error: BaseException) -> str:
    """The file of the frame that an error was raised in."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code.co_filename


def _files(cls: type) -> list[str]:
    """The source files of a user's class and of what it inherits from beside ours."""
    found = []
    for one in cls.__mro__:
        if one.__module__.partition(".")[0] not in ("lcg", "builtins", "abc"):
            with suppress(TypeError, OSError):
                found.append(inspect.getfile(one))
    return found
