"""Metrics, progress bar and results.json of a run while it trains."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from lcg.config import Config, experiment_identity, identity
from lcg.config.identity import experiment_tree, source_digests, task_tree
from lcg.diagnostics.loss_plateau import loss_plateau
from lcg.diagnostics.probe import group_norms, learned_alphas
from lcg.log import log
from lcg.runs.files import move_aside
from lcg.runs.metrics import Tracking
from lcg.runs.record import RecordError, RunRecord, Selection, Training, Validation
from lcg.runs.run import Run
from lcg.training.learner import Learner
from lcg.training.module import learning_rate_factor
from lcg.training.validation import LadderValidation


class Metrics:
    """Loss, learning rate, gradient norms, learned α and speed: a row every log_every steps.

    At step 0 a row has the learned α alone. `seconds` are those of training, in all calls.
    """

    def __init__(self, config: Config, tracking: Tracking) -> None:
        self.config, self.tracking = config, tracking
        self.seconds = 0.0
        self.final_loss: float | None = None
        self._tokens = self._steps = 0
        self._norms: dict[str, Tensor] = {}
        self._since = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "final_loss": self.final_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds, self.final_loss = state["seconds"], state.get("final_loss")

    def start(self, learner: Learner, step: int) -> None:
        """Start measuring time, at the current step."""
        alphas = learned_alphas(learner.module.model)
        if alphas and step == 0:  # where each head starts
            self.tracking.log(0, alphas)
        self._since = time.perf_counter()

    def measure_gradients(self, learner: Learner) -> None:
        """Measure the norms of complete gradients before clipping, as train/grad_norm is."""
        self._norms = group_norms(learner.module.model)

    def count(self, batch: dict[str, Tensor]) -> None:
        """Count a step on a batch."""
        self._tokens += sum(batch[name].numel() for name in ("inputs", "source") if name in batch)
        self._steps += 1

    def log(self, learner: Learner, step: int) -> str:
        """Write a row on the steps since the last one; return what the progress bar shows."""
        module, fabric, options = learner.module, learner.fabric, self.config.optimizer
        # Each process has its share of the batch; the mean is the loss of all of it.
        loss = self.final_loss = float(fabric.all_reduce(module.loss.clone(), reduce_op="mean"))
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        self.seconds += elapsed
        tokens = self._tokens * fabric.world_size / elapsed
        steps = self._steps / elapsed
        row = {
            "train/loss": loss,
            "train/lr": options.lr
            * learning_rate_factor(step - 1, options, self.config.trainer.steps),
            "train/grad_norm": float(module.grad_norm),
            "train/tokens_per_second": tokens,
            "train/steps_per_second": steps,
            "train/seconds": self.seconds,
        }
        row |= {f"grad_norm/{group}": float(norm) for group, norm in self._norms.items()}
        self.tracking.log(step, row | learned_alphas(module.model))
        self._since, self._tokens, self._steps = time.perf_counter(), 0, 0
        shown = f"{loss:.4f}" if math.isfinite(loss) else "not finite"
        return f"loss {shown} · {tokens:,.0f} tokens/s · {steps:.3g} steps/s"

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Exclude the time of this block from training time."""
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started


def progress_bar(label: str, step: int, steps: int, shown: bool) -> tqdm:
    """Return a bar with the time left, which starts at a step."""
    return tqdm(
        total=steps,
        initial=step,
        desc=label,
        unit="step",
        disable=not shown,
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 30,  # a log file keeps every refresh
        bar_format="{desc} {percentage:3.0f}% |{bar}| {n}/{total} · {remaining} left{postfix}",
    )


@dataclass
class RecordWriter:
    """Writes results.json; lengths evaluated before are kept.

    Other validations of the checkpoint that is still selected are kept too.
    """

    config: Config
    directory: Path
    metrics: Metrics
    validation: LadderValidation
    device: str
    parameters: int

    def open(self, step: int) -> None:
        """Record that the run is training, before its first step."""
        with RunRecord.updating(self.directory):
            before = self._before()
            if before is not None:
                training = replace(before.training, status="running", reason="")
                replace(before, training=training).save(self.directory)
        if before is None:
            self.save("running", step)

    def save(self, status: str, step: int, reason: str = "") -> RunRecord:
        """Write the record as of a step."""
        config, selected = self.config, self.validation.selection()
        best = self.validation.best or {"lengths": {}}
        settings = {
            "kind": config.model.kind,
            "seed": config.seed,
            "lr": config.optimizer.lr,
            "steps": config.trainer.steps,
            "batch_size": config.data.batch_size,
            "train_lengths": [config.data.min_length, config.data.max_length],
            "parameters": self.parameters,
        }
        if sources := source_digests(config):
            settings["sources"] = sources
        metrics_file, warmup = Run(self.directory).metrics_file, config.optimizer.warmup_steps
        record = RunRecord(
            run=self.directory.name,
            hash=identity(config),
            group=experiment_identity(config),
            labels=config.labels,
            settings=settings,
            training=Training(
                status=status,
                step=step,
                seconds=round(self.metrics.seconds, 2),
                device=self.device,
                final_loss=self.metrics.final_loss,
                reason=reason,
            ),
            selection=None if selected is None else Selection(**selected),
            validation={int(n): Validation(**values) for n, values in best["lengths"].items()},
            task=task_tree(config),
            fate={} if status == "running" else loss_plateau(metrics_file, warmup),
            config=experiment_tree(config),
        )
        with RunRecord.updating(self.directory):
            before = self._before()
            if before is not None:
                record = record.merge(before.ladder)
                if before.selection and selected and before.selection.step == selected["step"]:
                    record = record.with_validation(before.validation)
            record.save(self.directory)
        return record

    def _before(self) -> RunRecord | None:
        """Return the existing record; one that cannot be read is renamed and replaced."""
        path = Run(self.directory).record_file
        if not os.path.lexists(path):
            return None
        try:
            RunRecord.load(self.directory)
        except RecordError as error:
            log.warning(f"{error}; it was renamed to {move_aside(path).name}, training continues")
            return None
        return RunRecord.load(self.directory, identity(self.config))
