"""`task` in a test's arguments: the test runs for every task that draws its sources, in the quick
suite either as it is by default or with a small alphabet. `drawn_class` are the classes of these,
`task_class` those of all tasks.
"""

import importlib
import inspect
import pkgutil
from itertools import product

import pytest
from sampling import sampled

import lcg.tasks
from lcg.tasks.base import Task

# Small alphabets beside the defaults: collisions and repetitions are frequent there.
SMALL = {
    "copy": {"symbols": 2},
    "reverse": {"symbols": 2},
    "sort": {"symbols": 3},
    "mqmtar": {"alphabet": 16, "words": 16, "queries": 1, "key_length": 1, "value_length": 1},
    "flip_flop": {"writes": 0.3, "per": "instruction"},
    "local_count": {"symbols": 2, "max_reps": 3},
    "n_back": {"n": 3, "symbols": 3},
    "max_retrieval": {"priorities": 2, "classes": 2},
    "majority": {"symbols": 2, "period": 3},
    "mode": {"symbols": 4, "distinct": 3, "scratchpad": True},
    "parity": {"ones": "binomial", "scratchpad": True},
    "addition": {"base": 2, "padded": True, "order": "reversed", "scratchpad": True},
    "modular_arithmetic": {"modulus": 2},
    "recognition": {"language": "tomita-3"},
    "binary_arithmetic": {"operation": "multiply"},
    "mqar": {"pairs": 3, "updates": 2, "passes": 2, "keys": 5, "values": 5},
    "fuzzy_recall": {"keys": 3, "symbols": 2, "longest": 2, "noise": 0.3},
    "ngram_lookup": {"symbols": 2, "gram": 3, "answer": 2, "key": "prefix"},
    "needle": {"words": 12, "keys": 3, "values": 2, "queries": 2, "literal": False},
    "histogram": {"symbols": 2, "modulus": 3},
}


def task_classes() -> list[type[Task]]:
    modules = [
        importlib.import_module(f"lcg.tasks.{m.name}")
        for m in pkgutil.iter_modules(lcg.tasks.__path__)
    ]
    found = [(module, cls) for module in modules for cls in vars(module).values()]
    return [
        cls
        for module, cls in found
        if isinstance(cls, type) and issubclass(cls, Task) and cls.__module__ == module.__name__
        if not inspect.isabstract(cls)
    ]


def pytest_generate_tests(metafunc):
    if "task_class" in metafunc.fixturenames:
        classes = task_classes()
        metafunc.parametrize("task_class", classes, ids=[cls.name for cls in classes])
    # Tasks of text have tests of their own: their rows are as long as the text is.
    drawn = [cls for cls in task_classes() if not cls.path_fields]
    if "drawn_class" in metafunc.fixturenames:
        metafunc.parametrize("drawn_class", drawn, ids=[cls.name for cls in drawn])
    if "task" in metafunc.fixturenames:
        name = metafunc.function.__name__
        rows = sampled(drawn, ["default", "small"], whole=both_where_there_are, seed=name)
        metafunc.parametrize("task", [made(row) for row in rows])


def both_where_there_are(classes, sizes):
    return product([cls for cls in classes if cls.name in SMALL], sizes)


def made(row):
    """The row with an instance of its class, and an id."""
    ((cls, size),) = row.values
    options = SMALL.get(cls.name, {}) if size == "small" else {}
    return pytest.param(cls(**options), marks=row.marks, id=cls.name + "-small" * bool(options))
