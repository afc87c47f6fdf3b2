"""All methods at all lengths: what is learned at one length is used at every other.

What is learned comes from the validation stream at the training length; what is measured, from the
test stream. Memory is bounded: a length that does not fit is skipped, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from lcg.diagnostics import capture
from lcg.evaluation.scoring import score_teacher_forcing
from lcg.evaluation.test_sets import TestSet
from lcg.models.transformer import model_inputs
from lcg.sparsefinder.graphs import collect, draw
from lcg.sparsefinder.grid import Grid
from lcg.sparsefinder.metrics import Gold, Identity, Measures, measure, overall
from lcg.sparsefinder.predictors import Method
from lcg.sparsefinder.projections import Known, examples, learn, learn_centroids
from lcg.sparsefinder.restricting import restricted

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
    per_head: dict[str, Measures] = field(default_factory=dict)
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

    @property
    def counted(self) -> str:
        """The number of samples in words."""
        return f"{self.samples} sample{'s' * (self.samples > 1)}"


@dataclass
class Study:
    """Results of a plan; learned_from: samples, fewer than planned where no more fit in memory or
    the split has no more; losses: by layer, the margin loss at each step."""

    plan: Plan
    learned_from: int
    losses: dict[str, list[float]]
    lengths: list[LengthResult]


def run_study(model: nn.Module, config: Any, plan: Plan, progress: Progress) -> Study:
    """Learn at plan.learned_at, then measure at every length.

    Raises MemoryError when not even what is learned from fits.
    """
    device = next(model.parameters()).device
    if reason := obstacle(config, plan.learned_at, device):
        raise MemoryError(reason)
    batch = draw(config, "validation", plan.learned_at, plan.learn_samples, model)
    learned, losses = learn_layers(model, batch, plan, progress)
    study = Study(plan, len(batch["inputs"]), losses, [])
    for length in plan.lengths:
        result = LengthResult(length, int(config.task.token_length(length)), 0)
        result.skipped = obstacle(config, length, device)
        if result.skipped is None:
            samples = max(1, round(plan.samples * min(plan.lengths) / length))
            batch = draw(config, "test", length, samples, model)
            _measure_length(result, model, batch, plan.grid.methods(), learned, progress)
        study.lengths.append(result)
    return study


def obstacle(config: Any, length: int, device: torch.device) -> str | None:
    """Say why a sequence of this length does not fit in memory, or return None."""
    test_set = TestSet(config, "test", length, 1)
    problem = capture.obstacle(config, test_set.token_length, 1, device)
    return problem or capture.obstacle(config, *test_set.sample_size, device)


def learn_layers(
    model: nn.Module, batch: dict[str, Tensor], plan: Plan, progress: Progress
) -> tuple[dict[str, Known], dict[str, list[float]]]:
    """Projections and centroids of every layer, by name, and the losses on the way."""
    layers = collect(model, model_inputs(batch))
    learned, losses, done = {}, {}, count(1)

    def step() -> None:
        progress("learning projections", next(done), plan.steps * len(layers))

    for index, heads in enumerate(layers):
        seed = plan.seed + index
        data = examples(heads, seed)
        projection, losses[heads.name] = learn(data, plan.rank, plan.shared, plan.steps, seed, step)
        counts = sorted(set(plan.grid.clusters)), list(plan.grid.routing)
        learned[heads.name] = learn_centroids(heads, projection, *counts, seed)
        progress("learning clusters", index + 1, len(layers))
    return learned, losses


def _measure_length(
    result: LengthResult,
    model: nn.Module,
    batch: dict[str, Tensor],
    methods: list[Method],
    known: dict[str, Known],
    progress: Progress,
) -> None:
    """Fill in the result of a length."""
    result.samples = len(batch["inputs"])
    result.exact_match, result.token_accuracy = _accuracies(model, batch)
    layers = [Gold(heads) for heads in collect(model, model_inputs(batch))]
    for number, method in enumerate(methods, start=1):
        cell = measured(method, layers, known)
        if cell.skipped is None:
            with restricted(model, lambda heads, own=method: own.links(heads, known[heads.name])):
                cell.exact_match, cell.token_accuracy = _accuracies(model, batch)
        result.cells.append(cell)
        progress(f"length {result.length}", number, len(methods))


def measured(method: Method, layers: list[Gold], known: dict[str, Known]) -> CellResult:
    """The measures of one method on the layers' own graphs."""
    setting = (method.setting, method.window, method.globals, method.learned)
    result = CellResult(method.front, method.family, *setting)
    for gold in layers:
        name = gold.heads.name
        try:
            links = method.links(gold.heads, known[name])
        except NotImplementedError as error:
            result.skipped = str(error)
            return result
        result.per_head[name], identity = measure(gold, links)
        result.identity += identity
    for name, value in overall(result.per_head.values()).items():
        setattr(result, name, value)
    return result


def _accuracies(model: nn.Module, batch: dict[str, Tensor]) -> tuple[float, float]:
    """Exact match and token accuracy, by one forward pass."""
    score = score_teacher_forcing(model, **batch)
    return score.correct / score.samples, score.right / max(1, score.positions)
