"""Shapes in signatures are enforced in every test: see lcg/shapes.py.

Nothing may import these modules before the hook is there, so it is set when pytest starts.
"""

import gc
import os
from functools import cache
from pathlib import Path

import pytest
import sampling
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests' matrices are tiny

CHECKED = [
    "lcg.attention.functional",
    "lcg.attention.backends.reference",
    "lcg.attention.mask",
    "lcg.attention.cache",
    "lcg.attention.layer",
    "lcg.diagnostics.heads",
    "lcg.diagnostics.capture",
    "lcg.evaluation.scoring",
    "lcg.models.transformer",
]

install_import_hook(CHECKED, "beartype.beartype")

from lcg.log import log_to_stderr  # noqa: E402

log_to_stderr()  # as the command does: tests read what it shows
os.fsync = lambda file: None  # takes long, and no test ends the machine; as in fork_server.py


def pytest_collection_finish():
    gc.freeze()  # torch and all tests are there to stay: they need not be looked through


def pytest_configure(config):
    sampling.WHOLE = "not slow" not in config.option.markexpr


@pytest.fixture(scope="session")
def train_once(tmp_path_factory):
    """Return the directory of a TINY run, trained when its words are first asked for.

    A test that changes a run changes a copy.
    """
    from tiny import train_tiny

    @cache
    def train_once(*words: str) -> Path:
        return train_tiny(f"runs={tmp_path_factory.mktemp('trained')}", *words)

    return train_once


@pytest.fixture(scope="session")
def fork_server():
    """Starts `lcg` processes that need not import anything."""
    from processes import ForkServer

    server = ForkServer()
    yield server
    server.close()
