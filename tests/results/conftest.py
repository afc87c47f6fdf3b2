"""Fabricated runs: what a record looks like, without training anything."""

from collections.abc import Callable

import pytest

from lcg.runs.record import Cell, RunRecord, Selection, Training, Validation


def scattered(correct: int, samples: int, start: int) -> str:
    """Outcomes with as many samples right as asked for, another selection for every start."""
    order = [(7919 * i + 31 * start) % samples for i in range(samples)]
    right = set(order[:correct])
    return encoded([i in right for i in range(samples)])


def encoded(outcomes: list[bool]) -> str:
    """Outcomes as a cell keeps them, written out bit by bit."""
    bits = "".join("01"[flag] for flag in outcomes)
    bits += "0" * (-len(bits) % 4)
    return "".join(f"{int(bits[i : i + 4], 2):x}" for i in range(0, len(bits), 4))


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
    training: Training | None = None,
    selection: Selection | None = None,
    options: dict | None = None,
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
    group = group or f"{task}-{attention}-{position}"
    return RunRecord(
        run=f"{group}-s{seed}-lr{lr:g}",
        hash=f"{group}{seed}{lr:g}",
        group=group,
        labels={"task": task, "attention": attention, "position": position},
        settings={
            "seed": seed,
            "lr": lr,
            "steps": 2000,
            "batch_size": 64,
            "train_lengths": [8, 32],
            "parameters": 123456,
            **(settings or {}),
        },
        training=training or Training("finished", 2000, seconds=81.2, device="cpu"),
        selection=selection or Selection(2000, "val/len_128/exact_match", 0.9, 0.99),
        validation={n: Validation(*v) for n, v in (validation or {32: (1.0, 1.0)}).items()},
        ladder=tuple(cells),
        task=options or {},
    )


@pytest.fixture
def make() -> Callable[..., RunRecord]:
    return fabricate
