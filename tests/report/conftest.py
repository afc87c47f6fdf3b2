"""Run directories with records, metrics and provenance, written without training anything."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lcg.report import MapChoice, Report, find, make
from lcg.runs.record import Cell, RunRecord, Selection, Training, Validation

MADE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
Ladder = dict[int, int | str]


def first_ones(correct: int, samples: int) -> str:
    """Outcomes in which the first `correct` samples are exact matches."""
    bits = ("1" * correct).ljust(-(-samples // 4) * 4, "0")
    return f"{int(bits, 2):0{len(bits) // 4}x}"


def record(
    ladder: Ladder,
    *,
    task: str = "copy",
    attention: str = "softmax",
    position: str = "nape",
    seed: int = 0,
    lr: float = 0.001,
    validation: float = 0.9,
    samples: int = 200,
    **changes,
) -> RunRecord:
    """A finished run; `ladder` maps a length to a count of correct samples or to a state."""
    cells = [
        Cell(
            length,
            samples,
            seed=0,
            step=2000,
            state="value" if isinstance(outcome, int) else outcome,
            correct=outcome if isinstance(outcome, int) else None,
            outcomes=first_ones(outcome, samples) if isinstance(outcome, int) else None,
            reason="" if isinstance(outcome, int) else "needs 31 GiB, 20 GiB available",
        )
        for length, outcome in ladder.items()
    ]
    group = f"{task}-{attention}-{position}".replace("/", "_")
    whole = RunRecord(
        run=f"{group}-s{seed}-lr{lr:g}",
        hash=f"{seed}{lr:g}",
        group=group,
        labels={"task": task, "attention": attention, "position": position},
        settings={"seed": seed, "lr": lr, "steps": 2000, "train_lengths": [8, 32]},
        training=Training("finished", 2000, seconds=81.2, device="cpu"),
        selection=Selection(2000, "val/len_64/exact_match", validation, 0.99),
        validation={
            32: Validation(1.0, 1.0),
            64: Validation(validation, 0.99),
            128: Validation(validation / 2, 0.9),
        },
        ladder=tuple(cells),
    )
    return replace(whole, **changes)


def columns_of_heads() -> dict[str, float]:
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


def write_run(folder: Path, run: RunRecord, heads: bool = True, rows: int = 20) -> Path:
    """A run directory without checkpoints."""
    directory = folder / run.run.replace("<", "_").replace(">", "_")
    directory.mkdir(parents=True)
    run.save(directory)
    extra = columns_of_heads() if heads else {}
    with (directory / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "train/loss", *extra], restval="")
        writer.writeheader()
        for i in range(1, rows + 1):
            row = {"step": 100 * i, "train/loss": 3 * math.exp(-i / 5)}
            writer.writerow(row | ({k: v + 0.1 * math.sqrt(i) for k, v in extra.items()}))
    provenance = {
        "git": {"commit": "0123456789abcdef0123", "dirty": True},
        "code": "133ec765f700",
        "packages": {"lcg": "0.1.0", "torch": "2.13.0+cpu"},
        "device_name": None,
    }
    (directory / "provenance.json").write_text(json.dumps(provenance))
    os.utime(directory / "metrics.csv", (1_700_000_000, 1_700_000_000))
    return directory


def varied() -> list[RunRecord]:
    """Two tasks, three methods: seeds, learning rates, states, one at the edge of its grid."""
    edge = {"attention": "asentmax", "validation": 0.95}
    return [
        record({32: 200, 64: 180, 128: 90, 256: "out_of_memory"}),
        record({32: 199, 64: 150, 128: "skipped"}, seed=1, validation=0.7),
        record({32: 190, 64: 20}, lr=0.002, validation=0.1),
        record({32: 190, 64: 40}, lr=0.0005, validation=0.2),
        record({32: 200, 64: 199, 128: 160, 256: 20}, lr=0.004, **edge),
        record({32: 200, 64: 120, 128: 70, 256: 0}, lr=0.002, **(edge | {"validation": 0.4})),
        record({32: 10, 64: 0, 128: 0}, position="nope", validation=0.0),
        record({32: 200, 48: 200, 64: "not_finite"}, task="sort", attention="entmax"),
    ]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the varied runs; one of them says when it left its plateau."""
    root = tmp_path_factory.mktemp("runs")
    for index, run in enumerate(varied()):
        if index == 0:
            run = replace(run, fate={"plateau_left_at": 700, "plateau_loss": 2.5})
        write_run(root, run, heads=run.labels["attention"] == "asentmax")
    return root


def make_report(*paths: Path, choice: MapChoice | None = None) -> Report:
    """The report of some runs, as the command makes it, at a fixed time."""
    return make(find(paths), "lcg report …", MADE, choice)


@pytest.fixture(scope="session")
def report(folder: Path) -> Report:
    return make_report(folder)


@pytest.fixture
def made() -> datetime:
    return MADE


@pytest.fixture
def later() -> datetime:
    return datetime(2027, 5, 6, 7, 8, tzinfo=UTC)


@pytest.fixture
def run_of() -> Callable[..., RunRecord]:
    return record


@pytest.fixture
def write() -> Callable[..., Path]:
    return write_run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny ASEntmax run with a checkpoint: 2 layers of 2 heads."""
    from processes import tiny

    from lcg.config import load_config
    from lcg.training.loop import train

    runs = tmp_path_factory.mktemp("mapped")
    words = tiny(f"runs={runs}", "attention=asentmax", "model.layers=2")
    return train(load_config(words), progress=False).directory
