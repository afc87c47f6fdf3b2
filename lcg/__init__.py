"""lcg: train short, evaluate long. How far does an attention × position encoding carry?"""

import importlib
import sys
from pathlib import Path

__version__ = "0.1.0"


def _bind(*packages: str) -> None:
    """Import our own top-level packages from beside this one.

    `python -m` and PYTHONPATH=. put the current folder first on the path, where a user's own
    `tasks/` would otherwise be taken for ours.
    """
    home = str(Path(__file__).resolve().parents[1])
    sys.path.insert(0, home)
    try:
        for package in packages:
            importlib.import_module(package)
    finally:
        sys.path.remove(home)


_bind("tasks", "positional")
