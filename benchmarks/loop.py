"""Measure what the loop adds to a training step: `python -m benchmarks.loop`.

Trains a model of width 2 for some steps, by training's own loop with all that it does and by a bare
loop over the same batches, in one process and in turn, and takes the difference. CPU seconds of the
process.
Before that both must have made the same weights.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.report import positive, publish
from lcg.config import load_config
from lcg.tasks.base import IGNORE
from lcg.training.data import Batches
from lcg.training.loop import train
from lcg.training.module import TrainingModule

LIMIT = 3.0  # milliseconds a step that the trainer may add
WORDS = [
    *("model.layers=1", "model.d_model=2", "model.heads=2", "model.d_ff=1", "model.dropout=0"),
    *("data.batch_size=1", "data.min_length=2", "data.max_length=4"),
    *("trainer.accelerator=cpu", "trainer.threads=1", "trainer.log_every=50"),
    *("validation.lengths=4", "validation.samples=1", "validation.monitor=4"),
    *("optimizer.warmup_steps=5", "evaluation.after_training=false", "wandb.mode=disabled"),
]


def by_the_trainer(words: list[str]) -> tuple[float, dict]:
    """CPU seconds of a run, and its weights."""
    with tempfile.TemporaryDirectory() as runs:
        config = load_config([*words, f"runs={runs}"])
        started = time.process_time()
        outcome = train(config, progress=True)
        seconds = time.process_time() - started
        if outcome.status != "finished":
            raise SystemExit(f"not timed: the run was {outcome.status}")
        path = Path(outcome.directory) / "checkpoints" / "last.ckpt"
        return seconds, torch.load(path, weights_only=True)["state_dict"]


def by_a_bare_loop(words: list[str]) -> tuple[float, dict]:
    """CPU seconds of the same steps without anything around them, and the weights."""
    config = load_config(words)
    started = time.process_time()
    module, batches = TrainingModule(config), Batches(config, 0, 1)
    ((optimizer,), (schedule,)) = module.configure_optimizers()
    for t in range(config.trainer.steps):
        batch = batches[t]
        logits = module.model(batch["inputs"]).flatten(0, 1)
        labels = batch["labels"].flatten()
        loss = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
        optimizer.zero_grad()
        (loss / batch["scored"]).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), config.optimizer.clip_norm)
        optimizer.step()
        schedule["scheduler"].step()
    return time.process_time() - started, module.state_dict()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--steps", type=positive, default=500)
    options = parser.parse_args(arguments)
    words = [*WORDS, f"trainer.steps={options.steps}", f"validation.every={options.steps}"]
    words.append(f"trainer.checkpoint_every={options.steps}")
    torch.set_num_threads(1)
    loops = {"trainer": by_the_trainer, "bare loop": by_a_bare_loop}
    milliseconds: dict[str, list[float]] = {name: [] for name in loops}
    for round_ in range(options.rounds + 1):  # the first is not counted: imports, caches
        weights = []
        for name, loop in loops.items():
            seconds, made = loop(words)
            weights.append(made)
            if round_:
                milliseconds[name].append(1000 * seconds / options.steps)
        ours, bare = weights
        if not all(torch.allclose(ours[name], value, atol=1e-6) for name, value in bare.items()):
            print("not timed: trainer and bare loop make other weights", file=sys.stderr)
            return 1
    trainer, bare = milliseconds.values()
    added = statistics.median(a - b for a, b in zip(trainer, bare, strict=True))
    rows = [[name, f"{statistics.median(values):.2f}", ""] for name, values in milliseconds.items()]
    rows.append(["difference", f"{added:.2f}", f"≤ {LIMIT:g}"])
    publish(
        "loop",
        f"A training step of a model of width 2, {options.steps} steps",
        ["", "CPU ms a step", "limit"],
        rows,
        {"milliseconds": milliseconds, "added": added, "limit": LIMIT, "steps": options.steps},
    )
    return 0 if added <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
