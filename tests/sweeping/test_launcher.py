"""The launcher, with a stand-in for `lcg train` that fails as it is told to."""

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from processes import children, wait_until
from sqlalchemy.exc import OperationalError
from sweeping.tiny_sweeps import configs

from lcg.config import load_config, run_directory
from lcg.config.schema import Trainer
from lcg.runs.files import is_held, locked
from lcg.sweeping import launcher, read_sweep, study
from lcg.sweeping.launcher import Launcher
from lcg.sweeping.state import find_run, state_of
from lcg.sweeping.study import TrialQueue, open_storage
from lcg.sweeping.worker import share, storage_trouble

HERE = Path(__file__).parent
FAKE = [sys.executable, str(HERE.parent / "fake_trainer.py")]
COMMAND = ["lcg", "train", "experiment=quick/copy", "trainer.accelerator=cpu"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(launcher, "TICK", 0.02)
    monkeypatch.setattr(launcher, "LOOK", 0.05)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Say what the runs of each seed do."""

    def plan(**actions) -> None:
        text = {key.removeprefix("s"): value for key, value in actions.items()}
        (tmp_path / "plan.json").write_text(json.dumps(text))

    monkeypatch.setenv("FAKE_PLAN", str(tmp_path / "plan.json"))
    plan()
    return plan


@pytest.fixture
def sweep(tmp_path):
    """A sweep over seeds 0, 1, …"""

    def sweep(seeds: int, *overrides: str, **keys):
        content = {
            "method": "grid",
            "metric": {"name": "val/len_64/exact_match", "goal": "maximize"},
            "parameters": {"seed": {"values": list(range(seeds))}},
            "command": [*COMMAND, "${args_no_hyphens}"],
        }
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(content | keys))
        return read_sweep(file, [f"runs={tmp_path / 'runs'}", *overrides])

    return sweep


def run(asked, workers: int = 2):
    return Launcher(asked, workers, command=FAKE).launch()


def attempts(asked) -> list[int]:
    """Return how often each run was started."""
    files = [run_directory(load_config(words)) / "attempts" for words in configs(asked)]
    return [len(file.read_text()) if file.exists() else 0 for file in files]


def queue(asked) -> TrialQueue:
    return TrialQueue(asked, open_storage(None, asked.directory))


def trials(asked):
    return queue(asked).trials()


def test_a_full_disk_fails_no_run(sweep, plan):
    """The sweep ends, other runs are asked to save, and the same command goes on."""
    plan(s0=["full", "ok"], s1=["wait", "ok"], s2=["ok"])
    asked = sweep(3)
    summary = run(asked)
    assert summary.exit_code == 1
    assert summary.trouble == "last.ckpt: No space left on device; make room"
    assert f"stopped: {summary.trouble}; fix this, then" in summary.as_text()
    assert summary.failures == []
    assert TrialState.FAIL not in {trial.state for trial in trials(asked)}
    plan()  # whether or not the second one had begun to wait
    again = run(asked)
    assert (again.exit_code, again.counts.total()) == (0, 3)
    assert "failed" not in again.as_text()


def test_a_lost_database_fails_no_run(sweep, plan, monkeypatch):
    """The sweep ends with what the database said, and the same command goes on later."""
    asked = sweep(2)
    with monkeypatch.context() as outage:
        outage.setattr(study, "process_start", lambda pid: "an earlier process")
        outage.setattr(TrialQueue, "set_state", unanswered)
        summary = run(asked, workers=1)
    assert (summary.exit_code, summary.failures) == (1, [])
    assert "stopped: the study: server closed the connection; fix this" in summary.as_text()
    again = run(asked)
    assert (again.exit_code, again.counts.total()) == (0, 2)


def unanswered(*words, **facts):
    """Fail as Optuna does when its database is gone."""
    gone = OperationalError("SELECT 1", {}, RuntimeError("server closed the\nconnection"))
    raise StorageInternalError("An exception is raised during the commit.") from gone


def test_a_disk_too_full_to_say_so(sweep, plan, monkeypatch):
    """The process could not write its last line, and the log cannot be written now either."""
    plan(s0=["crash", "ok"])
    asked = sweep(1)
    monkeypatch.setattr(launcher, "storage_trouble", on_a_full_disk)
    assert run(asked).trouble == "a log: No space left on device"


def on_a_full_disk(log) -> str:
    """`storage_trouble` of a log that cannot be written."""

    class Full(type(log)):
        def open(self, mode: str, *rest):
            if "a" in mode:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().open(mode, *rest)

    return storage_trouble(Full(log)).replace(str(log), "a log")


@pytest.mark.parametrize(
    ("method", "first"),
    [("set_state", "ok"), ("set_state", "full"), ("take", "ok"), ("beat", "ok")],
)
def test_a_study_that_cannot_be_written(sweep, plan, monkeypatch, method, first):
    """SQLite's own words come wrapped twice."""
    plan(s0=[first, "ok"])
    asked, original = sweep(1), getattr(TrialQueue, method)

    def full(self, *arguments, **options):
        try:
            try:
                raise sqlite3.OperationalError("database or disk is full")
            except Exception as error:
                raise RuntimeError("in SQLAlchemy") from error
        except Exception as error:
            raise StorageInternalError("in the commit") from error

    monkeypatch.setattr(TrialQueue, method, full)
    summary = run(asked)
    assert summary.exit_code == 1
    assert ": No space left on device" in summary.trouble
    monkeypatch.setattr(TrialQueue, method, original)
    for trial in trials(asked):
        if trial.state is TrialState.RUNNING:
            queue(asked).set_state(trial, TrialState.WAITING)
    assert run(asked).exit_code == 0


def test_a_study_that_cannot_be_made(sweep, plan, monkeypatch):
    import optuna

    def full(*arguments, **options):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(optuna.storages, "RDBStorage", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        run(sweep(1))
    assert raised.value.filename.endswith("study.db")


def test_a_grid_and_what_is_done_of_it(sweep, plan, capsys):
    """Each run once; what is finished is skipped, also by another sweep that has it too."""
    asked = sweep(3)
    first = run(asked)
    assert (first.counts["finished"], first.counts["skipped"], first.exit_code) == (3, 0, 0)
    assert attempts(asked) == [1, 1, 1]
    assert first.best.value == 0.02 and first.best.directory == first.directories[2]
    best = f"best: {first.best.directory}  val/len_64/exact_match 0.02 (seed=2)\n"
    assert best in first.as_text()
    again = run(asked)
    assert (again.counts["finished"], again.counts["skipped"]) == (0, 3)
    larger = sweep(4)
    assert larger.name != asked.name
    third = run(larger)
    assert (third.counts["finished"], third.counts["skipped"]) == (1, 3)
    assert attempts(larger) == [1, 1, 1, 1]
    assert f"next: lcg table {asked.runs}" in third.as_text()


@pytest.mark.slow
def test_a_directory_that_was_deleted_is_trained_again(sweep, plan):
    asked = sweep(2)
    gone = run(asked).directories[1]
    for file in gone.iterdir():
        file.unlink()
    again = run(asked)
    assert (again.counts["finished"], again.counts["skipped"]) == (1, 1)
    assert (gone / "results.json").exists()


def test_stale_runs_are_reported_and_left_as_they_are(sweep, plan, capsys):
    asked = sweep(5)
    for directory in run(asked).directories:
        (directory / "provenance.json").write_text(json.dumps({"code": "0" * 12}))
    capsys.readouterr()
    again = run(asked)
    assert attempts(asked) == [1] * 5
    assert (again.counts["skipped"], len(again.stale)) == (5, 5)
    assert capsys.readouterr().err.count("was trained with different code") == 3
    assert "5 runs were trained with different code; delete their" in again.as_text()


def test_a_crash_is_retried_once_and_then_recorded(sweep, plan):
    plan(s0=["crash"], s1=["crash", "ok"], s2=["killed", "killed"], s3=["bad"])
    asked = sweep(5)
    done = run(asked)
    assert attempts(asked) == [2, 2, 2, 1, 1]
    assert (done.counts["finished"], done.counts["failed"], done.exit_code) == (2, 3, 1)
    reasons = {load_words(failure).seed: failure for failure in done.failures}
    assert reasons[0].reason == "exit code 1: RuntimeError: it broke"
    assert reasons[2].reason == "killed by signal 9"
    assert reasons[3].reason == "lcg: this cannot be"
    assert "RuntimeError: it broke" in reasons[0].log.read_text()
    assert f"failed: {reasons[0].run}: exit code 1: RuntimeError: it broke" in done.as_text()
    states = [trial.state for trial in trials(asked)]
    assert states.count(TrialState.FAIL) == 3 and states.count(TrialState.COMPLETE) == 2
    plan()  # whatever was wrong is mended: the same command tries them again
    again = run(asked)
    assert (again.counts["finished"], again.counts["skipped"], again.exit_code) == (3, 2, 0)


def load_words(failure):
    (file,) = failure.log.parents[3].glob(f"{failure.run}/words.json")
    return load_config(json.loads(file.read_text()))


@pytest.mark.slow
def test_a_crash_after_progress_does_not_count_as_the_second(sweep, plan):
    """A run that gets further each time is worth going on with."""
    plan(s0=["progress", "progress", "progress", "ok"], s1=["progress", "crash", "ok"])
    asked = sweep(2)
    done = run(asked)
    assert attempts(asked) == [4, 2]
    assert (done.counts["finished"], done.counts["failed"]) == (1, 1)


@pytest.mark.slow
def test_a_run_that_is_not_finite_is_a_result(sweep, plan):
    plan(s1=["not_finite"])
    asked = sweep(2)
    done = run(asked)
    assert (done.counts["finished"], done.exit_code, attempts(asked)) == (2, 0, [1, 1])
    values = sorted(trial.value for trial in trials(asked))
    assert values == [float("-inf"), 0.0]
    assert done.best.value == 0.0


def test_the_threads_of_a_worker(sweep, plan, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(6))
    asked = sweep(1)
    run(asked, workers=2)
    words = json.loads((find_run(configs(asked)[0]).directory / "words.json").read_text())
    assert words == [*configs(asked)[0], "trainer.threads=3"]
    told = sweep(1, "trainer.threads=1", "optimizer.lr=0.01")
    run(told, workers=2)
    words = json.loads((find_run(configs(told)[0]).directory / "words.json").read_text())
    assert words == configs(told)[0]


def test_gpus_are_divided(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,7,9")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    one, two, cpu = Trainer(), Trainer(devices=2), Trainer(accelerator="cpu")
    assert [slot.gpus for slot in share(None, one)] == ["3", "4", "7", "9"]
    assert [slot.threads for slot in share(None, one)] == [2] * 4
    assert [slot.gpus for slot in share(None, two)] == ["3,4", "7,9"]
    assert [slot.gpus for slot in share(6, one)] == ["3", "4", "7", "9", "3", "4"]
    assert share(2, cpu)[0].environment == {
        "OMP_NUM_THREADS": "4",
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
    }
    assert share(1, cpu)[0].environment == {"OMP_NUM_THREADS": "8"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [slot.gpus for slot in share(None, one)] == [None]


def test_a_run_that_another_process_trains(sweep, plan):
    """Others go on meanwhile; when it is free again it is trained."""
    asked = sweep(2)
    first = find_run(configs(asked)[0]).directory
    ended = []
    with locked(first):
        assert is_held(first)
        thread = threading.Thread(target=lambda: ended.append(run(asked)))
        thread.start()
        wait_until(lambda: attempts(asked) == [0, 1])
        assert not ended
    thread.join(900)
    assert attempts(asked) == [1, 1] and ended[0].counts["finished"] == 2


def test_pruning(sweep, plan):
    """Judged by the column of metrics.csv, stopped, and not taken up again."""
    early = {"type": "hyperband", "min_iter": 2, "eta": 2}
    plan(s0=[[0.9, 0.9, 0.9]], s1=[[0.1, 0.1, 0.1, "wait"]])
    asked = sweep(2, early_terminate=early)
    done = run(asked, workers=1)
    assert (done.counts["finished"], done.counts["pruned"], done.exit_code) == (1, 1, 0)
    pruned = next(t for t in trials(asked) if t.state is TrialState.PRUNED)
    assert pruned.user_attrs["pruned_at"] >= 20 and pruned.intermediate_values[2] == 0.1
    again = run(asked)
    assert (again.counts["skipped"], again.counts["pruned"], attempts(asked)) == (1, 1, [1, 1])


def test_a_run_that_ends_between_two_looks_is_compared_with(sweep, plan, monkeypatch):
    """However busy the machine is, others are judged by all of its validations."""
    monkeypatch.setattr(launcher, "LOOK", float("inf"))
    plan(s0=[[0.7, 0.8, 0.9]])
    asked = sweep(1, early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2})
    assert run(asked).counts["finished"] == 1
    (trial,) = trials(asked)
    assert trial.intermediate_values == {1: 0.7, 2: 0.8, 3: 0.9}
    assert trial.state is TrialState.COMPLETE


@pytest.mark.slow
def test_values_that_cannot_be_drawn_together_are_recorded(sweep, plan):
    """Only the possible ends of a range are known beforehand."""
    heads = {"distribution": "int_uniform", "min": 2, "max": 3}  # 3 do not divide the width
    asked = sweep(1, method="random", run_cap=8, parameters={"model.heads": heads})
    done = run(asked)
    assert done.counts["failed"] and done.counts.total() == 8
    assert all("d_model=64 is not a multiple of heads=3" in f.reason for f in done.failures)


def test_a_sweep_of_which_all_runs_fail_alike_is_given_up(sweep, plan):
    heads = {"distribution": "q_uniform", "q": 64, "min": 64, "max": 64 * 9000}
    width = {"distribution": "int_uniform", "min": 64, "max": 10**5}
    asked = sweep(
        1, method="random", run_cap=9000, parameters={"model.heads": heads, "model.d_model": width}
    )
    done = run(asked)
    assert done.counts["failed"] == 20 == done.counts.total()
    assert "all 20 runs failed with the same error: model: d_model=" in done.as_text()


LAUNCH = """
import json, sys
from lcg.log import log_to_stderr
from lcg.sweeping import launcher, read_sweep
log_to_stderr()
launcher.TICK, launcher.LOOK = 0.02, 0.05
asked = read_sweep(sys.argv[1], [sys.argv[2]])
done = launcher.Launcher(asked, 2, command=json.loads(sys.argv[3])).launch()
sys.exit(done.exit_code)
"""


def start(asked) -> subprocess.Popen:
    """A launcher as a process of its own."""
    words = [str(asked.path), f"runs={asked.runs}", json.dumps(FAKE)]
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *words], stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_stops_the_workers_first(number, code, sweep, plan):
    plan(s0=["wait", "ok"], s1=["wait", "ok"])
    asked = sweep(3)
    process = start(asked)
    wait_until(lambda: sum(attempts(asked)) == 2)
    process.send_signal(number)
    assert process.wait(900) == code
    assert "stopping: saving 2 runs" in process.stderr.read()
    assert {t.state for t in trials(asked)} == {TrialState.WAITING}
    assert run(asked).counts["finished"] == 3


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others have no such signal")
def test_the_launcher_is_killed(sweep, plan):
    """Its workers are told to save, and the next launcher goes on with the same runs."""
    plan(s0=["wait", "ok"], s1=["wait", "ok"])
    asked = sweep(3)
    process = start(asked)
    wait_until(lambda: sum(attempts(asked)) == 2)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert len(workers) == 2
    wait_until(lambda: not any(alive(pid) for pid in workers))
    done = run(asked)
    assert (done.counts["finished"], attempts(asked)) == (3, [2, 2, 1])
    assert len(trials(asked)) == 3


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_two_launchers_never_train_a_run_twice(sweep, plan):
    asked = sweep(8)
    processes = [start(asked), start(asked)]
    assert [process.wait(900) for process in processes] == [0, 0]
    assert attempts(asked) == [1] * 8


def test_a_run_is_finished_when_all_lengths_are_evaluated(sweep, plan):
    asked = sweep(1)
    run(asked)
    found = find_run(configs(asked)[0])
    assert state_of(found).kind == "finished"
    more = find_run([*found.words, "evaluation.lengths=32,64,128,256,512,1024"])
    assert more.directory == found.directory
    assert state_of(more).kind == "resumes"
    without = find_run([*more.words, "evaluation.after_training=false"])
    assert state_of(without).kind == "finished"


def test_a_split_with_fewer_samples_than_asked_is_climbed_whole(sweep, plan, monkeypatch):
    asked = sweep(1)
    run(asked)
    found = find_run(configs(asked)[0])
    (done,) = {cell.samples for cell in state_of(found).record.ladder}
    more = find_run([*found.words, "evaluation.samples=5000"])
    assert state_of(more).kind == "resumes"
    monkeypatch.setattr(type(more.config.task), "distinct_samples", lambda *words: done)
    assert state_of(more).kind == "finished"


def job(step: int, begin: int = 0):
    """A run of 100 steps whose process has been at work for 10 seconds."""
    metric = SimpleNamespace(step=step, values=[])
    run = SimpleNamespace(config=load_config(["trainer.steps=100"]))
    return launcher.Job(None, run, None, metric, "", begin=begin, started=time.monotonic() - 10)


def test_time_left():
    about, left = partial(pytest.approx, rel=0.01), launcher.time_left
    assert left([], 4, [], 2) is None
    assert left([], 3, [job(50)], 1) == about(3 * 20 + 10)
    assert left([30.0], 3, [job(50)], 2) == about((3 * 30 + 10) / 2)
    assert left([], 0, [job(75, begin=50)], 1) == about(10)
