"""One training run from a config: directory, lock, resuming, fitting, record."""

from __future__ import annotations

import logging
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from lightning import Trainer
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy

from lcg.config import Config
from lcg.diagnostics.columns import columns
from lcg.log import log
from lcg.ranks import is_rank_zero, take_rank
from lcg.runs import checkpoints, provenance
from lcg.runs.files import write_atomic
from lcg.runs.metrics import CSVMetrics, Tracking
from lcg.runs.record import RunRecord
from lcg.runs.run import Run, check_same_checkpoint
from lcg.runs.sources import check_copies, copy_sources, run_yaml
from lcg.runs.wandb_logger import WandbMetrics, send_record, summary
from lcg.system import storage_error
from lcg.training.callbacks import (
    Checkpoints,
    Finite,
    GracefulStop,
    HeadProbe,
    LadderValidation,
    Metrics,
    Progress,
    Stopped,
)
from lcg.training.callbacks.saving import AtomicCheckpointIO
from lcg.training.data import TaskData
from lcg.training.devices import check_nodes, device_of, slow_precision
from lcg.training.lengths import realised_lengths
from lcg.training.module import TrainingModule, compile_mode
from lcg.training.processes import deaf_children
from lcg.training.record import Outcome, RecordKeeper
from lcg.training.resuming import check_resumable

__all__ = ["Outcome", "train"]


def train(
    config: Config, progress: bool = True, then: Callable[[Outcome], None] = lambda outcome: None
) -> Outcome:
    """Train a run to its end, from wherever it stands; returns how that went.

    `then` is what follows in the same run, such as the test ladder. The process that keeps the
    books calls it when training is over or was before, and all of it is saved; W&B and the lock are
    held until it returns. A signal stops it at once: the outcome is then `interrupted`.

    Raises Busy, ValueError with one line: checkpoints that cannot be used (UnreadableCheckpoint), a
    directory of another config, a machine that is not there; OSError, naming a file, when the disk
    is full, gone or may not be written.
    """
    check_nodes(config.trainer.nodes)
    take_rank(config.trainer.devices, config.trainer.nodes)
    place = Run.place(config)
    if not is_rank_zero():
        return _Run(config, place, progress=False, then=then).go()
    check_copies(config)
    run = _Run(config, place, progress, then)
    with place.lock(), _one_line_when_unwritable(place.path):
        return run.go()


