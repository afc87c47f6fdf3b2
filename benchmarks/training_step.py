"""One training step of the Sort model, every attention against softmax:
`python -m benchmarks.training_step`.

The model of the ASEntmax paper's Sort task: 2 gemma2 blocks, width 256, 8 heads, FFN 1024, batch
128, 98 inputs. Timed is the step that training makes: forward, loss, backward, clipping, AdamW; all
attentions in one process, in turn. Before that each attention's gradients are held against the
naive composition in float64.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import partial

import torch
from torch.nn import functional as F

from benchmarks.report import median_ratio, publish, time_in_turn
from lcg.config import load_config
from lcg.tasks.base import IGNORE
from lcg.training.data import Batches
from lcg.training.learner import Learner, make_fabric
from lcg.training.module import TrainingModule

LIMIT = 1.3  # ASEntmax may take at most this many times softmax's time


def learner_of(attention: str) -> tuple[Learner, dict[str, torch.Tensor]]:
    """Make the learner of a run and a batch of it."""
    words = ["experiment=repo/sort", f"attention={attention}", "trainer.accelerator=cpu"]
    words += ["data.min_length=48", "data.max_length=48", "optimizer.lr=1e-5"]
    config = load_config(words)
    return Learner(make_fabric(config.trainer), TrainingModule(config)), Batches(config, 0, 1)[0]


def gate(attention: str) -> float:
    """Largest difference, relative to the largest entry, of float32 gradients from float64 ones."""
    learner, batch = learner_of(attention)
    model, inputs, labels = learner.module.model, batch["inputs"], batch["labels"]
    grads = []
    for dtype in (torch.float32, torch.float64):
        model.to(dtype)
        model.zero_grad()
        logits = model(inputs[:4]).to(dtype)
        F.cross_entropy(logits.flatten(0, 1), labels[:4].flatten(), ignore_index=IGNORE).backward()
        grads.append(torch.cat([p.grad.double().flatten() for p in model.parameters()]))
    return float((grads[0] - grads[1]).abs().max() / grads[1].abs().max())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--attentions", nargs="+", default=["softmax", "entmax15", "asentmax", "entmax_learned"]
    )
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.attentions:
        error = gate(name)
        if error > 1e-3:
            print(f"not timed: gradients of {name} are off by {error:.1e}", file=sys.stderr)
            return 1
    learners = {name: learner_of(name) for name in options.attentions}
    steps = {name: partial(each.train_step, batch, 0) for name, (each, batch) in learners.items()}
    seconds = time_in_turn(steps, options.rounds)
    rows, data = [], {}
    for name, values in seconds.items():
        ratio = median_ratio(values, seconds["softmax"])
        limit = f"≤ {LIMIT}" if name == "asentmax" else ""
        rows.append([name, f"{1e3 * statistics.median(values):.0f}", f"{ratio:.2f}", limit])
        data[name] = {"seconds": values, "ratio_to_softmax": ratio}
    publish(
        "training_step",
        "One training step of the Sort model (2 × 256, 8 heads, FFN 1024, batch 128, 98 tokens)",
        ["attention", "ms", "÷ softmax", "limit"],
        rows,
        {"attentions": data, "limit": LIMIT},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
