"""The Optuna study of a sweep: which runs there are, who trains which, and their results.

A trial is a run. WAITING trials can be taken by any launcher that shares the study; RUNNING ones
belong to the launcher named in their user attributes. Optuna's storage ensures that only one
launcher gets a trial. A trial of a killed launcher becomes WAITING again, with its parameters, so
that its run resumes from its checkpoint. Optuna's own heartbeats are not used: its proxy has none,
and with them the runs of a dead launcher on this host would wait for a timeout.
"""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import QueuePool
from sqlalchemy.exc import DBAPIError

from lcg.config.types import as_text
from lcg.results.labels import short_names
from lcg.runs.files import LOCK, exclusively
from lcg.sweeping.file import Sweep, combinations
from lcg.sweeping.parameters import Choice, Range
from lcg.system import storage_error

HEARTBEAT = 15.0  # seconds between signs of life of a launcher
SILENCE = 120.0  # seconds without one after which a launcher on another host counts as dead
PROXY_PATIENCE = 15.0  # seconds for a gRPC proxy to answer
SEED = 0  # of the samplers
EXTRAS = {"postgresql": "postgres", "grpc": "grpc"}  # of lcg, which install a URL's driver

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def distribution_of(parameter: Choice | Range) -> BaseDistribution:
    """Return a parameter as an Optuna distribution; choices are texts, as on the command line."""
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.texts)
    if parameter.whole:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def open_storage(url: str | None, directory: Path) -> optuna.storages.BaseStorage:
    """Open the database or proxy at a URL, or a file next to the runs.

    Raises ValueError, in one line, when it cannot be opened.
    """
    if url is None:
        directory.mkdir(parents=True, exist_ok=True)
    file, address = (directory / "study.db").resolve(), url or "sqlite://"
    scheme = address.partition(":")[0]
    try:
        return _open_proxy(address) if scheme == "grpc" else _open_database(url, file)
    except Exception as error:
        if url is None and (behind := storage_error(error, directory / "study.db")):
            raise behind from None
        shown = re.sub(r"//([^:/@]*):[^@]*@", r"//\1:***@", address)  # logs are read by many
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        reason = reason.replace(address, shown)
        if isinstance(error, ImportError):
            extra = EXTRAS.get(scheme)
            remedy = f"pip install 'lcg[{extra}]'" if extra else f"install the driver of {scheme}"
            reason = f"its driver is not installed: {remedy}"
        subject = f"{file} cannot" if url is None else f"--storage {shown}: cannot"
        raise ValueError(f"{subject} be opened: {reason}") from None


def _open_proxy(address: str) -> optuna.storages.GrpcStorageProxy:
    """Connect to Optuna's gRPC server, which reaches the database."""
    where = re.fullmatch(r"grpc://(\[[^]]+\]|[^:/@]+):(\d{1,5})/?", address)
    if where is None:
        raise ValueError("a proxy's address is grpc://HOST:PORT")
    proxy = optuna.storages.GrpcStorageProxy(host=where[1], port=int(where[2]))
    proxy.wait_server_ready(timeout=PROXY_PATIENCE)
    return proxy


def _open_database(url: str | None, file: Path) -> optuna.storages.RDBStorage:
    """Open a database, or this file, and create Optuna's tables in an empty one.

    If several launchers create the tables at the same moment, all but one fail at a statement; its
    tables exist by then, so they retry. Without a connection no statement is run, and the error is
    raised at once.
    """
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url is None:  # as no URL can name a file with ?, # or % in it
        connect = partial(sqlite3.connect, os.fsencode(file), timeout=60, check_same_thread=False)
        options = {"creator": connect, "poolclass": QueuePool}
    elif url.startswith("sqlite"):
        options = {"connect_args": {"timeout": 60}}
    for pause in (0.5, 1.0, 2.0, 4.0, None):
        try:
            return optuna.storages.RDBStorage(url or "sqlite://", engine_kwargs=options)
        except DBAPIError as error:
            if pause is None or error.statement is None:
                raise
            time.sleep(pause)


def study_error(error: Exception) -> str | None:
    """Return the message of a database or proxy that failed, in one line; None for other errors."""
    if isinstance(error, StorageInternalError):
        error = error.__cause__
    if isinstance(error, DBAPIError):
        message = str(error.orig)
    elif type(error).__module__.startswith("grpc"):
        message = error.details()
    else:
        return None
    return " ".join(message.split())[:200]


