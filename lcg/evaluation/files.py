"""What of a run directory can be read without torch, so that a wrong one is answered at once."""

from __future__ import annotations

import os
from pathlib import Path

from lcg.config import Config, ConfigError, config_from_tree
from lcg.config.groups import read_yaml
from lcg.keeping.sources import Trust, locate_sources
from lcg.speaking import say


def read_config(directory: Path, trust: Trust = "own") -> Config:
    """The config a run was trained with; users' classes come from their copies in the run.

    A copy that differs from the user's own file is run with `trust` "any" alone, and said.
    Nothing in the file is resolved: no environment variable gets in.

    Raises ValueError, naming the directory, when there is none or it cannot be used.
    """
    check_run(directory)
    path = directory / "config.yaml"
    tree = read_yaml(path, resolve=False)
    for line in locate_sources(directory, tree, trust):
        say(f"note: {line}")
    try:
        return config_from_tree(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error.__cause__
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{path}: is no config of a run ({error!r:.80})") from error


def check_run(directory: Path) -> None:
    """Raise ValueError for a path that is no run directory; of a folder of runs it names one."""
    if os.path.lexists(directory / "config.yaml"):  # whatever it is: reading it says more
        return
    if not directory.exists():
        raise ValueError(f"{directory} does not exist")
    below = (
        path
        for depth in range(1, 4)
        for path in sorted(directory.glob("*/" * depth + "config.yaml"))
    )
    run = next((f"; name a run in it, such as {path.parent}" for path in below), "")
    raise ValueError(f"{directory} is no run directory: it has no config.yaml{run}")


def check_selected(directory: Path) -> None:
    """Raise ValueError when a run has no selected checkpoint yet."""
    if not os.path.lexists(directory / "checkpoints" / "best.ckpt"):
        raise ValueError(f"{directory} has no best.ckpt yet; train it to a validation first")
