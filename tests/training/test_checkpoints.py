"""Checkpoint files: whole or refused, the one before kept, nothing executed on loading."""

import os
import random
import zipfile

import pytest
import torch
from processes import KILL, at_step, checkpoint, differences, essence, only_run
from tiny import tiny

from lcg.runs import checkpoints

CONTENT = {
    "global_step": 7,
    "identity": "abc",
    "state_dict": {"weight": torch.arange(3000, dtype=torch.float32)},
    "list": [1, 2.5, None, "text"],
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def write(folder, name, step):
    checkpoints.save(CONTENT | {"global_step": step}, folder / name)


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "truncated":
        del data[len(data) // 2 :]
    elif how == "empty":
        data.clear()
    elif how == "not a checkpoint":
        data[:] = b"hello"
    else:  # one byte of a tensor, found by what it holds
        pattern = bytes(memoryview(CONTENT["state_dict"]["weight"][1500:1600].numpy()))
        data[data.index(pattern) + 10] ^= 1
    path.write_bytes(data)


HOWS = ("truncated", "empty", "not a checkpoint", "a flipped bit in a tensor")


def test_saved_records_are_loaded(folder):
    write(folder, "last.ckpt", 7)
    assert differences(CONTENT, checkpoints.load(folder / "last.ckpt")) == []


def test_torch_itself_does_not_see_a_flipped_bit(folder):
    """Why `load` asks the archive for its checksums; when this fails, it need not any more."""
    write(folder, "last.ckpt", 7)
    damage(folder / "last.ckpt", "a flipped bit in a tensor")
    loaded = torch.load(folder / "last.ckpt", weights_only=True)
    assert differences(CONTENT, loaded) == ["/state_dict/weight: tensors differ"]


@pytest.mark.parametrize("how", HOWS)
def test_damage_is_one_line_with_the_file(folder, how):
    write(folder, "last.ckpt", 7)
    damage(folder / "last.ckpt", how)
    with pytest.raises(checkpoints.DamagedCheckpoint) as raised:
        checkpoints.load(folder / "last.ckpt")
    assert str(folder / "last.ckpt") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_flipped_bit_goes_unseen(folder):
    """Wherever it is: the file is refused, or what is loaded is right all the same."""
    write(folder, "last.ckpt", 7)
    whole, chance, refused = (folder / "last.ckpt").read_bytes(), random.Random(0), 0
    for _ in range(300):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (folder / "flipped.ckpt").write_bytes(data)
        try:
            loaded = checkpoints.load(folder / "flipped.ckpt")
        except checkpoints.DamagedCheckpoint:
            refused += 1
        else:
            assert differences(CONTENT, loaded) == []
    assert refused > 200


def test_loading_executes_nothing(folder):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(folder / "executed"),)

    torch.save({"global_step": 1, "trap": Trap()}, folder / "last.ckpt")
    with pytest.raises(checkpoints.DamagedCheckpoint):
        checkpoints.load(folder / "last.ckpt")
    assert not (folder / "executed").exists()


def test_a_file_that_may_not_be_read_is_not_called_damaged(folder):
    (folder / "last.ckpt").mkdir()
    with pytest.raises(ValueError, match=r"last.ckpt cannot be read") as raised:
        checkpoints.newest_readable(folder, print)
    assert not isinstance(raised.value, checkpoints.DamagedCheckpoint)


def test_the_one_before_is_kept(folder):
    last = folder / "last.ckpt"
    for step in (1, 2, 3):
        checkpoints.save_last(CONTENT | {"global_step": step}, last)
    assert checkpoints.load(last)["global_step"] == 3
    assert checkpoints.load(folder / "previous.ckpt")["global_step"] == 2
    assert sorted(os.listdir(folder)) == ["last.ckpt", "previous.ckpt"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_both(folder, monkeypatch, failing):
    last = folder / "last.ckpt"
    for step in (1, 2):
        checkpoints.save_last(CONTENT | {"global_step": step}, last)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError):
        checkpoints.save_last(CONTENT | {"global_step": 3}, last)
    monkeypatch.undo()
    assert checkpoints.load(last)["global_step"] == 2
    assert checkpoints.load(folder / "previous.ckpt")["global_step"] == 1
    assert sorted(os.listdir(folder)) == ["last.ckpt", "previous.ckpt"]


def test_the_newest_readable_one_is_chosen(folder):
    said = []
    assert checkpoints.newest_readable(folder, said.append) is None
    write(folder, "previous.ckpt", 5)
    assert checkpoints.newest_readable(folder, said.append).step == 5
    write(folder, "last.ckpt", 6)
    found = checkpoints.newest_readable(folder, said.append)
    assert found == (folder / "last.ckpt", 6, "abc")
    assert said == []
    damage(folder / "last.ckpt", "truncated")
    assert checkpoints.newest_readable(folder, said.append).step == 5
    assert len(said) == 1
    assert "last.ckpt is damaged" in said[0] and "resuming from previous.ckpt" in said[0]
    damage(folder / "previous.ckpt", "empty")
    with pytest.raises(
        checkpoints.DamagedCheckpoint, match=r"last.ckpt.*previous.ckpt.*start over"
    ):
        checkpoints.newest_readable(folder, said.append)


def test_a_damaged_one_never_becomes_previous(folder):
    """Else the next save would put it in the place of the only good one."""
    write(folder, "last.ckpt", 6)
    write(folder, "previous.ckpt", 5)
    damage(folder / "last.ckpt", "truncated")
    found = checkpoints.newest_readable(folder, print)
    checkpoints.set_aside(folder, found)
    checkpoints.save_last(CONTENT | {"global_step": 8}, folder / "last.ckpt")
    assert checkpoints.load(folder / "last.ckpt")["global_step"] == 8
    assert checkpoints.load(folder / "previous.ckpt")["global_step"] == 5
    assert (folder / "last.ckpt.damaged").exists()


# ---- through the command


@pytest.fixture
def stopped(lcg, tmp_path):
    """A run killed at step 25 with checkpoints of steps 20 and 10."""
    assert lcg.run("train", *tiny(f"runs={tmp_path}"), before=at_step(25, KILL)).code == -9
    return only_run(tmp_path)


@pytest.mark.parametrize("how", ["truncated", "a flipped bit in a tensor"])
def test_a_damaged_last_checkpoint_costs_only_time(lcg, uninterrupted, stopped, how):
    path = stopped / "checkpoints" / "last.ckpt"
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        flip_in_largest_tensor(path)
    process = lcg.run("train", *tiny(f"runs={stopped.parent}"))
    assert process.code == 0, process.err
    assert "last.ckpt is damaged" in process.err
    assert "at step 10 of 30" in process.err
    assert differences(uninterrupted, essence(stopped)) == []


def test_two_damaged_checkpoints_are_one_line_and_code_2(lcg, stopped):
    for name in ("last", "previous"):
        path = stopped / "checkpoints" / f"{name}.ckpt"
        path.write_bytes(path.read_bytes()[:-1000])
    before = sorted(os.listdir(stopped / "checkpoints"))
    process = lcg.run("train", *tiny(f"runs={stopped.parent}"))
    assert process.code == 2
    assert process.err.count("\n") == 1
    assert "last.ckpt" in process.err and "previous.ckpt" in process.err
    assert sorted(os.listdir(stopped / "checkpoints")) == before


def test_a_checkpoint_of_another_config_is_refused(lcg, stopped, tmp_path):
    other = lcg.run("train", *tiny(f"runs={tmp_path / 'other'}", "seed=1"))
    assert other.code == 0, other.err
    foreign = only_run(tmp_path / "other") / "checkpoints" / "last.ckpt"
    (stopped / "checkpoints" / "last.ckpt").write_bytes(foreign.read_bytes())
    process = lcg.run("train", *tiny(f"runs={stopped.parent}", f"name={stopped.name}"))
    assert process.code == 2
    assert "belongs to a run of another config" in process.err


def flip_in_largest_tensor(path):
    with zipfile.ZipFile(path) as archive:
        part = max(archive.infolist(), key=lambda info: info.file_size)
        content = archive.read(part)
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 1
    path.write_bytes(data)


def test_best_checkpoint_is_plain(lcg, tmp_path):
    """It loads with weights_only, and holds the config in plain types."""
    assert lcg.run("train", *tiny(f"runs={tmp_path}")).code == 0
    best = checkpoint(only_run(tmp_path), "best")
    assert set(best) == {"state_dict", "step", "config"}
    assert best["config"]["task"]["name"] == "copy"