class TrialQueue:
    """The trials of a sweep, for one launcher.

    TPE implements `bayes`; it treats running trials as poor ones (constant liar), so that workers
    do not all draw the same. The trials of a grid are all queued in advance. Hyperband has one
    bracket: asynchronous successive halving.
    """

    def __init__(self, sweep: Sweep, storage: optuna.storages.BaseStorage) -> None:
        self.sweep = sweep
        samplers, early = optuna.samplers, sweep.early_stop
        tpe = samplers.TPESampler(constant_liar=True) if sweep.method == "bayes" else None
        self.study = optuna.create_study(
            study_name=sweep.name,
            storage=storage,
            sampler=tpe or samplers.RandomSampler(),
            pruner=early and optuna.pruners.SuccessiveHalvingPruner(early.first, early.eta),
            direction="minimize" if sweep.metric and not sweep.metric.maximize else "maximize",
            load_if_exists=True,
        )
        pid = os.getpid()
        self.owner = {"host": platform.node(), "pid": pid, "born": process_start(pid)}
        self._distributions = {k: distribution_of(p) for k, p in sweep.parameters.items()}
        # Of trials on other hosts the last two signs of life, and when they were first seen.
        self._beats: dict[int, deque] = defaultdict(lambda: deque(maxlen=2))
        self._beaten = 0.0

    def lock(self) -> AbstractContextManager[None]:
        """Admit one launcher of a runs folder at a time.

        Two that ask SQLite for a trial at once may both get it, because SQLite ignores Optuna's row
        lock, which a database server honours.
        """
        self.sweep.directory.mkdir(parents=True, exist_ok=True)
        return exclusively(self.sweep.directory / LOCK)

    def fill(self, again: Iterable[str] = ()) -> None:
        """Queue the missing trials of a grid, and another trial for those in `again` (keys of
        choices).

        Trials that launchers of several hosts queue twice at the same moment are dropped by
        `trials`.
        """
        latest = self.latest()
        for trial in (latest[key] for key in again if key in latest):
            if trial.state.is_finished():
                again_of = {"again_of": trial.number}
                self.study.enqueue_trial(_parameters(trial), user_attrs=again_of)
        if self.sweep.method == "grid":
            for chosen in combinations(self.sweep):
                if key_of(chosen) not in latest:
                    self.study.enqueue_trial(chosen)

    # ---- taking

    def take(self) -> tuple[Trial, dict[str, str]] | None:
        """Take a trial for this launcher; return it and its choices, None when there is none
        now."""
        with self.lock():
            while self._has_more():
                trial = self.study.ask(self._distributions)
                if not self._is_surplus(trial):
                    self.note(trial, owner=self.owner, heartbeat=time.time())
                    return trial, self.chosen(self._frozen(trial))
                self.set_state(trial, TrialState.FAIL, surplus=True)
        return None

    def _has_more(self) -> bool:
        trials = self.trials()
        is_drawn = self.sweep.method != "grid" and _drawn(trials) < self.sweep.run_cap
        return is_drawn or any(trial.state is TrialState.WAITING for trial in trials)

    def _is_surplus(self, trial: Trial) -> bool:
        """Tell whether launchers queued a run twice at the same moment, or drew more than the
        cap."""
        trials = self.trials()
        if self.sweep.method == "grid":
            return all(other.number != trial.number for other in trials)
        before = _drawn(other for other in trials if other.number < trial.number)
        return "again_of" not in trial.user_attrs and before >= self.sweep.run_cap

    def reclaim_dead(self) -> list[bool]:
        """Free the trials of dead launchers.

        Returns, for each trial of another launcher, whether that launcher is certain to live: one
        on another host is if it sent a heartbeat since this one started watching.
        """
        others = []
        for trial in self.trials():
            owner = trial.user_attrs.get("owner")
            if trial.state is not TrialState.RUNNING or owner == self.owner:
                continue
            if owner and owner["host"] == self.owner["host"]:
                lives, is_certain = owner["born"] == process_start(owner["pid"]), True
            else:  # a clock of our own: those of other hosts may differ
                beats, now = self._beats[trial.number], time.monotonic()
                beat = (owner, trial.user_attrs.get("heartbeat"))
                if not beats or beats[-1][0] != beat:
                    beats.append((beat, now))
                lives, is_certain = now - beats[-1][1] <= SILENCE, len(beats) > 1
            if lives:
                others.append(is_certain)
                continue
            with self.lock():
                found = self._frozen(trial)
                if found.state is TrialState.RUNNING and found.user_attrs == trial.user_attrs:
                    self.set_state(trial, TrialState.WAITING)
        return others

    # ---- while it runs

    def beat(self, trials: Iterable[Trial]) -> None:
        """Send a heartbeat periodically."""
        if time.monotonic() - self._beaten > HEARTBEAT:
            self._beaten = time.monotonic()
            for trial in trials:
                self.note(trial, heartbeat=time.time())

    def should_stop(self, trial: Trial, values: list[float]) -> bool:
        """Tell whether a run may end early, after its validations so far, each reported once.

        Validations are counted from 1, as in W&B. The answer is stored before it is acted upon, so
        that a launcher that takes over the trial gives the same answer.
        """
        frozen = self._frozen(trial)
        if frozen.user_attrs.get("stop"):
            return True
        last = self.sweep.early_stop and self.sweep.early_stop.last
        for count, value in enumerate(values[:last], start=1):
            if count not in frozen.intermediate_values:
                trial.report(value, count)
                if trial.should_prune():
                    self.note(trial, stop=True)
                    return True
        return False

    def note(self, trial: Trial, **facts: Any) -> None:
        """Store facts about a trial in the study."""
        with suppress(UpdateFinishedTrialError):  # another launcher was quicker
            for key, value in facts.items():
                trial.set_user_attr(key, value)

    def set_state(
        self,
        trial: Trial | FrozenTrial,
        state: TrialState,
        value: float | None = None,
        **facts: Any,
    ) -> None:
        """Record the outcome of a run, or release it with WAITING.

        A COMPLETE trial without a value counts as the worst.
        """
        if state is TrialState.COMPLETE and value is None:
            value = self.sweep.metric.worst if self.sweep.metric else 0.0
        values = None if value is None else [float(value)]
        self.note(trial, **facts)
        with suppress(UpdateFinishedTrialError):  # another launcher was quicker, with the same run
            self.study._storage.set_trial_state_values(trial._trial_id, state, values)

    # ---- reading

    def _frozen(self, trial: Trial | FrozenTrial) -> FrozenTrial:
        """Return a trial as it is in the storage now."""
        return self.study._storage.get_trial(trial._trial_id)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials but surplus ones: of those that are the same run of a grid, the
        first."""
        trials = self.study.get_trials(deepcopy=False)
        trials = [trial for trial in trials if not trial.user_attrs.get("surplus")]
        if self.sweep.method != "grid":
            return trials
        first: dict[tuple[str, int | None], FrozenTrial] = {}
        for trial in trials:
            run = key_of(self.chosen(trial)), trial.user_attrs.get("again_of")
            first.setdefault(run, trial)
        return list(first.values())

    def chosen(self, trial: FrozenTrial) -> dict[str, str]:
        """Return the choices of a trial, as texts, in the order of the file."""
        parameters = _parameters(trial)
        return {k: as_text(parameters[k]) for k in self.sweep.parameters if k in parameters}

    def latest(self) -> dict[str, FrozenTrial]:
        """Return the last trial of each choice, by its key."""
        return {key_of(self.chosen(trial)): trial for trial in self.trials()}


def _parameters(trial: FrozenTrial) -> dict[str, Any]:
    return trial.system_attrs.get("fixed_params", {}) | trial.params


def _drawn(trials: Iterable[FrozenTrial]) -> int:
    """Count the trials that do not repeat another."""
    return sum("again_of" not in trial.user_attrs for trial in trials)


def key_of(chosen: dict[str, str]) -> str:
    """Return the text that identifies a choice."""
    return " ".join(f"{key}={text}" for key, text in chosen.items())


def values_text(chosen: dict[str, str]) -> str:
    """Return a choice as text, each parameter by its shortest unique name."""
    names = short_names(list(chosen))
    return ", ".join(f"{names[key]}={text}" for key, text in chosen.items())


def sample(sweep: Sweep, count: int) -> list[dict[str, str]]:
    """Return some choices that the sweep could draw, from a temporary study."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=SEED))
    distributions = {key: distribution_of(p) for key, p in sweep.parameters.items()}
    trials = [study.ask(distributions) for _ in range(count)]
    return [{key: as_text(trial.params[key]) for key in sweep.parameters} for trial in trials]


def process_start(pid: int) -> str:
    """Return the start time of a process of this host; empty if there is none."""
    if not Path("/proc/self/stat").exists():
        with suppress(OSError):
            os.kill(pid, 0)
            return "alive"
        return ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
