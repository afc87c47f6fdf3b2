"""Mistakes of form are one line and exit code 2, never a usage dump or a traceback."""

import pytest

MISTAKES = {
    "evl": "there is no command evl; did you mean eval?",
    "fly": "there is no command fly",
    "train --dry-rum": "there is no option --dry-rum; did you mean --dry-run?",
    "train --quick": "there is no option --quick; lcg train --help says more",
    "train quick/copy": "'quick/copy' is not of the form key=value; did you mean experiment=",
    "train experiment quick/copy": "did you mean experiment=quick/copy?",
    "train task copy": "did you mean task=copy?",
    "train lr 0.1": "did you mean optimizer.lr=0.1?",
    "train rope": "did you mean position=rope?",
    "train asentmax": "did you mean attention=asentmax?",
    "train ./mine.py:Mine": "did you mean task=./mine.py:Mine?",
    "train --task copy": "there is no option --task; write task=copy",
    "train --lr 0.1 task=copy": "there is no option --lr; write optimizer.lr=0.1",
    "train --optimizer.lr 0.1": "there is no option --optimizer.lr; write optimizer.lr=0.1",
    "train --lengths 8": "write validation.lengths=8 or evaluation.lengths=8",
    "train --experiment": "there is no option --experiment; write experiment=VALUE",
    "train -- task=cop": "task=cop is not known; did you mean copy?",
    "eval fresh --lengths 64": "there is no option --lengths; write lengths=64",
    "eval --samples 9 fresh": "there is no option --samples; write samples=9",
    "table --runs empty": "there is no option --runs; write empty alone",
    "table empty --formt csv": "there is no option --formt; did you mean --format?",
    "inspect fresh length=4": "length=4 is not an argument of lcg inspect; write --length 4",
    "inspect --run fresh --length 4": "there is no option --run; write its value alone",
    "select --run fresh": "there is no option --run; write fresh alone",
    "show --task copy": "there is no option --task; write task=copy",
    "show task=copy --length 4": "there is no option --length; write length=4",
    "sweep lr_bracket --seed 3": "there is no option --seed; write seed=3",
    "demo --seed 3": "there is no option --seed; write seed=3",
    "train -x": "there is no option -x",
    "train copy": "'copy' is not of the form key=value",
    "train --seed": "there is no option --seed",
    "train --dry-run=yes": "ignored explicit argument 'yes'",
    "eval": "name a run directory to evaluate",
    "eval lengths=3": "name a run directory to evaluate",
    "eval nowhere": "nowhere does not exist",
    "eval empty": "empty is not a run directory: it has no config.yaml",
    "eval .": ". is not a run directory: it has no config.yaml; name a run in it, such as ",
    "inspect . --length 4": "it has no config.yaml; name a run in it, such as ",
    "eval empty --device": "argument --device: expected one argument",
    "eval broken": "broken/config.yaml:1: ",
    "eval old": "old/config.yaml: flavour is not an option",
    "eval fresh": "fresh has no best.ckpt yet; train it until its first validation",
    "eval fresh lenths=3": "lenths is not an option; did you mean lengths?",
    "eval fresh lengths=3,x": "lengths: 'x' is not a whole number",
    "eval fresh lengths=": "lengths= has no value",
    "eval fresh samples=0": "samples must be at least 1, got 0",
    "eval fresh lengths=1": "n_back: length 1 is too short",
    "eval fresh decode=gredy": "decode=gredy is not known; did you mean greedy?",
    "table": "name run directories, or a W&B project with --wandb",
    "table empty": "empty: no results.json in it or below it",
    "table empty --format=xml": "argument --format: invalid choice: 'xml'",
    "table fresh": "fresh: no results.json yet; its training has not begun",
    "select": "the following arguments are required: runs",
    "select nowhere": "nowhere: no such folder",
    "select fresh --longest=0": "--longest must be at least 1, got 0",
    "select fresh --longest=far": "argument --longest: invalid int value: 'far'",
    "plot": "name run directories, or a W&B project with --wandb",
    "plot nowhere": "nowhere: no such folder",
    "list taks": "there is no list of taks; did you mean tasks?",
    "list --diff quick/copy": "argument --diff: expected 2 arguments",
    "list --diff quick/copy quick/cop": "quick/cop is not known; did you mean quick/copy?",
    "show task=cop": "task=cop is not known; did you mean copy?",
    "show task=copy length=x": "length: 'x' is not a whole number",
    "show task=copy length=0": "copy: length 0 is too short",
    "show task=copy count=0": "count must be at least 1",
    "show task=copy model.layers=3": "model.layers=3 has no effect here",
    "show copy": "copy has no effect here: give a task",
    "demo task.symbls=3": "did you mean task.symbols?",
}


@pytest.fixture
def folders(here):
    from lcg.config import load_config, to_yaml

    config = to_yaml(load_config(["task=n_back"]))
    contents = {"broken": "a: [1", "old": config + "flavour: sweet\n", "fresh": config}
    (here / "empty").mkdir()
    for name, text in contents.items():
        (here / name).mkdir()
        (here / name / "config.yaml").write_text(text)


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line(words, folders, call, written):
    before = written()
    code, out, err = call(*words.split())
    assert (code, out) == (2, "")
    assert err.startswith("lcg: ")
    assert err.count("\n") == 1
    assert MISTAKES[words] in err
    assert written() == before


@pytest.mark.parametrize("words", ["table", "table --format=csv", "select", "plot -o x.png"])
def test_unreadable_runs_are_one_line_each_and_the_rest_is_shown(words, folders, call, here):
    record = """{"schema": 1, "run": "good", "hash": "h", "group": "g", "labels": {"task": "copy",
        "attention": "softmax", "position": "nape"}, "settings": {"seed": 0, "lr": 0.001,
        "train_lengths": [8, 32]}, "training": {"status": "finished", "step": 9}, "ladder":
        [{"length": 32, "samples": 100, "seed": 0, "correct": 99}]}"""
    for name, text in (("good", record), ("half", record[:200]), ("other", "{}")):
        (here / "runs" / name).mkdir(parents=True)
        (here / "runs" / name / "results.json").write_text(text)
    code, out, err = call(*words.split(), "runs", "fresh", "nowhere")
    assert code == 0
    assert out
    lines = err.splitlines()
    assert len(lines) == 4
    for part in ("half/results.json: not valid JSON", "other/results.json: schema None"):
        assert sum(part in line for line in lines) == 1
    assert any(
        line.endswith("fresh: no results.json yet; its training has not begun") for line in lines
    )
    assert any(line.startswith("nowhere: no such folder") for line in lines)
    code, out, err = call(*words.split(), "runs/half", "runs/other")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 3
    assert err.splitlines()[-1] == "lcg: none of the records can be read; there is nothing to show"


def test_a_folder_that_cannot_be_written(call, here, tiny):
    (here / "runs").write_text("a file where a folder should be")
    code, out, err = call("train", *tiny())
    assert code in (1, 2)
    assert out == ""
    assert "runs" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_an_output_that_cannot_be_written(call, here, tiny):
    assert call("train", *tiny("evaluation.after_training=false", "name=run"))[0] == 0
    code, out, err = call("table", "runs/run", "-o", "runs/run/config.yaml/table.md")
    assert (code, out) == (1, "")
    assert "runs/run/config.yaml" in err
    assert err.count("\n") == 1
