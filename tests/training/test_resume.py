"""A run that was stopped, however and whenever, ends bit for bit where an undisturbed one ends."""

import random
import signal
import time

import pytest
from processes import (
    KILL,
    at_step,
    checkpoint,
    children,
    differences,
    essence,
    metrics,
    only_run,
    record,
    wait_until,
)
from tiny import tiny

# Dies at the n-th moment at which the disk is about to change or has just been changed.
DIE_AT_WRITE = """
import os, signal
left = [{n}]

def watch(name):
    original = getattr(os, name)
    def watched(*words, **options):
        moment()
        original(*words, **options)
        moment()
    setattr(os, name, watched)

def moment():
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

watch("replace")
watch("fsync")
"""


def finish(lcg, *words):
    process = lcg.run("train", *tiny(*words))
    assert process.code == 0, process.err
    return process


def test_two_undisturbed_runs_are_identical(lcg, uninterrupted, tmp_path):
    finish(lcg, f"runs={tmp_path}")
    assert differences(uninterrupted, essence(only_run(tmp_path))) == []


def test_dropout_is_at_work(lcg, uninterrupted, tmp_path):
    """Else the comparisons of this file would say nothing about random states."""
    finish(lcg, f"runs={tmp_path}", "model.dropout=0")
    assert metrics(only_run(tmp_path)) != uninterrupted["metrics"]


def test_kill_9_at_random_moments(lcg, uninterrupted, tmp_path):
    chance, kills = random.Random(0), 0
    for attempt in range(12):  # later and later: a quick machine is done early
        process = lcg.start("train", *tiny(f"runs={tmp_path}"))
        time.sleep(0.04 * attempt + chance.uniform(0.02, 0.06))
        if process.poll() is None:
            process.signal(signal.SIGKILL)
            code = process.wait()
            assert code in (0, -signal.SIGKILL)  # it may have ended in between
            kills += code != 0
    finish(lcg, f"runs={tmp_path}")
    assert kills >= 2
    assert differences(uninterrupted, essence(only_run(tmp_path))) == []


def test_kill_9_between_checkpoints(lcg, uninterrupted, tmp_path):
    """Rows of steps that are done again are dropped, not written twice."""
    die = at_step(18, KILL)
    assert lcg.run("train", *tiny(f"runs={tmp_path}"), before=die).code == -9
    run = only_run(tmp_path)
    assert checkpoint(run)["global_step"] == 10
    assert metrics(run)[-1]["step"] == "16"
    process = finish(lcg, f"runs={tmp_path}")
    assert f"resuming {run} at step 10 of 30" in process.err
    assert differences(uninterrupted, essence(run)) == []


def test_kill_9_at_every_write(lcg, uninterrupted, tmp_path):
    """Dies at the first write, then resumes and dies at the second, and so on to the end."""
    for n in range(1, 200):
        process = lcg.run("train", *tiny(f"runs={tmp_path}"), before=DIE_AT_WRITE.format(n=n))
        if process.code == 0:
            break
        assert process.code == -signal.SIGKILL, process.err
    assert process.code == 0
    assert n > 20  # it did die, often
    run = only_run(tmp_path)
    assert differences(uninterrupted, essence(run)) == []
    assert not list((run / "checkpoints").glob(".*"))  # nothing half-written stays behind


def test_kill_9_with_loader_workers(lcg, uninterrupted, tmp_path):
    """The batches are the same, and the workers end with their trainer."""
    words = tiny(f"runs={tmp_path}", "data.workers=2")
    process = lcg.start("train", *words, before=at_step(13, "time.sleep(10**6)"))
    wait_until(lambda: list(tmp_path.glob("*/checkpoints/last.ckpt")), explain=lambda: process.err)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.signal(signal.SIGKILL)
    process.wait()
    again = lcg.run("train", *tiny(*words, "data.workers=1"))
    assert again.code == 0, again.err
    assert differences(uninterrupted, essence(only_run(tmp_path))) == []
    wait_until(lambda: not any(map(alive, workers)))


def test_a_run_killed_after_its_last_step_is_finished_by_the_next_call(
    lcg, uninterrupted, tmp_path
):
    die = "import os\nfrom lcg.training.record import RecordWriter\nsave = RecordWriter.save\n"
    die += "def kill(self, status, *rest):\n    status == 'finished' and os.kill(os.getpid(), 9)\n"
    die += "    return save(self, status, *rest)\nRecordWriter.save = kill"
    assert lcg.run("train", *tiny(f"runs={tmp_path}"), before=die).code == -9
    run = only_run(tmp_path)
    assert record(run)["training"]["status"] == "running"
    finish(lcg, f"runs={tmp_path}")
    assert differences(uninterrupted, essence(run)) == []


@pytest.mark.parametrize("per", ["sample", "batch"])
@pytest.mark.slow
def test_kill_9_of_a_larger_run(lcg, tmp_path, per):
    """Two layers, learned encodings, bf16, clipping: still bit for bit."""
    words = ("model.layers=2", "attention=asentmax", "trainer.precision=bf16-mixed")
    words += (f"data.lengths_per={per}", "trainer.steps=60", "optimizer.weight_decay=0.1")
    undisturbed = lcg.run("train", *tiny(*words, f"runs={tmp_path / 'a'}"))
    assert undisturbed.code == 0, undisturbed.err
    chance = random.Random(1)
    for _ in range(4):
        process = lcg.start("train", *tiny(*words, f"runs={tmp_path / 'b'}"))
        time.sleep(chance.uniform(0.3, 1.2))
        if process.poll() is None:
            process.signal(signal.SIGKILL)
            process.wait()
    assert lcg.run("train", *tiny(*words, f"runs={tmp_path / 'b'}")).code == 0
    a, b = only_run(tmp_path / "a"), only_run(tmp_path / "b")
    assert differences(essence(a), essence(b)) == []


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
