"""Learned α over training, as a run's metrics.csv has it; without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lcg.runs.run import Run

ALPHA = re.compile(r"alpha/(\w+)/head_(\d+)")


@dataclass(frozen=True)
class Trajectory:
    """α of one head at the steps at which it was logged."""

    layer: str
    head: int
    steps: list[int] = field(repr=False)
    values: list[float] = field(repr=False)


def alpha_trajectories(run: Path, kinds: Mapping[str, str]) -> dict[str, list[Trajectory]]:
    """Attention kind -> the trajectory of every head of that kind; empty where none was logged.

    kinds: the attention kind of each layer by its name: see `headers.attention_layers`. Of several
    values at one step the last counts.
    """
    curves = Run(run).curves(lambda name: _kind(name, kinds) is not None)
    found: dict[str, list[Trajectory]] = {}
    for name, (steps, values) in curves.items():
        match = ALPHA.fullmatch(name)
        head = Trajectory(match[1], int(match[2]), steps, values)
        found.setdefault(kinds[match[1]], []).append(head)
    return found


def _kind(name: str, kinds: Mapping[str, str]) -> str | None:
    match = ALPHA.fullmatch(name)
    return kinds.get(match[1]) if match else None
