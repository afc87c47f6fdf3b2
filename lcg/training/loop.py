"""One training run from a config: directory, lock, resuming, the loop over steps, record."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from lcg.training.record import Metrics, RecordWriter, progress_bar
from lcg.training.signals import Stopped, StopRequest, block_signals
from lcg.training.validation import LadderValidation

__all__ = ["Outcome", "train"]


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


def train(
    config: Config, progress: bool = True, then: Callable[[Outcome], None] = lambda outcome: None
) -> Outcome:
    """Train a run to its end, or resume it; return the outcome.

    `then` follows in the same run, such as the test evaluation. The main process calls it when
    training is over, or was before, and everything is saved; W&B and the lock are held until it
    returns. A signal stops it at once: the outcome is then `interrupted`.

    Raises Busy; ValueError, in one line, for checkpoints that cannot be used
    (UnreadableCheckpoint), a directory of another config, or a missing device; OSError, naming a
    file, when the disk is full, missing or read-only.
    """
    check_nodes(config.trainer.nodes)
    take_rank(config.trainer.devices, config.trainer.nodes)
    run = Run.place(config)
    if not is_rank_zero():
        return _Training(config, run, progress=False, then=then).go()
    check_copies(config)
    training = _Training(config, run, progress, then)
    with run.lock():
        try:
            return training.go()
        except Exception as error:
            behind = storage_error(error, run.path)
            if behind is None:
                raise
            behind.strerror += (
                "; the files are intact, and the same command resumes from the last checkpoint"
            )
            raise behind from error


class _Training:
    """The training of one run: its directory, its processes, and its steps."""

    def __init__(
        self, config: Config, run: Run, progress: bool, then: Callable[[Outcome], None]
    ) -> None:
        self.config, self.run, self.progress, self.then = config, run, progress, then
        self.tracking, self.stop = Tracking(), StopRequest()
        self.metrics = Metrics(config, self.tracking)
        self.validation = LadderValidation(config, run.checkpoints, self.tracking, self.stop)
        self.saved_parts = {"Metrics": self.metrics, "LadderValidation": self.validation}
        device_of(config)  # raises, before anything is made
        self.fabric = make_fabric(config.trainer)
        self.step = 0
        self.failed = False  # loss, gradients or weights were not finite

    def go(self) -> Outcome:
        """Train, unless the run is finished."""
        self.run.check_is_of(self.config)
        record = self.run.finished(self.config)
        with self.stop.listening():
            return self._train() if record is None else self._finished(record)

    def _train(self) -> Outcome:
        config, options = self.config, self.config.trainer
        if options.threads:
            torch.set_num_threads(options.threads)
            if options.processes > 1:  # else Lightning sets another number for DDP
                os.environ["OMP_NUM_THREADS"] = str(options.threads)
        module = TrainingModule(config)
        check = partial(check_resumable, module=module)
        resume = checkpoints.newest_readable(self.run.checkpoints, log.warning, check)
        if resume:
            check_identity(resume.identity, config, resume.path)
        if mode := compile_mode(options, self.fabric.device):
            module.compile_steps(mode)
        parameters, device = sum(p.numel() for p in module.model.parameters()), self.fabric.device
        self.record = RecordWriter(
            config, self.run.path, self.metrics, self.validation, str(device), parameters
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
                outcome = self._follow(outcome)
            exit_code = outcome.exit_code
            return outcome
        finally:
            self.tracking.close(exit_code)

    def _finished(self, record: RunRecord) -> Outcome:
        """Complete a trained run: what may be missing here or on W&B."""
        done, directory = record.training, self.run.path
        outcome = Outcome(directory, done.status, done.step, already=True, reason=done.reason)
        if not is_rank_zero():
            return outcome
        outcome = self._follow(outcome)
        new = provenance.adopt_wandb_id(directory)
        if new or RunRecord.load(directory) != record:
            send_record(self.config, directory, outcome.exit_code, new)
        return outcome

    def _follow(self, outcome: Outcome) -> Outcome:
        """Call `then`, and send the final record to W&B."""
        try:
            with self.stop.at_once():
                if self.stop.signal and outcome.status == "finished":  # it came with the last step
                    raise Stopped
                self.then(outcome)
        except Stopped:
            outcome = replace(outcome, status="interrupted", signal=self.stop.signal)
        self.tracking.summarize(summary(RunRecord.load(self.run.path)))
        return outcome

    def _outcome(self) -> Outcome:
        """Return the present state of the run."""
        directory, step = self.run.path, self.step
        if self.failed:
            reason = f"loss, gradient or weights were not finite by step {step}"
            return Outcome(directory, "not_finite", step, reason=reason)
        options, validation = self.config.trainer, self.validation
        ended = step >= options.steps or (options.stop_when_solved and validation.solved)
        all_done = ended and validation.pending is None
        return Outcome(directory, "finished" if all_done else "interrupted", step, self.stop.signal)

    def _open(self, resume: checkpoints.Resume | None) -> None:
        """Write the files of the run before the first step, and log their location."""
        config, run, step = self.config, self.run, resume.step if resume else 0
        run.plots.mkdir(exist_ok=True)
        facts = provenance.write(config, run.path, self.fabric.device, bool(resume))
        copy_sources(config, run.path)
        write_atomic(run.config_file, run_yaml(config))
        for folder in (run.path, run.checkpoints):
            checkpoints.remove_leftovers(folder)
        checkpoints.set_aside(run.checkpoints, resume)
        if resume:
            log.info(f"resuming {run.path} at step {step} of {config.trainer.steps}")
        self.tracking.places.append(CSVMetrics(run.metrics_file, columns(config), step))
        self.tracking.places.append(WandbMetrics(config, run.path, facts["wandb_id"]))
        self.record.open(step)
        self.probe = Probe(config)
        log.info(realised_lengths(config))
        if note := slow_precision(config.trainer, self.fabric.device):
            log.warning(f"note: {note}")

    @contextmanager
    def _processes(self) -> Iterator[None]:
        """Start the other processes of the run, and end them."""
        patience = 0
        try:
            with quiet(), block_signals():
                self.fabric.launch()
            yield
            patience = 30
        finally:
            for process in getattr(self.fabric.strategy.launcher, "procs", []):
                try:
                    process.wait(patience)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _fit(self, module: TrainingModule, resume: checkpoints.Resume | None) -> None:
        """Train the remaining steps; what is due after a step happens in the order of the lines.

        So only metrics are written of a step that was not finite, a checkpoint contains the
        validation of its step, and a stop request takes effect after everything else.
        """
        options, model = self.config.trainer, module.model
        learner = Learner(self.fabric, module)
        if resume:
            content = checkpoints.load(resume.path)
            self.step = resume.step
            learner.load_state_dict(content)
            for name, part in self.saved_parts.items():
                part.load_state_dict(content["callbacks"][name])
        if self.validation.pending is not None:
            self._validate(model)
        if self.step == options.steps or self._is_solved():
            return
        self.metrics.start(learner, self.step)
        if self.fabric.world_size > 1:
            self.stop.share()
        if self.stop.asked():  # there is nothing to save
            return
        with progress_bar(self.run.path.name, self.step, options.steps, self.progress) as bar:
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
                    self.failed = not learner.is_finite()
                if logs:
                    bar.set_postfix_str(self.metrics.log(learner, self.step), refresh=False)
                bar.update()
                if self.failed:
                    return
                solved = False
                if validates:
                    self._probe(model)
                    self._validate(model)
                    solved = self._is_solved()
                stops = self.stop.asked()
                if saves or stops or solved:
                    self._save(learner)
                if stops or solved:
                    return

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.trainer.steps

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        """Return the batches of the steps that are left."""
        config, fabric = self.config, self.fabric
        rank, world, device = fabric.global_rank, fabric.world_size, fabric.device
        loader = batch_loader(config, self.step, rank, world, device)
        if config.data.workers > 0:
            resource_tracker.ensure_running()  # started below, it would unblock signals
        with block_signals():
            batches = iter(loader)
        return itertools.islice(batches, config.trainer.steps - self.step)

    def _probe(self, model: nn.Module) -> None:
        """Log head statistics.

        This comes before validation, since a stop request may postpone a validation until the run
        resumes; the rows of a step then have the same order.
        """
        if self.fabric.is_global_zero:
            with self.metrics.pause():
                self.tracking.log(self.step, self.probe(model))

    def _validate(self, model: nn.Module) -> None:
        """Validate in the main process, while the others wait."""
        if self.fabric.is_global_zero:
            with self.metrics.pause():
                if self.validation.run(model, self.step):
                    self.record.save("running", self.step)
        self.fabric.barrier()

    def _is_solved(self) -> bool:
        """Return whether training ends before its last step, in all processes."""
        if not self.config.trainer.stop_when_solved:
            return False
        return self.fabric.broadcast(self.validation.solved)

    def _save(self, learner: Learner) -> None:
        """Write last.ckpt, unless its values are not finite."""
        self.failed = not learner.is_finite()
        if self.fabric.is_global_zero and not self.failed:
            content = {
                "global_step": self.step,
                "identity": identity(self.config),
                "callbacks": {name: part.state_dict() for name, part in self.saved_parts.items()},
            }
            path = self.run.checkpoints / checkpoints.LAST
            checkpoints.save_last(content | learner.state_dict(), path)
        self.fabric.barrier()
