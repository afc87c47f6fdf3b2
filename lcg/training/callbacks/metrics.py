"""Loss, learning rate, gradient norms, learned α and speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning import Callback
from torch import Tensor

from lcg.config import Config
from lcg.diagnostics.probe import group_norms, learned_alphas
from lcg.models.transformer import model_inputs
from lcg.runs.metrics import Tracking
from lcg.training.module import learning_rate_factor


class Metrics(Callback):
    """Writes a row every log_every steps, and after the last one; at step 0, learned α alone."""

    def __init__(self, config: Config, tracking: Tracking) -> None:
        self.config, self.tracking = config, tracking
        self.seconds = 0.0
        self.final_loss: float | None = None
        self._tokens = self._steps = 0
        self._norms: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "final_loss": self.final_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds, self.final_loss = state["seconds"], state.get("final_loss")

    def on_train_start(self, trainer, module) -> None:
        alphas = learned_alphas(module.model)
        if alphas and trainer.global_step == 0:  # where each head starts
            self.tracking.log(0, alphas)
        self._since = time.perf_counter()

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        # Here gradients are whole and not yet clipped, as for train/grad_norm.
        if self._due(trainer.global_step + 1):
            self._norms = group_norms(module.model)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx: int) -> None:
        self._tokens += sum(tokens.numel() for tokens in model_inputs(batch))
        self._steps += 1
        step, options = trainer.global_step, self.config.optimizer
        if not self._due(step):
            return
        # Each process has its share of the batch; the mean is the loss of all of it.
        self.final_loss = float(trainer.strategy.reduce(module.loss.clone(), reduce_op="mean"))
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        self.seconds += elapsed
        factor = learning_rate_factor(step - 1, options, self.config.trainer.steps)
        row = {
            "train/loss": self.final_loss,
            "train/lr": options.lr * factor,
            "train/grad_norm": float(module.grad_norm),
            "train/tokens_per_second": self._tokens * trainer.world_size / elapsed,
            "train/steps_per_second": self._steps / elapsed,
            "train/seconds": self.seconds,
        }
        row |= {f"grad_norm/{group}": float(norm) for group, norm in self._norms.items()}
        row |= learned_alphas(module.model)
        self.tracking.log(step, row)
        self._since, self._tokens, self._steps = time.perf_counter(), 0, 0

    def _due(self, step: int) -> bool:
        return step % self.config.trainer.log_every == 0 or step == self.config.trainer.steps

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What is done inside does not count as training time."""
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started
