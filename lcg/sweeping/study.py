"""The Optuna study behind a sweep: which runs there are, who trains which, and what came of them.

A trial is a run. WAITING ones are free for any launcher that shares the study, RUNNING ones belong
to the launcher whose name is in their user attributes; Optuna's storage sees to it that only one
gets a trial. A trial that a launcher left behind when it was killed is made WAITING again, with its
parameters, so that its run goes on from its checkpoint.
"""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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
from lcg.sweeping.file import EarlyStop, Sweep, combinations
from lcg.sweeping.parameters import Choice, Range
from lcg.system import storage_error

HEARTBEAT = 15.0  # seconds between signs of life of a launcher
SILENCE = 120.0  # seconds without one after which a launcher on another host counts as dead
PROXY_PATIENCE = 15.0  # seconds for a gRPC proxy to answer
SEED = 0  # of the samplers

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def distribution_of(parameter: Choice | Range) -> BaseDistribution:
    """A parameter as Optuna has it; choices are texts, as they stand on the command line."""
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.texts)
    if parameter.whole:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def sampler_of(sweep: Sweep, seed: int | None = None) -> optuna.samplers.BaseSampler:
    """TPE for bayes, the random sampler for random; a grid's trials are all queued beforehand.

    TPE takes the runs under way for poor ones (constant liar), so that workers do not all draw the
    same.
    """
    if sweep.method == "bayes":
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=seed)


def pruner_of(early_stop: EarlyStop | None) -> optuna.pruners.BasePruner:
    """Asynchronous successive halving: what W&B calls hyperband has one bracket, so is this."""
    if early_stop is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(
        min_resource=early_stop.first, reduction_factor=early_stop.eta
    )


def open_storage(url: str | None, directory: Path) -> optuna.storages.BaseStorage:
    """Open the database or proxy at a URL, or a file beside the runs.

    Raises ValueError, in one line, when it does not open.
    """
    if url is None:
        directory.mkdir(parents=True, exist_ok=True)
    file, address = (directory / "study.db").resolve(), url or "sqlite://"
    try:
        if address.startswith("grpc:"):
            return _open_proxy(address)
        return _open_database(address, _engine_options(url, file))
    except Exception as error:
        if url is None and (behind := storage_error(error, directory / "study.db")):
            raise behind from None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        shown = re.sub(r"//([^:/@]*):[^@]*@", r"//\1:***@", address)  # logs are read by many
        reason = reason.replace(address, shown)
        if isinstance(error, ImportError):
            reason = f"its driver is not installed: {_driver(address)}"
        what = f"{file} cannot" if url is None else f"--storage {shown}: cannot"
        raise ValueError(f"{what} be opened: {reason}") from None


def _engine_options(url: str | None, file: Path) -> dict[str, Any]:
    """Options of SQLAlchemy's engine beside a URL; None: to open this very file, as no URL can
    name one with ?, # or % in it."""
    if url is None:
        path = os.fsencode(file)
        connect = partial(sqlite3.connect, path, timeout=60, check_same_thread=False)
        return {"creator": connect, "poolclass": QueuePool}
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}
    return {"pool_pre_ping": True}


def _open_database(address: str, options: dict[str, Any]) -> optuna.storages.RDBStorage:
    """Open a database, and make Optuna's tables in one that is empty.

    Of launchers that make the tables at the same moment all but one fail at a statement: what it
    would have made is there by now, so it tries again. Without a connection no statement is run,
    and the error is raised at once.
    """
    for pause in (0.5, 1.0, 2.0, 4.0, None):
        try:
            return optuna.storages.RDBStorage(address, engine_kwargs=options)
        except DBAPIError as error:
            if pause is None or error.statement is None:
                raise
            time.sleep(pause)


def _open_proxy(address: str) -> optuna.storages.GrpcStorageProxy:
    """Connect to Optuna's gRPC server, which alone reaches the database."""
    where = re.fullmatch(r"grpc://(\[[^]]+\]|[^:/@]+):(\d{1,5})/?", address)
    if where is None:
        raise ValueError("a proxy's address is grpc://HOST:PORT")
    proxy = optuna.storages.GrpcStorageProxy(host=where[1], port=int(where[2]))
    proxy.wait_server_ready(timeout=PROXY_PATIENCE)
    return proxy


def _driver(address: str) -> str:
    """Say how to install what a URL needs."""
    scheme = address.partition(":")[0]
    if extra := {"postgresql": "postgres", "grpc": "grpc"}.get(scheme):
        return f"pip install 'lcg[{extra}]'"
    return f"install the one of {scheme}"


def study_error(error: Exception) -> str | None:
    """Return what a database or proxy said when it failed, in one line; None for other errors."""
    if isinstance(error, StorageInternalError):
        error = error.__cause__
    if isinstance(error, DBAPIError):
        said = str(error.orig)
    elif type(error).__module__.startswith("grpc"):
        said = error.details()
    else:
        return None
    return " ".join(said.split())[:200]


