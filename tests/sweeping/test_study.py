"""W&B's keys in Optuna, and the trials that launchers get."""

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import optuna
import pytest
import yaml
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from lcg.sweeping import read_sweep, study
from lcg.sweeping.parameters import NOT_DRAWN, read_parameter
from lcg.sweeping.study import TrialQueue, distribution_of, sample

COMMAND = ["lcg", "train", "experiment=quick/copy", "${args_no_hyphens}"]
LR = {"optimizer.lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1}}

MAPPED = [
    ({"value": 3}, CategoricalDistribution(("3",))),
    ({"values": ["a", None, True]}, CategoricalDistribution(("a", "null", "true"))),
    ({"min": 1, "max": 4}, IntDistribution(1, 4)),
    ({"min": 1, "max": 4.0}, FloatDistribution(1.0, 4.0)),
    ({"distribution": "int_uniform", "min": 1, "max": 4}, IntDistribution(1, 4)),
    ({"distribution": "uniform", "min": 0, "max": 1}, FloatDistribution(0.0, 1.0)),
    (
        {"distribution": "q_uniform", "min": 0.05, "max": 0.5, "q": 0.1},
        FloatDistribution(0.1, 0.5, step=0.1),  # W&B's multiples of q
    ),
    (
        {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1},
        FloatDistribution(0.001, 0.1, log=True),
    ),
    (
        {"distribution": "log_uniform", "min": -2, "max": 1},
        FloatDistribution(math.exp(-2), math.exp(1), log=True),
    ),
    (
        {"distribution": "q_log_uniform_values", "min": 1, "max": 64},
        IntDistribution(1, 64, log=True),
    ),
]


@pytest.mark.parametrize(("node", "expected"), MAPPED, ids=[str(node) for node, _ in MAPPED])
def test_a_distribution(node, expected):
    assert distribution_of(read_parameter(node)) == expected


@pytest.mark.parametrize("name", NOT_DRAWN)
def test_unsupported_distributions_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"distribution {name} cannot be drawn"):
        read_parameter({"distribution": name, "mu": 0.0, "min": 1, "max": 2})


def sweep(folder: Path, **keys):
    content = {
        "method": "random",
        "run_cap": 4,
        "metric": {"name": "val/len_64/exact_match", "goal": "maximize"},
        "parameters": LR,
        "command": COMMAND,
    } | keys
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({key: v for key, v in content.items() if v is not None}))
    return read_sweep(file, [f"runs={folder / 'runs'}"])


def queues(asked, count: int = 1) -> list[TrialQueue]:
    """As many launchers' views of one study."""
    storage = study.open_storage(None, asked.directory)
    found = [TrialQueue(asked, storage) for _ in range(count)]
    for number, queue in enumerate(found[1:], start=1):
        queue.owner = {"host": "another", "pid": number, "born": "0"}
    return found


def test_samplers_and_pruners(tmp_path):
    (drawn,) = queues(sweep(tmp_path))
    early = {"type": "hyperband", "min_iter": 2}
    (bayes,) = queues(sweep(tmp_path, method="bayes", early_terminate=early))
    assert isinstance(drawn.study.sampler, optuna.samplers.RandomSampler)
    assert isinstance(bayes.study.sampler, optuna.samplers.TPESampler)
    assert isinstance(bayes.study.pruner, optuna.pruners.SuccessiveHalvingPruner)


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_sweep_that_draws_ends_at_its_cap(method, tmp_path):
    asked = sweep(tmp_path, method=method)
    (queue,) = queues(asked)
    rates = []
    while taken := queue.take():
        trial, chosen = taken
        rates.append(float(chosen["optimizer.lr"]))
        queue.set_state(trial, TrialState.COMPLETE, 0.5)
    assert len(set(rates)) == 4 and all(0.001 <= rate <= 0.1 for rate in rates)


def test_two_launchers_share_the_runs(tmp_path):
    """Each trial of a grid goes to one of them, and the cap holds for both together."""
    seeds = {"seed": {"values": list(range(7))}}
    grid = sweep(tmp_path, method="grid", run_cap=None, parameters=seeds)
    one, other = queues(grid, 2)
    one.fill()
    other.fill()
    taken = [queue.take() for queue in (one, other) * 4]
    assert sorted(chosen["seed"] for _, chosen in filter(None, taken)) == [str(n) for n in range(7)]

    drawn = sweep(tmp_path, run_cap=3)
    one, other = queues(drawn, 2)
    taken = [queue.take() for queue in (one, other, one, other)]
    assert sum(found is not None for found in taken) == 3


