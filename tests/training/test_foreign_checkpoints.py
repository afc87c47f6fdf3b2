"""Files that load and are no checkpoint of the run: one line, and the one before is used."""

import copy
import os
import shutil

import pytest
import torch
from processes import checkpoint, differences, essence, only_run, record
from tiny import tiny

from lcg.config import load_config
from lcg.runs import checkpoints


def put(*keys):
    """An edit of a checkpoint: the last of `keys` is set at the place that the others lead to."""
    *path, last, value = keys

    def edit(content):
        for key in path:
            content = content[key]
        content[last] = value

    return edit


def drop(*keys):
    *path, last = keys

    def edit(content):
        for key in path:
            content = content[key]
        del content[last]

    return edit


NORM, EMBEDDING = "model.norm.weight", "model.embedding.weight"
FOREIGN = {
    "no state_dict": drop("state_dict"),
    "weights in a list": put("state_dict", []),
    "a weight missing": drop("state_dict", NORM),
    "a weight of another model": put("state_dict", "model.extra", torch.zeros(3)),
    "a weight of another shape": put("state_dict", EMBEDDING, torch.zeros(3, 16)),
    "whole numbers for weights": put("state_dict", NORM, torch.zeros(16, dtype=torch.long)),
    "weights that are no numbers": put("state_dict", NORM, torch.full((16,), torch.nan)),
    "text for weights": put("state_dict", NORM, "x"),
    "no step": drop("global_step"),
    "a step that is text": put("global_step", "20"),
    "a step that is True": put("global_step", True),
    "a step below 0": put("global_step", -1),
    "a step beyond all": put("global_step", 10**400),
    "a step that nothing counted": put("global_step", 19),
    "no identity": drop("identity"),
    "an identity that is a number": put("identity", 7),
    "no optimizer": drop("optimizer_states"),
    "two optimizers": put("optimizer_states", [{}, {}]),
    "a moment of another shape": put(
        *("optimizer_states", 0, "state", 3, "exp_avg"), torch.zeros(2, 2)
    ),
    "a moment missing": drop("optimizer_states", 0, "state", 3, "exp_avg_sq"),
    "moments of no parameter": put("optimizer_states", 0, "state", 99, {}),
    "other parameters": put("optimizer_states", 0, "param_groups", 0, "params", [0]),
    "a rate that is text": put("optimizer_states", 0, "param_groups", 1, "lr", "fast"),
    "no schedule": put("lr_schedulers", []),
    "a schedule of a list": put("lr_schedulers", 0, []),
    "no count of steps": drop("lr_schedulers", 0, "last_epoch"),
    "a count that is text": put("lr_schedulers", 0, "last_epoch", "20"),
    "no callbacks": drop("callbacks"),
    "seconds that are text": put("callbacks", "Metrics", "seconds", "long"),
    "a history that is none": put("callbacks", "LadderValidation", "history", [7]),
    "a best that is none": put("callbacks", "LadderValidation", "best", {"step": 3}),
    "a pending that is text": put("callbacks", "LadderValidation", "pending", "x"),
}
WHOLE = {
    "another dictionary": {"hello": 1},
    "a list": [1, 2, 3],
    "a tensor": torch.zeros(3),
    "a number": 7,
    "nothing": None,
}


