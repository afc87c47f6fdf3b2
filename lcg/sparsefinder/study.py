"""All methods at all lengths: what is learned at one length is used at every other.

What is learned comes from the validation stream at the training length; what is measured, from the
test stream. Memory is bounded: a length that does not fit is skipped, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from lcg.diagnostics import capture
from lcg.evaluation.scoring import Score
from lcg.evaluation.test_sets import TestSet
from lcg.sparsefinder.graphs import Samples, collect, draw, score
from lcg.sparsefinder.grid import Cell, Grid
from lcg.sparsefinder.metrics import Gold, Identity, LayerMeasures, gold, measure, overall
from lcg.sparsefinder.projections import Known, examples, learn, learn_centroids
from lcg.sparsefinder.restricting import Graph, restricted

Progress = Callable[[str, int, int], None]  # what is under way, done, in all


@dataclass(frozen=True)
class Plan:
    """Plan of a study. samples: at the shortest length; of longer ones fewer, as tokens go."""

    lengths: tuple[int, ...]
    learned_at: int
    samples: int = 16
    learn_samples: int = 32
    rank: int = 4
    shared: bool = False
    steps: int = 300
    seed: int = 0
    grid: Grid = field(default_factory=Grid)


@dataclass
class CellResult:
    """One method and setting at one length; NaN where there is nothing to say."""

    front: str
    method: str
    setting: str
    window: int
    globals: int
    learned: bool
    sparsity: float = math.nan
    recall: float = math.nan
    exact: float = math.nan
    mass: float = math.nan
    exact_match: float = math.nan
    token_accuracy: float = math.nan
    identity: Identity = field(default_factory=Identity)
    per_head: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    skipped: str | None = None


@dataclass
class LengthResult:
    """One length: how many samples, the model's own accuracy, and every method."""

    length: int
    tokens: int
    samples: int
    exact_match: float = math.nan
    token_accuracy: float = math.nan
    cells: list[CellResult] = field(default_factory=list)
    skipped: str | None = None


@dataclass
class Study:
    """Results of a plan; learned_from: samples, fewer than planned where no more fit in memory or
    the split has no more; losses: by layer, the margin loss at each step."""

    plan: Plan
    learned_from: int
    losses: dict[str, list[float]]
    lengths: list[LengthResult]

    def tree(self) -> dict[str, Any]:
        """Everything as plain values; None where there is no number."""
        return _plain(asdict(self))


def run_study(model: nn.Module, config: Any, plan: Plan, progress: Progress) -> Study:
    """Learn at plan.learned_at, then measure at every length.

    Raises MemoryError when not even what is learned from fits.
    """
    device = next(model.parameters()).device
    reason = obstacle(config, plan.learned_at, device)
    if reason is not None:
        raise MemoryError(reason)
    batch = draw(config, "validation", plan.learned_at, plan.learn_samples, model)
    known, losses = learn_layers(model, batch, plan, progress)
    shortest = min(plan.lengths)
    results = []
    for length in plan.lengths:
        samples = max(1, round(plan.samples * shortest / length))
        results.append(_at_length(model, config, plan, length, samples, known, progress))
    return Study(plan, len(batch.real), losses, results)


def obstacle(config: Any, length: int, device: torch.device) -> str | None:
    """Say why a sequence of this length does not fit in memory, or return None."""
    test_set = TestSet(config, "test", length, 1)
    problem = capture.obstacle(config, test_set.token_length, 1, device)
    return problem or capture.obstacle(config, *test_set.sample_size, device)


def learn_layers(
    model: nn.Module, batch: Samples, plan: Plan, progress: Progress
) -> tuple[dict[str, Known], dict[str, list[float]]]:
    """Projections and centroids of every layer, by name, and the losses on the way."""
    layers = collect(model, batch.reads, batch.real)
    clusters = sorted(set(plan.grid.clusters))
    known, losses = {}, {}
    total, done = plan.steps * len(layers), 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("learning projections", done, total)

    for index, heads in enumerate(layers):
        seed = plan.seed + index
        data = examples(heads, seed)
        projection, losses[heads.name] = learn(data, plan.rank, plan.shared, plan.steps, seed, step)
        known[heads.name] = learn_centroids(
            heads, projection, clusters, list(plan.grid.routing), seed
        )
        progress("learning clusters", index + 1, len(layers))
    return known, losses


def _at_length(
    model: nn.Module,
    config: Any,
    plan: Plan,
    length: int,
    samples: int,
    known: dict[str, Known],
    progress: Progress,
) -> LengthResult:
    tokens = int(config.task.token_length(length))
    reason = obstacle(config, length, next(model.parameters()).device)
    if reason is not None:
        return LengthResult(length, tokens, 0, skipped=reason)
    batch = draw(config, "test", length, samples, model)
    own = score(model, batch)
    result = LengthResult(length, tokens, own.samples, *_accuracies(own))
    layers = [gold(heads) for heads in collect(model, batch.reads, batch.real)]
    cells = plan.grid.cells()
    for number, cell in enumerate(cells):
        found = measured(cell, layers, known)
        if found.skipped is None:
            with restricted(model, _predicted(cell, known), batch.real):
                found.exact_match, found.token_accuracy = _accuracies(score(model, batch))
        result.cells.append(found)
        progress(f"length {length}", number + 1, len(cells))
    return result


def _predicted(cell: Cell, known: dict[str, Known]) -> Graph:
    return lambda heads: cell.links(heads, known[heads.name])


def measured(cell: Cell, layers: list[Gold], known: dict[str, Known]) -> CellResult:
    """The measures of one method on the layers' own graphs."""
    method = cell.method
    result = CellResult(
        cell.front, method.family, cell.setting, cell.window, cell.globals, method.learned
    )
    found: list[LayerMeasures] = []
    for layer in layers:
        heads = layer.heads
        reason = method.obstacle(heads)
        if reason is not None:
            result.skipped = reason
            return result
        found.append(measure(layer, cell.links(heads, known[heads.name])))
        measures = asdict(found[-1])
        result.identity += found[-1].identity
        del measures["identity"]
        result.per_head[heads.name] = measures
    for name, value in overall(found).items():
        setattr(result, name, value)
    return result


def _accuracies(found: Score) -> tuple[float, float]:
    return found.correct / found.samples, found.right / max(1, found.positions)


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