def test_launchers_that_ask_at_the_same_moment_stay_below_the_cap(tmp_path, monkeypatch):
    (queue,) = queues(sweep(tmp_path, run_cap=1))
    assert queue.take() is not None
    before, trials = [[]], queue.trials  # what the other saw a moment before
    monkeypatch.setattr(queue, "trials", lambda: before.pop() if before else trials())
    assert queue.take() is None
    assert len(queue.trials()) == 1


def test_launchers_that_queue_at_the_same_moment_share_each_run_once(tmp_path, monkeypatch):
    """Hosts without a common runs folder, whose locks do not see each other."""
    seeds = {"seed": {"values": list(range(3))}}
    one, other = queues(sweep(tmp_path, method="grid", run_cap=None, parameters=seeds), 2)
    one.fill()
    with monkeypatch.context() as before:
        before.setattr(other, "trials", list)
        other.fill()
    assert len(one.study.get_trials(deepcopy=False)) == 6
    assert len(one.trials()) == len(one.latest()) == 3
    taken = [queue.take() for queue in (one, other) * 3]
    assert sorted(chosen["seed"] for _, chosen in filter(None, taken)) == ["0", "1", "2"]

    failed = next(trial for trial, chosen in filter(None, taken) if chosen["seed"] == "1")
    one.set_state(failed, TrialState.FAIL, reason="it broke")
    one.fill({"seed=1"})
    with monkeypatch.context() as before:
        before.setattr(other, "trials", lambda: one.study.get_trials(deepcopy=False)[:3])
        other.fill({"seed=1"})
    again = [queue.take() for queue in (one, other, one)]
    assert [chosen for _, chosen in filter(None, again)] == [{"seed": "1"}]


def test_launchers_that_make_the_database_at_the_same_moment(tmp_path):
    """All of them open it: who finds a table that another was quicker to make tries again."""
    start = Barrier(8)

    def opened(_) -> int:
        start.wait()
        storage = study.open_storage(f"sqlite:///{tmp_path / 'study.db'}", tmp_path)
        return optuna.create_study(study_name="one", storage=storage, load_if_exists=True)._study_id

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(opened, range(8))) == {1}


def test_a_trial_of_a_dead_launcher_resumes_with_its_parameters(tmp_path):
    one, other = queues(sweep(tmp_path), 2)
    one.owner = one.owner | {"born": "long ago"}  # its number now belongs to another process
    _, chosen = one.take()
    other.owner = {"host": one.owner["host"], "pid": 1, "born": "0"}
    assert other.reclaim_dead() == []
    assert other.take()[1] == chosen
    assert [t.state for t in other.trials()] == [TrialState.RUNNING]


def test_a_trial_of_a_living_launcher_is_left_alone(tmp_path):
    one, other = queues(sweep(tmp_path), 2)
    one.take()
    other.owner = {"host": one.owner["host"], "pid": 1, "born": "0"}
    assert other.reclaim_dead() == [True]
    assert other.take() is not None
    assert len({t.params["optimizer.lr"] for t in other.trials()}) == 2


def test_a_launcher_of_another_host_is_dead_after_a_silence(tmp_path, monkeypatch):
    one, other = queues(sweep(tmp_path), 2)
    trial, chosen = other.take()
    clock = [1000.0]
    monkeypatch.setattr(study.time, "monotonic", lambda: clock[0])
    assert one.reclaim_dead() == [False]
    clock[0] += study.SILENCE - 1
    other.note(trial, heartbeat=-5.0)  # whatever its clock says
    assert one.reclaim_dead() == [True]
    clock[0] += study.SILENCE - 1
    assert one.reclaim_dead() == [True]
    clock[0] += 2
    assert one.reclaim_dead() == []
    assert one.take()[1] == chosen


