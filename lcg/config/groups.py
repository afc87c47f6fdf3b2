"""The YAML files that a config is put together from: configs/GROUP/NAME.yaml.

A relative path of a user's file (`name: ./mine.py:Mine`) is relative to the current folder, in a
YAML file as on the command line.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lcg import registry
from lcg.config.errors import ConfigError, one_line
from lcg.config.yaml_files import read_node


def config_folders() -> list[Path]:
    """Where groups are looked up: the user's ./configs first, then the built-in ones."""
    return [Path.cwd() / "configs", Path(__file__).resolve().parents[1] / "configs"]


def choices(group: str) -> list[str]:
    """Names of the files of a group, without .yaml."""
    found = set()
    for folder in config_folders():
        root = folder / group
        found |= {p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.yaml")}
    return sorted(found)


def sweep_files() -> dict[str, Path]:
    """The sweep files by name: the user's in ./sweeps, and the built-in ones."""
    folders = [folder.parent / "sweeps" for folder in reversed(config_folders())]
    files = (file for folder in folders for file in folder.glob("*.yaml"))
    found = {file.stem: file for file in files}
    return dict(sorted(found.items()))


def group_file(group: str, name: str) -> Path:
    """The file of a choice. Raises ConfigError for a name that has none."""
    for folder in config_folders():
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            return path
    known = choices(group)
    hint = registry.nearest(name, known) if known else f"there are no files in configs/{group}"
    raise ConfigError(f"{group}={name} is not known; {hint}")


def read_group(group: str, name: str) -> dict[str, Any]:
    """The mapping in the file of a choice."""
    return read_yaml(group_file(group, name))


def read_yaml(path: Path, resolve: bool = True) -> dict[str, Any]:
    """The mapping in a YAML file, `${…}` left as it stands unless `resolve`.

    Raises ConfigError, naming file and line.
    """
    try:
        read_node(path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}".replace(": line ", ":", 1)) from None
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=resolve)
    except Exception as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(
            f"{place}: {getattr(error, 'problem', None) or one_line(error)}"
        ) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values")
    return tree


def first_comment(path: Path) -> str:
    """The comment at the head of a file, which says what the file is, as one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("#").strip() for line in comment)
