"""Logs what the heads do, while training goes."""

from __future__ import annotations

from lightning import Callback

from lcg.config import Config
from lcg.diagnostics.probe import Probe
from lcg.runs.metrics import Tracking
from lcg.training.callbacks.finite import Finite
from lcg.training.callbacks.metrics import Metrics


class HeadProbe(Callback):
    """Writes a row of what `Probe` finds at every validation step.

    Before validation, since a stop request may put a validation off until the run resumes; the
    rows of a step then have the same order. In one process: the others meet it at validation's end.
    """

    def __init__(
        self, config: Config, tracking: Tracking, metrics: Metrics, finite: Finite
    ) -> None:
        self.config, self.tracking = config, tracking
        self.metrics, self.finite = metrics, finite
        self._probe: Probe | None = None

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx: int) -> None:
        step = trainer.global_step
        if step % self.config.validation.every and step != self.config.trainer.steps:
            return
        if not self.finite.holds(trainer, module) or not trainer.is_global_zero:
            return
        with self.metrics.pause():
            self._probe = self._probe or Probe(self.config)
            self.tracking.log(step, self._probe(module.model))
