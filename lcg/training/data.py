"""Training batches as Lightning wants them: batch t is a pure function of (task, seed, t)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from lcg.config import Config
from tasks.base import IGNORE
from tasks.streams import train_batch


class Batches(Dataset):
    """Batch t by its number: the rows rank::world of the global batch."""

    def __init__(self, config: Config, rank: int, world: int) -> None:
        self.config, self.rank, self.world = config, rank, world

    def __getitem__(self, t: int) -> dict[str, torch.Tensor]:
        """inputs and labels [rows tokens]; scored, the scored positions of the global batch."""
        data = self.config.data
        batch = train_batch(
            self.config.task,
            self.config.seed,
            t,
            data.batch_size,
            data.min_length,
            data.max_length,
            data.lengths_per,
        )
        rows = slice(self.rank, None, self.world)
        return {
            "inputs": torch.from_numpy(batch.inputs[rows]).contiguous(),
            "labels": torch.from_numpy(batch.labels[rows]).contiguous(),
            "scored": torch.tensor((batch.labels != IGNORE).sum()),
        }


class StepsFrom(Sampler):
    """Counts t from the first step to do, in order. Has no length: an epoch never ends."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))


class TaskData(LightningDataModule):
    """The training stream, from wherever training stands."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def train_dataloader(self) -> DataLoader:
        # Lightning replays an epoch's data from its start after a resume, so the loader itself
        # starts at the step the trainer was restored to.
        workers = self.config.data.workers
        return DataLoader(
            Batches(self.config, self.trainer.global_rank, self.trainer.world_size),
            batch_size=None,
            sampler=StepsFrom(self.trainer.global_step, self.config.trainer.steps),
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="forkserver" if workers > 0 else None,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )
