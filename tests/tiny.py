"""Tiny runs that tests share: the words of one that trains in a second, and one never trained."""

import csv
import json
import math
import os
from pathlib import Path

from lcg.config import load_config
from lcg.runs.files import PROVENANCE
from lcg.runs.record import Cell, RunRecord, Selection, Training, Validation
from lcg.runs.run import Run

# A model of a few thousand weights: a step takes milliseconds.
SMALL = [
    *("model.layers=1", "model.d_model=16", "model.heads=2", "model.d_ff=16"),
    *("data.batch_size=8", "trainer.accelerator=cpu", "wandb.mode=disabled"),
]
TINY = [
    *SMALL,
    *("model.dropout=0.1", "data.min_length=2", "data.max_length=6", "trainer.steps=30"),
    *("trainer.log_every=4", "trainer.checkpoint_every=10", "optimizer.warmup_steps=5"),
    *("validation.every=15", "validation.lengths=4,8", "validation.samples=8"),
    *("evaluation.lengths=8", "evaluation.samples=8", "evaluation.after_training=false"),
]
# Laid over TINY: a few steps and then the ladder, for tests of commands.
QUICK = [
    *("data.max_length=4", "trainer.steps=6", "trainer.log_every=3", "trainer.checkpoint_every=3"),
    *("trainer.threads=1", "optimizer.warmup_steps=2", "validation.every=3"),
    *("validation.samples=16", "evaluation.samples=16", "evaluation.lengths=4,8"),
    "evaluation.after_training=true",
]


def tiny(*words: str) -> list[str]:
    """The words of a TINY run, with others laid over them."""
    return list({word.partition("=")[0]: word for word in (*TINY, *words)}.values())


def quick(*words: str) -> list[str]:
    """The words of a QUICK run, with others laid over them."""
    return tiny(*QUICK, *words)


def train_tiny(*words: str) -> Path:
    """The directory of a TINY run with words laid over it, trained here."""
    from lcg.training.loop import train

    return train(load_config(tiny(*words)), progress=False).directory


def encoded(outcomes: list[bool]) -> str:
    """Outcomes as a cell keeps them, written out bit by bit."""
    bits = "".join("01"[flag] for flag in outcomes)
    bits += "0" * (-len(bits) % 4)
    return "".join(f"{int(bits[i : i + 4], 2):x}" for i in range(0, len(bits), 4))


def scattered(correct: int, samples: int, start: int) -> str:
    """Outcomes with as many samples right as asked for, another selection for every start."""
    order = [(7919 * i + 31 * start) % samples for i in range(samples)]
    right = set(order[:correct])
    return encoded([i in right for i in range(samples)])


def fabricate(
    ladder: dict[int, int | str] | None = None,
    *,
    task: str = "copy",
    attention: str = "softmax",
    position: str = "nape",
    seed: int = 0,
    lr: float = 0.001,
    group: str | None = None,
    validation: dict[int, tuple[float | None, float | None]] | None = None,
    samples: int = 1000,
    evaluation_seed: int = 1,
    step: int = 2000,
    settings: dict | None = None,
    options: dict | None = None,
    **changes,
) -> RunRecord:
    """A finished run; `ladder` maps a length to a count of correct samples or to a state."""
    cells = []
    for length, outcome in (ladder or {}).items():
        known = isinstance(outcome, int)
        cells.append(
            Cell(
                length=length,
                samples=samples,
                seed=evaluation_seed,
                step=step,
                tokens=2 * length + 3,
                state="value" if known else outcome,
                correct=outcome if known else None,
                reason="" if known else "needs 31 GiB, 20 GiB available",
                outcomes=scattered(outcome, samples, len(attention)) if known else None,
            )
        )
    validation = {32: (1.0, 1.0)} if validation is None else validation
    group = group or f"{task}-{attention}-{position}".replace("/", "_")
    fields = {
        "run": f"{group}-s{seed}-lr{lr:g}",
        "hash": f"{group}{seed}{lr:g}",
        "group": group,
        "labels": {"task": task, "attention": attention, "position": position},
        "settings": {
            "seed": seed,
            "lr": lr,
            "steps": 2000,
            "batch_size": 64,
            "train_lengths": [8, 32],
            "parameters": 123456,
            **(settings or {}),
        },
        "training": Training("finished", 2000, seconds=81.2, device="cpu"),
        "selection": Selection(2000, "val/len_128/exact_match", 0.9, 0.99),
        "validation": {n: Validation(*scores) for n, scores in validation.items()},
        "ladder": tuple(cells),
        "task": options or {},
    }
    return RunRecord(**fields | changes)


def probe_row() -> dict[str, float]:
    """The probe's columns at a validation step, for two layers."""
    row = {}
    for layer in (0, 1):
        row |= {f"alpha/layer_{layer}/head_{head}": 1.4 + head / 100 + layer for head in range(4)}
        quantiles = {"p5": 0.8, "p50": 1.2, "p95": 2.0, "max": 3.5}
        row |= {f"scaler/layer_{layer}/{name}": x + layer for name, x in quantiles.items()}
        for group in ("all", "scaled", "unscaled"):
            row[f"heads/layer_{layer}/{group}/support"] = 4.0 * (1 + layer)
            row[f"heads/layer_{layer}/{group}/max_weight"] = 0.4 + 0.2 * layer
    return row


def write_run(folder: Path, record: RunRecord, heads: bool = True, rows: int = 20) -> Path:
    """A run directory of a record, with metrics and provenance, without checkpoints."""
    run = Run(folder / record.run.replace("<", "_").replace(">", "_"))
    run.path.mkdir(parents=True)
    record.save(run.path)
    probed = probe_row() if heads else {}
    with run.metrics_file.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "train/loss", *probed], restval="")
        writer.writeheader()
        for i in range(1, rows + 1):
            row = {"step": 100 * i, "train/loss": 3 * math.exp(-i / 5)}
            writer.writerow(row | ({k: v + 0.1 * math.sqrt(i) for k, v in probed.items()}))
    provenance = {
        "git": {"commit": "0123456789abcdef0123", "dirty": True},
        "code": "133ec765f700",
        "packages": {"lcg": "0.1.0", "torch": "2.13.0+cpu"},
        "device_name": None,
    }
    (run.path / PROVENANCE).write_text(json.dumps(provenance))
    os.utime(run.metrics_file, (1_700_000_000, 1_700_000_000))
    return run.path
