"""Training batches as Lightning wants them, from wherever training stands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import resource_tracker

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from lcg.config import Config
from lcg.training.batches import Batches
from lcg.training.module import compile_mode
from lcg.training.processes import deaf_children, end_with


class StepsFrom(Sampler):
    """Counts t from the first step to do, in order. Has no length: an epoch never ends."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))


class EndWith:
    """Ends a worker with the trainer, whatever either is doing."""

    def __init__(self, parent: int) -> None:
        self.parent = parent

    def __call__(self, worker: int) -> None:
        end_with(self.parent)


class Loader(DataLoader):
    """Its workers leave stopping to the trainer, which still needs their batches."""

    def __iter__(self):
        if self.num_workers == 0:
            return super().__iter__()
        resource_tracker.ensure_running()  # started in there, it would end the deafness
        with deaf_children():
            return super().__iter__()


class TaskData(LightningDataModule):
    """The training stream, from wherever training stands."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def train_dataloader(self) -> DataLoader:
        # Lightning replays an epoch's data from its start after a resume, so the loader itself
        # starts at the step the trainer was restored to.
        workers, trainer = self.config.data.workers, self.trainer
        one_width = compile_mode(self.config.trainer, trainer.strategy.root_device) is not None
        return Loader(
            Batches(self.config, trainer.global_rank, trainer.world_size, one_width),
            batch_size=None,
            sampler=StepsFrom(trainer.global_step, self.config.trainer.steps),
            num_workers=workers,
            persistent_workers=workers > 0,
            # torch's own look-out for a dead trainer is between batches
            worker_init_fn=EndWith(os.getpid()),
            # forkserver's workers outlive a trainer that is killed, fork copies held locks
            multiprocessing_context="spawn" if workers > 0 else None,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )
