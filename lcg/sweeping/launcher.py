"""Trains the runs of a sweep, several at a time, until none is left.

The run directories store what is done, and the study stores who trains what. The launcher has no
state of its own, so it can be killed at any moment and started again with the same command.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import Trial, TrialState
from tqdm import tqdm

from lcg.config import ConfigError
from lcg.log import log
from lcg.runs.files import LAST, is_held, write_atomic
from lcg.runs.run import Run
from lcg.sweeping.file import Sweep, as_yaml, combinations
from lcg.sweeping.state import MetricColumn, State, SweepRun, find_run, state_of, value_of
from lcg.sweeping.study import TrialQueue, key_of, open_storage, study_error, values_text
from lcg.sweeping.summary import Failure, Summary
from lcg.sweeping.worker import TRAIN, Slot, kill, last_line, share, start_worker, storage_trouble
from lcg.system import storage_error
from lcg.text import duration
from lcg.training.signals import stop_requests

TICK = 0.2  # seconds between looks at the workers
LOOK = 2.0  # seconds between looks at what they have written, and at the study
HOPELESS = 20  # runs that are drawn and all fail alike, after which no more are drawn
CRASHES = 2  # without any progress in between, after which a run is recorded as failed
FAILED, BAD_INPUT, BUSY, NOT_FINITE = 1, 2, 3, 4  # exit codes of `lcg train`
STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)
WAITS = "another process trains it; waiting"
BAR = "{desc} |{bar:20}| {n}/{total}{postfix}"


@dataclass
class Job:
    """A trial that this launcher has taken, and its process once it is started.

    chosen: its choices, as text. begin: the step at which the process started, at the time
    `started`. progress: the progress at that time.
    """

    trial: Trial
    run: SweepRun
    log: Path
    metric: MetricColumn
    chosen: str
    crashes: int = 0
    slot: Slot | None = None
    process: subprocess.Popen | None = None
    started: float = 0.0
    begin: int = 0
    progress: tuple[int, int] = (0, 0)
    pruned_at: int | None = None

    @property
    def steps(self) -> int:
        """The number of steps of the run."""
        return self.run.config.trainer.steps

    @property
    def step(self) -> int:
        """The step that it has reached, as far as logged."""
        return max(self.begin, self.metric.step)

    @property
    def projected(self) -> float | None:
        """Estimated seconds of all its steps at the speed so far."""
        done = self.step - self.begin
        return (time.monotonic() - self.started) * self.steps / done if done > 0 else None

    def __str__(self) -> str:
        value = f" {self.metric.values[-1]:.3g}" if self.metric.values else ""
        chosen = f" ({self.chosen})" if self.chosen else ""
        return f"{self.run.name} {self.step}/{self.steps}{value}{chosen}"


class Launcher:
    """One launcher; others may share its study.

    workers: processes at a time; None: one for each GPU, or one. storage: an Optuna database that
    several hosts share; None: a file next to the runs. command: the command that trains a run.
    Raises ValueError, in one line, before anything is written, when the storage cannot be opened.
    """

    def __init__(
        self,
        sweep: Sweep,
        workers: int | None = None,
        storage: str | None = None,
        command: list[str] = TRAIN,
    ) -> None:
        self.sweep, self.command = sweep, command
        self.free = share(workers, find_run(sweep.words(sweep.example)).config.trainer)
        self.workers = len(self.free)
        self.queue = TrialQueue(sweep, open_storage(storage, sweep.directory))
        write_atomic(sweep.directory / "sweep.yaml", as_yaml(sweep))
        log.info(f"study: {shlex.quote(str(sweep.directory))}")
        self.jobs: list[Job] = []  # with a process
        self.held: list[Job] = []  # whose run another process trains
        self.summary = Summary(sweep)
        self.durations: list[float] = []  # seconds that runs took which are done
        self.signals = 0
        self.total = len(combinations(sweep)) if sweep.method == "grid" else sweep.run_cap
        self._looked, self._uncertain = float("-inf"), False

    def launch(self) -> Summary:
        """Train until no run is left, or a signal stops it.

        Returns the summary of all runs.
        """
        form = {"bar_format": BAR, "dynamic_ncols": True, "disable": None}  # only on a terminal
        self.bar = tqdm(desc=self.sweep.path.stem, total=self.total, **form)
        try:
            with stop_requests(self._received):
                with self._noting_trouble():
                    with self.queue.lock():
                        self.queue.fill(again=self._count_earlier())
                    self._train_all()
                self._stop()
        finally:
            for job in self.jobs:
                kill(job.process)
            self.bar.close()
        with self._noting_trouble():
            latest = self.queue.latest().values()
            self.summary.add_runs([(self.queue.chosen(trial), trial) for trial in latest])
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
        """Store an error of the disk or the study in `summary.trouble`, which ends the sweep but
        fails no run."""
        try:
            yield
        except Exception as error:
            behind = storage_error(error, self.sweep.directory)
            lost = study_error(error)
            if behind is None and lost is None:
                raise
            message = f"{behind.filename}: {behind.strerror}" if behind else f"the study: {lost}"
            self.summary.trouble = self.summary.trouble or message

    def _say(self, text: str, job: Job | None = None) -> None:
        """Log a line, above the progress bar if there is one."""
        if job is not None:
            text = f"{job.run.name}: {text}{f' ({job.chosen})' if job.chosen else ''}"
        if self.bar.disable:
            log.info(text)
        else:
            self.bar.write(text, file=sys.stderr)

    # ---- what was done before

    def _count_earlier(self) -> set[str]:
        """Count the runs that earlier launches finished; return the choices to repeat.

        These are failed runs, and finished runs of this host whose directory is gone.
        """
        again = set()
        for key, trial in self.queue.latest().items():
            if trial.state is TrialState.FAIL:
                again.add(key)
            elif trial.state is TrialState.PRUNED:
                self.summary.counts["pruned"] += 1
            elif trial.state is TrialState.COMPLETE:
                run = find_run(self.sweep.words(self.queue.chosen(trial)))
                state = state_of(run)
                on_this_host = (
                    trial.user_attrs.get("owner", {}).get("host") == self.queue.owner["host"]
                )
                if on_this_host and not state.done:
                    again.add(key)
                else:
                    self._count("skipped", run, state)
        return again

    def _count(self, kind: str, run: SweepRun, state: State) -> None:
        self.summary.counts[kind] += 1
        if state.record is not None:
            self.durations.append(state.record.training.seconds)
        if state.stale:
            self.summary.stale.append(run.directory)
            if len(self.summary.stale) <= 3:
                self._say(
                    f"{run.directory} was trained with different code and is kept; "
                    "delete it to train again"
                )

    # ---- starting

    def _next(self) -> Job | None:
        """Return a job to start now; runs that another process trains are held until it ends."""
        for job in list(self.held):
            if not is_held(job.run.directory):
                self.held.remove(job)
                if not self._is_done(job):
                    return job
        while len(self.held) < self.workers and self._goes_on() and (taken := self.queue.take()):
            job = self._job(*taken)
            if job is None or self._is_done(job):
                continue
            if not is_held(job.run.directory):
                return job
            self._say(WAITS, job)
            self.held.append(job)
        return None

    def _job(self, trial: Trial, chosen: dict[str, str]) -> Job | None:
        """Return the job of a trial; None for an invalid combination of choices."""
        try:
            run = find_run(self.sweep.words(chosen))
        except ConfigError as error:
            self._say(f"{key_of(chosen)}: failed: {error}")
            self._fail(trial, Failure(key_of(chosen), str(error), None))
            return None
        file = self.sweep.directory / "logs" / f"{run.name}.log"
        self.queue.note(trial, run=run.name, log=str(file))
        metric = MetricColumn(run.directory, self.sweep.metric and self.sweep.metric.name)
        crashes = trial.user_attrs.get("crashes", 0)
        return Job(trial, run, file, metric, values_text(chosen), crashes)

    def _is_done(self, job: Job) -> bool:
        """Tell whether the run is finished; if so, record it."""
        state = state_of(job.run)
        if state.done:
            self._complete(job, state)
            self._count("skipped", job.run, state)
        return state.done

    def _start(self, job: Job) -> None:
        job.slot = self.free.pop(0)
        state = state_of(job.run)
        job.begin, job.progress = state.step, _progress(job.run, state)
        words = [*job.run.words, *job.slot.threads_of(job.run.config)]
        job.started = time.monotonic()
        job.process = start_worker(words, job.slot, job.log, self.command)
        self.jobs.append(job)
        self._say(str(state) if state.kind == "resumes" else "started", job)

    # ---- while they run

    def _look(self) -> None:
        """Periodically read the progress of the runs and of other launchers."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        self.queue.beat(job.trial for job in (*self.jobs, *self.held))
        others = self.queue.reclaim_dead()
        self.summary.elsewhere, self._uncertain = len(others), not all(others)
        for job in self.jobs:
            values = job.metric.read()
            stops_early = self.sweep.early_stop is not None and job.pruned_at is None
            if stops_early and self.queue.should_stop(job.trial, values):
                job.pruned_at = job.step
                job.process.terminate()
        self.bar.n = self.summary.counts.total()
        pending = max(0, self.total - self.bar.n - len(self.jobs))
        left = time_left(self.durations, pending, self.jobs, self.workers)
        times = [] if left is None else [f"{duration(left)} left"]
        shown = " · ".join([self.summary.counts_text, *times, *map(str, self.jobs)])
        self.bar.set_postfix_str(shown)

    def _poll(self) -> None:
        """Handle processes that have ended."""
        for job in list(self.jobs):
            code = job.process.poll()
            if code is not None:
                self.jobs.remove(job)
                self.free.append(job.slot)
                self._ended(job, code)

    def _ended(self, job: Job, code: int) -> None:
        state = state_of(job.run)
        if code in (0, NOT_FINITE) and state.done:
            value = self._complete(job, state)
            self._count("finished", job.run, state)
            result = "" if value is None else f", {self.sweep.metric.name} {value:.4g}"
            reason = f"stopped, {state.record.training.reason}"
            self._say(f"finished{result}" if state.kind == "finished" else reason, job)
        elif job.pruned_at is not None:
            self.queue.set_state(job.trial, TrialState.PRUNED, pruned_at=job.pruned_at)
            self.summary.counts["pruned"] += 1
            self._say(f"ended early at step {job.pruned_at}", job)
        elif self.summary.signal or (self.summary.trouble and code in STOPPED):
            self.queue.set_state(job.trial, TrialState.WAITING)
        elif code == BUSY:
            self._say(WAITS, job)
            self.held.append(job)
        elif code == FAILED and (trouble := storage_trouble(job.log)):
            self.summary.trouble = trouble
            self._say(trouble, job)
            self.queue.set_state(job.trial, TrialState.WAITING)
        else:
            self._crashed(job, code, state)

    def _crashed(self, job: Job, code: int, state: State) -> None:
        """Restart a run once, and again as long as it gets further; else record the failure."""
        line = last_line(job.log)
        if code == BAD_INPUT:
            reason = line
        elif code < 0:
            reason = f"killed by signal {-code}"
        else:
            reason = f"exit code {code}" if code else "ended without finishing"
            reason += f": {line}" if line else ""
        got_further = job.progress != _progress(job.run, state)
        job.crashes = 1 if got_further else job.crashes + 1
        if code == BAD_INPUT or job.crashes >= CRASHES:
            self._say(f"failed: {reason}", job)
            self._fail(job.trial, Failure(job.run.name, reason, job.log))
            return
        self.queue.note(job.trial, crashes=job.crashes)
        self._say(f"{reason}; retrying", job)
        self.held.append(job)

    # ---- ends

    def _complete(self, job: Job, state: State) -> float | None:
        """Record a finished run; return its metric."""
        if self.sweep.early_stop is not None:  # others are compared with what came since a look
            self.queue.should_stop(job.trial, job.metric.read())
        value = value_of(job.run, self.sweep.metric, state)
        self.queue.set_state(job.trial, TrialState.COMPLETE, value, status=state.kind)
        return value

    def _fail(self, trial: Trial, failure: Failure) -> None:
        self.queue.set_state(trial, TrialState.FAIL, reason=failure.reason)
        counts, failures = self.summary.counts, self.summary.failures
        counts["failed"] += 1
        failures.append(failure)
        alike = {re.sub(r"[\d.,e+-]+", "", failure.reason) for failure in failures}
        drawn = self.sweep.method != "grid"
        if drawn and counts["failed"] == counts.total() >= HOPELESS and len(alike) == 1:
            self.summary.trouble = (
                f"all {len(failures)} runs failed with the same error: {failure.reason}"
            )

    # ---- stopping

    def _received(self, number: int, frame) -> None:
        self.summary.signal = self.summary.signal or number
        self.signals += 1

    def _stop(self) -> None:
        """Ask the workers to save and wait for them; a second signal ends them at once."""
        if self.jobs:
            again = "Ctrl-C again" if self.summary.signal else "Ctrl-C twice"
            runs = "1 run" if len(self.jobs) == 1 else f"{len(self.jobs)} runs"
            self._say(f"stopping: saving {runs}; {again} kills the workers")
        for job in self.jobs:
            job.process.terminate()
        while self.jobs:
            if self.signals > 1:
                for job in self.jobs:
                    kill(job.process)
            with self._noting_trouble():
                self._poll()
            time.sleep(TICK / 4)
        with self._noting_trouble():  # what stays ours is free for others once we have ended
            for job in self.held:
                self.queue.set_state(job.trial, TrialState.WAITING)


def time_left(durations: list[float], pending: int, jobs: list[Job], workers: int) -> float | None:
    """Return the seconds until the last run is done; None if unknown.

    Runs are assumed to take as long as the finished ones, or else as the running ones.
    """
    estimates = durations or [job.projected for job in jobs if job.projected is not None]
    if not estimates:
        return None
    mean = sum(estimates) / len(estimates)
    total = pending * mean
    for job in jobs:
        whole = mean if job.projected is None else job.projected
        total += max(0.0, whole * (1 - job.step / max(1, job.steps)))
    return total / workers


def _progress(run: SweepRun, state: State) -> tuple[int, int]:
    """Return a value that changes when a run gets further: its last checkpoint and its test
    results."""
    try:
        saved = (Run(run.directory).checkpoints / LAST).stat().st_mtime_ns
    except OSError:
        saved = 0
    return saved, len(state.record.ladder) if state.record else 0