@pytest.fixture(scope="module")
def trained(fork_server, tmp_path_factory):
    """A run of TINY stopped at step 20, with checkpoints of steps 20 and 10."""
    from processes import KILL, at_step

    runs = tmp_path_factory.mktemp("foreign")
    assert fork_server.run("train", *tiny(f"runs={runs}"), before=at_step(25, KILL)).code == -9
    return only_run(runs)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, to spoil."""
    return shutil.copytree(trained, tmp_path / trained.name)


@pytest.fixture
def find(run):
    """Look for where the run goes on, as training does; returns that, and the lines said."""
    from lcg.training.learner import check_resumable
    from lcg.training.module import TrainingModule

    module = TrainingModule(load_config(tiny(f"runs={run.parent}")))

    def find():
        said = []
        found = checkpoints.newest_readable(
            run / "checkpoints", said.append, lambda c: check_resumable(c, module)
        )
        return found, said

    return find


def test_a_whole_one_is_taken(find):
    found, said = find()
    assert (found.path.name, found.step, said) == ("last.ckpt", 20, [])


@pytest.mark.parametrize("edit", FOREIGN.values(), ids=FOREIGN)
def test_an_invalid_checkpoint_is_one_line_and_previous_is_used(run, find, edit):
    content = copy.deepcopy(checkpoint(run))
    edit(content)
    checkpoints.save(content, run / "checkpoints" / "last.ckpt")
    found, (line,) = find()
    assert (found.path.name, found.step) == ("previous.ckpt", 10)
    assert f"{run / 'checkpoints' / 'last.ckpt'} is not a checkpoint of this run (" in line
    assert "\n" not in line and len(line) < 400


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_what_is_nothing_of_the_kind(run, find, content):
    torch.save(content, run / "checkpoints" / "last.ckpt")
    found, (line,) = find()
    assert found.path.name == "previous.ckpt"
    assert "last.ckpt is not a checkpoint of this run (its content" in line


def folder(path):
    path.mkdir()


def loop(path):
    path.symlink_to(path.name)


UNREADABLE = {"a folder": folder, "a link to itself": loop, "an empty file": lambda p: p.touch()}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_checkpoints_are_renamed_and_cost_only_time(lcg, uninterrupted, run, make):
    last = run / "checkpoints" / "last.ckpt"
    last.unlink()
    make(last)
    process = lcg.run("train", *tiny(f"runs={run.parent}"))
    assert process.code == 0, process.err
    assert f"{last} " in process.err and "resuming from previous.ckpt" in process.err
    assert "at step 10 of 30" in process.err
    assert "Traceback" not in process.err
    assert differences(uninterrupted, essence(run)) == []
    assert os.path.lexists(last.with_name("last.ckpt.damaged"))


def test_a_missing_permission_is_not_damage(run, find, monkeypatch):
    """Running as root, a test cannot take it away; so the system's answer is made up."""
    path_open = type(run).open

    def refusing(self, *arguments, **options):
        if self.name == "last.ckpt":
            raise PermissionError(13, "Permission denied", str(self))
        return path_open(self, *arguments, **options)

    monkeypatch.setattr(type(run), "open", refusing)
    found, (line,) = find()
    assert found.path.name == "previous.ckpt"
    assert "last.ckpt cannot be read: Permission denied" in line
    (run / "checkpoints" / "previous.ckpt").unlink()
    with pytest.raises(checkpoints.UnreadableCheckpoint, match="make it readable to resume"):
        find()


def test_a_read_error_in_the_middle_of_a_file_is_one_line(run, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(checkpoints.UnreadableCheckpoint, match=r"last.ckpt cannot be read: Input"):
        checkpoints.load(run / "checkpoints" / "last.ckpt")


def test_folders_in_the_place_of_checkpoints_do_not_stop_a_save(lcg, uninterrupted, run):
    folder_of = run / "checkpoints"
    for name in ("previous.ckpt", "best.ckpt", "next.ckpt"):
        (folder_of / name).unlink(missing_ok=True)
        (folder_of / name).mkdir()
    process = lcg.run("train", *tiny(f"runs={run.parent}"))
    assert process.code == 0, process.err
    assert checkpoint(run, "previous")["global_step"] == 20
    assert not any(path.is_dir() for path in folder_of.glob("*.ckpt"))


# ---- best.ckpt, which everything but training reads


BEST = {
    "another dictionary": lambda c: {"hello": 1},
    "a list": lambda c: [1],
    "no step": lambda c: {"state_dict": c["state_dict"]},
    "a step that is text": lambda c: c | {"step": "15"},
    "no weights": lambda c: {"step": 15},
    "a weight of another shape": lambda c: (
        c | {"state_dict": c["state_dict"] | {"norm.weight": torch.zeros(2)}}
    ),
    "the weights of the training module": lambda c: (
        c | {"state_dict": {f"model.{k}": w for k, w in c["state_dict"].items()}}
    ),
}


@pytest.mark.parametrize("change", BEST.values(), ids=BEST)
def test_invalid_best_checkpoint_is_an_error_of_one_line(run, change):
    from lcg.evaluation.evaluate import load_model
    from lcg.runs.run import Run

    path = run / "checkpoints" / "best.ckpt"
    torch.save(change(checkpoint(run, "best")), path)
    with pytest.raises(checkpoints.DamagedCheckpoint) as raised:
        load_model(run, Run(run).config)
    line = str(raised.value)
    assert str(path) in line and "\n" not in line and len(line) < 500


def test_invalid_best_checkpoint_is_replaced_by_one_of_its_step(lcg, run, capsys):
    from lcg.evaluation.evaluate import load_model
    from lcg.runs.run import Run

    assert lcg.run("train", *tiny(f"runs={run.parent}")).code == 0
    path = run / "checkpoints" / "best.ckpt"
    weights = checkpoint(run, "best")["state_dict"]
    assert checkpoint(run, "best")["step"] == record(run)["training"]["step"] == 30
    for spoil in (lambda: torch.save([1], path), lambda: (path.unlink(), path.mkdir())):
        spoil()
        model, step = load_model(run, Run(run).config)
        assert step == 30
        assert differences(weights, dict(model.state_dict())) == []
        assert "last.ckpt has the same weights" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("eval", "lengths=4"), ("inspect", "--length", "4")])
def test_the_commands_report_it_in_one_line(lcg, run, command):
    path = run / "checkpoints" / "best.ckpt"
    torch.save({"hello": 1}, path)
    process = lcg.run(command[0], str(run), *command[1:])
    assert process.code == 2, process.err
    assert process.err.splitlines()[-1].startswith("lcg: ")
    assert str(path) in process.err and "Traceback" not in process.err
