"""The run directory: one process at a time, one config, and whole whatever the disk does."""

import errno
import fcntl
import json
import os
import re
import signal
import threading
from pathlib import Path

import pytest
import torch
from processes import (
    KILL,
    at_step,
    checkpoint,
    differences,
    essence,
    metrics,
    only_run,
    record,
    wait_until,
)
from tiny import tiny

from lcg.runs import files, provenance
from lcg.training.loop import train


def snapshot(directory):
    """Content of every file but the lock."""
    files = [p for p in directory.rglob("*") if p.is_file() and not p.name.endswith(".lock")]
    return {path: path.read_bytes() for path in files}


# ---- what is there


def test_files_that_a_run_leaves(config):
    outcome = train(config(), progress=False)
    found = {str(p.relative_to(outcome.directory)) for p in outcome.directory.rglob("*")}
    assert found == {
        ".lock",
        ".results.lock",
        "config.yaml",
        "provenance.json",
        "metrics.csv",
        "results.json",
        "plots",
        "checkpoints",
        "checkpoints/last.ckpt",
        "checkpoints/previous.ckpt",
        "checkpoints/best.ckpt",
    }


def test_nothing_is_left_elsewhere(config, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    train(config(), progress=False)
    assert list((tmp_path / "here").iterdir()) == []


def test_provenance(lcg, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "from dataclasses import dataclass\nfrom lcg.tasks.copy import Copy\n\n"
        "@dataclass\nclass Mine(Copy):\n    name = 'mine'\n"
    )
    words = tiny(f"runs={tmp_path / 'runs'}", f"task={own}:Mine", "trainer.steps=4")
    assert lcg.run("train", *words).code == 0
    facts = provenance.read_provenance(only_run(tmp_path / "runs"))
    assert facts["command"] == ["lcg", "train", *words]
    assert facts["user_sources"]["task"]["name"] == f"{own}:Mine"
    assert re.fullmatch("[0-9a-f]{12}", facts["user_sources"]["task"]["digest"])
    assert re.fullmatch("[0-9a-f]{12}", facts["code"])
    assert facts["git"] is None or set(facts["git"]) == {"commit", "dirty"}
    assert {"lcg", "torch", "lightning", "numpy"} <= set(facts["packages"])
    assert facts["device"] == "cpu"
    own.write_text(own.read_text() + "# changed\n")
    again = lcg.run("train", *words)
    assert "is finished, 4 steps" in again.err, "a comment is no code"
    own.write_text(own.read_text().replace("'mine'", "'other'"))
    assert "is finished" not in lcg.run("train", *words).err
    assert len(list((tmp_path / "runs").iterdir())) == 2


# ---- a path of one's own


@pytest.mark.parametrize("runs", ["with spaces and = signs", "ünïcödé"])
def test_unusual_paths(lcg, uninterrupted, tmp_path, runs):
    process = lcg.run("train", *tiny(f"runs={tmp_path / runs}"))
    assert process.code == 0, process.err
    assert differences(uninterrupted, essence(only_run(tmp_path / runs))) == []


def test_a_name_may_have_folders(config, tmp_path):
    outcome = train(config("name=sweep/first"), progress=False)
    assert outcome.directory == tmp_path / "runs" / "sweep" / "first"
    assert record(outcome.directory)["run"] == "first"


@pytest.mark.parametrize("name", ["../elsewhere", "a/../../b", "/tmp/absolute", "..", "."])
def test_a_name_stays_below_runs(config, tmp_path, name):
    with pytest.raises(ValueError, match="must be a folder below `runs`"):
        train(config(f"name={name}"), progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_run_inside_a_run_is_refused(config):
    train(config("name=outer"), progress=False)
    with pytest.raises(ValueError, match=r"is inside the run .*outer"):
        train(config("name=outer/inner"), progress=False)


# ---- one process at a time


def test_who_only_looks_is_waited_for(tmp_path, monkeypatch):
    """However long: a busy machine may keep it from going on while it has the lock."""
    looker = (tmp_path / ".lock").open("w")
    fcntl.flock(looker, fcntl.LOCK_SH)
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1000:
            looker.close()

    monkeypatch.setattr(files.time, "sleep", wait)
    with files.locked(tmp_path):
        assert len(waits) == 1000
        with pytest.raises(files.Busy), files.locked(tmp_path):
            pass
        assert len(waits) == 1000, "who has it for itself is not waited for"


def test_a_second_process_gets_busy_with_the_trainer(lcg, tmp_path):
    words = tiny(f"runs={tmp_path}", "trainer.steps=100000")
    first = lcg.start("train", *words)
    wait_until(lambda: list(tmp_path.glob("*/checkpoints/last.ckpt")), explain=lambda: first.err)
    second = lcg.run("train", *words)
    assert second.code == 3
    assert second.err.count("\n") == 1
    assert f"is being trained by process {first.pid} on " in second.err
    assert first.poll() is None
    # A process that dies in whatever way lets go.
    first.signal(signal.SIGKILL)
    first.wait()
    third = lcg.start("train", *words)
    wait_until(lambda: "resuming" in third.err)


def test_a_file_system_without_locks_is_a_warning(config, monkeypatch, capsys):
    def no_locks(file, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    assert train(config(), progress=False).status == "finished"
    assert "this file system has no locks" in capsys.readouterr().err


# ---- one config


def test_a_finished_run_is_left_alone(lcg, tmp_path):
    words = tiny(f"runs={tmp_path}")
    assert lcg.run("train", *words).code == 0
    before = snapshot(only_run(tmp_path))
    again = lcg.run("train", *words)
    assert again.code == 0
    assert "is finished, 30 steps" in again.err
    assert "stale" not in again.err
    assert snapshot(only_run(tmp_path)) == before


def test_a_finished_run_whose_code_has_changed_is_stale(config, capsys):
    directory = train(config(), progress=False).directory
    facts = provenance.read_provenance(directory)
    (directory / "provenance.json").write_text(json.dumps(facts | {"code": "000000000000"}))
    before = snapshot(directory)
    capsys.readouterr()
    assert train(config(), progress=False).already
    assert "was trained with different code" in capsys.readouterr().err
    assert snapshot(directory) == before


def test_code_that_changes_no_weights_makes_nothing_stale():
    assert "lcg/results" not in provenance.CODE
    assert "lcg/models" in provenance.CODE


def test_a_resumed_run_records_that_its_code_has_changed(lcg, tmp_path):
    words = tiny(f"runs={tmp_path}")
    stop = at_step(12, "os.kill(os.getpid(), signal.SIGTERM)")
    assert lcg.run("train", *words, before=stop).code == 143
    directory = only_run(tmp_path)
    facts = provenance.read_provenance(directory)
    (directory / "provenance.json").write_text(json.dumps(facts | {"code": "000000000000"}))
    process = lcg.run("train", *words)
    assert process.code == 0
    assert "resumes with different code than before" in process.err
    after = provenance.read_provenance(directory)
    assert after["earlier_code"] == ["000000000000"]
    assert after["code"] == facts["code"]
    assert after["wandb_id"] == facts["wandb_id"]


def test_a_name_in_use_by_another_config_is_refused(config):
    directory = train(config("name=mine"), progress=False).directory
    before = snapshot(directory)
    with pytest.raises(ValueError, match=r"belongs to a run of another config"):
        train(config("name=mine", "seed=1"), progress=False)
    assert snapshot(directory) == before
    # What changes no weight is no other config.
    assert train(config("name=mine", "data.workers=1", "trainer.log_every=2"), False).already


def test_a_run_whose_provenance_is_lost_is_not_guessed_at(config):
    directory = train(config("name=mine"), progress=False).directory
    (directory / "provenance.json").write_text("{")
    with pytest.raises(ValueError, match=r"provenance.json is missing or damaged"):
        train(config("name=mine"), progress=False)


# ---- a disk that is full or withdrawn


def test_a_directory_that_cannot_be_written_is_one_line(lcg, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:2]:
        parent.chmod(0o755)
    nobody = 65534 if os.getuid() == 0 else None  # root may write everywhere
    process = lcg.run("train", *tiny(f"runs={closed}"), user=nobody)
    assert process.code == 1, process.err
    assert process.err.count("\n") == 1
    assert f"lcg: {closed}" in process.err and ": Permission denied; " in process.err
    assert list(closed.iterdir()) == []


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


def test_a_full_disk_spoils_no_checkpoint(lcg, uninterrupted, tmp_path):
    """Once step 12 is done no file can grow beyond 20 kB, which a checkpoint does."""
    process = lcg.run("train", *tiny(f"runs={tmp_path}"), before=at_step(12, FULL.format(20_000)))
    assert process.code == 1, process.err
    assert "\nlcg: " in process.err  # on a line of its own, below the bar
    assert "next.ckpt: File too large; " in process.err
    assert "Traceback" not in process.err
    run = only_run(tmp_path)
    assert checkpoint(run)["global_step"] == 10
    assert not list(run.rglob(".*.tmp"))
    assert lcg.run("train", *tiny(f"runs={tmp_path}")).code == 0
    assert differences(uninterrupted, essence(run)) == []


def test_a_full_disk_leaves_no_half_a_row(lcg, tmp_path):
    words = tiny(f"runs={tmp_path}", "trainer.log_every=1")
    size = f"os.path.getsize(*__import__('glob').glob('{tmp_path}/*/metrics.csv')) + 40"
    process = lcg.run("train", *words, before=at_step(12, FULL.format(size)))
    assert process.code == 1, process.err
    table = only_run(tmp_path) / "metrics.csv"
    assert f"lcg: {table}: File too large; " in process.err
    assert table.read_text().endswith("\n")
    assert lcg.run("train", *words).code == 0
    steps = [int(row["step"]) for row in metrics(only_run(tmp_path)) if row["train/loss"]]
    assert steps == list(range(1, 31))


# Fails the syncing of one file as the system would.
FAIL = """
import os
fsync = os.fsync
def failing(number):
    if {name!r} in os.readlink(f"/proc/self/fd/{{number}}"):
        raise OSError({errno}, os.strerror({errno}))
    fsync(number)
os.fsync = failing
"""
WRITTEN = (
    "provenance.json",
    "config.yaml",
    "metrics.csv",
    "results.json",
    "best.ckpt",
    "next.ckpt",
)
OTHERS = ("EDQUOT", "EROFS", "EACCES", "EIO")
FAULTS = [(name, "ENOSPC") for name in WRITTEN] + [
    pytest.param("next.ckpt", number, marks=pytest.mark.slow) for number in OTHERS
]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of files are read in /proc")
@pytest.mark.parametrize(("name", "number"), FAULTS)
def test_any_write_that_fails_is_one_line_and_spoils_nothing(
    lcg, uninterrupted, tmp_path, name, number
):
    words, number = tiny(f"runs={tmp_path}"), getattr(errno, number)
    process = lcg.run("train", *words, before=FAIL.format(name=name, errno=number))
    run = only_run(tmp_path)
    assert process.code == 1, process.err
    assert "Traceback" not in process.err
    last = process.err.splitlines()[-1]
    assert last.startswith(f"lcg: {run}/") and f"/{name}: " in last
    assert f": {os.strerror(number)}; the files are intact" in last
    assert not list(run.rglob("*.tmp"))
    again = lcg.run("train", *words)
    assert again.code == 0, again.err
    assert differences(uninterrupted, essence(run)) == []


def test_temporary_files_of_killed_processes_are_removed(config):
    train(config("trainer.steps=15"), progress=False)
    run = only_run(Path(config().runs))
    for left in (run / ".results.json.1-ab.tmp", run / "checkpoints" / ".next.ckpt.1-ab.tmp"):
        left.write_text("half")
    (run / "results.json").unlink()
    train(config("trainer.steps=15"), progress=False)
    assert not list(run.rglob("*.tmp"))


def test_a_row_that_a_killed_process_was_writing_is_healed(lcg, uninterrupted, tmp_path):
    words = tiny(f"runs={tmp_path}")
    assert lcg.run("train", *words, before=at_step(25, KILL)).code == -9
    table = only_run(tmp_path) / "metrics.csv"
    with table.open("ab") as file:
        file.write(b"28,0.5,\x00\xff")
    assert lcg.run("train", *words).code == 0
    assert differences(uninterrupted, essence(only_run(tmp_path))) == []


# ---- a machine that is not there: nothing is written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.precision=16-mixed", "trainer.accelerator=auto"], "16-mixed needs a GPU"),
        (["trainer.accelerator=cuda"], "trainer.accelerator=cuda"),
    ],
)
def test_a_machine_that_is_not_there(config, tmp_path, monkeypatch, words, message):
    for absent in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(absent, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message) as raised:
        train(config(*words), progress=False)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_who_only_looks_at_the_lock_is_not_training(tmp_path):
    """A launcher asks now and then whether a run is held, by holding it itself for a moment."""
    with (tmp_path / ".lock").open("a") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        leave = threading.Timer(0.15, lambda: fcntl.flock(looking, fcntl.LOCK_UN))
        leave.start()
        with files.locked(tmp_path):
            assert (tmp_path / ".lock").read_text().startswith(str(os.getpid()))
        leave.join()
    assert (tmp_path / ".lock").read_text() == "", "nobody is named who is gone"
