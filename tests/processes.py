"""Real `lcg` processes for tests, and what is to be compared of the runs they leave behind."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]

# Seconds after which what was waited for counts as never coming, on a machine however busy.
LIMIT = 900

TIMES = ("train/tokens_per_second", "train/steps_per_second", "train/seconds")


def at_step(step: int, action: str) -> str:
    """Code for `before`: run an action when a step has been logged, before it is saved."""
    return f"""
import os, signal, time
from tqdm import tqdm
update = tqdm.update
def and_then(bar, n=1):
    update(bar, n)
    if getattr(bar, "unit", "") == "step" and bar.n == {step}:
        {action}
tqdm.update = and_then
"""


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


class Process:
    """One started process; `out` and `err` are what it has printed so far."""

    def __init__(self, ask, pid: int, files: tuple[str, str]) -> None:
        self._ask, self.pid, self._files, self.code = ask, pid, files, None

    def poll(self) -> int | None:
        if self.code is None:
            self.code = self._ask({"do": "poll", "pid": self.pid})
        return self.code

    def wait(self, timeout: float = LIMIT) -> int:
        """The exit code; minus the signal's number when one killed it."""
        wait_until(lambda: self.poll() is not None, timeout, lambda: self.err)
        return self.code

    def signal(self, number: int, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.pid, number)

    @property
    def out(self) -> str:
        return _text(Path(self._files[0]))

    @property
    def err(self) -> str:
        return _text(Path(self._files[1]))


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""  # a process has it a moment after its start


class ForkServer:
    """Starts processes by forking one that has imported everything."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        script = Path(__file__).with_name("fork_server.py")
        self._server = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert json.loads(self._server.stdout.readline()) == "ready"
        self._folder = tempfile.TemporaryDirectory()
        self._started: list[Process] = []

    def start(
        self,
        *words: str,
        folder: Path | str = "/",
        before: str = "",
        environment: dict[str, str | None] | None = None,
        user: int | None = None,
    ) -> Process:
        """`lcg` with these words; `before` is code that the process runs first.

        Code that ends with SystemExit runs in place of `lcg`.
        """
        files = [f"{self._folder.name}/{len(self._started)}.{end}" for end in ("out", "err")]
        request = {"do": "start", "words": words, "stdout": files[0], "stderr": files[1]}
        request |= {"folder": str(folder), "before": before, "environment": environment or {}}
        process = Process(self._ask, self._ask(request | {"user": user}), tuple(files))
        self._started.append(process)
        return process

    def run(self, *words: str, **options) -> Process:
        """As `start`, and wait for its end."""
        process = self.start(*words, **options)
        process.wait()
        return process

    def clean(self) -> None:
        """End what a failed test left running."""
        for process in self._started:
            if process.poll() is None:
                process.signal(signal.SIGKILL, group=True)
                process.wait()
        self._started = self._started[-1:]

    def close(self) -> None:
        self.clean()
        self._server.stdin.close()
        self._server.wait()
        self._folder.cleanup()

    def _ask(self, request: dict):
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


def wait_until(condition, timeout: float = LIMIT, explain=lambda: "") -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"still waiting after {timeout} s\n{explain()}"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are alive."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def only_run(runs: Path) -> Path:
    """The one run directory below `runs`."""
    (found,) = runs.iterdir()
    return found


def checkpoint(directory: Path, name: str = "last") -> dict:
    return torch.load(directory / "checkpoints" / f"{name}.ckpt", weights_only=True)


def record(directory: Path) -> dict:
    return json.loads((directory / "results.json").read_text())


def metrics(directory: Path) -> list[dict[str, str]]:
    """metrics.csv without times."""
    with (directory / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def essence(directory: Path) -> dict:
    """Everything of a run that must not depend on how often it was interrupted."""
    last, best = checkpoint(directory), checkpoint(directory, "best")
    callbacks = last["callbacks"]
    callbacks["Metrics"].pop("seconds")
    results = record(directory)
    results["training"].pop("seconds")
    kept = ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "identity")
    return {
        "last": {key: last[key] for key in kept},
        "callbacks": callbacks,
        "best": {key: best[key] for key in ("state_dict", "step")},
        "metrics": metrics(directory),
        "results": results,
    }


def differences(a, b, path: str = "") -> list[str]:
    """Return the differences of two nested structures, tensors compared bit by bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        found = [f"{path}: keys {a.keys() ^ b.keys()}"] if a.keys() != b.keys() else []
        shared = [key for key in a if key in b]
        return found + [d for key in shared for d in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [
            d
            for i, (x, y) in enumerate(zip(a, b, strict=True))
            for d in differences(x, y, f"{path}/{i}")
        ]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape
        same = (
            same and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
            if a.dim()
            else same and a.item() == b.item()
        )
        return [] if same else [f"{path}: tensors differ"]
    return [] if a == b else [f"{path}: {a!r:.80} is not {b!r:.80}"]
