"""Batch t of the training stream: a pure function of (task, seed, t).

Loader workers import this file, so nothing in it may take long to import.
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
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lcg.config import Config, config_from_tree, identity, to_tree
from lcg.models.transformer import batch_tensors
from lcg.registry import fault
from lcg.tasks.base import IGNORE, Batch
from lcg.tasks.streams import train_batch
from lcg.training.devices import compile_mode
from lcg.training.signals import end_with


class TaskError(ValueError):
    """A task cannot draw a batch; the message is one line.

    A loader's worker raises it again in the main process with a traceback as its text, of which
    only the last line is kept.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.rstrip().rpartition("TaskError: ")[2])


class Batches(IterableDataset):
    """Batch t by its number: the rows rank::world of the global batch; or all from `start` on.

    With `one_width` all batches are padded to the longest possible width. The workers of a loader
    take turns. Without a length and a sampler, Lightning does not change its order on any number of
    devices.
    """

    def __init__(
        self, config: Config, rank: int, world: int, one_width: bool = False, start: int = 0
    ) -> None:
        self.config, self.rank, self.world = config, rank, world
        self.one_width, self.start = one_width, start

    def __getstate__(self) -> dict[str, Any]:
        # As plain text, since a class from a user's own file cannot be pickled.
        return vars(self) | {"config": to_tree(self.config), "identity": identity(self.config)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        config = config_from_tree(state["config"])
        if identity(config) != state.pop("identity"):
            raise ValueError("the code of the task changed while training started; start again")
        vars(self).update(state, config=config)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        return map(self.__getitem__, itertools.count(self.start + number, workers))

    def __getitem__(self, t: int) -> dict[str, torch.Tensor]:
        """inputs and labels [rows tokens], source where an encoder reads it, and ids where tokens
        are numbered; scored, the scored positions of the global batch.

        Raises TaskError when the task's class is at fault.
        """
        try:
            batch = _drawn(self.config, t)
            rows = slice(self.rank, None, self.world)
            tensors = {name: part[rows].contiguous() for name, part in batch_tensors(batch).items()}
            if self.one_width:
                tensors = {name: self._widened(name, part) for name, part in tensors.items()}
            return tensors | {"scored": torch.tensor((batch.labels != IGNORE).sum())}
        except Exception as error:
            line = fault(error) or (str(error) if isinstance(error, ValueError) else None)
            if line is None:
                raise
            raise TaskError(line) from None

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
        value = {"labels": IGNORE, "ids": 0}.get(name, task.pad)
        return F.pad(tensor, (0, missing), value=value)


def _drawn(config: Config, t: int) -> Batch:
    """Return global batch t."""
    data = config.data
    lengths = (data.min_length, data.max_length, data.lengths_per)
    return train_batch(
        *(config.task, config.seed, t, data.batch_size, *lengths),
        separate_source=config.model.separate_source,
        position=config.position,
    )


def batch_loader(
    config: Config, start: int, rank: int, world: int, device: torch.device
) -> DataLoader:
    """Load a rank's batches from step `start` on, with the config's number of workers."""
    workers = config.data.workers
    one_width = compile_mode(config.trainer, device) is not None
    return DataLoader(
        Batches(config, rank, world, one_width, start),
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
    """Return nominal lengths of the first training batches: one per sample, or one per batch."""
    count = None if config.data.lengths_per == "sample" else 1
    return np.concatenate([_drawn(config, t).lengths[:count] for t in range(batches)])


def realised_lengths(config: Config) -> str:
    """Return a line on the lengths drawn in the first batches."""
    per = config.data.lengths_per
    batches = min(config.trainer.steps, 16 if per == "sample" else 64)
    drawn = drawn_lengths(config, batches)
    low, middle, high = np.quantile(drawn, [0.1, 0.5, 0.9])
    return (
        f"training lengths {drawn.min()}–{drawn.max()}, drawn per {per}: mean {drawn.mean():.1f}, "
        f"median {middle:g}, 80 % in {low:g}–{high:g} (first {batches} batches)"
    )
