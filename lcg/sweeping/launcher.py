"""Trains the runs of a sweep, several at a time, until none is left.

What is done stands in the run directories, who does what in the study; the launcher keeps nothing
of its own, so it can be killed at any moment and started again with the same command.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import Trial, TrialState

from lcg.config import ConfigError
from lcg.runs.files import LAST, is_held
from lcg.runs.record import RecordError, RunRecord
from lcg.runs.run import Run as RunDirectory
from lcg.sweeping.file import Sweep
from lcg.sweeping.grid import combinations
from lcg.sweeping.state import MetricColumn, Run, State, find_run, state_of, value_of
from lcg.sweeping.study import Board, key_of, open_board, study_error, values_text
from lcg.sweeping.summary import Counts, Display, Failure, Pace, Running, Summary, summarise
from lcg.sweeping.worker import TRAIN, Slot, Worker, last_line, share, storage_trouble
from lcg.system import storage_error
from lcg.training.processes import stop_requests

TICK = 0.2  # seconds between looks at the workers
LOOK = 2.0  # seconds between looks at what they have written, and at the study
CRASHES = 2  # without any progress in between, after which a run is recorded as failed
FAILED, BAD_INPUT, BUSY, NOT_FINITE = 1, 2, 3, 4  # exit codes of `lcg train`
STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)


@dataclass
class Job:
    """A trial that this launcher has taken, and its process while there is one."""

    trial: Trial
    run: Run
    log: Path
    metric: MetricColumn
    chosen: str
    crashes: int = 0
    slot: Slot | None = None
    worker: Worker | None = None
    begin: int = 0
    step: int = 0
    mark: Any = None
    pruned_at: int | None = None
    values: list[float] = field(default_factory=list)

    def read_metrics(self) -> None:
        """Take up what the run has written by now."""
        self.step, values = self.metric.read()
        self.values = [value for _, value in values]

    def running(self) -> Running:
        """For the display."""
        value = self.values[-1] if self.values else None
        step = max(self.begin, self.step)
        seconds = self.worker.seconds
        return Running(self.run.name, step, self.run.steps, self.begin, seconds, value, self.chosen)

    def event(self, text: str) -> str:
        """What happened to the run, with what the sweep varies in it."""
        return _event(self.run.name, text, self.chosen)


def run_sweep(
    sweep: Sweep,
    workers: int | None = None,
    storage: str | None = None,
    command: list[str] | None = None,
) -> Summary:
    """Train what is left of a sweep; returns what has become of all its runs.

    workers: processes at a time; None: one for each GPU, or one. storage: an Optuna database that
    several hosts share; None: a file beside the runs. command: what trains a run, given its words.
    Raises ValueError, in one line, when the storage cannot be opened.
    """
    example = find_run(sweep.words(sweep.example)).config.trainer
    slots = share(workers, example.devices, cpu_only=example.accelerator == "cpu")
    return Launcher(sweep, slots, open_board(sweep, storage), command or TRAIN).go()


class Launcher:
    """One launcher; others may share its study."""

    def __init__(self, sweep: Sweep, slots: list[Slot], board: Board, command: list[str]) -> None:
        self.sweep, self.board, self.command = sweep, board, command
        self.free, self.workers = list(slots), len(slots)
        self.jobs: list[Job] = []  # with a process
        self.held: list[Job] = []  # whose run another process trains
        self.counts, self.pace = Counts(), Pace()
        self.stale: list[Path] = []
        self.failures: list[Failure] = []
        self.signal = self.signals = 0
        self.trouble = ""  # with the disk or the study, which ends the sweep
        is_grid = sweep.method == "grid"
        self.total = len(combinations(sweep)) if is_grid else sweep.run_cap
        self._looked = float("-inf")
        self._elsewhere, self._uncertain = 0, False

    def go(self) -> Summary:
        """Until nothing is left to do, or a signal says to stop."""
        self.display = Display(self.total, self.sweep.path.stem)
        try:
            with stop_requests(self._received):
                with self._noting_trouble():
                    self.board.queue(again=self._settle())
                    self._train_all()
                self._stop()
        finally:
            for job in self.jobs:
                job.worker.kill()
            self.display.close()
        latest = {}
        with self._noting_trouble():
            latest = self.board.latest()
        chosen = [(self.board.chosen(trial), trial.state) for trial in latest.values()]
        return summarise(
            self.sweep,
            chosen,
            self.counts,
            self.failures,
            self.stale,
            self.signal,
            self._elsewhere,
            self.trouble,
        )

    def _train_all(self) -> None:
        while not self.signal and not self.trouble:
            self._look()
            self._fill()
            if not self.jobs and not self.held and not self._uncertain:
                break
            time.sleep(TICK)
            self._poll()

    @contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        """Keep an error of the disk or the study in `trouble`, which ends the sweep.

        It is no run's fault.
        """
        try:
            yield
        except Exception as error:
            behind = storage_error(error, self.sweep.directory)
            lost = study_error(error)
            if behind is None and lost is None:
                raise
            told = f"{behind.filename}: {behind.strerror}" if behind else f"the study: {lost}"
            self.trouble = self.trouble or told

    # ---- what was done before

    def _settle(self) -> set[str]:
        """Count what earlier launches finished; returns the choices that are to be done again.

        Those are runs that had failed, and runs finished on this host whose directory is gone.
        """
        again = set()
        for key, trial in self.board.latest().items():
            if trial.state is TrialState.FAIL:
                again.add(key)
            elif trial.state is TrialState.PRUNED:
                self.counts.pruned += 1
            elif trial.state is TrialState.COMPLETE:
                run = find_run(self.sweep.words(self.board.chosen(trial)))
                state = state_of(run)
                here = trial.user_attrs.get("owner", {}).get("host") == self.board.owner["host"]
                if here and not state.done:
                    again.add(key)
                else:
                    self._skip(run, state)
        return again

    def _skip(self, run: Run, state: State) -> None:
        self.counts.skipped += 1
        if state.record is not None:
            self.pace.durations.append(state.record.training.seconds)
        if state.stale:
            self.stale.append(run.directory)
            if len(self.stale) <= 3:
                self.display.event(
                    f"{run.directory} was trained with different code; kept as it is, "
                    "delete it to train again"
                )

    # ---- starting

    def _fill(self) -> None:
        """Start a process in every free slot, as far as there are runs."""
        while self.free and not self.signal and not self.trouble:
            job = self._next()
            if job is None:
                return
            self._start(job)

    def _next(self) -> Job | None:
        for job in list(self.held):
            if not is_held(job.run.directory):
                self.held.remove(job)
                if not self._is_done(job):
                    return job
        while len(self.held) < self.workers and not self.signal:
            taken = self.board.take()
            if taken is None:
                return None
            job = self._job(*taken)
            if job is None or self._is_done(job):
                continue
            if not is_held(job.run.directory):
                return job
            self.display.event(job.event("another process trains it; waiting for that"))
            self.held.append(job)
        return None

    def _job(self, trial: Trial, chosen: dict[str, str]) -> Job | None:
        """The job of a trial; None for one whose choices are not possible together."""
        try:
            run = find_run(self.sweep.words(chosen))
        except ConfigError as error:
            self._fail(trial, key_of(chosen), str(error), None)
            return None
        log = self.sweep.directory / "logs" / f"{run.name}.log"
        self.board.note(trial, run=run.name, log=str(log))
        column = self.sweep.metric.name if self.sweep.metric else None
        crashes = trial.user_attrs.get("crashes", 0)
        metric = MetricColumn(run.directory, column)
        return Job(trial, run, log, metric, values_text(chosen), crashes)

    def _is_done(self, job: Job) -> bool:
        """Whether somebody has finished the run; it is then recorded as such."""
        state = state_of(job.run)
        if state.done:
            self._complete(job, state)
            self._skip(job.run, state)
        return state.done

    def _start(self, job: Job) -> None:
        job.slot = self.free.pop(0)
        state = state_of(job.run)
        job.begin, job.mark = state.step, _mark(job.run.directory)
        words = list(job.run.words)
        if job.run.config.trainer.threads is None:
            words.append(f"trainer.threads={job.slot.threads}")
        job.worker = Worker(words, job.slot, job.log, self.command)
        self.jobs.append(job)
        how = f"resumes at step {state.step}" if state.kind == "resumes" else "started"
        self.display.event(job.event(how))

    # ---- while they run

    def _look(self) -> None:
        """Every so often: what is written by now, and what other launchers do."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        self.board.beat([job.trial for job in (*self.jobs, *self.held)])
        others = self.board.take_up()
        self._elsewhere = len(others)
        self._uncertain = any(self.board.is_uncertain(trial) for trial in others)
        for job in self.jobs:
            job.read_metrics()
            self._prune(job)
        running = [job.running() for job in self.jobs]
        pending = max(0, self.total - self.counts.done - len(running))
        left = self.pace.left(pending, running, self.workers)
        self.display.show(self.counts, running, left)

    def _prune(self, job: Job) -> None:
        if self.sweep.early_stop is None or job.pruned_at is not None:
            return
        if self.board.should_stop(job.trial, job.values):
            job.pruned_at = job.step
            job.worker.stop()

    def _poll(self) -> None:
        """Take note of processes that have ended."""
        for job in list(self.jobs):
            code = job.worker.poll()
            if code is not None:
                self.jobs.remove(job)
                self.free.append(job.slot)
                self._ended(job, code)

    def _ended(self, job: Job, code: int) -> None:
        state = state_of(job.run)
        if code in (0, NOT_FINITE) and state.done:
            self._complete(job, state)
            self.counts.finished += 1
            self.pace.durations.append(state.record.training.seconds)
            self.display.event(job.event(self._result(job, state)))
        elif job.pruned_at is not None:
            self.board.prune(job.trial, pruned_at=job.pruned_at)
            self.counts.pruned += 1
            self.display.event(job.event(f"ended early at step {job.pruned_at}"))
        elif self.signal or (self.trouble and code in STOPPED):
            self.board.release(job.trial)
        elif code == BUSY:
            self.display.event(job.event("another process trains it; waiting for that"))
            self.held.append(job)
        elif code == FAILED and (trouble := storage_trouble(job.log)):
            self.trouble = trouble
            self.display.event(job.event(trouble))
            self.board.release(job.trial)
        elif code == BAD_INPUT:
            self._fail(job.trial, job.run.name, last_line(job.log), job.log, job.chosen)
        else:
            self._crashed(job, code)

    def _crashed(self, job: Job, code: int) -> None:
        """Start it once more, and again as long as it gets further; else record the failure."""
        progress = job.mark != _mark(job.run.directory)
        job.crashes = 1 if progress else job.crashes + 1
        ended = "ended without finishing" if code == 0 else f"exit code {code}"
        reason = f"killed by signal {-code}" if code < 0 else ended
        if code >= 0 and (said := last_line(job.log)):
            reason += f": {said}"
        if job.crashes >= CRASHES:
            self._fail(job.trial, job.run.name, reason, job.log, job.chosen)
            return
        self.board.note(job.trial, crashes=job.crashes)
        self.display.event(job.event(f"{reason}; trying once more"))
        self.held.append(job)

    # ---- ends

    def _complete(self, job: Job, state: State) -> None:
        if self.sweep.early_stop is not None:  # others are compared with what came since a look
            job.read_metrics()
            self.board.should_stop(job.trial, job.values)
        value = value_of(job.run, self.sweep.metric, state)
        self.board.complete(job.trial, value, status=state.kind)

    def _result(self, job: Job, state: State) -> str:
        if state.kind == "not_finite":
            return f"stopped, {state.record.training.reason}"
        value = value_of(job.run, self.sweep.metric, state)
        return "finished" if value is None else f"finished, {self.sweep.metric.name} {value:.4g}"

    def _fail(
        self, trial: Trial, name: str, reason: str, log: Path | None, chosen: str = ""
    ) -> None:
        self.board.fail(trial, reason)
        self.counts.failed += 1
        self.failures.append(Failure(name, reason, log))
        self.display.event(_event(name, f"failed: {reason}", chosen))

    # ---- stopping

    def _received(self, number: int, frame) -> None:
        self.signal = self.signal or number
        self.signals += 1

    def _stop(self) -> None:
        """Ask the workers to save and wait for them; a second signal ends them at once."""
        if self.jobs:
            again = "Ctrl-C again" if self.signal else "Ctrl-C twice"
            self.display.event(f"stopping: {len(self.jobs)} runs save; {again} kills them")
        for job in self.jobs:
            job.worker.stop()
        while self.jobs:
            if self.signals > 1:
                for job in self.jobs:
                    job.worker.kill()
            with self._noting_trouble():
                self._poll()
            time.sleep(TICK / 4)
        with self._noting_trouble():  # what stays ours is free for others once we have ended
            for job in self.held:
                self.board.release(job.trial)


def _event(run: str, text: str, chosen: str) -> str:
    return f"{run}: {text}{f' ({chosen})' if chosen else ''}"


def _mark(directory: Path) -> tuple[int, int]:
    """What changes when a run gets further: its last checkpoint, and its ladder."""
    try:
        saved = (RunDirectory(directory).checkpoints / LAST).stat().st_mtime_ns
    except OSError:
        saved = 0
    try:
        return saved, len(RunRecord.load(directory).ladder)
    except RecordError:
        return saved, 0
