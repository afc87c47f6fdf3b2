"""The real `wandb agent`, driven by a small server: arguments, exit codes, stop requests.

Seen with wandb 0.31: the agent itself never tells the server an exit code. The run does, when
wandb.finish sends it with the last metrics; of a run that ends before it has started W&B, such as
one with an impossible pair, the server hears nothing.
"""

import sys
from pathlib import Path

import pytest
import yaml
from processes import ROOT, differences, essence, only_run, record, wait_until
from tiny import tiny

from lcg.config import config_from_tree, load_config
from lcg.config.load import read_yaml
from lcg.runs import provenance
from lcg.runs.record import RunRecord
from lcg.runs.wandb_reader import RECORD

SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
assert SWEEPS
# Those that need nothing but themselves: real_text wants a corpus.
READY = [file for file in SWEEPS if file.stem != "real_text"]

# A step of a run is then waited for, so that a stop request finds it under way.
LONG = "trainer.steps=100000"
RARELY = ("validation.every=1000", "trainer.checkpoint_every=1000", "trainer.log_every=100")


def arguments(*words: str) -> dict[str, str]:
    """`key=value` words as a sweep's arguments."""
    return dict(word.split("=", 1) for word in words)


def first_choice(parameter: dict):
    """One value that a sweep may choose."""
    if "values" in parameter:
        return parameter["values"][0]
    return parameter.get("value", parameter.get("min"))


@pytest.mark.parametrize(
    "file",
    [f if f.stem == "quick_copy" else pytest.param(f, marks=pytest.mark.slow) for f in READY],
    ids=lambda file: file.stem,
)
def test_a_sweep_file_as_it_is(file, server, agent, tmp_path):
    """Its command with an agent's arguments is a run, of a tiny model so that it takes seconds.

    Besides what the file sweeps over there are the arguments that make trouble: `_wandb`, a list,
    and null, which W&B passes as None.
    """
    sweep = yaml.safe_load(file.read_text())
    fixed = [word for word in sweep["command"] if "=" in word]
    swept = {key: first_choice(value) for key, value in sweep["parameters"].items()}
    small = arguments(*tiny("evaluation.after_training=true", "wandb.mode=online"))
    said_by_file = {word.partition("=")[0] for word in fixed} | {"task", *swept}
    lengths = [4, 8]
    if "mqmtar" in file.stem:  # a sequence of it has at least 8
        lengths = [8, 9]
        small |= {"data.min_length": 8, "data.max_length": 8, "validation.lengths": "8,9"}
    monitored = [word.partition("=")[2] for word in fixed if word.startswith("validation.monitor=")]
    if monitored:
        small["validation.lengths"] = f"4,{monitored[0]}"
    trouble = {"validation.monitor": None, "evaluation.lengths": lengths}
    # What the file itself says stays, since nothing may be said twice.
    given = swept | {k: v for k, v in (small | trouble).items() if k not in said_by_file}
    server.sweep = file.read_text()
    server.hand_out("first", **given, _wandb={"requeued": True})
    process = agent()
    assert process.wait() == 0, process.said
    said = process.said
    assert "note: _wandb is an option of W&B and is ignored" in said
    assert (process.folder / "runs").is_dir(), said
    (run,) = (process.folder / "runs").iterdir()
    facts = provenance.read_provenance(run)
    passed = [f"{key}={value}" for key, value in given.items()] + ["_wandb={'requeued': True}"]
    assert facts["command"] == ["lcg", "train", *fixed, *passed]
    assert facts["wandb_ids"] == ["first"]
    found = config_from_tree(read_yaml(run / "config.yaml"))
    said_plainly = (f"{key}={'null' if v is None else v}" for key, v in given.items())
    meant = load_config([*fixed, *said_plainly])
    assert found == meant
    assert found.validation.monitor is None or "validation.monitor" in said_by_file
    uploaded = server.runs["first"]
    assert (uploaded.exit_code, uploaded.state) == (0, "finished")
    assert [row["trainer/step"] for row in uploaded.history][-1] == found.trainer.steps
    there = RunRecord.from_dict(yaml.safe_load(uploaded.summary[RECORD]))
    assert there == RunRecord.load(run)
    assert [cell.length for cell in there.ladder] == found.evaluation.lengths


