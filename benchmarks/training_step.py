"""One training step, every attention against softmax and against x-transformers:
`python -m benchmarks.training_step`.

Two models: quick/copy (2 blocks, width 64, 8 heads, FFN 128, batch 64) and that of the ASEntmax
paper's Sort task (2 gemma2 blocks, width 256, 8 heads, FFN 1024, batch 128). Timed is the step that
training makes: forward, loss, backward, clipping, AdamW; all in one process, in turn, so that what
else the machine does slows all of them.

The peers have the same sizes: x-transformers with ALiBi on half of the heads and RMSNorm, with its
fused attention (torch's), its plain one, and its plain one with entmax15 of the package entmax in
the place of softmax; of both sides the uncompiled and, with --compile, the compiled step. Before
that the float32 gradients of each are held against float64 ones of the same model.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.report import median_ratio, positive, publish, time_in_turn
from lcg.config import Config, load_config
from lcg.tasks.base import IGNORE
from lcg.training.data import Batches
from lcg.training.learner import Learner, make_fabric
from lcg.training.module import TrainingModule

LIMITS = {  # subject: (against what, the most its step may take of the other's)
    "softmax": ("x-transformers fused", 0.75),
    "asentmax": ("softmax", 1.25),
}
ENTMAX_LIMIT = "asentmax", "x-transformers entmax15", 0.33
PEERS = ("x-transformers plain", "x-transformers fused", "x-transformers entmax15")
MODELS = {"quick/copy": 32, "repo/sort": 48}  # experiment: nominal length


class Subject(NamedTuple):
    """A model, a batch of it, and its training step."""

    model: nn.Module
    batch: dict[str, Tensor]
    step: Callable[[], None]


def config_of(experiment: str, attention: str) -> Config:
    length = MODELS[experiment]
    words = [f"experiment={experiment}", f"attention={attention}", "trainer.accelerator=cpu"]
    words += [f"data.min_length={length}", f"data.max_length={length}", "optimizer.lr=1e-5"]
    return load_config(words)


def ours(experiment: str, attention: str, compiled: bool = False) -> Subject:
    """The learner of a run."""
    config = config_of(experiment, attention)
    learner = Learner(make_fabric(config.trainer), TrainingModule(config))
    if compiled:
        learner.module.compile_steps("default")
    batch = Batches(config, 0, 1)[0]
    return Subject(learner.module.model, batch, partial(learner.train_step, batch, 0))


def theirs(experiment: str, name: str, compiled: bool = False) -> Subject:
    """x-transformers of the same sizes on the same batch."""
    from x_transformers import Decoder, TransformerWrapper

    config = config_of(experiment, "softmax")
    sizes, batch = config.model, Batches(config, 0, 1)[0]
    torch.manual_seed(0)
    layers = Decoder(
        dim=sizes.d_model,
        depth=sizes.layers,
        heads=sizes.heads,
        attn_dim_head=sizes.width_of_head,
        ff_mult=sizes.d_ff / sizes.d_model,
        ff_glu=sizes.block == "gemma2",
        use_rmsnorm=True,
        alibi_pos_bias=True,
        alibi_num_heads=sizes.heads // 2,
        rotary_pos_emb=False,
        attn_flash=name.endswith("fused"),
    )
    model = TransformerWrapper(
        num_tokens=config.task.vocabulary,
        max_seq_len=batch["inputs"].shape[1],
        use_abs_pos_emb=False,
        attn_layers=layers,
    )
    if name.endswith("entmax15"):
        from entmax import entmax15

        for module in model.modules():
            if hasattr(module, "attn_fn"):
                module.attn_fn = partial(entmax15, dim=-1)
    forward = torch.compile(model, dynamic=False) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.99))

    def step() -> None:
        logits = forward(batch["inputs"])
        loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return Subject(model, batch, step)


def gate(subject: Subject) -> float:
    """Largest difference, relative to the largest entry, of float32 gradients from float64 ones."""
    grads = []
    for dtype in (torch.float32, torch.float64):
        model = copy.deepcopy(subject.model).to(dtype)
        logits, labels = model(subject.batch["inputs"][:4]).to(dtype), subject.batch["labels"][:4]
        F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE).backward()
        present = (p.grad for p in model.parameters() if p.grad is not None)
        grads.append(torch.cat([grad.double().flatten() for grad in present]))
    return float((grads[0] - grads[1]).abs().max() / grads[1].abs().max())


def limits(seconds: dict[str, list[float]]) -> dict[str, list[str]]:
    """Return, for each attention with a goal, its faster step over the faster one of the other."""

    def fastest(name: str) -> list[float]:
        both = [seconds[key] for key in (name, f"{name}, compiled") if key in seconds]
        return min(both, key=statistics.median)

    found: dict[str, list[str]] = {}
    for subject, other, limit in [*((s, *pair) for s, pair in LIMITS.items()), ENTMAX_LIMIT]:
        if subject in seconds and other in seconds:
            ratio = median_ratio(fastest(subject), fastest(other))
            found.setdefault(subject, []).append(f"{ratio:.2f} of {other} (≤ {limit})")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=positive, default=None)
    parser.add_argument("--rounds", type=positive, default=9)
    parser.add_argument("--model", choices=MODELS, help="default: both")
    parser.add_argument("--compile", action="store_true", help="compiled steps beside the others")
    parser.add_argument("--no-peers", action="store_true", help="without x-transformers")
    parser.add_argument(
        "--attentions", nargs="+", default=["softmax", "entmax15", "asentmax", "entmax_learned"]
    )
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    rows, data = [], {}
    for experiment in [options.model] if options.model else MODELS:
        made = {name: partial(ours, experiment, name) for name in options.attentions}
        if not options.no_peers:
            made |= {name: partial(theirs, experiment, name) for name in PEERS}
        subjects = {name: make() for name, make in made.items()}
        for name, subject in subjects.items():
            if (error := gate(subject)) > 1e-3:
                print(f"not timed: gradients of {name} are off by {error:.1e}", file=sys.stderr)
                return 1
        if options.compile:
            subjects |= {f"{name}, compiled": make(compiled=True) for name, make in made.items()}
        steps = {name: subject.step for name, subject in subjects.items()}
        seconds = time_in_turn(steps, options.rounds)
        told = limits(seconds)
        for name, values in seconds.items():
            ratio = median_ratio(values, seconds["softmax"]) if "softmax" in seconds else None
            shown = "" if ratio is None else f"{ratio:.2f}"
            milliseconds = f"{1e3 * statistics.median(values):.1f}"
            rows.append([experiment, name, milliseconds, shown, "; ".join(told.get(name, ()))])
            data[f"{experiment}, {name}"] = {"seconds": values, "ratio_to_softmax": ratio}
    publish(
        "training_step",
        "One training step, by the faster of compiled and not where a goal is given",
        ["model", "attention", "ms", "÷ softmax", "of another (goal)"],
        rows,
        {"attentions": data},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
