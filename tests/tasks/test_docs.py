"""Each task explains itself: definition, difficulty, source, fields, and an example that runs."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path

import pytest

import lcg.tasks

MODULES = [m.name for m in pkgutil.iter_modules(lcg.tasks.__path__)]


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    results = doctest.testmod(importlib.import_module(f"lcg.tasks.{module}"))
    assert results.failed == 0


def test_every_task_shows_an_example(task_class):
    assert doctest.DocTestParser().get_examples(task_class.__doc__)


def test_docstring_names_difficulty_and_source(task_class):
    assert "Hard because:" in task_class.__doc__
    assert "arXiv" in task_class.__doc__


def test_every_field_has_a_line_of_help(task_class):
    classes = [cls for cls in task_class.__mro__ if is_dataclass(cls)]
    documented = {
        node.target.id
        for cls in classes
        for node, after in pairwise(ast.parse(inspect.getsource(cls)).body[0].body)
        if isinstance(node, ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and "\n" not in after.value.value
    }
    assert {field.name for field in fields(task_class)} <= documented


def test_tasks_import_numpy_only():
    imports = "; ".join(f"import lcg.tasks.{module}" for module in MODULES)
    heavy = "{'torch', 'lightning', 'wandb', 'matplotlib', 'scipy', 'tasks', 'positional'}"
    of_lcg = "{m for m in sys.modules if m.startswith('lcg.') and not m.startswith('lcg.tasks')}"
    program = f"import sys; {imports}; print(sorted({heavy} & set(sys.modules) | {of_lcg}))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr


def test_render_shows_special_tokens():
    task = importlib.import_module("lcg.tasks.flip_flop").FlipFlop()
    assert task.render([task.bos, 2, 1, 4, task.pad, -100]) == "<bos> w 1 r <pad> ."
    task = importlib.import_module("lcg.tasks.copy").Copy(symbols=4)
    assert task.render([3, task.sep, task.eos, task.mask]) == "3 <sep> <eos> <mask>"
