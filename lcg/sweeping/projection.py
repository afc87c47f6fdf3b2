"""What a sweep will run, and how long that takes, from a few timed steps of each kind of run.

Runs that differ only in seed and learning rate take the same time, so one of each is timed, on one
worker's share of the machine, one after the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from lcg.config import ConfigError, experiment_identity
from lcg.speaking import say
from lcg.sweeping.combinations import combinations
from lcg.sweeping.file import Sweep
from lcg.sweeping.runs import Run, State, find_run, state_of
from lcg.sweeping.worker import Slot, share
from lcg.units import duration

EXAMPLES = 5  # runs that are drawn to stand for a sweep that draws


@dataclass(frozen=True)
class Kind:
    """Runs that take the same time. seconds: of one, from its first step to its last."""

    label: str
    runs: list[tuple[Run, State]]
    seconds: float
    startup: float

    @property
    def left(self) -> float:
        """Seconds of all of them, one after the other, from where they stand."""
        return sum(
            self.startup + self.seconds * (1 - state.step / run.steps)
            for run, state in self.runs
            if not state.done
        )


@dataclass(frozen=True)
class SweepProjection:
    """What a sweep takes. count: runs in all; for one that draws, more than were looked at."""

    kinds: list[Kind]
    count: int
    workers: int

    @property
    def core_seconds(self) -> float:
        """Seconds of all runs that are left, one after the other."""
        looked_at = sum(len(kind.runs) for kind in self.kinds)
        scale = self.count / looked_at if looked_at else 0.0
        return scale * sum(kind.left for kind in self.kinds)

    @property
    def seconds(self) -> float:
        """Wall time with all workers."""
        return self.core_seconds / self.workers


def planned_runs(sweep: Sweep) -> list[tuple[dict[str, str], Run, State]]:
    """Every run of a grid, or a few that a sweep which draws could draw; and how far each is."""
    if sweep.method == "grid":
        choices = combinations(sweep)
    else:
        from lcg.sweeping.study import sample

        choices = sample(sweep, min(EXAMPLES, sweep.run_cap))
    found = []
    for chosen in choices:
        try:
            run = find_run(sweep.words(chosen))
        except ConfigError as error:
            say(f"not possible: {error}")
            continue
        found.append((chosen, run, state_of(run)))
    return found


def project_time(sweep: Sweep, workers: int | None = None) -> SweepProjection:
    """Time each kind of run of a sweep that is not finished. Raises ValueError when one fails."""
    return _project(sweep, planned_runs(sweep), workers)


def project_sweep(sweep: Sweep, workers: int | None = None) -> str:
    """The runs of a sweep and its projected time, as text."""
    plan = planned_runs(sweep)
    drawn = sweep.method != "grid"
    title = f"{sweep.path}: method {sweep.method}, {sweep.run_cap if drawn else len(plan)} runs"
    lines = [title + (f"; {len(plan)} that it could draw:" if drawn else ":")]
    width = max((len(run.name) for _, run, _ in plan), default=0)
    for chosen, run, state in plan:
        how = f"resumes at step {state.step}" if state.kind == "resumes" else state.kind
        how += ", stale: trained by other code" if state.stale and state.done else ""
        choice = " ".join(f"{key}={text}" for key, text in chosen.items())
        lines.append(f"  {run.name:<{width}}  {choice}  {how}")
    projection = _project(sweep, plan, workers)
    lines.append("")
    for kind in projection.kinds:
        left = sum(not state.done for _, state in kind.runs)
        each = "finished" if not left else f"{duration(kind.seconds + kind.startup)} each"
        lines.append(f"  {kind.label}: {left} of {len(kind.runs)} runs left, {each}")
    one_after_another = duration(projection.core_seconds)
    lines += [
        "",
        f"together {duration(projection.seconds)} with {projection.workers} workers "
        f"({one_after_another} one after another)",
        "Projected from a few steps and a validation pass of one run of each kind, timed alone.",
        "Not in it: the test ladder after training, and what workers take from each other.",
    ]
    return "\n".join(lines)


def _project(sweep: Sweep, plan: list, workers: int | None) -> SweepProjection:
    groups: dict[str, list[tuple[Run, State]]] = {}
    for _, run, state in plan:
        groups.setdefault(experiment_identity(run.config), []).append((run, state))
    trainer = plan[0][1].config.trainer if plan else None
    cpu_only = trainer is not None and trainer.accelerator == "cpu"
    slots = share(workers, trainer.devices if trainer else 1, cpu_only)
    kinds = [_kind(runs, slots[0]) for runs in groups.values()]
    count = len(plan) if sweep.method == "grid" else sweep.run_cap
    return SweepProjection(kinds, count, len(slots))


def _kind(runs: list[tuple[Run, State]], slot: Slot) -> Kind:
    labels = runs[0][0].config.labels
    label = " · ".join(labels[group] for group in ("task", "attention", "position"))
    left = [run for run, state in runs if not state.done]
    if not left:
        return Kind(label, runs, 0.0, 0.0)
    say(f"{label}: timing a few steps …")
    found = _measure(left[0], slot)
    return Kind(label, runs, found["seconds"], found["importing"])


def _measure(run: Run, slot: Slot) -> dict:
    words = list(run.words)
    if run.config.trainer.threads is None:
        words.append(f"trainer.threads={slot.threads}")
    done = subprocess.run(
        [sys.executable, "-m", "lcg.sweeping.timing", *words],
        capture_output=True,
        text=True,
        env=os.environ | slot.environment,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ValueError(f"{run.name}: timing it failed: {said[-1] if said else done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])