def open_queue(sweep: Sweep, url: str | None = None) -> TrialQueue:
    """Open the sweep's study, made if it is not there, with all that a grid holds in its queue."""
    with study_lock(sweep):
        queue = TrialQueue(sweep, open_storage(url, sweep.directory))
        queue.fill(again=set())
    return queue


@contextmanager
def study_lock(sweep: Sweep) -> Iterator[None]:
    """Let one launcher of a runs folder in at a time.

    Two that ask SQLite for a trial at once may both get it, because Optuna's lock of a row, which
    a database server honours, means nothing to SQLite.
    """
    sweep.directory.mkdir(parents=True, exist_ok=True)
    with exclusively(sweep.directory / LOCK):
        yield


class TrialQueue:
    """The trials of a sweep, as one launcher sees them, takes them and changes them."""

    def __init__(self, sweep: Sweep, storage: optuna.storages.BaseStorage) -> None:
        self.sweep = sweep
        self.study = optuna.create_study(
            study_name=sweep.name,
            storage=storage,
            sampler=sampler_of(sweep),
            pruner=pruner_of(sweep.early_stop),
            direction="minimize" if sweep.metric and not sweep.metric.maximize else "maximize",
            load_if_exists=True,
        )
        self.owner = {
            "host": platform.node(),
            "pid": os.getpid(),
            "born": process_start(os.getpid()),
        }
        self._distributions = {k: distribution_of(p) for k, p in sweep.parameters.items()}
        # Of each trial the last sign of life, when it was first seen, and how often it changed.
        self._beats: dict[int, tuple[Any, float, int]] = {}
        self._beaten = 0.0

    # ---- filling

    def fill(self, again: set[str]) -> None:
        """Queue what a grid lacks, and another trial for those in `again` (keys of choices).

        What launchers of several hosts queue twice at the same moment, `trials` drops.
        """
        known: dict[str, FrozenTrial] = {}
        for trial in self.trials():
            known[key_of(self.chosen(trial))] = trial
        for key in again & known.keys():
            trial = known[key]
            if trial.state.is_finished():
                again_of = {"again_of": trial.number}
                self.study.enqueue_trial(self._parameters(trial), user_attrs=again_of)
        if self.sweep.method == "grid":
            for chosen in combinations(self.sweep):
                if key_of(chosen) not in known:
                    self.study.enqueue_trial(chosen, user_attrs={})

    # ---- taking

    def take(self) -> tuple[Trial, dict[str, str]] | None:
        """A trial for this launcher and what it chooses; None when there is none to be had now."""
        with study_lock(self.sweep):
            while self._has_more():
                trial = self.study.ask(self._distributions)
                if not self._is_surplus(trial):
                    self.note(trial, owner=self.owner, heartbeat=time.time())
                    return trial, self.chosen(self._frozen(trial))
                self._finish(trial, TrialState.FAIL, surplus=True)
        return None

    def _has_more(self) -> bool:
        trials = self.trials()
        if any(trial.state is TrialState.WAITING for trial in trials):
            return True
        return self.sweep.method != "grid" and _drawn(trials) < self.sweep.run_cap

    def _is_surplus(self, trial: Trial) -> bool:
        """Tell whether launchers at the same moment queued a run twice, or drew over the cap."""
        trials = self.trials()
        if self.sweep.method == "grid":
            return all(other.number != trial.number for other in trials)
        if "again_of" in trial.user_attrs:
            return False
        return _drawn(t for t in trials if t.number < trial.number) >= self.sweep.run_cap

    def reclaim_dead(self) -> list[FrozenTrial]:
        """Free the trials of dead launchers; returns those of launchers that live or may live."""
        others = []
        for trial in self.trials():
            owner = trial.user_attrs.get("owner")
            if trial.state is not TrialState.RUNNING or owner == self.owner:
                continue
            if self._is_dead(trial):
                self._free_unless_taken(trial)
            else:
                others.append(trial)
        return others

    def is_uncertain(self, trial: FrozenTrial) -> bool:
        """Tell whether the launcher of a trial may be dead, for all that was seen of it so far."""
        owner = trial.user_attrs.get("owner") or {}
        _, _, changes = self._beats.get(trial.number, (None, 0.0, 0))
        return owner.get("host") != self.owner["host"] and not changes

    def _is_dead(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get("owner")
        if owner and owner.get("host") == self.owner["host"]:
            return owner["born"] != process_start(owner["pid"])
        # A clock of our own: those of other hosts may differ.
        beat = (owner, trial.user_attrs.get("heartbeat"))
        seen, since, changes = self._beats.get(trial.number, (beat, time.monotonic(), 0))
        if seen != beat:
            seen, since, changes = beat, time.monotonic(), changes + 1
        self._beats[trial.number] = (seen, since, changes)
        return time.monotonic() - since > SILENCE

    def _free_unless_taken(self, trial: FrozenTrial) -> None:
        with study_lock(self.sweep):
            now = self._frozen(trial)
            if now.state is TrialState.RUNNING and now.user_attrs == trial.user_attrs:
                self._set_state(trial._trial_id, TrialState.WAITING)

    # ---- while it runs

    def beat(self, trials: list[Trial]) -> None:
        """Give a sign of life, every so often."""
        if time.monotonic() - self._beaten > HEARTBEAT:
            self._beaten = time.monotonic()
            for trial in trials:
                self.note(trial, heartbeat=time.time())

    def should_stop(self, trial: Trial, values: list[float]) -> bool:
        """Tell whether a run may end early, after its validations so far, each reported once.

        Validations are counted from 1, as W&B counts what it compares. The answer is noted before
        it is acted upon: whoever takes the trial up from a launcher that died then gives the same.
        """
        frozen = self._frozen(trial)
        if frozen.user_attrs.get("stop"):
            return True
        known = frozen.intermediate_values
        last = self.sweep.early_stop.last if self.sweep.early_stop else None
        for count, value in enumerate(values, start=1):
            if count in known or (last is not None and count > last):
                continue
            trial.report(value, count)
            if trial.should_prune():
                self.note(trial, stop=True)
                return True
        return False

    def note(self, trial: Trial, **facts: Any) -> None:
        """Keep facts about a trial in the study."""
        for key, value in facts.items():
            try:
                trial.set_user_attr(key, value)
            except UpdateFinishedTrialError:  # another launcher was quicker
                return

    def release(self, trial: Trial) -> None:
        """Let others have a trial that is not finished."""
        self._set_state(trial._trial_id, TrialState.WAITING)

    # ---- at its end

    def complete(self, trial: Trial, value: float | None, **facts: Any) -> None:
        """Record a run that is done; without a value it counts as the worst."""
        worst = self.sweep.metric.worst if self.sweep.metric else 0.0
        self._finish(trial, TrialState.COMPLETE, worst if value is None else value, **facts)

    def prune(self, trial: Trial, **facts: Any) -> None:
        """Record a run that ended early."""
        self._finish(trial, TrialState.PRUNED, **facts)

    def fail(self, trial: Trial, reason: str) -> None:
        """Record a run that cannot be done."""
        self._finish(trial, TrialState.FAIL, reason=reason)

    def _finish(self, trial: Trial, state: TrialState, value: float | None = None, **facts) -> None:
        self.note(trial, **facts)
        if state is TrialState.PRUNED:
            values = self._frozen(trial).intermediate_values
            value = values[max(values)] if values else None
        values = None if value is None else [float(value)]
        self._set_state(trial._trial_id, state, values)

    def _set_state(self, trial_id: int, state: TrialState, values=None) -> None:
        with suppress(UpdateFinishedTrialError):  # another launcher was quicker, with the same run
            self.study._storage.set_trial_state_values(trial_id, state, values)

    def _frozen(self, trial: Trial | FrozenTrial) -> FrozenTrial:
        """A trial as it stands in the storage now."""
        return self.study._storage.get_trial(trial._trial_id)

    # ---- reading

    def trials(self) -> list[FrozenTrial]:
        """All trials but surplus ones: of those that are the same run of a grid, the first."""
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
        parameters = self._parameters(trial)
        return {k: _text(parameters[k]) for k in self.sweep.parameters if k in parameters}

    def _parameters(self, trial: FrozenTrial) -> dict[str, Any]:
        return trial.system_attrs.get("fixed_params", {}) | trial.params

    def latest(self) -> dict[str, FrozenTrial]:
        """The last trial of each choice, by its key."""
        return {key_of(self.chosen(trial)): trial for trial in self.trials()}


def _drawn(trials: Iterable[FrozenTrial]) -> int:
    """Count the trials that are no repetition of another."""
    return sum("again_of" not in trial.user_attrs for trial in trials)


def key_of(chosen: dict[str, str]) -> str:
    """The text that identifies a choice."""
    return " ".join(f"{key}={text}" for key, text in chosen.items())


def values_text(chosen: dict[str, str]) -> str:
    """A choice for a reader, each parameter by the shortest name that no other one has."""
    names = short_names(list(chosen))
    return ", ".join(f"{names[key]}={text}" for key, text in chosen.items())


def sample(sweep: Sweep, count: int) -> list[dict[str, str]]:
    """Some choices that the sweep could draw, from a study of no consequence."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=SEED))
    distributions = {key: distribution_of(p) for key, p in sweep.parameters.items()}
    trials = [study.ask(distributions) for _ in range(count)]
    return [{key: _text(t.params[key]) for key in sweep.parameters} for t in trials]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else as_text(value)


def process_start(pid: int) -> str:
    """The time at which a process of this host was started; empty if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "alive"