class _Run:
    """The callbacks of one run, wired to each other, and the trainer that calls them."""

    def __init__(
        self,
        config: Config,
        run: Run,
        progress: bool,
        then: Callable[[Outcome], None],
    ) -> None:
        self.config, self.run, self.then = config, run, then
        self.directory, self.folder = run.path, run.checkpoints
        self.tracking = Tracking()
        self.finite = Finite(config)
        self.metrics = Metrics(config, self.tracking)
        self.saver = Checkpoints(config, self.folder, self.finite)
        self.stop = GracefulStop(self.saver)
        self.validation = LadderValidation(
            config,
            self.folder,
            self.tracking,
            self.metrics,
            self.finite,
            must_stop=lambda: self.stop.signal != 0,
            validated=lambda step: self.keeper.save("running", step),
        )
        bar = [Progress(config, run.path.name, self.metrics)] if progress else []
        probe = HeadProbe(config, self.tracking, self.metrics, self.finite)
        logs = [self.finite, self.metrics, *bar, probe]
        callbacks = [*logs, self.validation, self.saver, self.stop]
        self.trainer = _trainer(config, callbacks)
        self.device = self.trainer.strategy.root_device

    def go(self) -> Outcome:
        """Train, unless that has been done."""
        self.run.check_is_of(self.config)
        record = self.run.finished(self.config)
        with self.stop.listening():
            return self._train() if record is None else self._finished(record)

    def _train(self) -> Outcome:
        config = self.config
        _set_threads(config)
        module = TrainingModule(config)
        check = partial(check_resumable, module=module, trainer=self.trainer)
        resume = checkpoints.newest_readable(self.folder, log.warning, check)
        if resume:
            check_same_checkpoint(config, resume)
        if mode := compile_mode(config.trainer, self.device):
            module.compile_steps(mode)
        parameters = sum(p.numel() for p in module.model.parameters())
        self.keeper = RecordKeeper(
            config, self.directory, self.metrics, self.validation, str(self.device), parameters
        )
        exit_code = 1
        try:
            if is_rank_zero():
                self._open(resume)
            self._fit(module, resume)
            outcome = self._outcome()
            if is_rank_zero():
                record = self.keeper.save(outcome.status, outcome.step, outcome.reason)
                self.tracking.summarize(summary(record))
                if self.stop.signal and outcome.status == "finished":
                    outcome = self._interrupted(outcome)
                outcome = self._follow(outcome)
            exit_code = outcome.exit_code
            return outcome
        finally:
            self.tracking.close(exit_code)

    def _finished(self, record: RunRecord) -> Outcome:
        """Nothing to train; what follows may still be missing, here or on W&B."""
        done = record.training
        outcome = Outcome(self.directory, done.status, done.step, already=True, reason=done.reason)
        if not is_rank_zero():
            return outcome
        outcome = self._follow(outcome)
        new = provenance.adopt_wandb_id(self.directory)
        if new or RunRecord.load(self.directory) != record:
            send_record(self.config, self.directory, outcome.exit_code, new)
        return outcome

    def _follow(self, outcome: Outcome) -> Outcome:
        """Do what follows training, and tell W&B what the run has come to."""
        try:
            with self.stop.at_once():
                self.then(outcome)
        except Stopped:
            outcome = self._interrupted(outcome)
        self.tracking.summarize(summary(RunRecord.load(self.directory)))
        return outcome

    def _interrupted(self, outcome: Outcome) -> Outcome:
        return replace(outcome, status="interrupted", signal=self.stop.signal)

    def _open(self, resume: checkpoints.Resume | None) -> None:
        """Write what is known before the first step, and say it."""
        config, step = self.config, resume.step if resume else 0
        self.run.plots.mkdir(exist_ok=True)
        facts = provenance.write(config, self.directory, self.device, bool(resume))
        copy_sources(config, self.directory)
        write_atomic(self.run.config_file, run_yaml(config))
        for folder in (self.directory, self.folder):
            checkpoints.remove_leftovers(folder)
        checkpoints.set_aside(self.folder, resume)
        if resume:
            log.info(f"resuming {self.directory} at step {step} of {config.trainer.steps}")
        table = CSVMetrics(self.run.metrics_file, columns(config), step)
        self.tracking.places.append(table)
        self.tracking.places.append(WandbMetrics(config, self.directory, facts["wandb_id"]))
        self.keeper.open(step)
        log.info(realised_lengths(config))
        if note := slow_precision(config.trainer, self.device):
            log.warning(f"note: {note}")

    def _fit(self, module: TrainingModule, resume: checkpoints.Resume | None) -> None:
        path = resume.path if resume else None
        try:
            with _quiet():
                self.trainer.fit(module, TaskData(self.config), ckpt_path=path, weights_only=True)
        except BaseException:
            self._end_others(patience=0)
            raise
        self._end_others(patience=30)

    def _end_others(self, patience: float) -> None:
        """Wait for the processes that Lightning started, and end those that do not end."""
        for process in getattr(self.trainer.strategy.launcher, "procs", []):
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _outcome(self) -> Outcome:
        """How the run stands now."""
        step = self.trainer.global_step
        if self.finite.failed_at is not None:
            reason = f"loss, gradient or weights were not finite by step {step}"
            return Outcome(self.directory, "not_finite", step, reason=reason)
        all_done = step >= self.config.trainer.steps and self.validation.pending is None
        status = "finished" if all_done else "interrupted"
        return Outcome(self.directory, status, step, self.stop.signal)


def _trainer(config: Config, callbacks: list) -> Trainer:
    options = config.trainer
    device_of(config)  # raises, before anything is made
    try:
        with _quiet():
            trainer = Trainer(
                accelerator=options.accelerator,
                devices=options.devices,
                num_nodes=options.nodes,
                # Buffers are constants, or each process's own.
                strategy=DDPStrategy(broadcast_buffers=False) if options.processes > 1 else "auto",
                precision=options.precision,
                max_steps=options.steps,
                max_epochs=-1,
                callbacks=callbacks,
                plugins=[AtomicCheckpointIO(), LightningEnvironment()],
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
    except MisconfigurationException as error:
        raise ValueError(
            f"trainer.accelerator={options.accelerator} trainer.devices={options.devices}: "
            + " ".join(str(error).split())
        ) from None
    if (launcher := trainer.strategy.launcher) is not None:
        launcher._call_children_scripts = deaf_children()(launcher._call_children_scripts)
    # Its SIGTERM handler would stop without saving, and under DDP talk to the other processes from
    # inside the handler; GracefulStop is there instead.
    trainer._signal_connector.register_signal_handlers = lambda: None
    return trainer


def _set_threads(config: Config) -> None:
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
        if config.trainer.processes > 1:  # else Lightning sets another number for DDP
            os.environ["OMP_NUM_THREADS"] = str(config.trainer.threads)


@contextmanager
def _one_line_when_unwritable(directory: Path) -> Iterator[None]:
    """Have an error of the storage name a file and the remedy; what was written before is whole."""
    try:
        yield
    except Exception as error:
        behind = storage_error(error, directory)
        if behind is None:
            raise
        behind.strerror += (
            "; what is there is whole, and the same command resumes from its last checkpoint"
        )
        raise behind from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks on things that are meant as they are."""
    logs = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in logs]
    for logger in logs:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for pattern in (".*num_workers.*", ".*does not have many workers.*", ".*GPU available.*"):
            warnings.filterwarnings("ignore", pattern)
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning.*")
        warnings.filterwarnings("ignore", category=FutureWarning)
        try:
            yield
        finally:
            for logger, level in zip(logs, levels, strict=True):
                logger.setLevel(level)
