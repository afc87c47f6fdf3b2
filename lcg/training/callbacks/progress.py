"""The bar."""

from __future__ import annotations

import math
import sys
import time

from lightning import Callback
from tqdm import tqdm

from lcg.config import Config
from lcg.training.callbacks.metrics import Metrics


class Progress(Callback):
    """A bar with loss, tokens and steps per second, and time left."""

    def __init__(self, config: Config, label: str, metrics: Metrics) -> None:
        self.config, self.label, self.metrics = config, label, metrics
        self._bar: tqdm | None = None

    def on_train_start(self, trainer, module) -> None:
        self._tokens, self._steps, self._since = 0, 0, time.perf_counter()
        self._bar = tqdm(
            total=self.config.trainer.steps,
            initial=trainer.global_step,
            desc=self.label,
            unit="step",
            disable=not trainer.is_global_zero,
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 30,  # a log file keeps every refresh
            bar_format="{desc} {percentage:3.0f}% |{bar}| {n}/{total} · {remaining} left{postfix}",
        )

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx: int) -> None:
        self._tokens += batch["inputs"].numel() * trainer.world_size
        self._steps += 1
        if trainer.global_step % self.config.trainer.log_every == 0:
            seconds = max(time.perf_counter() - self._since, 1e-9)
            tokens, steps = self._tokens / seconds, self._steps / seconds
            loss = self.metrics.final_loss
            shown = f"loss {loss:.4f}" if math.isfinite(loss) else "loss not finite"
            self._bar.set_postfix_str(
                f"{shown} · {tokens:,.0f} tokens/s · {steps:.3g} steps/s", refresh=False
            )
        self._bar.update(1)

    def on_train_end(self, trainer, module) -> None:
        self._bar.close()

    def on_exception(self, trainer, module, exception) -> None:
        if self._bar is not None:
            self._bar.close()  # so that what is said next starts on a line of its own
