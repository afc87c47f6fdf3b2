"""From a name to a class: built-in names, `package.module:Class`, and `path/to/file.py:Class`.

Built-in classes are found by importing the modules of one package, none of which imports torch or
lightning, so every lookup is quick. Nothing is registered by hand: a class is known the moment its
file is there.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import traceback
import zlib
from functools import cache
from pathlib import Path
from types import ModuleType

# kind -> (where its classes are, its base class)
HOMES = {
    "task": ("lcg.tasks", "lcg.tasks.base:Task"),
    "position": ("lcg.positional", "lcg.positional.base:PositionEncoding"),
    "normalizer": ("lcg.attention.normalizers", "lcg.attention.normalizers.base:Normalizer"),
    "scaling": ("lcg.attention.scalings", "lcg.attention.scalings:QueryScaling"),
    "output_norm": ("lcg.attention.output_norms", "lcg.attention.output_norms:OutputNorm"),
}
NAME = re.compile(r"\w[\w.+-]{,63}")
"""What a class may be called: a part of the names of directories, and a label in tables."""

_lasting_names: dict[type, str] = {}  # of users' classes, by which they are found again


class Unknown(ValueError):
    """A name that nothing answers to; the message is one line and names the nearest."""


def nearest(name: str, valid: list[str]) -> str:
    """A hint for an unknown name: the nearest valid one, or all of them."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(sorted(valid))}"


def base_class(kind: str) -> type:
    """What every class of a kind derives from."""
    module, _, attribute = HOMES[kind][1].partition(":")
    return getattr(importlib.import_module(module), attribute)


@cache
def available(kind: str) -> dict[str, type]:
    """Every built-in class of a kind, by name."""
    home, base = HOMES[kind][0], base_class(kind)
    package = importlib.import_module(home)
    modules = [package]
    for info in pkgutil.iter_modules(getattr(package, "__path__", [])):
        modules.append(importlib.import_module(f"{home}.{info.name}"))
    found: dict[str, type] = {}
    for module in modules:
        for member in vars(module).values():
            if not (
                inspect.isclass(member) and issubclass(member, base) and "name" in vars(member)
            ):
                continue
            if found.setdefault(member.name, member) is not member:
                raise ValueError(f"two {kind} classes are called {member.name!r}: {member}")
    return dict(sorted(found.items()))


def find(kind: str, name: str) -> type:
    """The class that `name` stands for.

    Raises Unknown when nothing answers to it, ValueError, in one line, when what does is no
    complete dataclass of this kind or its file cannot be imported.
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
    module = _from_file(place) if place.endswith(".py") else _from_package(place)
    found = _attribute(module, attribute, place)
    _check_class(kind, name, found)
    if available(kind).get(found.name) is not found:
        _lasting_names[found] = _lasting(name)
    return found


def name_of(cls: type) -> str | None:
    """The name that finds this class again from any folder; None for a class of no kind."""
    return _lasting_names.get(cls) or getattr(cls, "name", None)


def user_classes() -> list[type]:
    """The users' classes found so far."""
    return list(_lasting_names)


def source_file(cls: type) -> Path | None:
    """The file a user's own class came from; None for a built-in one."""
    if any(cls is known for kind in HOMES for known in available(kind).values()):
        return None
    return Path(inspect.getfile(cls))


def where_it_broke(error: BaseException, file: str | None = None) -> str:
    """`file.py:12: KeyError: 'x'`: an error with the last line of a user's file that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if file is None or Path(f.filename) == Path(file)]
    text = " ".join(f"{type(error).__name__}: {error}".split()) + _new_home(error)
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    return f"{mine[-1].filename}:{mine[-1].lineno}: {text}" if mine else text


def _new_home(error: BaseException) -> str:
    """A hint for an import of ours by the name that it had in older versions, else nothing."""
    name = (isinstance(error, ImportError) and error.name) or ""
    if name.partition(".")[0] in ("tasks", "positional"):
        with contextlib.suppress(ImportError):
            if importlib.util.find_spec(f"lcg.{name}"):
                return f"; lcg's own is lcg.{name}"
    return ""


# ---- a user's own classes


def _from_package(name: str) -> ModuleType:
    _search_also(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"{name}: {where_it_broke(error)}") from error
        hint = "a file works too, as path/to/file.py:Class"
        raise Unknown(f"{name}: there is no module {error.name}; {hint}") from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name}: {where_it_broke(error)}") from error


def _from_file(place: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise Unknown(f"there is no file {place} (looked for {path})")
    # Of the path and not of its name alone: two files called task.py are two modules.
    module_name = f"lcg_user_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    if module_name not in sys.modules:
        _search_also(path.parent)  # a file may import its neighbours
        spec = importlib.util.spec_from_file_location(module_name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[module_name]
            raise ValueError(where_it_broke(error, str(path))) from error
    return sys.modules[module_name]


def _search_also(folder: Path) -> None:
    """Import from this folder too, last of all, so that nothing in it shadows anything else."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _attribute(module: ModuleType, attribute: str, place: str) -> type:
    if not hasattr(module, attribute):
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        hint = nearest(attribute, classes) if classes else "it defines none"
        raise Unknown(f"{place} has no class {attribute}; {hint}")
    return getattr(module, attribute)


def _check_class(kind: str, name: str, found: object) -> None:
    """Raise ValueError, saying what to write, unless this is a complete dataclass of the kind."""
    base = base_class(kind)
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise ValueError(f"{name} is no {kind}: derive it from {HOMES[kind][1].replace(':', '.')}")
    label = found.__name__
    if "__dataclass_fields__" not in vars(found):
        raise ValueError(f"{name} is no dataclass: put @dataclass above class {label}")
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


def _lasting(name: str) -> str:
    """A name that means the same from any folder: the path of a user's file made absolute."""
    place, _, attribute = name.rpartition(":")
    return f"{Path(place).expanduser().resolve()}:{attribute}" if place.endswith(".py") else name


def _suggest_class(name: str) -> str:
    """How to name a class of a file or module that was named alone."""
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
