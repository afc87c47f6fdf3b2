"""One training step of the Sort model, every attention against softmax:
`python -m benchmarks.training_step`.

The model of the ASEntmax paper's Sort task: 2 gemma2 blocks, width 256, 8 heads, FFN 1024, batch
128, 98 inputs. Timed are forward, loss, backward and AdamW; all attentions in one process, in turn.
Before that each attention's gradients are held against the naive composition in float64.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch
from torch.nn import functional as F

from benchmarks.report import median_ratio, publish, time_in_turn
from lcg.config import load_config
from lcg.models.transformer import build_model
from lcg.tasks.base import IGNORE
from lcg.tasks.streams import train_batch

LIMIT = 1.3  # ASEntmax may take at most this many times softmax's time


def step_function(attention: str):
    """A closure that makes one optimiser step, and the model it trains."""
    config = load_config(["experiment=repo/sort", f"attention={attention}"])
    model = build_model(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    batch = train_batch(config.task, 0, 0, config.data.batch_size, 48, 48)
    inputs, labels = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)

    def step() -> None:
        logits = model(inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, model, inputs, labels


def gate(attention: str) -> float:
    """Largest difference, relative to the largest entry, of float32 gradients from float64 ones."""
    _, model, inputs, labels = step_function(attention)
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
    steps = {name: step_function(name)[0] for name in options.attentions}
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
