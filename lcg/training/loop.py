"""One training run from a config: directory, lock, resuming, the loop over steps, record."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path

import torch
from torch import Tensor, nn

from lcg.config import Config, identity
from lcg.diagnostics.columns import columns
from lcg.diagnostics.probe import Probe
from lcg.log import log
from lcg.ranks import is_rank_zero, take_rank
from lcg.runs import checkpoints, provenance
from lcg.runs.files import write_atomic
from lcg.runs.metrics import CSVMetrics, Tracking
from lcg.runs.record import RunRecord
from lcg.runs.run import Run, check_identity
from lcg.runs.sources import check_copies, copy_sources, run_yaml
from lcg.runs.wandb_logger import WandbMetrics, send_record, summary
from lcg.system import storage_error
from lcg.training.data import batch_loader, realised_lengths
from lcg.training.devices import check_nodes, compile_mode, device_of, slow_precision
from lcg.training.learner import Learner, check_resumable, make_fabric, quiet
from lcg.training.module import TrainingModule
from lcg.training.record import (
    Metrics,
    Outcome,
    RecordWriter,
    progress_bar,
    progress_text,
)
from lcg.training.signals import Stopped, StopRequest, block_signals
from lcg.training.validation import LadderValidation

__all__ = ["Outcome", "train"]


def train(
    config: Config, progress: bool = True, then: Callable[[Outcome], None] = lambda outcome: None
) -> Outcome:
    """Train a run to its end, from wherever it stands; returns how that went.

    `then` is what follows in the same run, such as the test ladder. The main process calls it when
    training is over or was before, and all of it is saved; W&B and the lock are held until it
    returns. A signal stops it at once: the outcome is then `interrupted`.

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
    """One run: its directory, its processes, and its steps."""

    def __init__(
        self,
        config: Config,
        run: Run,
        progress: bool,
        then: Callable[[Outcome], None],
    ) -> None:
        self.config, self.run, self.progress, self.then = config, run, progress, then
        self.directory, self.folder = run.path, run.checkpoints
        self.tracking, self.stop = Tracking(), StopRequest()
        self.metrics = Metrics(config, self.tracking)
        self.validation = LadderValidation(config, self.folder, self.tracking, self.stop)
        device_of(config)  # raises, before anything is made
        self.fabric = make_fabric(config.trainer)
        self.device = self.fabric.device
        self.step = 0
        self.failed = False  # loss, gradients or weights were not finite
        self._checked_at = self._saved_at = -1
        self._probe_heads: Probe | None = None

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
        check = partial(check_resumable, module=module)
        resume = checkpoints.newest_readable(self.folder, log.warning, check)
        if resume:
            check_identity(resume.identity, config, resume.path)
        if mode := compile_mode(config.trainer, self.device):
            module.compile_steps(mode)
        parameters = sum(p.numel() for p in module.model.parameters())
        self.record = RecordWriter(
            config, self.directory, self.metrics, self.validation, str(self.device), parameters
        )
        exit_code = 1
        try:
            if is_rank_zero():
                self._open(resume)
            with self._processes():
                self._fit(module, resume)
            outcome = self._outcome()
            if is_rank_zero():
                record = self.record.save(outcome.status, outcome.step, outcome.reason)
                self.tracking.summarize(summary(record))
                if self.stop.signal and outcome.status == "finished":
                    outcome = self._interrupted(outcome)
                outcome = self._follow(outcome)
            exit_code = outcome.exit_code
            return outcome
        finally:
            self.tracking.close(exit_code)

    def _finished(self, record: RunRecord) -> Outcome:
        """Do what may still be missing of a run that is trained, here or on W&B."""
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
        self.record.open(step)
        log.info(realised_lengths(config))
        if note := slow_precision(config.trainer, self.device):
            log.warning(f"note: {note}")

    def _fit(self, module: TrainingModule, resume: checkpoints.Resume | None) -> None:
        """Make the steps that are left; what is due after one happens in the order of lines.

        So nothing but metrics is written of a step that was not finite, a checkpoint holds what
        validation at its step found, and a stop request is answered after all else is done.
        """
        options, model = self.config.trainer, module.model
        learner = Learner(self.fabric, module)
        if resume:
            self._restore(learner, resume)
        if self.validation.pending is not None:
            self._validate(model)
        if self.step == options.steps:
            return
        self.metrics.start(learner, self.step)
        if self.fabric.world_size > 1:
            self.stop.share()
        if self.stop.asked():  # there is nothing to save
            return
        with progress_bar(self.directory.name, self.step, options.steps, self.progress) as bar:
            for batch in self._batches():
                learner.compute_gradients(batch, self.step)
                self.step += 1
                logs = self._is_due(options.log_every)
                validates = self._is_due(self.config.validation.every)
                saves = self._is_due(options.checkpoint_every)
                if logs:
                    self.metrics.measure_gradients(learner)
                learner.update()
                self.metrics.count(batch)

                if logs or validates or saves:
                    self._check_finite(learner)
                if logs:
                    self.metrics.log(learner, self.step)
                    bar.set_postfix_str(progress_text(self.metrics.row), refresh=False)
                bar.update()
                if self.failed:
                    return
                if validates:
                    self._probe(model)
                    self._validate(model)
                if saves:
                    self._save(learner)
                if self.stop.asked():
                    self._save(learner)
                    return

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.trainer.steps

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches of the steps that are left."""
        config, fabric = self.config, self.fabric
        loader = batch_loader(
            config, self.step, fabric.global_rank, fabric.world_size, fabric.device
        )
        if config.data.workers == 0:
            batches = iter(loader)
        else:
            resource_tracker.ensure_running()  # started in there, it would unblock signals
            with block_signals():
                batches = iter(loader)
        for _ in range(self.step, config.trainer.steps):
            yield next(batches)

    def _check_finite(self, learner: Learner) -> bool:
        """Return whether loss and gradients so far and the weights now are finite, everywhere.

        Asking at every step would make a GPU wait, so `module.finite` gathers the answers there.
        """
        if self._checked_at != self.step:
            self._checked_at = self.step
            module = learner.module
            weights = [p.detach().isfinite().all() for p in module.model.parameters()]
            finite = torch.stack([module.finite, *weights]).all().float()
            self.failed = not bool(self.fabric.all_reduce(finite, reduce_op="min"))
        return not self.failed

    def _probe(self, model: nn.Module) -> None:
        """Log what the heads do.

        Before validation, since a stop request may put a validation off until the run resumes; the
        rows of a step then have the same order.
        """
        if self.fabric.is_global_zero:
            with self.metrics.pause():
                self._probe_heads = self._probe_heads or Probe(self.config)
                self.tracking.log(self.step, self._probe_heads(model))

    def _validate(self, model: nn.Module) -> None:
        """Validate in the main process, while the others wait."""
        if self.fabric.is_global_zero:
            with self.metrics.pause():
                if self.validation.run(model, self.step):
                    self.record.save("running", self.step)
        self.fabric.barrier()

    def _save(self, learner: Learner) -> None:
        """Write last.ckpt, unless it is written, or what it would hold is not finite."""
        if self._saved_at == self.step or not self._check_finite(learner):
            return
        self._saved_at = self.step
        if self.fabric.is_global_zero:
            callbacks = {"Metrics": self.metrics, "LadderValidation": self.validation}
            content = {
                "global_step": self.step,
                "identity": identity(self.config),
                "callbacks": {name: part.state_dict() for name, part in callbacks.items()},
            }
            checkpoints.save_last(content | learner.state_dict(), self.folder / checkpoints.LAST)
        self.fabric.barrier()

    def _restore(self, learner: Learner, resume: checkpoints.Resume) -> None:
        content = checkpoints.load(resume.path)
        self.step = resume.step
        learner.load_state_dict(content)
        self.metrics.load_state_dict(content["callbacks"]["Metrics"])
        self.validation.load_state_dict(content["callbacks"]["LadderValidation"])

    @contextmanager
    def _processes(self) -> Iterator[None]:
        """Start the other processes of the run, and see to their end."""
        several = self.config.trainer.devices > 1
        try:
            with quiet(), block_signals() if several else nullcontext():
                self.fabric.launch()
            yield
        except BaseException:
            self._end_others(patience=0)
            raise
        self._end_others(patience=30)

    def _end_others(self, patience: float) -> None:
        """Wait for the processes that Fabric started, and end those that do not end."""
        for process in getattr(self.fabric.strategy.launcher, "procs", []):
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _outcome(self) -> Outcome:
        """Return how the run stands now."""
        step = self.step
        if self.failed:
            reason = f"loss, gradient or weights were not finite by step {step}"
            return Outcome(self.directory, "not_finite", step, reason=reason)
        all_done = step >= self.config.trainer.steps and self.validation.pending is None
        status = "finished" if all_done else "interrupted"
        return Outcome(self.directory, status, step, self.stop.signal)


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
