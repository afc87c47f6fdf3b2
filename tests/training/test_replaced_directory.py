"""A directory that is removed or replaced while its run is at work; a record of another run."""

import json
import shutil

import pytest
from processes import at_step, only_run
from tiny import tiny

from lcg.runs.files import locked, write_atomic
from lcg.runs.record import RecordError, RunRecord
from lcg.training.loop import train

REMOVED = "was removed or replaced while this process was writing to it"


def remove(directory):
    shutil.rmtree(directory)


def replace(directory):
    shutil.rmtree(directory)
    directory.mkdir()
    (directory / ".lock").touch()


def move(directory):
    directory.rename(directory.with_name("elsewhere"))


@pytest.mark.parametrize("change", [remove, replace, move])
def test_nothing_is_written_to_a_directory_that_is_not_the_held_one(tmp_path, change):
    held = tmp_path / "run"
    with locked(held):
        write_atomic(held / "inside", "a")
        change(held)
        with pytest.raises(OSError, match=REMOVED):
            write_atomic(held / "inside", "b")
        with pytest.raises(OSError, match=REMOVED), RunRecord.updating(held):
            pass
        write_atomic(tmp_path / "outside", "c")
    assert not (held / "inside").exists()
    write_atomic(held / "inside", "d")


@pytest.mark.parametrize("and_then", ["", "os.makedirs({!r}); open({!r} + '/.lock', 'w').close()"])
def test_training_stops_in_one_line(lcg, tmp_path, and_then):
    words = tiny(f"runs={tmp_path}", "name=mine")
    run = str(tmp_path / "mine")
    action = f"__import__('shutil').rmtree({run!r}); " + and_then.format(run, run)
    process = lcg.run("train", *words, before=at_step(12, action))
    assert process.code == 1
    assert REMOVED in process.err
    assert "Traceback" not in process.err
    left = [path.name for path in (tmp_path / "mine").iterdir()] if and_then else []
    assert left == [".lock"] * bool(and_then)
    assert not and_then or only_run(tmp_path) is not None


def test_a_record_of_another_run_is_merged_with_none(config):
    one = train(config("name=one"), progress=False).directory
    other = train(config("name=two", "seed=5"), progress=False).directory
    record = RunRecord.load(other)
    with pytest.raises(RecordError, match="it belongs to run"):
        RunRecord.load(other, RunRecord.load(one).hash)
    shutil.copy(one / "results.json", other)
    with pytest.raises(ValueError, match="belongs to a run of another config"):
        train(config("name=two", "seed=5"), progress=False)
    assert json.loads((other / "results.json").read_text())["hash"] != record.hash
