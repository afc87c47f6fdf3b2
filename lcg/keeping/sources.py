"""The code of users' own classes, kept in a run directory so that the run is whole without them.

RUN/sources/task/rotate.py, helper.py, …   the modules of the task, by kind of class
RUN/sources/origins.json                   the user's own file that each was copied from
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any, Literal

from lcg import registry
from lcg.config import SOURCES, Config, part_nodes, user_modules
from lcg.results import write_atomic
from lcg.user_source import place_of, same_code

ORIGINS = "origins.json"
FLAG = "--trust-source"
HELP = "run the code of users' classes that a run keeps, whatever it is"

Trust = Literal["none", "own", "any"]
"""Which code of users' classes may run: none, what is this machine's own as well, any."""


def copy_sources(config: Config, directory: Path) -> None:
    """Write the modules of a run's user classes, and where they came from, into its directory."""
    origins: dict[str, Any] = {}
    for kind, module in user_modules(config).items():
        for place, content in module.copied().items():
            write_atomic(directory / SOURCES / kind / place, content)
        files = {place_of(name, path): str(path) for name, path in module.files.items()}
        origins[kind] = {"files": files, "packages": module.packages}
    if origins:
        write_atomic(directory / SOURCES / ORIGINS, json.dumps(origins, indent=1) + "\n")


def locate_sources(directory: Path, tree: dict[str, Any], trust: Trust) -> list[str]:
    """Make the names of users' classes in a run's config lead to their copies; import nothing.

    A copy is this machine's own code when each of its files says the same as the file that it was
    copied from, which lies outside the folder of the run. Returns a line for all that differs, and
    for each package that is of another version here.

    Raises ValueError where something differs and `trust` is not "any", and for any class of a
    user's when it is "none".
    """
    origins = _origins(directory)
    differences, notes, users = [], [], []
    for kind, node in part_nodes(tree).items():
        name = node.get("name")
        if not isinstance(name, str) or ":" not in name:
            continue
        users.append(name)
        copied = re.fullmatch(rf"{SOURCES}/{kind}:(?:\w|-)+(?:\.\w+)*:\w+", name)
        origin = _mapping(origins.get(kind))
        if copied:
            node["name"] = f"{directory.resolve()}/{name}"
            differences += _differences(directory / SOURCES / kind, origin)
        elif registry.user_module(name) is not None:
            differences.append(f"{name} was never copied into it (an older lcg trained it)")
        notes += _other_versions(origin)
    if users and trust == "none":
        raise ValueError(
            f"{directory} has code of its own ({', '.join(users)}), which runs with {FLAG} alone"
        )
    if differences and trust == "own":
        raise ValueError(
            f"{directory}: {'; '.join(differences)}. Read this code, then add {FLAG} to run it"
        )
    return [f"{directory}: {line}" for line in (*differences, *notes)]


def _differences(folder: Path, origin: dict[str, Any]) -> list[str]:
    files = _mapping(origin.get("files"))
    copies = sorted(folder.rglob("*.py"))
    found = [] if copies else [f"{folder} has no code"]
    for copy in copies:
        own = files.get(copy.relative_to(folder).as_posix())
        if not isinstance(own, str) or not _is_outside(Path(own), folder):
            found.append(f"{copy} has no original on this machine")
        elif not Path(own).exists():
            found.append(f"{copy} has no original on this machine (there is no {own})")
        elif not same_code(copy, Path(own)):
            found.append(f"{copy} differs from {own}, and is what the run was trained with")
    return found


def _is_outside(own: Path, folder: Path) -> bool:
    """False for a path inside the folder that holds the run, which came with it perhaps."""
    runs = folder.resolve().parents[2]
    return own.is_absolute() and not own.resolve().is_relative_to(runs)


def _other_versions(origin: dict[str, Any]) -> list[str]:
    found = []
    for package, version in _mapping(origin.get("packages")).items():
        try:
            here = importlib.metadata.version(str(package))
        except importlib.metadata.PackageNotFoundError:
            here = None
        if here != version:
            found.append(f"it was trained with {package} {version}; here is {here or 'none'}")
    return found


def _origins(directory: Path) -> dict[str, Any]:
    try:
        return _mapping(json.loads((directory / SOURCES / ORIGINS).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
