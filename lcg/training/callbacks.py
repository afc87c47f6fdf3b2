"""What happens at step boundaries, in this order: log, validate, save, stop.

Order matters: a checkpoint holds what validation at the same step found, and a stop request is
answered only after everything of its step is written.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from tqdm import tqdm

from lcg.config import Config, identity, to_tree
from lcg.evaluation.ladder import climb
from lcg.training import checkpoints


class Metrics(Callback):
    """Every log_every steps: loss, learning rate, gradient norm and speed, to all loggers.

    This is also where the device is asked whether everything was finite; training stops with a
    record of it when not.
    """

    def __init__(self, config: Config, loggers: list) -> None:
        self.config, self.loggers = config, loggers
        self.seconds = 0.0
        self.not_finite_at: int | None = None
        self.final_loss: float | None = None
        self._tokens = 0

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds = state["seconds"]

    def on_train_start(self, trainer, module) -> None:
        self._since = time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx: int) -> None:
        self._tokens += batch["inputs"].numel()
        step = trainer.global_step
        if step % self.config.trainer.log_every and step != self.config.trainer.steps:
            return
        elapsed = time.perf_counter() - self._since
        self.seconds += elapsed
        if not bool(module.finite):
            self.not_finite_at = step
            trainer.should_stop = True
            return
        self.final_loss = float(module.loss)
        row = {
            "train/loss": self.final_loss,
            "train/lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train/grad_norm": float(module.grad_norm),
            "train/tokens_per_second": self._tokens * trainer.world_size / max(elapsed, 1e-9),
            "train/seconds": self.seconds,
        }
        for logger in self.loggers:
            logger.log(step, row)
        self._since, self._tokens = time.perf_counter(), 0

    def pause(self) -> contextlib.AbstractContextManager:
        """What is done inside does not count as training time."""
        return _Paused(self)


class _Paused(contextlib.AbstractContextManager):
    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *exception) -> None:
        self.metrics._since += time.perf_counter() - self.started


class LadderValidation(Callback):
    """Climbs the validation ladder every so many steps and keeps the best checkpoint."""

    def __init__(self, config: Config, folder: Path, loggers: list, metrics: Metrics) -> None:
        self.config, self.folder, self.loggers, self.metrics = config, folder, loggers, metrics
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.monitor = f"val/len_{config.validation.monitored}/exact_match"

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history, self.best = state["history"], state["best"]

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx: int) -> None:
        step, validation = trainer.global_step, self.config.validation
        if step % validation.every and step != self.config.trainer.steps:
            return
        if trainer.is_global_zero and bool(module.finite):
            with self.metrics.pause():
                self._validate(module, step)
        trainer.strategy.barrier()

    def _validate(self, module, step: int) -> None:
        validation = self.config.validation
        cells = climb(
            module.model,
            self.config,
            validation.lengths,
            validation.samples,
            split="validation",
            seed=self.config.evaluation.seed,
            step=step,
        )
        row, lengths = {}, {}
        for cell in cells:
            if cell.state != "value":
                continue
            lengths[str(cell.length)] = {
                "exact_match": cell.exact_match,
                "token_accuracy": cell.token_accuracy,
            }
            row[f"val/len_{cell.length}/exact_match"] = cell.exact_match
            row[f"val/len_{cell.length}/token_accuracy"] = cell.token_accuracy
        for logger in self.loggers:
            logger.log(step, row)
        monitored = lengths.get(str(validation.monitored))
        if monitored is None:
            return
        candidate = {"step": step, "lengths": lengths, **monitored}
        self.history = [h for h in self.history if h["step"] < step] + [candidate]
        key = checkpoints.selection_key
        if self.best is None or key(candidate) >= key(self.best):
            self.best = candidate
            content = {"state_dict": module.model.state_dict(), "step": step}
            content["config"] = to_tree(self.config)
            checkpoints.save(content, self.folder / checkpoints.BEST)

    def selection(self) -> dict[str, Any] | None:
        """The selected checkpoint for the run record, flagged when the monitor did not select."""
        if self.best is None:
            return None
        values = {h["exact_match"] for h in self.history}
        flat = len(values) == 1 and len(self.history) > 1
        reason = ""
        if flat:
            reason = (
                f"{self.monitor} was {values.pop():g} at all {len(self.history)} validations; "
                "token accuracy, then the later step decided"
            )
        return {
            "step": self.best["step"],
            "monitor": self.monitor,
            "value": self.best["exact_match"],
            "token_accuracy": self.best["token_accuracy"],
            "degenerate": flat,
            "reason": reason,
        }


class Checkpoints(Callback):
    """Saves every checkpoint_every steps, at the end, and when asked to stop."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder

    def on_save_checkpoint(self, trainer, module, checkpoint: dict[str, Any]) -> None:
        checkpoint["identity"] = identity(self.config)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx: int) -> None:
        step = trainer.global_step
        due = step % self.config.trainer.checkpoint_every == 0
        if due or step == self.config.trainer.steps:
            self.save(trainer, module)

    def save(self, trainer, module) -> None:
        """Write last.ckpt, unless what it would hold is not finite."""
        if bool(module.finite):
            trainer.save_checkpoint(self.folder / checkpoints.LAST)


class GracefulStop(Callback):
    """SIGTERM and Ctrl-C set a flag; the step under way is finished, saved, and then we stop.

    Stopping inside a step would save new weights under an old step count. A second Ctrl-C stops at
    once. `signal` is the number received, 0 if none.
    """

    def __init__(self, saver: Checkpoints) -> None:
        self.saver = saver
        self.signal = 0
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer, module) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._received)

    def _received(self, number: int, frame) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx: int) -> None:
        asked = self.signal
        if trainer.world_size > 1:  # all ranks must stop at the same step
            asked = int(trainer.strategy.reduce(torch.tensor(float(asked)), reduce_op="max"))
        if asked:
            self.signal = asked
            if trainer.global_step < trainer.max_steps:
                self.saver.save(trainer, module)
            trainer.should_stop = True

    def on_train_end(self, trainer, module) -> None:
        self.restore()

    def restore(self) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class Progress(Callback):
    """A bar with loss, tokens per second and time left."""

    def __init__(self, config: Config, label: str) -> None:
        self.config, self.label = config, label

    def on_train_start(self, trainer, module) -> None:
        self._tokens, self._since = 0, time.perf_counter()
        self._bar = tqdm(
            total=self.config.trainer.steps,
            initial=trainer.global_step,
            desc=self.label,
            unit="step",
            disable=not trainer.is_global_zero,
            dynamic_ncols=True,
            mininterval=0.5,
            bar_format="{desc} {percentage:3.0f}% |{bar}| {n}/{total} · {remaining} left{postfix}",
        )

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx: int) -> None:
        self._tokens += batch["inputs"].numel() * trainer.world_size
        self._bar.update(1)
        if trainer.global_step % self.config.trainer.log_every == 0:
            seconds = time.perf_counter() - self._since
            speed = self._tokens / max(seconds, 1e-9)
            loss = float(module.loss)
            shown = f"loss {loss:.4f}" if math.isfinite(loss) else "loss not finite"
            self._bar.set_postfix_str(f"{shown} · {speed:,.0f} tokens/s")

    def on_train_end(self, trainer, module) -> None:
        self._bar.close()
