"""The code of users' own classes, copied into the run directory.

RUN/sources/task/rotate.py, helper.py, …   the modules of the task, by kind of class
RUN/sources/origins.json                   the user's own file that each was copied from
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from lcg import registry
from lcg.config import Config, to_tree
from lcg.config.identity import kind_of, part_nodes, parts, user_modules
from lcg.runs.files import SOURCES, write_atomic
from lcg.runs.provenance import package_version
from lcg.runs.record import read_mapping
from lcg.user_source import UserModule, is_for_lcg, place_of, same_code

ORIGINS = "origins.json"
FLAG = "--trust-source"
HELP = "run the copies of your own classes in a run even if they differ from your files"

Trust = Literal["none", "own", "any"]
"""Code of users' classes that may run: none, what is this machine's own as well, any."""


def run_yaml(config: Config) -> str:
    """Return the config as stored in a run directory: users' classes are named by their copies.

    `locate_sources` maps these names to the copies.
    """
    tree = to_tree(config)
    for kind, module in user_modules(config).items():
        node = part_nodes(tree)[kind]
        attribute = node["name"].rpartition(":")[2]
        node["name"] = f"{SOURCES}/{kind}:{module.name}:{attribute}"
    return OmegaConf.to_yaml(OmegaConf.create(tree))


def copy_sources(config: Config, directory: Path) -> None:
    """Write the modules of a run's user classes, and their origins, into its directory."""
    modules = user_modules(config)
    _write(modules, directory / SOURCES)
    if modules:
        origins = {
            kind: {"root": str(m.root), "module": m.name, "alone": m.alone, "packages": m.packages}
            for kind, m in modules.items()
        }
        write_atomic(directory / SOURCES / ORIGINS, json.dumps(origins, indent=1) + "\n")


def check_copies(config: Config) -> None:
    """Raise ValueError for users' classes that cannot be loaded from a copy of their code.

    Such classes import a module that is neither in their folder nor installed, or read a file when
    they are imported.
    """
    modules = user_modules(config)
    with tempfile.TemporaryDirectory() as folder:
        _write(modules, Path(folder))
        for kind, module in modules.items():
            attribute = registry.name_of(type(parts(config)[kind])).rpartition(":")[2]
            if unknown := module.unknown:
                raise ValueError(
                    f"{module.file_of(module.name)} imports {', '.join(unknown)}, which is "
                    "neither in its folder nor installed, so the run cannot keep it; put it there"
                )
            try:
                registry.find(kind_of(kind), f"{folder}/{kind}:{module.name}:{attribute}")
            except ValueError as error:
                raise ValueError(
                    f"the run cannot keep the code of {attribute}, because a copy of it fails: "
                    f"{error}; it may import modules of its folder, and read files named in fields"
                ) from None


def _write(modules: dict[str, UserModule], folder: Path) -> None:
    for kind, module in modules.items():
        for place, content in module.copied().items():
            write_atomic(folder / kind / place, content)


def locate_sources(directory: Path, tree: dict[str, Any], trust: Trust) -> list[str]:
    """Map the names of users' classes in a run's config to their copies; import nothing.

    A copy is trusted if each of its files has the same code as the file outside the run that it was
    copied from. Returns a line for each difference, and for each package with another version here.

    Raises ValueError if there are differences and `trust` is not "any", and for any user's class if
    it is "none".
    """
    origins = read_mapping(directory / SOURCES / ORIGINS)
    differences, notes, users = [], [], []
    for kind, node in part_nodes(tree).items():
        name = node.get("name")
        if not isinstance(name, str) or ":" not in name:
            continue
        users.append(name)
        origin = _mapping(origins.get(kind))
        if re.fullmatch(rf"{SOURCES}/{re.escape(kind)}:(?:\w|-)+(?:\.\w+)*:\w+", name):
            node["name"] = f"{directory.resolve()}/{name}"
            differences += _differences(directory / SOURCES / kind, origin)
        elif registry.user_module(name) is not None:
            differences.append(f"{name} has no copy in the run (an older lcg trained it)")
        elif not is_for_lcg(name.rpartition(":")[0]):
            differences.append(f"{name} is of an installed package that does not require lcg")
        for package, version in _mapping(origin.get("packages")).items():
            if (installed := package_version(package)) != version:
                notes.append(
                    f"it was trained with {package} {version}; installed is {installed or 'none'}"
                )
    if users and trust == "none":
        raise ValueError(
            f"{directory} uses your own code ({', '.join(users)}); add {FLAG} to run it"
        )
    if differences and trust == "own":
        raise ValueError(
            f"{directory}: {'; '.join(differences)}. Read this code, then add {FLAG} to run it"
        )
    return [f"{directory}: {line}" for line in (*differences, *notes)]


def _differences(folder: Path, origin: dict[str, Any]) -> list[str]:
    """List how a copy differs from the code that a run of the user's own file would import.

    Every file is compared, whether or not it is known to be imported.
    """
    everything = [folder, *folder.rglob("*")]
    if any(path.is_symlink() for path in everything):
        return [f"{folder} contains symbolic links"]
    copies = {path.relative_to(folder).as_posix(): path for path in everything if path.is_file()}
    if not copies:
        return [f"{folder} has no code"]
    owns = _own_files(folder, origin)
    differences = []
    for place, copy in sorted(copies.items()):
        if place not in owns:
            differences.append(f"{copy} has no original on this machine in {origin.get('root')}")
        elif not same_code(copy, owns[place]):
            differences.append(
                f"{copy} differs from {owns[place]}, and is what the run was trained with"
            )
    missing = sorted(owns.keys() - copies.keys())
    return differences + [f"{owns[place]} has no copy in {folder}" for place in missing]


def _own_files(folder: Path, origin: dict[str, Any]) -> dict[str, Path]:
    """Return the files of the user's own class by their paths in a copy; none from inside the
    run."""
    root, name = origin.get("root"), origin.get("module")
    if not (isinstance(root, str) and isinstance(name, str) and Path(root).is_absolute()):
        return {}
    runs = folder.resolve().parents[2]
    try:
        files = UserModule(Path(root), name, origin.get("alone") is True).files
    except ValueError:
        return {}
    if any(path.resolve().is_relative_to(runs) for path in files.values()):
        return {}
    return {place_of(name, path): path for name, path in files.items()}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
