"""Samples of a task's streams, as a model of any kind reads them.

Shapes: b batch, t tokens, s tokens of the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lcg.evaluation import memory
from lcg.evaluation.scoring import Score, score_teacher_forcing
from lcg.evaluation.test_sets import TestSet
from lcg.models.transformer import batch_tensors, model_inputs


@dataclass(frozen=True)
class Samples:
    """Inputs and labels [b t], and what an encoder reads besides [b s], if there is one.

    real [b t]: which inputs are no padding.
    """

    parts: dict[str, Tensor]
    real: Tensor

    @property
    def reads(self) -> tuple[Tensor, ...]:
        """What the model is called with."""
        return model_inputs(self.parts)


def draw(config: Any, split: str, length: int, count: int, model: nn.Module) -> Samples:
    """The first samples, at most `count`, each once, and no more than fit in memory, on the model's
    device."""
    device = next(model.parameters()).device
    test_set = TestSet(config, split, length, count)
    count = memory.batch_size(config, *test_set.sample_size, test_set.samples, device)
    parts = batch_tensors(test_set.stream.batch(0, count), device)
    return Samples(parts, parts["inputs"] != config.task.pad)


def score(model: nn.Module, samples: Samples) -> Score:
    """Who is right, by one forward pass."""
    return score_teacher_forcing(
        model, samples.parts["inputs"], samples.parts["labels"], samples.parts.get("source")
    )
