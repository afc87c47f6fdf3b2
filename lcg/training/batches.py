"""Batch t of the training stream: a pure function of (task, seed, t).

Loader workers import this file, and nothing in it takes long to import.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from lcg.config import Config, config_from_tree, identity, to_tree
from lcg.models.transformer import batch_tensors
from lcg.registry import fault
from lcg.tasks.base import IGNORE
from lcg.tasks.streams import train_batch


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
            apart=self.config.model.apart,
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
        elif self.config.model.apart:
            widths = task.target_length(lengths) + 1
        else:
            widths = task.token_length(lengths) - (task.kind == "seq2seq")  # EOS is never read
        missing = int(np.max(widths)) - tensor.shape[1]
        return F.pad(tensor, (0, missing), value=IGNORE if name == "labels" else task.pad)
