"""Finds classes by name: a built-in name, `package.module:Class`, `path/to/file.py:Class`, or, for
copies, `folder:package.module:Class`.

Built-in classes are found by importing the modules of one package, none of which imports torch or
lightning, so every lookup is quick. Nothing is registered by hand: a class is available as soon as
its file exists.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType

from lcg.user_source import UserModule, local_root, version_of, without_prefix

# kind -> (where its classes are, its base class)
HOMES = {
    "task": ("lcg.tasks", "lcg.tasks.base:Task"),
    "position": ("lcg.positional", "lcg.positional.base:PositionEncoding"),
    "normalizer": ("lcg.attention.normalizers", "lcg.attention.normalizers.base:Normalizer"),
    "scaling": ("lcg.attention.scalings", "lcg.attention.scalings:QueryScaling"),
    "output_norm": ("lcg.attention.output_norms", "lcg.attention.output_norms:OutputNorm"),
    "mixer": ("lcg.attention.mixers", "lcg.attention.mixers:Mixer"),
    "loop": ("lcg.attention.mixers", "lcg.attention.mixers:Loop"),
}
NAME = re.compile(r"\w[\w.+-]{,63}")
"""The names a class may have: each is a part of the names of directories, and a label in tables."""

# Users' classes: the name by which each is found again, and where its code is.
_users: dict[type, tuple[str, UserModule | None]] = {}


class Unknown(ValueError):
    """No class has this name; the message is one line with the nearest valid name."""


def nearest(name: str, valid: list[str]) -> str:
    """Return a hint for an unknown name: the nearest valid name, or all of them."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(sorted(valid))}"


def base_class(kind: str) -> type:
    """Return the class from which every class of a kind derives."""
    module, _, attribute = HOMES[kind][1].partition(":")
    return getattr(importlib.import_module(module), attribute)


@cache
def available(kind: str) -> dict[str, type]:
    """Return every built-in class of a kind, by name."""
    home, base = HOMES[kind][0], base_class(kind)
    package = importlib.import_module(home)
    names = [info.name for info in pkgutil.iter_modules(getattr(package, "__path__", []))]
    classes: dict[str, type] = {}
    for module in [package, *(importlib.import_module(f"{home}.{name}") for name in names)]:
        for member in vars(module).values():
            is_named = inspect.isclass(member) and "name" in vars(member)
            if not (is_named and issubclass(member, base)):
                continue
            if classes.setdefault(member.name, member) is not member:
                raise ValueError(f"two {kind} classes are called {member.name!r}: {member}")
    return dict(sorted(classes.items()))


def find(kind: str, name: str) -> type:
    """Return the class with this name.

    Raises Unknown when there is none; ValueError, in one line, when it is not a complete dataclass
    of this kind or its file cannot be imported.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon:
        classes = available(kind)
        if name in classes:
            return classes[name]
        if name.endswith(".py") or "/" in name or "." in name:
            raise Unknown(f"{kind}={name} names no class; {_suggest_class(name)}")
        raise Unknown(f"{kind}={name} is not known; {nearest(name, list(classes))}")
    if not place or not attribute:
        raise Unknown(f"{kind}={name}: expected package.module:Class or path/to/file.py:Class")
    module = user_module(name)
    home = _import(module, place)
    if not hasattr(home, attribute):
        classes = [name for name, value in vars(home).items() if inspect.isclass(value)]
        hint = nearest(attribute, classes) if classes else "it defines none"
        raise Unknown(f"{place} has no class {attribute}; {hint}")
    cls = getattr(home, attribute)
    _check_class(kind, name, cls)
    if available(kind).get(cls.name) is not cls:
        if module is not None and (module.alone or place.endswith(".py")):  # from any folder
            file = (
                f"{module.root}:{module.name}"
                if module.alone
                else module.root / f"{module.name}.py"
            )
            name = f"{file}:{attribute}"
        _users[cls] = name, _users.get(cls, (name, module))[1]
    return cls


def name_of(cls: type) -> str | None:
    """Return a name that finds this class from any folder; None for a class of no kind."""
    return _users[cls][0] if cls in _users else getattr(cls, "name", None)


def where_it_broke(error: BaseException, file: Path | str | None = None) -> str:
    """Return `file.py:12: KeyError: 'x'`: the error, and the last line of a user's file before
    it."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if file is None or Path(f.filename) == Path(file)]
    text = without_prefix(" ".join(f"{type(error).__name__}: {error}".split())) + _new_home(error)
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    return f"{mine[-1].filename}:{mine[-1].lineno}: {text}" if mine else text


def _new_home(error: BaseException) -> str:
    """Return a hint for an import of lcg by the name that it had in older versions, else ''."""
    name = without_prefix((isinstance(error, ImportError) and error.name) or "")
    if name.partition(".")[0] in ("tasks", "positional"):
        with suppress(ImportError):
            if importlib.util.find_spec(f"lcg.{name}"):
                return f"; lcg's own is lcg.{name}"
    return ""


