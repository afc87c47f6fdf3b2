"""A sweep of tiny real runs, its launchers as processes, and what is compared of its outcome."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tiny import quick

from lcg.sweeping.file import Sweep, combinations

# Long enough to be killed in the middle of.
LONG = ("trainer.steps=120", "trainer.log_every=10", "trainer.checkpoint_every=5")
OFTEN = ("validation.every=40", "validation.samples=64", "evaluation.samples=64")
COMMAND = ["lcg", "train", *quick("optimizer.warmup_steps=5", *LONG, *OFTEN)]


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


def table(runs: Path) -> str:
    """Return what `lcg table` prints of a folder, without times."""
    words = [sys.executable, "-m", "lcg", "table", str(runs), "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return re.sub(r'"seconds": [\d.]+', '"seconds"', done.stdout)
