"""A sweep of tiny real runs, its launchers as processes, and what is compared of its outcome."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from lcg.sweeping.file import Sweep, combinations

COMMAND = """
    lcg train task=copy model.layers=1 model.d_model=16 model.heads=2 model.d_ff=16
    model.dropout=0.1 data.batch_size=8 data.min_length=2 data.max_length=4
    optimizer.warmup_steps=5 trainer.steps=120 trainer.log_every=10 trainer.checkpoint_every=5
    trainer.accelerator=cpu trainer.threads=1 validation.every=40 validation.lengths=4,8
    validation.samples=64 evaluation.lengths=4,8 evaluation.samples=64 wandb.mode=disabled
""".split()  # noqa: SIM905


def sweep_file(folder: Path, parameters: dict[str, list], **keys) -> Path:
    """A sweep file of tiny runs, as JSON, which is YAML."""
    content = {
        "program": "lcg",
        "method": "grid",
        "metric": {"name": "val/len_8/exact_match", "goal": "maximize"},
        "parameters": {key: {"values": values} for key, values in parameters.items()},
        "command": [*COMMAND, "${args_no_hyphens}"],
    }
    file = folder / "tiny.yaml"
    file.write_text(json.dumps(content | keys))
    return file


def configs(sweep: Sweep) -> list[list[str]]:
    """The overrides of every run of a grid, first parameter slowest."""
    return [sweep.words(chosen) for chosen in combinations(sweep)]


def launch(*words: str, folder: Path) -> subprocess.Popen:
    """`lcg sweep` as a process; its output is in folder/launcher.log."""
    log = (folder / "launcher.log").open("a")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "lcg", "sweep", *words],
        cwd=folder,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are alive."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def outcome(runs: Path) -> dict[str, dict]:
    """Every record below a folder, without times."""
    found = {}
    for file in sorted(runs.glob("*/results.json")):
        record = json.loads(file.read_text())
        record["training"].pop("seconds")
        for cell in record["ladder"]:
            cell.pop("seconds")
        found[file.parent.name] = record
    return found


def wait_until(condition, timeout: float = 900, explain=lambda: "") -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"still waiting after {timeout} s\n{explain()}"
        time.sleep(0.05)