# ---- a user's own classes


def user_module(name: str) -> UserModule | None:
    """Return the user's own module of a class called `name`; None if it is installed.

    For `path/to/file.py:Class` and `package.module:Class`, installed modules take precedence over
    those in the same folder; for `folder:package.module:Class` the folder comes first. Nothing is
    imported. Raises Unknown for a missing file.
    """
    place = name.rpartition(":")[0]
    folder, colon, module = place.rpartition(":")
    if colon:
        return UserModule(Path(folder).expanduser().resolve(), module, alone=True)
    if place.endswith(".py"):
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            raise Unknown(f"there is no file {place} (looked for {path})")
        if "." in path.stem:
            raise Unknown(f"{place}: a module's name has no dots; rename the file")
        return UserModule(path.parent, path.stem)
    root = local_root(place)
    return None if root is None else UserModule(root.resolve(), place)


def user_module_of(cls: type) -> UserModule | None:
    """Return the user's own module of a class; None for a built-in or an installed class."""
    return _users.get(cls, (None, None))[1]


def identity_of(cls: type) -> str | None:
    """Return `Class@hash` for a user's own class, independent of its folder and file.

    `package.module:Class@version` for an installed class, None for a built-in one. Raises
    ValueError for source that cannot be read.
    """
    if cls not in _users:
        return None
    name, module = _users[cls]
    place, _, attribute = name.rpartition(":")
    return f"{name}@{version_of(place)}" if module is None else f"{attribute}@{module.digest}"


def _import(module: UserModule | None, place: str) -> ModuleType:
    try:
        return importlib.import_module(place) if module is None else module.load()
    except (Exception, SystemExit) as error:
        missing, dotted = "", place.rpartition(":")[2]
        if isinstance(error, ModuleNotFoundError) and not place.endswith(".py"):
            missing = without_prefix(error.name or "")
        if missing and f"{dotted}.".startswith(f"{missing}."):
            hint = "a file works too, as path/to/file.py:Class"
            raise Unknown(f"{place}: there is no module {missing}; {hint}") from None
        file = None if module is None else module.file_of(module.name)
        raise ValueError(where_it_broke(error, file)) from error


def _check_class(kind: str, name: str, found: object) -> None:
    """Raise ValueError, in one line, unless this is a complete dataclass of the kind."""
    base = base_class(kind)
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise ValueError(f"{name} must be a subclass of {HOMES[kind][1].replace(':', '.')}")
    label = found.__name__
    if "__dataclass_fields__" not in vars(found):
        raise ValueError(f"{name} is not a dataclass: put @dataclass above class {label}")
    fix = f'write `name: ClassVar[str] = "{label.lower()}"`'
    if any(f.name == "name" for f in dataclasses.fields(found)):
        raise ValueError(f"{name}: `name` must not be a field; {fix}")
    if not isinstance(getattr(found, "name", None), str):
        raise ValueError(f"{name} has no `name`; {fix}")
    if not NAME.fullmatch(found.name):
        raise ValueError(
            f"{name}: `name` is {found.name!r:.80}; write a letter or digit, and then up to 63 "
            "letters, digits, or any of _ . + -"
        )
    if inspect.isabstract(found):
        raise ValueError(f"{name} lacks {', '.join(sorted(found.__abstractmethods__))}()")


def _suggest_class(name: str) -> str:
    """Return a hint for a file or module that was named without its class."""
    path = Path(name).expanduser()
    if not name.endswith(".py"):
        return f"write {name}.py:Class for a file, or package.module:Class"
    if not path.is_file():
        return f"write {name}:Class (but there is no such file)"
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError, OSError):
        body = []
    classes = [node.name for node in body if isinstance(node, ast.ClassDef)] or ["Class"]
    return "did you mean " + " or ".join(f"{name}:{c}" for c in classes) + "?"


def fault(error: BaseException) -> str | None:
    """Return `Rotate.sample(): rotate.py:12: KeyError: 'x'`; None if no user's class raised the
    error.

    A ValueError whose message begins with the `name:` of the class is not changed.
    """
    files = {file for cls in _users for file in _files(cls)}
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    theirs = [code for code in codes if code.co_filename in files]
    if not theirs or (isinstance(error, SystemExit) and theirs[-1] is not codes[-1]):
        return None  # an exit from outside is of a signal that came while the class was at work
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and text.startswith(tuple(f"{c.name}: " for c in _users)):
        return text
    hook = theirs[0].co_qualname.partition(".<locals>")[0]
    return f"{hook}(): {where_it_broke(error, theirs[-1].co_filename)}"


def _files(cls: type) -> list[str]:
    """Return the source files of a user's class and of its base classes outside lcg."""
    files = []
    for one in cls.__mro__:
        if one.__module__.partition(".")[0] not in ("lcg", "builtins", "abc"):
            with suppress(TypeError, OSError):
                files.append(inspect.getfile(one))
    return files
