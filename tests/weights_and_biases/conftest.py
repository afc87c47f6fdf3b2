"""A W&B server on the loopback interface, and the real `wandb agent` that talks to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from processes import LIMIT, ROOT, wait_until
from tiny import tiny
from weights_and_biases.server import ENTITY, PROJECT, SWEEP, WandbServer

BIN = Path(sys.executable).parent
SWEEP_FILE = """
program: lcg
method: grid
parameters: {seed: {values: [0]}}
command: [lcg, train, "${args_no_hyphens}"]
"""


@pytest.fixture
def server():
    """A W&B with one sweep, of runs that get all their words as arguments."""
    server = WandbServer(SWEEP_FILE)
    yield server
    server.close()


@pytest.fixture
def environment(server, tmp_path) -> dict[str, str | None]:
    """Logged in at the loopback server, and knowing of nothing else of W&B."""
    strange = [name for name in os.environ if name.startswith("WANDB_")]
    strange += [name for name in os.environ if name.lower().endswith("_proxy")]
    home = {"HOME": str(tmp_path / "home"), "NETRC": str(tmp_path / "netrc")}
    (tmp_path / "home").mkdir()
    return dict.fromkeys(strange) | server.environment() | home


@pytest.fixture
def lcg(fork_server, environment):
    """Run `lcg` in a process of its own, which is logged in at the loopback server."""

    def run(*words: str, wait: bool = True, **options):
        options["environment"] = environment | options.pop("environment", {})
        return (fork_server.run if wait else fork_server.start)(*words, **options)

    yield run
    fork_server.clean()


@pytest.fixture
def words(tmp_path):
    """The words of a TINY run below tmp_path/runs that uses W&B, others laid over them."""
    return lambda *others: tiny(f"runs={tmp_path / 'runs'}", "wandb.mode=auto", *others)


class Agent:
    """A real `wandb agent` in an empty folder."""

    def __init__(self, folder: Path, environment: dict[str, str | None]) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        inherited = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        inherited["PATH"] = f"{BIN}{os.pathsep}{inherited['PATH']}"
        self.log = (folder / "agent.log").open("w")
        self.process = subprocess.Popen(
            [str(BIN / "wandb"), "agent", f"{ENTITY}/{PROJECT}/{SWEEP}"],
            cwd=folder,
            env={k: v for k, v in (inherited | environment).items() if v is not None},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def said(self) -> str:
        """Return what the agent and its runs have printed."""
        return (self.folder / "agent.log").read_text()

    def wait(self, timeout: float = LIMIT) -> int:
        wait_until(lambda: self.process.poll() is not None, timeout, lambda: self.said)
        return self.process.returncode

    def close(self) -> None:
        """Runs are in process groups of their own, but in the agent's session."""
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                if os.getsid(int(entry)) == self.process.pid:
                    os.kill(int(entry), signal.SIGKILL)
        self.process.wait()
        self.log.close()


@pytest.fixture
def agent(environment, tmp_path):
    """Start an agent; it and its runs are killed at the end of the test."""
    started = []

    def start(name: str = "agent", **more: str) -> Agent:
        started.append(Agent(tmp_path / name, environment | more))
        return started[-1]

    yield start
    for each in started:
        each.close()
