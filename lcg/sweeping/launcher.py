"""Trains the runs of a sweep, several at a time, until none is left.

What is done stands in the run directories, who does what in the study; the launcher keeps nothing
of its own, so it can be killed at any moment and started again with the same command.
"""

from __future__ import annotations

import re
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
from lcg.runs.run import Run
from lcg.sweeping.file import Sweep, combinations
from lcg.sweeping.state import MetricColumn, State, SweepRun, find_run, state_of, value_of
from lcg.sweeping.study import TrialQueue, key_of, open_queue, study_error, values_text
from lcg.sweeping.summary import Display, Failure, Pace, Running, Summary
from lcg.sweeping.worker import TRAIN, Slot, Worker, last_line, share, storage_trouble
from lcg.system import storage_error
from lcg.training.signals import stop_requests

TICK = 0.2  # seconds between looks at the workers
LOOK = 2.0  # seconds between looks at what they have written, and at the study
HOPELESS = 20  # runs that are drawn and all fail alike, after which no more are drawn
CRASHES = 2  # without any progress in between, after which a run is recorded as failed
FAILED, BAD_INPUT, BUSY, NOT_FINITE = 1, 2, 3, 4  # exit codes of `lcg train`
STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)
WAITS = "another process trains it; waiting for that"


@dataclass
class Job:
    """A trial that this launcher has taken, and its process while there is one."""

    trial: Trial
    run: SweepRun
    log: Path
    metric: MetricColumn
    chosen: str
    crashes: int = 0
    slot: Slot | None = None
    worker: Worker | None = None
    begin: int = 0
    step: int = 0
    progress: Any = None
    pruned_at: int | None = None
    values: list[float] = field(default_factory=list)

    def read_metrics(self) -> None:
        """Read what the run has written by now."""
        self.step, self.values = self.metric.read()

    def running(self) -> Running:
        """Say how far it is, for the display."""
        value = self.values[-1] if self.values else None
        step = max(self.begin, self.step)
        seconds = self.worker.seconds
        return Running(self.run.name, step, self.run.steps, self.begin, seconds, value, self.chosen)


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
    return Launcher(sweep, slots, open_queue(sweep, storage), command or TRAIN).launch()


