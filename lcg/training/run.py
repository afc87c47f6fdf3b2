"""One training run from a config: directory, lock, resuming, fitting, record."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning import Trainer

from lcg.config import Config, experiment_identity, identity, run_directory, to_tree, to_yaml
from lcg.results import RunRecord, Selection, Training, Validation, write_atomic
from lcg.training import checkpoints, provenance
from lcg.training.callbacks import (
    Checkpoints,
    GracefulStop,
    LadderValidation,
    Metrics,
    Progress,
)
from lcg.training.data import TaskData
from lcg.training.module import TrainingModule
from lcg.training.tracking import CSVMetrics, WandbMetrics


class Busy(RuntimeError):
    """Another process trains this run; the message is one line."""


@dataclass
class Outcome:
    """How a call to `train` ended: finished, interrupted, not_finite or already finished."""

    directory: Path
    status: str
    step: int
    signal: int = 0
    already: bool = False
    reason: str = ""

    @property
    def exit_code(self) -> int:
        """0, 128 + signal as shells have it, or 4 for a loss that is not finite."""
        if self.status == "interrupted":
            return 128 + self.signal
        return 4 if self.status == "not_finite" else 0


def say(text: str) -> None:
    """A line for the person in front of the terminal; results go to stdout, this does not."""
    print(text, file=sys.stderr, flush=True)


def is_first_process() -> bool:
    """Whether this is the process that keeps the books; Lightning starts the others for DDP."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0 and int(os.environ.get("NODE_RANK", 0)) == 0


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the run directory for this process alone; the system lets go when it dies.

    Raises Busy when another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy(f"{directory} is being trained by another process") from None
        yield


def train(config: Config, progress: bool = True) -> Outcome:
    """Train a run to its end, from wherever it stands; returns how that went.

    Raises Busy, DamagedCheckpoint, or ValueError for a run directory of another config.
    """
    directory = run_directory(config)
    if not is_first_process():
        return _train(config, directory, progress=False)
    with locked(directory):
        return _train(config, directory, progress)


def _train(config: Config, directory: Path, progress: bool) -> Outcome:
    first = is_first_process()
    _check_same_config(config, directory)
    finished = _finished(config, directory)
    if finished is not None:
        return finished
    resume = checkpoints.newest_readable(directory / "checkpoints", say if first else _silent)
    resume_step = checkpoints.load(resume)["global_step"] if resume else 0
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)

    module = TrainingModule(config)
    loggers = _loggers(config, directory, resume_step) if first else []
    metrics = Metrics(config, loggers)
    folder = directory / "checkpoints"
    validation = LadderValidation(config, folder, loggers, metrics)
    saver = Checkpoints(config, folder)
    stop = GracefulStop(saver)
    bar = [Progress(config, directory.name)] if progress else []
    with _quiet():
        trainer = _trainer(config, [metrics, *bar, validation, saver, stop])
    if first:
        _open_run(config, directory, str(trainer.strategy.root_device))
        if resume:
            say(f"resuming {directory} at step {resume_step} of {config.trainer.steps}")
    exit_code = 1
    try:
        with _quiet():
            trainer.fit(module, TaskData(config), ckpt_path=resume, weights_only=True)
        outcome = _outcome(directory, trainer, metrics, stop)
        if first:
            record = _record(config, directory, module, trainer, metrics, validation, outcome)
            record.save(directory)
            _summarize(loggers, record)
        exit_code = outcome.exit_code
        return outcome
    finally:
        stop.restore()
        for logger in loggers:
            logger.close(*([exit_code] if isinstance(logger, WandbMetrics) else []))


def _trainer(config: Config, callbacks: list) -> Trainer:
    return Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        strategy="ddp" if config.trainer.devices > 1 else "auto",
        precision=config.trainer.precision,
        max_steps=config.trainer.steps,
        max_epochs=-1,
        callbacks=callbacks,
        plugins=[checkpoints.AtomicCheckpointIO()],
        # All of these have their own, simpler counterpart above.
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        log_every_n_steps=10**9,
    )


