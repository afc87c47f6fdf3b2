"""`lcg eval` with a user's YaRN on a run of plain RoPE: beside the run's own rows, everywhere."""

import json
import shutil
from pathlib import Path

import pytest

from lcg.runs.record import RunRecord

PUBLISHED = Path(__file__).parents[1] / "extension" / "published"
YARN = ("position=./yarn.py:YaRN", "position.scale=8")
OWN, CHANGED = "softmax · rope ", "softmax · rope → yarn, scale=8 at evaluation "


@pytest.fixture
def folder(here):
    for name in ("yarn", "t5"):
        shutil.copy(PUBLISHED / f"{name}.py", here)
    return here


@pytest.fixture
def run(folder, call, tiny):
    assert call("train", *tiny("position=rope", "name=run"))[0] == 0
    return folder / "runs" / "run"


def test_one_table_one_plot_one_report(call, run):
    before = RunRecord.load(run)
    code, _, err = call("eval", "runs/run", *YARN, "lengths=4,8,16")
    assert code == 0 and "runs/run: test ladder with yarn, scale=8, 16 samples" in err
    record = RunRecord.load(run)
    assert [c for c in record.ladder if not c.changes] == list(before.ladder)
    assert [c.length for c in record.ladder if c.changes] == [4, 8, 16]
    assert "sources" not in record.settings, "what was trained has no class of a user's"
    assert call("eval", "runs/run", *YARN, "lengths=4,8,16")[0] == 0
    assert RunRecord.load(run) == record
    Path("yarn.py").unlink()  # reading results needs no code
    code, out, _ = call("table", "runs")
    first = out.split("## ")[2]
    assert code == 0 and first.count(f"| {OWN}") == 2 and first.count(f"| {CHANGED}") == 1
    assert call("plot", "runs", "-o", "changed.svg")[0] == 0
    assert "scale=8 at" in Path("changed.svg").read_text()
    code, out, _ = call("select", "runs")
    assert code == 0 and out.count("runs/run") == 1 and "yarn" not in out
    assert call("report", "runs", "-o", "report.html")[0] == 0
    page = Path("report.html").read_text()
    assert "1 run of 1 method on" in page and CHANGED.strip() in page


def test_other_tensors_are_refused_before_any_work(call, run):
    before = (run / "results.json").read_bytes()
    code, _, err = call("eval", "runs/run", "position=./t5.py:T5", "lengths=16")
    assert code == 2 and err.count("\n") == 1
    assert "position_state.before [2, 32] would be new" in err
    assert (run / "results.json").read_bytes() == before


def test_a_run_that_cannot_change_so_leaves_the_others_alone(call, run, tiny):
    assert call("train", *tiny("position=alibi", "name=other"))[0] == 0
    code, _, err = call("eval", "runs/run", "runs/other", "position.base=50", "lengths=4")
    assert code == 2 and "runs/other: position.base is not an option of alibi" in err
    assert any(cell.changes for cell in RunRecord.load(run).ladder)


@pytest.mark.parametrize("option", ["also=position=nope", "after_training=true"])
def test_options_of_training_are_none_of_eval(call, run, option):
    code, _, err = call("eval", "runs/run", option)
    assert code == 2 and "is an option of `lcg train`" in err


def test_training_evaluates_it_also(call, folder, tiny, timed_by_a_fork):
    also = "evaluation.also=[position=./yarn.py:YaRN position.scale=8, position.base=50]"
    words = tiny("position=rope", "name=run", also)
    assert call("train", *words)[0] == 0
    plain = call("train", *tiny("position=rope", "name=run", "--dry-run"))
    assert plain[0] == 0, "it is the same run"
    record = RunRecord.load(folder / "runs" / "run")
    kinds = {json.dumps(cell.changes): cell for cell in record.ladder}
    assert len(kinds) == 3 and len(record.ladder) == 6
    assert call("train", *words)[0] == 0
    assert RunRecord.load(folder / "runs" / "run") == record
    Path("yarn.py").unlink()
    assert call("eval", "runs/run", "lengths=8")[0] == 0, "a run is read without what it evaluated"


@pytest.mark.parametrize(
    ("also", "problem"),
    [
        ("position=./t5.py:T5", "position_state.before [2, 32] would be new"),
        ("position.variant=linear", "position.variant is not an option of rope"),
        ("position=./gone.py:Gone", "there is no file ./gone.py"),
        ("model.layers=3", "model.layers cannot change"),
    ],
)
def test_invalid_also_is_refused_before_training(call, folder, tiny, also, problem):
    code, _, err = call("train", *tiny("position=rope", f"evaluation.also={also}"))
    assert code == 2 and err.startswith(f"lcg: evaluation.also={also}: ") and problem in err
    assert not (folder / "runs").exists()
