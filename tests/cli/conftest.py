"""Ways to call the command: in a process of its own, or here, with torch imported once."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import quick

from lcg.cli import main
from lcg.training import timing


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder; what a test adds to sys.path is forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return tmp_path


@pytest.fixture
def process(here):
    """Run a Python command line in the current folder; returns what came of it."""

    def process(*words: str, **options) -> subprocess.CompletedProcess:
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | options.pop("env", {})
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            env=environment,
            timeout=1800,
            **options,
        )

    return process


@pytest.fixture
def call(here, capsys):
    """Run the command in this process; returns exit code, stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(list(words))
        except SystemExit as stop:  # argparse's own --help
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def timed_by_a_fork(monkeypatch):
    """Time steps in a process that need not import torch."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(timing.multiprocessing, "get_context", lambda method: fork)


@pytest.fixture
def tiny():
    """The words of a run of a second, some replaced by others."""
    return quick


@pytest.fixture
def written(here):
    """Return the files below the current folder, without Python's own caches."""
    return lambda: {p for p in here.rglob("*") if "__pycache__" not in p.parts}
