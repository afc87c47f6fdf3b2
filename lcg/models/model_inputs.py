"""What a model reads of a batch: `model(*reads, select=…)` runs a model of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lcg.tasks.base import Batch

READS = ("inputs", "source")
"""What a batch may hold for a model, in the order in which the model takes it."""


def reads(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """(inputs,), or (inputs, source) where an encoder reads the source."""
    return tuple(batch[name] for name in READS if name in batch)


def tensors(batch: Batch, device: Any = None) -> dict[str, Tensor]:
    """A drawn batch as tensors by name: inputs, labels, and source where there is one."""
    found = {"inputs": batch.inputs, "labels": batch.labels, "source": batch.source}
    return {
        name: torch.from_numpy(array).to(device)
        for name, array in found.items()
        if array is not None
    }