def wait_for_steps(server, name: str, process) -> None:
    """Until the server has seen metrics of a run."""
    wait_until(lambda: len(server.run(name).history) > 2, explain=lambda: process.said)


@pytest.mark.slow
def test_stop_requests_save_and_are_no_failures(server, agent, tmp_path):
    """Three runs stopped in the agent's first minute, and it goes on to the fourth.

    The agent sends SIGTERM, and SIGKILL 30 s later. It ends after three exit codes above 0 in its
    first minute, and would take 143 for one: so a run that was stopped ends by the signal. W&B is
    told 143, and does not count the run as finished.
    """
    words = arguments(*tiny(LONG, "trainer.log_every=1", "wandb.mode=online"))
    for seed in range(3):
        server.hand_out(f"stopped-{seed}", **words | {"seed": seed})
    server.hand_out("last", **arguments(*tiny("seed=3", "wandb.mode=online")))
    process = agent(WANDB_AGENT_DISABLE_FLAPPING="false")
    for seed in range(3):
        wait_for_steps(server, f"stopped-{seed}", process)
        server.stop(f"stopped-{seed}")
    assert process.wait() == 0, process.said
    assert process.said.count("the same command resumes from there") == 3
    assert "Kill:" not in process.said and "shutting down" not in process.said
    assert [server.runs[f"stopped-{seed}"].exit_code for seed in range(3)] == [143] * 3
    assert [server.runs[f"stopped-{seed}"].state for seed in range(3)] == ["failed"] * 3
    assert server.runs["last"].exit_code == 0
    status = {record(run)["training"]["status"] for run in (process.folder / "runs").iterdir()}
    assert status == {"interrupted", "finished"}


# `lcg` that does something at step 17 of the run "before".
AT_17 = """#!{python}
import os, pathlib, signal, sys, time
from tqdm import tqdm
update = tqdm.update
def and_then(bar, n=1):
    update(bar, n)
    at = bar.n if getattr(bar, "unit", "") == "step" else None
    if at == 17 and os.environ["WANDB_RUN_ID"] == "before":
        {action}
tqdm.update = and_then
import lcg.cli
sys.exit(lcg.cli.main())
"""


def hand_out_twice(server, folder: Path, action: str, *words: str) -> None:
    """A run that does something at step 17, and again under another id, as W&B re-issues it."""
    folder.mkdir()
    (folder / "lcg").write_text(AT_17.format(python=sys.executable, action=action))
    (folder / "lcg").chmod(0o755)
    server.sweep = server.sweep.replace("[lcg,", f"[{folder / 'lcg'},")
    given = arguments(*tiny("wandb.mode=online", *words))
    server.hand_out("before", **given)
    server.hand_out("after", **given, _wandb={})


def assert_exact(run: Path, fork_server, tmp_path) -> None:
    """The run as one that nobody interrupted, and W&B's both runs in its provenance."""
    assert provenance.read_provenance(run)["wandb_ids"] == ["before", "after"]
    alone = fork_server.run("train", *tiny(f"runs={tmp_path / 'alone'}"))
    assert alone.code == 0, alone.err
    assert differences(essence(only_run(tmp_path / "alone")), essence(run)) == []


@pytest.mark.slow
def test_a_preempted_run_resumes_under_another_id(server, agent, fork_server, tmp_path):
    """The run directory is the same, its result exact, and provenance names both W&B runs."""
    hand_out_twice(server, tmp_path / "bin", "os.kill(os.getpid(), signal.SIGTERM)")
    process = agent()
    assert process.wait() == 0, process.said
    assert "stopped at step 17" in process.said and "at step 17 of 30" in process.said
    assert (server.runs["before"].exit_code, server.runs["after"].exit_code) == (143, 0)
    steps = [[row["trainer/step"] for row in server.runs[n].history] for n in ("before", "after")]
    assert steps == [[4, 8, 12, 15, 15, 16], [20, 24, 28, 30, 30, 30]]
    assert_exact(only_run(process.folder / "runs"), fork_server, tmp_path)


