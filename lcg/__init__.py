"""lcg: a research harness for length generalization. Train short, evaluate long.

    run = lcg.train("experiment=quick/copy", "attention=asentmax", seed=3)
    runs = lcg.load_runs("runs")
    print(lcg.table(runs))

Importing this imports nothing else: the names below are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcg.api import Run, attention_layer, load, load_runs, plot, records, table, train
    from lcg.attention.functional import attend

__version__ = "0.1.0"

__all__ = [
    "Run",
    "attend",
    "attention_layer",
    "load",
    "load_runs",
    "plot",
    "records",
    "table",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lcg' has no attribute {name!r}")
    home = "lcg.attention.functional" if name == "attend" else "lcg.api"
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
