"""The learning-rate grid behind the demo, one for both sides: `python -m benchmarks.demo_grid`.

Trains every (side, learning rate, seed), one run per core, then evaluates the runs at the learning
rate that validation chose for each side, and prints the table of docs/results.md. Finished runs are
not trained again, so it can be stopped and started at any time.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from lcg.results import table
from lcg.results.aggregate import group_runs
from lcg.runs.run import Run

SIDES = ("softmax", "asentmax")
LEARNING_RATES = (2.0e-3, 4.0e-3, 8.0e-3, 1.6e-2)
SEEDS = (0, 1, 2)


def train(runs: Path, side: str, lr: float, seed: int) -> None:
    """One run of the grid in a process of its own, on one thread; raises when it fails."""
    words = [f"experiment=demo/{side}", f"optimizer.lr={lr}", f"seed={seed}", f"runs={runs}"]
    words += ["trainer.threads=1", "trainer.accelerator=cpu", "evaluation.after_training=false"]
    command = [sys.executable, "-m", "lcg", "train", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip().splitlines()[-1]}")


def chosen_runs(runs: Path) -> list[Path]:
    """The runs, one per seed, at the learning rate of each side's best run by validation."""
    groups = group_runs([run.record for run in Run.find([runs])])
    return [runs / run.record.run for group in groups for run in group.seeds]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/demo-grid"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    os.environ.setdefault("WANDB_MODE", "disabled")
    os.environ["OMP_NUM_THREADS"] = "1"
    cases = list(itertools.product(SIDES, LEARNING_RATES, SEEDS))
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = [pool.submit(train, options.runs, *case) for case in cases]
        for job in tqdm(jobs, unit="run"):
            job.result()
    names = [str(run) for run in chosen_runs(options.runs)]
    subprocess.run([sys.executable, "-m", "lcg", "eval", *names], check=True)
    print(table([run.record for run in Run.find([options.runs])]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