class Launcher:
    """One launcher; others may share its study."""

    def __init__(
        self, sweep: Sweep, slots: list[Slot], queue: TrialQueue, command: list[str]
    ) -> None:
        self.sweep, self.queue, self.command = sweep, queue, command
        self.free, self.workers = list(slots), len(slots)
        self.jobs: list[Job] = []  # with a process
        self.held: list[Job] = []  # whose run another process trains
        self.summary, self.pace = Summary(sweep), Pace()
        self.signals = 0
        self.total = len(combinations(sweep)) if sweep.method == "grid" else sweep.run_cap
        self._looked, self._uncertain = float("-inf"), False

    def launch(self) -> Summary:
        """Train until nothing is left to do, or a signal says to stop."""
        self.display = Display(self.total, self.sweep.path.stem)
        try:
            with stop_requests(self._received):
                with self._noting_trouble():
                    self.queue.fill(again=self._count_earlier())
                    self._train_all()
                self._stop()
        finally:
            for job in self.jobs:
                job.worker.kill()
            self.display.close()
        latest = {}
        with self._noting_trouble():
            latest = self.queue.latest()
        self.summary.add_runs([(self.queue.chosen(t), t.state) for t in latest.values()])
        return self.summary

    def _train_all(self) -> None:
        while self._goes_on():
            self._look()
            while self.free and self._goes_on() and (job := self._next()) is not None:
                self._start(job)
            if not self.jobs and not self.held and not self._uncertain:
                break
            time.sleep(TICK)
            self._poll()

    def _goes_on(self) -> bool:
        return not self.summary.signal and not self.summary.trouble

    @contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        """Keep an error of the disk or the study in `summary.trouble`, which ends the sweep.

        It is no run's fault.
        """
        try:
            yield
        except Exception as error:
            behind = storage_error(error, self.sweep.directory)
            lost = study_error(error)
            if behind is None and lost is None:
                raise
            message = f"{behind.filename}: {behind.strerror}" if behind else f"the study: {lost}"
            self.summary.trouble = self.summary.trouble or message

    def _event(self, job: Job, text: str) -> None:
        self._event_of(job.run.name, text, job.chosen)

    def _event_of(self, run: str, text: str, chosen: str) -> None:
        self.display.event(f"{run}: {text}{f' ({chosen})' if chosen else ''}")

    # ---- what was done before

    def _count_earlier(self) -> set[str]:
        """Count what earlier launches finished; returns the choices that are to be done again.

        Those are runs that had failed, and runs finished on this host whose directory is gone.
        """
        again = set()
        for key, trial in self.queue.latest().items():
            if trial.state is TrialState.FAIL:
                again.add(key)
            elif trial.state is TrialState.PRUNED:
                self.summary.counts.pruned += 1
            elif trial.state is TrialState.COMPLETE:
                run = find_run(self.sweep.words(self.queue.chosen(trial)))
                state = state_of(run)
                here = trial.user_attrs.get("owner", {}).get("host") == self.queue.owner["host"]
                if here and not state.done:
                    again.add(key)
                else:
                    self._skip(run, state)
        return again

    def _skip(self, run: SweepRun, state: State) -> None:
        self.summary.counts.skipped += 1
        if state.record is not None:
            self.pace.durations.append(state.record.training.seconds)
        if state.stale:
            self.summary.stale.append(run.directory)
            if len(self.summary.stale) <= 3:
                self.display.event(
                    f"{run.directory} was trained with different code; kept as it is, "
                    "delete it to train again"
                )

    # ---- starting

    def _next(self) -> Job | None:
        """A job to start now; runs that another process trains are held until it lets go."""
        for job in list(self.held):
            if not is_held(job.run.directory):
                self.held.remove(job)
                if not self._is_done(job):
                    return job
        while len(self.held) < self.workers and self._goes_on():
            taken = self.queue.take()
            if taken is None:
                return None
            job = self._job(*taken)
            if job is None or self._is_done(job):
                continue
            if not is_held(job.run.directory):
                return job
            self._event(job, WAITS)
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
        self.queue.note(trial, run=run.name, log=str(log))
        metric = MetricColumn(run.directory, self.sweep.metric and self.sweep.metric.name)
        crashes = trial.user_attrs.get("crashes", 0)
        return Job(trial, run, log, metric, values_text(chosen), crashes)

    def _is_done(self, job: Job) -> bool:
        """Tell whether somebody has finished the run; it is then recorded as such."""
        state = state_of(job.run)
        if state.done:
            self._complete(job, state)
            self._skip(job.run, state)
        return state.done

    def _start(self, job: Job) -> None:
        job.slot = self.free.pop(0)
        state = state_of(job.run)
        job.begin, job.progress = state.step, _progress(job.run.directory)
        words = [*job.run.words, *job.slot.threads_of(job.run.config)]
        job.worker = Worker(words, job.slot, job.log, self.command)
        self.jobs.append(job)
        self._event(job, str(state) if state.kind == "resumes" else "started")

    # ---- while they run

    def _look(self) -> None:
        """See, every so often, what is written by now, and what other launchers do."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        self.queue.beat([job.trial for job in (*self.jobs, *self.held)])
        others = self.queue.reclaim_dead()
        self.summary.elsewhere = len(others)
        self._uncertain = any(self.queue.is_uncertain(trial) for trial in others)
        for job in self.jobs:
            job.read_metrics()
            stops_early = self.sweep.early_stop is not None and job.pruned_at is None
            if stops_early and self.queue.should_stop(job.trial, job.values):
                job.pruned_at = job.step
                job.worker.stop()
        running = [job.running() for job in self.jobs]
        pending = max(0, self.total - self.summary.counts.done - len(running))
        left = self.pace.left(pending, running, self.workers)
        self.display.show(self.summary.counts, running, left)

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
            value = self._complete(job, state)
            self.summary.counts.finished += 1
            self.pace.durations.append(state.record.training.seconds)
            result = "" if value is None else f", {self.sweep.metric.name} {value:.4g}"
            if state.kind == "not_finite":
                self._event(job, f"stopped, {state.record.training.reason}")
            else:
                self._event(job, f"finished{result}")
        elif job.pruned_at is not None:
            self.queue.prune(job.trial, pruned_at=job.pruned_at)
            self.summary.counts.pruned += 1
            self._event(job, f"ended early at step {job.pruned_at}")
        elif self.summary.signal or (self.summary.trouble and code in STOPPED):
            self.queue.release(job.trial)
        elif code == BUSY:
            self._event(job, WAITS)
            self.held.append(job)
        elif code == FAILED and (trouble := storage_trouble(job.log)):
            self.summary.trouble = trouble
            self._event(job, trouble)
            self.queue.release(job.trial)
        elif code == BAD_INPUT:
            self._fail(job.trial, job.run.name, last_line(job.log), job.log, job.chosen)
        else:
            self._crashed(job, code)

    def _crashed(self, job: Job, code: int) -> None:
        """Start it once more, and again as long as it gets further; else record the failure."""
        got_further = job.progress != _progress(job.run.directory)
        job.crashes = 1 if got_further else job.crashes + 1
        ended = "ended without finishing" if code == 0 else f"exit code {code}"
        reason = f"killed by signal {-code}" if code < 0 else ended
        if code >= 0 and (line := last_line(job.log)):
            reason += f": {line}"
        if job.crashes >= CRASHES:
            self._fail(job.trial, job.run.name, reason, job.log, job.chosen)
            return
        self.queue.note(job.trial, crashes=job.crashes)
        self._event(job, f"{reason}; trying once more")
        self.held.append(job)

    # ---- ends

    def _complete(self, job: Job, state: State) -> float | None:
        """Record a run that is done; returns its metric."""
        if self.sweep.early_stop is not None:  # others are compared with what came since a look
            job.read_metrics()
            self.queue.should_stop(job.trial, job.values)
        value = value_of(job.run, self.sweep.metric, state)
        self.queue.complete(job.trial, value, status=state.kind)
        return value

    def _fail(
        self, trial: Trial, name: str, reason: str, log: Path | None, chosen: str = ""
    ) -> None:
        self.queue.fail(trial, reason)
        self.summary.counts.failed += 1
        self.summary.failures.append(Failure(name, reason, log))
        self._event_of(name, f"failed: {reason}", chosen)
        counts, failures = self.summary.counts, self.summary.failures
        alike = {re.sub(r"[\d.,e+-]+", "", failure.reason) for failure in failures}
        drawn = self.sweep.method != "grid"
        if drawn and counts.failed == counts.done >= HOPELESS and len(alike) == 1:
            self.summary.trouble = f"all {counts.failed} runs failed alike, the last with: {reason}"

    # ---- stopping

    def _received(self, number: int, frame) -> None:
        self.summary.signal = self.summary.signal or number
        self.signals += 1

    def _stop(self) -> None:
        """Ask the workers to save and wait for them; a second signal ends them at once."""
        if self.jobs:
            again = "Ctrl-C again" if self.summary.signal else "Ctrl-C twice"
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
                self.queue.release(job.trial)


def _progress(directory: Path) -> tuple[int, int]:
    """Read what changes when a run gets further: its last checkpoint, and its ladder."""
    try:
        saved = (Run(directory).checkpoints / LAST).stat().st_mtime_ns
    except OSError:
        saved = 0
    try:
        return saved, len(RunRecord.load(directory).ladder)
    except RecordError:
        return saved, 0
