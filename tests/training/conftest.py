"""Processes that start quickly, and one uninterrupted run to compare interrupted ones with."""

from pathlib import Path

import pytest
from processes import essence, only_run
from tiny import tiny

from lcg.config import load_config


@pytest.fixture
def lcg(fork_server):
    """Start `lcg` processes; what is still running at the end of the test is killed."""
    yield fork_server
    fork_server.clean()


@pytest.fixture(scope="session")
def uninterrupted(fork_server, tmp_path_factory) -> dict:
    """The essence of a TINY run that nobody interrupted."""
    runs = tmp_path_factory.mktemp("uninterrupted")
    process = fork_server.run("train", *tiny(f"runs={runs}"))
    assert process.code == 0, process.err
    return essence(only_run(runs))


@pytest.fixture
def config(tmp_path: Path):
    """The config of a TINY run below tmp_path/runs, with words laid over it."""
    return lambda *words: load_config(tiny(f"runs={tmp_path / 'runs'}", *words))
