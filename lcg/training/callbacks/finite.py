"""Stops training whose loss, gradients or weights are not finite."""

from __future__ import annotations

import torch
from lightning import Callback

from lcg.config import Config


class Finite(Callback):
    """Asks the device whether all was finite, wherever something would be written of a step.

    Asking at every step would make a GPU wait, so `module.finite` gathers the answers there.
    """

    def __init__(self, config: Config) -> None:
        trainer = config.trainer
        self._every = {trainer.log_every, trainer.checkpoint_every, config.validation.every}
        self._steps = trainer.steps
        self.failed_at: int | None = None
        self._asked_at: int | None = None

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx: int) -> None:
        step = trainer.global_step
        if step == self._steps or any(step % every == 0 for every in self._every):
            self.holds(trainer, module)

    def holds(self, trainer, module) -> bool:
        """Whether loss and gradients so far and the weights now are finite, on every process."""
        step = trainer.global_step
        if self.failed_at is None and self._asked_at != step:
            weights = [p.detach().isfinite().all() for p in module.model.parameters()]
            finite = torch.stack([module.finite, *weights]).all().float()
            self._asked_at = step
            if not bool(trainer.strategy.reduce(finite, reduce_op="min")):
                self.failed_at = step
                trainer.should_stop = True
        return self.failed_at is None
