"""Batch t of the training stream: a pure function of (task, seed, t).

Loader workers import this file, and nothing in it takes long to import.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from lcg.config import Config, config_from_tree, identity, to_tree
from lcg.models.transformer import batch_tensors
from lcg.registry import fault
from lcg.tasks.base import IGNORE
from lcg.tasks.streams import train_batch
from lcg.training.devices import compile_mode
from lcg.training.signals import end_with


class TaskError(ValueError):
    """One line on a task that cannot draw a batch.

    A loader's worker raises it again in the main process with a traceback as its text, of which
    only the last line is kept.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.rstrip().rpartition("TaskError: ")[2])


class Batches(Dataset):
    """Batch t by its number: the rows rank::world of the global batch.

    With `one_width` all are padded to the width of the longest there can be.
    """

    def __init__(self, config: Config, rank: int, world: int, one_width: bool = False) -> None:
        self.config, self.rank, self.world, self.one_width = config, rank, world, one_width

    def __getstate__(self) -> dict[str, Any]:
        # As plain text, since a class from a user's own file cannot be pickled.
        return vars(self) | {"config": to_tree(self.config), "identity": identity(self.config)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        config = config_from_tree(state["config"])
        if identity(config) != state.pop("identity"):
            raise ValueError("the code of the task was changed while training started; start again")
        vars(self).update(state, config=config)

    def __getitem__(self, t: int) -> dict[str, torch.Tensor]:
        """inputs and labels [rows tokens], and source where an encoder reads it; scored, the scored
        positions of the global batch.

        Raises TaskError when the task's class is at fault.
        """
        try:
            return self._batch(t)
        except Exception as error:
            line = fault(error) or (str(error) if isinstance(error, ValueError) else None)
            if line is None:
                raise
            raise TaskError(line) from None

    def _batch(self, t: int) -> dict[str, torch.Tensor]:
        data = self.config.data
        batch = train_batch(
            self.config.task,
            self.config.seed,
            t,
            data.batch_size,
            data.min_length,
            data.max_length,
            data.lengths_per,
            separate_source=self.config.model.separate_source,
        )
        rows = slice(self.rank, None, self.world)
        own = {name: tensor[rows].contiguous() for name, tensor in batch_tensors(batch).items()}
        if self.one_width:
            own = {name: self._widened(name, tensor) for name, tensor in own.items()}
        return own | {"scored": torch.tensor((batch.labels != IGNORE).sum())}

    def _widened(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        task, data = self.config.task, self.config.data
        lengths = np.arange(data.min_length, data.max_length + 1)  # the last may not be the widest
        if name == "source":
            widths = task.source_length(lengths) + 2  # BOS and EOS
        elif self.config.model.separate_source:
            widths = task.target_length(lengths) + 1
        else:
            widths = task.token_length(lengths) - (task.kind == "seq2seq")  # EOS is never read
        missing = int(np.max(widths)) - tensor.shape[1]
        return F.pad(tensor, (0, missing), value=IGNORE if name == "labels" else task.pad)


class BatchStream(IterableDataset):
    """Batches start, start + 1, …, without an end. The workers of a loader take turns.

    Without a length and a sampler, Lightning leaves its order alone on any number of devices.
    """

    def __init__(self, batches: Batches, start: int) -> None:
        self.batches, self.start = batches, start

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        return map(self.batches.__getitem__, itertools.count(self.start + number, workers))


def batch_loader(
    config: Config, start: int, rank: int, world: int, device: torch.device
) -> DataLoader:
    """Load a rank's batches from step `start` on, in as many workers as the config has."""
    workers = config.data.workers
    one_width = compile_mode(config.trainer, device) is not None
    return DataLoader(
        BatchStream(Batches(config, rank, world, one_width), start),
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        # torch's own look-out for a dead trainer is between batches
        worker_init_fn=partial(_end_with_trainer, os.getpid()),
        # forkserver's workers outlive a trainer that is killed, fork copies held locks
        multiprocessing_context="spawn" if workers > 0 else None,
        pin_memory=device.type == "cuda",
    )


def _end_with_trainer(trainer: int, worker: int) -> None:
    end_with(trainer)


def drawn_lengths(config: Config, batches: int) -> np.ndarray:
    """Nominal lengths of the first training batches: one per sample, or one per batch."""
    data = config.data
    drawn = []
    for t in range(batches):
        batch = train_batch(
            config.task,
            config.seed,
            t,
            data.batch_size,
            data.min_length,
            data.max_length,
            data.lengths_per,
        )
        drawn.append(batch.lengths if data.lengths_per == "sample" else batch.lengths[:1])
    return np.concatenate(drawn)


def realised_lengths(config: Config) -> str:
    """One line on the lengths drawn, as found in the first batches."""
    per = config.data.lengths_per
    batches = min(config.trainer.steps, 16 if per == "sample" else 64)
    drawn = drawn_lengths(config, batches)
    low, middle, high = np.quantile(drawn, [0.1, 0.5, 0.9])
    return (
        f"training lengths {drawn.min()}–{drawn.max()}, drawn per {per}: mean {drawn.mean():.1f}, "
        f"median {middle:g}, 80 % in {low:g}–{high:g} (first {batches} batches)"
    )
