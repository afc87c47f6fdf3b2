"""From a name to a class: built-in names, `package.module:Class`, and `path/to/file.py:Class`.

Built-in classes are found by importing the modules of one package, none of which imports torch or
lightning, so every lookup is quick. Nothing is registered by hand: a class is known the moment its
file is there.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from functools import cache
from pathlib import Path

# kind -> (where its classes are, its base class)
HOMES = {
    "task": ("tasks", "tasks.base:Task"),
    "position": ("positional", "positional.base:PositionEncoding"),
    "normalizer": ("lcg.attention.normalizers", "lcg.attention.normalizers.base:Normalizer"),
    "scaling": ("lcg.attention.scalings", "lcg.attention.scalings:QueryScaling"),
    "output_norm": ("lcg.attention.output_norms", "lcg.attention.output_norms:OutputNorm"),
}


class Unknown(ValueError):
    """A name that nothing answers to; the message is one line and names the nearest."""


def nearest(name: str, valid: list[str]) -> str:
    """A hint for an unknown name: the nearest valid one, or all of them."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(sorted(valid))}"


@cache
def available(kind: str) -> dict[str, type]:
    """Every built-in class of a kind, by name."""
    home, base = HOMES[kind][0], _load(*HOMES[kind][1].split(":"))
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

    Raises Unknown when nothing answers to it, ValueError when it is not a dataclass of this kind.
    """
    if ":" not in name:
        classes = available(kind)
        if name not in classes:
            raise Unknown(f"{kind}={name} is not known; {nearest(name, list(classes))}")
        return classes[name]
    place, _, attribute = name.rpartition(":")
    found = _from_file(place, attribute) if place.endswith(".py") else _load(place, attribute)
    base = _load(*HOMES[kind][1].split(":"))
    if not (inspect.isclass(found) and issubclass(found, base) and dataclasses.is_dataclass(found)):
        raise ValueError(f"{kind}={name} is not a dataclass derived from {HOMES[kind][1]}")
    return found


def source_file(cls: type) -> Path | None:
    """The file a user's own class came from; None for a built-in one."""
    if any(cls is known for kind in HOMES for known in available(kind).values()):
        return None
    return Path(inspect.getfile(cls))


def _load(module_name: str, attribute: str) -> type:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, so that a user's folders never shadow ours
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        hint = "; a file works too, as path/to/file.py:Class"
        top = module_name.partition(".")[0]
        if top in ("tasks", "positional", "lcg"):
            hint = f"; {top} is lcg's own package, so name yours by its file: ./{top}/….py:Class"
        raise Unknown(f"{module_name}:{attribute}: {error}{hint}") from None
    return _attribute(module, attribute, module_name)


def _from_file(place: str, attribute: str) -> type:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise Unknown(f"{place}:{attribute}: there is no file {path}")
    module_name = f"lcg_user_{path.stem}_{abs(hash(str(path))):x}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise ValueError(f"{place}: {type(error).__name__}: {error}") from error
    return _attribute(sys.modules[module_name], attribute, place)


def _attribute(module, attribute: str, place: str) -> type:
    if not hasattr(module, attribute):
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        raise Unknown(f"{place} has no class {attribute}; {nearest(attribute, classes)}")
    return getattr(module, attribute)
