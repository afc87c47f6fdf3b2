"""Launchers' variables never make a run of one process silent, lock-free or another's."""

import json

import pytest
from processes import differences, essence, only_run
from tiny import tiny

from lcg.config import load_config
from lcg.runs.run import Run

LAUNCHED = {"RANK": "1", "LOCAL_RANK": "1", "NODE_RANK": "1", "SLURM_PROCID": "3"}
ODD = {"RANK": "x", "LOCAL_RANK": "x", "NODE_RANK": "-1", "WORLD_SIZE": ""}


@pytest.mark.parametrize("variables", [LAUNCHED, ODD], ids=["torchrun", "odd"])
def test_a_run_of_one_process_is_its_own_main_process(lcg, tmp_path, uninterrupted, variables):
    process = lcg.run("train", *tiny(f"runs={tmp_path}"), environment=variables)
    assert process.code == 0, process.err
    assert ", LOCAL_RANK, NODE_RANK" in process.err
    run = only_run(tmp_path)
    assert process.out.strip() == str(run)
    assert json.loads((run / "results.json").read_text())["training"]["status"] == "finished"
    assert differences(uninterrupted, essence(run)) == []
    evaluated = lcg.run("eval", str(run), "lengths=9", "samples=8", environment=variables)
    assert evaluated.code == 0, evaluated.err
    assert "9  exact match" in evaluated.err


def test_it_takes_the_lock(lcg, tmp_path):
    words = tiny(f"runs={tmp_path}")
    with Run.place(load_config(words)).lock():
        process = lcg.run("train", *words, environment=LAUNCHED)
    assert process.code == 3
    assert "is being trained by" in process.err


def test_a_place_that_a_run_of_several_does_not_have_is_refused(lcg, tmp_path):
    words = tiny(f"runs={tmp_path}", "trainer.devices=2")
    launched = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for value in ("x", "2", "-1", "²"):
        process = lcg.run("train", *words, environment=launched | {"LOCAL_RANK": value})
        assert process.code == 2
        assert process.err.startswith(f"lcg: LOCAL_RANK={value} is not in 0 to 1")
        assert process.err.count("\n") == 1
    for value in ("0", "1"):
        process = lcg.run("train", *words, environment={"LOCAL_RANK": value})
        assert process.code == 2
        assert "LOCAL_RANK is set without MASTER_ADDR and MASTER_PORT" in process.err
    assert not list(tmp_path.iterdir())
