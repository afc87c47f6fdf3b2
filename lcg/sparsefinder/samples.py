"""Samples of a task's streams, as a model of any kind reads them.

Shapes: b batch, t tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lcg.evaluation.scoring import Score, score_teacher_forcing
from tasks.streams import EvalStream


@dataclass(frozen=True)
class Samples:
    """What a model is called with, the labels [b t], and which inputs are no padding [b t]."""

    reads: tuple[Tensor, ...]
    labels: Tensor
    real: Tensor


def draw(config: Any, split: str, length: int, count: int, model: nn.Module) -> Samples:
    """The first samples of a split at a length, on the model's device."""
    device = next(model.parameters()).device
    stream = EvalStream(config.task, config.evaluation.seed, split, length)
    batch = stream.batch(0, count)
    inputs, labels = (torch.from_numpy(x).to(device) for x in (batch.inputs, batch.labels))
    return Samples((inputs,), labels, inputs != config.task.pad)


def score(model: nn.Module, samples: Samples) -> Score:
    """Who is right, by one forward pass."""
    return score_teacher_forcing(model, *samples.reads, samples.labels)