@pytest.mark.slow
def test_a_run_of_a_lost_host_resumes_elsewhere(server, agent, fork_server, tmp_path):
    """Agent and run are killed; another agent, in another folder, finds the shared run directory.

    W&B resumes no runs of a sweep. What the run had sent stays with its first id.
    """
    action = 'pathlib.Path("at_17").touch(); time.sleep(600)'
    hand_out_twice(server, tmp_path / "bin", action, f"runs={tmp_path / 'shared'}")
    lost = agent("lost")
    wait_until((lost.folder / "at_17").exists, explain=lambda: lost.said)
    lost.close()
    process = agent("elsewhere")
    assert process.wait() == 0, process.said
    assert "at step 10 of 30" in process.said  # of its last checkpoint
    assert (server.runs["before"].exit_code, server.runs["after"].exit_code) == (None, 0)
    assert server.runs["after"].history[-1]["trainer/step"] == 30
    assert_exact(only_run(tmp_path / "shared"), fork_server, tmp_path)


@pytest.mark.slow
def test_the_agent_stops_after_early_failures(server, agent):
    """After five in a row, or three in its first minute: a sweep file has to exclude them.

    The minute is W&B's own affair, and switched off here.
    """
    impossible = ("attention=stick_breaking", "attention.scaling=log", "model.heads=3")
    for number in range(6):
        words = arguments(*tiny(*impossible, f"seed={number}", "wandb.mode=online"))
        server.hand_out(f"impossible-{number}", **words)
    process = agent(WANDB_AGENT_DISABLE_FLAPPING="true")
    process.wait()
    assert "Detected 5 failed runs in a row" in process.said
    assert [command["run_id"] for command in server.waiting] == ["impossible-5"]
    assert server.runs == {}
    assert process.said.count("lcg: ") == 5
    assert not (process.folder / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("other_seed", [0, 1], ids=["same run", "other run"])
def test_two_agents_in_the_same_second(server, agent, tmp_path, other_seed):
    """The same config twice: one trains, the other says so and ends with code 3, which its agent
    counts as a failure. Two configs: two directories."""
    runs = f"runs={tmp_path / 'shared'}"
    for name, seed in (("one", 0), ("two", other_seed)):
        words = tiny(runs, f"seed={seed}", "wandb.mode=online", "trainer.steps=2000", *RARELY)
        server.hand_out(name, **arguments(*words))
    agents = [agent("a"), agent("b")]
    for each in agents:
        each.wait()
    busy = [each for each in agents if "is being trained by process" in each.said]
    assert len(busy) == (1 if other_seed == 0 else 0)
    directories = list((tmp_path / "shared").iterdir())
    assert len(directories) == (1 if other_seed == 0 else 2)
    assert {record(run)["training"]["status"] for run in directories} == {"finished"}
    codes = [run.exit_code for run in server.runs.values()]
    assert codes == [0] * len(directories)


@pytest.mark.slow
def test_processes_of_one_run_are_one_run_on_wandb(server, agent):
    """Lightning starts the second process, which inherits the agent's variables."""
    words = tiny("trainer.devices=2", "model.dropout=0", "wandb.mode=online")
    server.hand_out("both", **arguments(*words))
    process = agent()
    assert process.wait() == 0, process.said
    assert list(server.runs) == ["both"]
    both = server.runs["both"]
    assert both.exit_code == 0
    assert [row["trainer/step"] for row in both.history] == [
        *(4, 8, 12, 15, 15, 16, 20, 24, 28, 30, 30, 30)
    ]  # heads and validation have a row each
    assert len(list(only_run(process.folder / "runs").glob("wandb/run-*"))) == 1


def test_a_sweep_is_registered_as_the_file_has_it(server, environment, monkeypatch, tmp_path):
    """As by `wandb sweep FILE`, the server gets the file's content."""
    import wandb

    for name, value in environment.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    for name in ("WANDB_ENTITY", "WANDB_PROJECT"):  # wandb.sweep sets them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    try:
        for file in SWEEPS:
            sweep = yaml.safe_load(Path(file).read_text())
            assert wandb.sweep(dict(sweep)) == "abcd1234"
            sent = yaml.safe_load(server.registered["config"])
            assert sent["command"] == sweep["command"]
            assert sent["parameters"].keys() == sweep["parameters"].keys()
            assert server.registered["projectName"] == sweep["project"]
    finally:
        wandb.teardown()
