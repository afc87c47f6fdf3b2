"""One `lcg train` process: its share of the machine, its start, and its log.

It saves and stops when the launcher dies in any way.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lcg.config import Config
from lcg.config.schema import Trainer
from lcg.system import tells_storage_error
from lcg.training.signals import end_with

TRAIN = [sys.executable, "-m", "lcg", "train"]


@dataclass(frozen=True)
class Slot:
    """A share of the machine: CPU threads and GPUs; shared: other slots have the rest."""

    threads: int
    gpus: str | None = None
    shared: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that limit a process to it."""
        variables = {"OMP_NUM_THREADS": str(self.threads)}
        if self.shared:  # see `lcg.cli`
            variables |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
        return variables if self.gpus is None else variables | {"CUDA_VISIBLE_DEVICES": self.gpus}

    def threads_of(self, config: Config) -> list[str]:
        """Return the override that limits a run to its threads, unless its config sets a number."""
        return [] if config.trainer.threads else [f"trainer.threads={self.threads}"]


def share(workers: int | None, trainer: Trainer) -> list[Slot]:
    """Return a slot for each worker: the GPUs in turn, as many as a run uses, and the cores
    divided.

    Without a number: one worker for each such set of GPUs, or one without GPUs. GPUs are those of
    CUDA_VISIBLE_DEVICES, or those that nvidia-smi lists.
    """
    gpus, devices = [] if trainer.accelerator == "cpu" else _gpus(), trainer.devices
    sets = [",".join(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
    count = workers or max(1, len(sets))
    affinity = getattr(os, "sched_getaffinity", lambda pid: range(os.cpu_count() or 1))
    threads = max(1, len(affinity(0)) // count)
    return [Slot(threads, sets[i % len(sets)] if sets else None, count > 1) for i in range(count)]


def _gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip() and name.strip() != "-1"]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    return [str(i) for i in range(len(lines))] if done.returncode == 0 else []


def start_worker(words: list[str], slot: Slot, log: Path, command: list[str]) -> subprocess.Popen:
    """Start a training process in its own process group; its output is appended to a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(f"\n--- lcg train {' '.join(words)}\n".encode())
        file.flush()
        return subprocess.Popen(
            [*command, *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=os.environ | slot.environment,
            start_new_session=True,
            preexec_fn=partial(end_with, os.getpid(), signal.SIGTERM),
        )


def kill(process: subprocess.Popen) -> None:
    """Kill a training process and its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(log: Path) -> str:
    """Return the last line of a log that is not a progress bar."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    messages = [line for line in lines if line and not re.search(r"\d+% \|.*\| \d+/\d+", line)]
    return "" if not messages or messages[-1].startswith("--- lcg train") else messages[-1][:300]


def storage_trouble(log: Path) -> str:
    """Return the disk error in a log's last line, or that of writing to it now; else "".

    A disk may be so full that the process could not report why it ended.
    """
    message = last_line(log)
    if tells_storage_error(message):
        return message.removeprefix("lcg: ")
    try:
        with log.open("ab") as file:
            file.write(b"\n")
            os.fsync(file.fileno())
    except OSError as error:
        return f"{log}: {error.strerror}"
    return ""
