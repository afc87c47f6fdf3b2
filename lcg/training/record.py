"""What a run leaves behind: how the call ended, and results.json."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lcg.config import (
    Config,
    experiment_identity,
    experiment_tree,
    identity,
    source_digests,
    task_tree,
)
from lcg.diagnostics.loss_plateau import fate
from lcg.log import log
from lcg.ranks import is_rank_zero
from lcg.runs.files import move_aside
from lcg.runs.record import RecordError, RunRecord, Selection, Training, Validation
from lcg.runs.run import Run
from lcg.training.callbacks import LadderValidation, Metrics


@dataclass
class Outcome:
    """How a call to `train` ended: finished, interrupted, not_finite or already finished.

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


@dataclass
class RecordKeeper:
    """Writes results.json from what the callbacks know; lengths evaluated before are kept.

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
        return fate(Run(self.directory).metrics_file, self.config.optimizer.warmup_steps)
