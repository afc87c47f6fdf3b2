"""The record of a run: metrics of its steps, results.json, and how a call ended."""

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

from lcg.config import (
    Config,
    experiment_identity,
    experiment_tree,
    identity,
    source_digests,
    task_tree,
)
from lcg.diagnostics.loss_plateau import loss_plateau
from lcg.diagnostics.probe import group_norms, learned_alphas
from lcg.log import log
from lcg.models.transformer import model_inputs
from lcg.ranks import is_rank_zero
from lcg.runs.files import move_aside
from lcg.runs.metrics import Tracking
from lcg.runs.record import RecordError, RunRecord, Selection, Training, Validation
from lcg.runs.run import Run
from lcg.training.learner import Learner
from lcg.training.module import learning_rate_factor
from lcg.training.validation import LadderValidation


@dataclass
class Outcome:
    """The end of a call to `train`: finished, interrupted, not_finite or already finished.

    `interrupted` with all steps done means that a signal came with the last one: the record says
    finished, and whatever would have come after training is left to the next call.
    """

    directory: Path
    status: str
    step: int
    signal: int = 0
    already: bool = False
    reason: str = ""

    @property
    def exit_code(self) -> int:
        """0, 128 + signal as shells have it, or 4 for a loss that is not finite.

        Only the first process's counts: Lightning kills all when another's is not 0.
        """
        if not is_rank_zero():
            return 0
        if self.status == "interrupted":
            return 128 + self.signal
        return 4 if self.status == "not_finite" else 0


class Metrics:
    """Loss, learning rate, gradient norms, learned α and speed: a row every log_every steps.

    At step 0 a row has the learned α alone. `seconds` are those of training, in all calls.
    """

    def __init__(self, config: Config, tracking: Tracking) -> None:
        self.config, self.tracking = config, tracking
        self.seconds = 0.0
        self.row: dict[str, float] = {}
        self.final_loss: float | None = None
        self._tokens = self._steps = 0
        self._norms: dict[str, Tensor] = {}
        self._since = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "final_loss": self.final_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds, self.final_loss = state["seconds"], state.get("final_loss")

    def start(self, learner: Learner, step: int) -> None:
        """Begin to count time, at the step where training stands."""
        alphas = learned_alphas(learner.module.model)
        if alphas and step == 0:  # where each head starts
            self.tracking.log(0, alphas)
        self._since = time.perf_counter()

    def measure_gradients(self, learner: Learner) -> None:
        """Take the norms of gradients that are whole and not yet clipped, as train/grad_norm is."""
        self._norms = group_norms(learner.module.model)

    def count(self, batch: dict[str, Tensor]) -> None:
        """Count a step that was made on a batch."""
        self._tokens += sum(tokens.numel() for tokens in model_inputs(batch))
        self._steps += 1

    def log(self, learner: Learner, step: int) -> None:
        """Write a row on the steps since the last one."""
        module, fabric, options = learner.module, learner.fabric, self.config.optimizer
        # Each process has its share of the batch; the mean is the loss of all of it.
        self.final_loss = float(fabric.all_reduce(module.loss.clone(), reduce_op="mean"))
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        self.seconds += elapsed
        factor = learning_rate_factor(step - 1, options, self.config.trainer.steps)
        self.row = {
            "train/loss": self.final_loss,
            "train/lr": options.lr * factor,
            "train/grad_norm": float(module.grad_norm),
            "train/tokens_per_second": self._tokens * fabric.world_size / elapsed,
            "train/steps_per_second": self._steps / elapsed,
            "train/seconds": self.seconds,
        }
        self.row |= {f"grad_norm/{group}": float(norm) for group, norm in self._norms.items()}
        self.row |= learned_alphas(module.model)
        self.tracking.log(step, self.row)
        self._since, self._tokens, self._steps = time.perf_counter(), 0, 0

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Do not count what is done inside as training time."""
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started


def progress_bar(label: str, step: int, steps: int, shown: bool) -> tqdm:
    """Make a bar with the time left, which starts at a step."""
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


def progress_text(row: dict[str, float]) -> str:
    """Return what the bar shows of a row of metrics: loss, tokens and steps per second."""
    loss = row["train/loss"]
    shown = f"loss {loss:.4f}" if math.isfinite(loss) else "loss not finite"
    tokens, steps = row["train/tokens_per_second"], row["train/steps_per_second"]
    return f"{shown} · {tokens:,.0f} tokens/s · {steps:.3g} steps/s"


@dataclass
class RecordWriter:
    """Writes results.json; lengths evaluated before are kept.

    So is what else was validated of the checkpoint that is still the selected one.
    """

    config: Config
    directory: Path
    metrics: Metrics
    validation: LadderValidation
    device: str
    parameters: int

    def open(self, step: int) -> None:
        """Say that the run is under way, before its first step."""
        with RunRecord.updating(self.directory):
            record = self._before()
        if record is None:
            self.save("running", step)
            return
        with RunRecord.updating(self.directory):
            training = replace(record.training, status="running", reason="")
            replace(record, training=training).save(self.directory)

    def save(self, status: str, step: int, reason: str = "") -> RunRecord:
        """Write the record as it stands at a step."""
        config = self.config
        selected = self.validation.selection()
        best = self.validation.best or {"lengths": {}}
        record = RunRecord(
            run=self.directory.name,
            hash=identity(config),
            group=experiment_identity(config),
            labels=config.labels,
            settings={
                "kind": config.model.kind,
                "seed": config.seed,
                "lr": config.optimizer.lr,
                "steps": config.trainer.steps,
                "batch_size": config.data.batch_size,
                "train_lengths": [config.data.min_length, config.data.max_length],
                "parameters": self.parameters,
                **({"sources": sources} if (sources := source_digests(config)) else {}),
            },
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
            fate={} if status == "running" else self._fate(),
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
        """The record so far; one that cannot be read is set aside, and made anew."""
        path = Run(self.directory).record_file
        if not os.path.lexists(path):
            return None
        try:
            RunRecord.load(self.directory)
        except RecordError as error:
            log.warning(f"{error}; it is set aside as {move_aside(path).name}, training goes on")
            return None
        return RunRecord.load(self.directory, identity(self.config))

    def _fate(self) -> dict[str, Any]:
        return loss_plateau(Run(self.directory).metrics_file, self.config.optimizer.warmup_steps)
