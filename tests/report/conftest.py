"""Run directories with records, metrics and provenance, written without training anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tiny import fabricate, write_run

from lcg.report import MapChoice, Report, find, make
from lcg.runs.record import RunRecord, Selection

MADE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def record(ladder: dict[int, int | str], *, validation: float = 0.9, **changes) -> RunRecord:
    """A finished run of 200 samples; `validation` is exact match at the monitored length."""
    scores = {32: (1.0, 1.0), 64: (validation, 0.99), 128: (validation / 2, 0.9)}
    selection = Selection(2000, "val/len_64/exact_match", validation, 0.99)
    return fabricate(ladder, samples=200, validation=scores, selection=selection, **changes)


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
def trained(train_once) -> Path:
    """The directory of a tiny ASEntmax run with a checkpoint: 2 layers of 2 heads."""
    return train_once("attention=asentmax", "model.layers=2")