def _check_same_config(config: Config, directory: Path) -> None:
    """Refuse a named directory that holds a run of another config."""
    path = directory / "config.yaml"
    if path.exists():
        held = json.loads((directory / provenance.NAME).read_text())["identity"]
        if held != identity(config):
            raise ValueError(
                f"{directory} holds a run of another config ({held}, this is {identity(config)}); "
                "choose another name"
            )


def _finished(config: Config, directory: Path) -> Outcome | None:
    """The outcome of a run that needs no more training; says so when its code has changed."""
    if not (directory / "results.json").exists():
        return None
    training = RunRecord.load(directory).training
    if training.status not in ("finished", "not_finite"):
        return None
    if provenance.read(directory).get("code") != provenance.code_digest(config):
        say(f"{directory} is stale: it was trained by other code; delete it to train again")
    return Outcome(directory, training.status, training.step, already=True, reason=training.reason)


def _open_run(config: Config, directory: Path, device: str) -> None:
    """Write what is known before the first step."""
    (directory / "plots").mkdir(exist_ok=True)
    facts = provenance.gather(config, device)
    facts["identity"] = identity(config)
    facts["wandb_id"] = _wandb_id(directory)
    write_atomic(directory / provenance.NAME, json.dumps(facts, indent=1) + "\n")
    write_atomic(directory / "config.yaml", to_yaml(config))


def _wandb_id(directory: Path) -> str:
    return provenance.read(directory).get("wandb_id") or secrets.token_hex(4)


def _loggers(config: Config, directory: Path, resume_step: int) -> list:
    columns = ["loss", "lr", "grad_norm", "tokens_per_second", "seconds"]
    columns = [f"train/{name}" for name in columns]
    for length in config.validation.lengths:
        columns += [f"val/len_{length}/{name}" for name in ("exact_match", "token_accuracy")]
    table = CSVMetrics(directory / "metrics.csv", columns, resume_step)
    run_id = _wandb_id(directory)
    tracker = WandbMetrics(config, to_tree(config), directory, directory.name, run_id)
    if tracker.note:
        say(tracker.note)
    return [table, tracker]


def _outcome(directory, trainer, metrics, stop) -> Outcome:
    step = trainer.global_step
    if metrics.not_finite_at is not None:
        reason = f"the loss or a gradient was not finite by step {metrics.not_finite_at}"
        return Outcome(directory, "not_finite", step, reason=reason)
    if step < trainer.max_steps:
        return Outcome(directory, "interrupted", step, stop.signal)
    return Outcome(directory, "finished", step)


def _record(config, directory, module, trainer, metrics, validation, outcome) -> RunRecord:
    selected = validation.selection()
    best = validation.best or {"lengths": {}}
    record = RunRecord(
        run=directory.name,
        hash=identity(config),
        group=experiment_identity(config),
        labels=config.labels,
        settings={
            "seed": config.seed,
            "lr": config.optimizer.lr,
            "steps": config.trainer.steps,
            "batch_size": config.data.batch_size,
            "train_lengths": [config.data.min_length, config.data.max_length],
            "parameters": sum(p.numel() for p in module.model.parameters()),
        },
        training=Training(
            status=outcome.status,
            step=outcome.step,
            seconds=round(metrics.seconds, 2),
            device=str(trainer.strategy.root_device),
            final_loss=metrics.final_loss,
            reason=outcome.reason,
        ),
        selection=None if selected is None else Selection(**selected),
        validation={int(n): Validation(**values) for n, values in best["lengths"].items()},
    )
    if (directory / "results.json").exists():
        record = record.merge(RunRecord.load(directory).ladder)
    return record


def _summarize(loggers: list, record: RunRecord) -> None:
    for logger in loggers:
        if isinstance(logger, WandbMetrics):
            summary = {"status": record.training.status}
            for length, values in record.validation.items():
                summary[f"best/len_{length}/exact_match"] = values.exact_match
            logger.summarize(summary)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks on things that are meant as they are."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for pattern in (".*num_workers.*", ".*does not have many workers.*", ".*GPU available.*"):
            warnings.filterwarnings("ignore", pattern)
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning.*")
        warnings.filterwarnings("ignore", category=FutureWarning)
        try:
            yield
        finally:
            log.setLevel(level)


def _silent(text: str) -> None:
    """The other processes of a DDP run say nothing."""