def test_who_is_kept_after_a_comparison(tmp_path):
    """As W&B: after the 2nd and the 4th validation the best 1/eta go on; later ones do not count.

    Six runs with values 0.1 … 0.6 come in descending order, so that each is judged by all before.
    """
    early = {"type": "hyperband", "max_iter": 8, "s": 2, "eta": 2}
    (queue,) = queues(sweep(tmp_path, run_cap=6, early_terminate=early))
    kept = {}
    for value in (0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        trial, _ = queue.take()
        values = [value] * 8
        assert not queue.should_stop(trial, values[:1]), "one validation is not compared"
        kept[value] = not queue.should_stop(trial, values)
        reported = max(queue._frozen(trial).intermediate_values)
        assert reported <= 4
        queue.set_state(trial, TrialState.COMPLETE if kept[value] else TrialState.PRUNED, value)
    assert kept == {0.6: True, 0.5: False, 0.4: False, 0.3: False, 0.2: False, 0.1: False}
    # ascending: each is the best so far
    (queue,) = queues(sweep(tmp_path, run_cap=7, early_terminate=early | {"s": 1, "eta": 2}))
    for value in (0.1, 0.2, 0.3):
        trial, _ = queue.take()
        assert not queue.should_stop(trial, [value] * 8)


def test_who_takes_a_trial_up_stops_it_as_well(tmp_path):
    """A launcher died after it had decided to end a run early, before the run had."""
    early = {"type": "hyperband", "min_iter": 1, "eta": 2}
    (queue,) = queues(sweep(tmp_path, early_terminate=early))
    best, _ = queue.take()
    assert not queue.should_stop(best, [0.9])
    queue.set_state(best, TrialState.COMPLETE, 0.9)
    poor, _ = queue.take()
    assert queue.should_stop(poor, [0.1])
    (later,) = queues(sweep(tmp_path, early_terminate=early))
    assert later.should_stop(poor, [0.1])


def test_a_value_is_reported_once(tmp_path):
    early = {"type": "hyperband", "min_iter": 5}
    (queue,) = queues(sweep(tmp_path, early_terminate=early))
    trial, _ = queue.take()
    for values in ([0.1], [0.1, 0.2], [0.1, 0.2, 0.3]):
        assert not queue.should_stop(trial, values)
    assert queue._frozen(trial).intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}


def test_examples_of_a_sweep_that_draws(tmp_path):
    first = sample(sweep(tmp_path), 3)
    assert first == sample(sweep(tmp_path), 3), "the same whenever it is asked"
    assert len({chosen["optimizer.lr"] for chosen in first}) == 3


def test_a_storage_that_does_not_open(tmp_path):
    with pytest.raises(ValueError, match="--storage nonsense://x: cannot be opened: ") as error:
        study.open_storage("nonsense://x", tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="postgres") as error:
        study.open_storage("postgresql+nothing://me:secret@host/db", tmp_path / "new")
    assert "secret" not in str(error.value) and "me:***@host" in str(error.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("module", "address", "said"),
    [
        ("psycopg", "postgresql://host/db", "is not installed: pip install 'lcg[postgres]'"),
        (
            "pymysql",
            "mysql+pymysql://host/db",
            "is not installed: install the driver of mysql+pymysql",
        ),
        ("grpc", "grpc://host:13000", "is not installed: pip install 'lcg[grpc]'"),
        ("", "grpc://host", "a proxy's address is grpc://HOST:PORT"),
        ("", "grpc://host:x", "a proxy's address is grpc://HOST:PORT"),
    ],
)
def test_a_storage_whose_driver_is_missing(module, address, said, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError) as error:
        study.open_storage(address, tmp_path)
    assert str(error.value).startswith(f"--storage {address}: cannot be opened: ")
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["q?x", "p%41x", "a#b", "mit Leerzeichen", "größe", "a:b@c", "\udcff"]
)
def test_the_study_is_in_the_folder_of_its_runs(name, tmp_path):
    folder = tmp_path / name / "sweeps"
    storage = study.open_storage(None, folder)
    optuna.create_study(storage=storage, study_name=name.encode("utf-8", "replace").decode())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (folder / "study.db").stat().st_size > 0
    again = study.open_storage(None, folder)
    assert len(again.get_all_studies()) == 1


def test_a_study_that_cannot_be_opened_is_named_by_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(study.time, "sleep", lambda seconds: None)
    (tmp_path / "study.db").write_text("no database, but long enough to look like none at all")
    with pytest.raises(ValueError, match=r"study\.db cannot be opened: ") as error:
        study.open_storage(None, tmp_path)
    assert (
        "--storage" not in str(error.value) and "sqlite" not in str(error.value).partition(":")[0]
    )
