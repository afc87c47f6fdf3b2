"""SIGTERM and Ctrl-C: the step under way is finished, all is saved, the exit code says so."""

import os
import signal
import subprocess
import sys

import pytest
from processes import (
    LIMIT,
    ROOT,
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

# Sends this process a signal when a method is called and a condition on its first argument holds.
SEND = """
import os, signal
from lcg.training import loop
original = loop.{method}

def sending(self, first, *rest):
    if {condition}:
        os.kill(os.getpid(), signal.{name})
    return original(self, first, *rest)

loop.{method} = sending
"""


def send(name: str, method: str, condition: str = "True") -> str:
    return SEND.format(name=name, method=method, condition=condition)


def send_at(step: int, name: str) -> str:
    return at_step(step, f"os.kill(os.getpid(), signal.{name})")


@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_stops_at_the_step_boundary(lcg, uninterrupted, tmp_path, name, code):
    """Step 17 is no checkpoint, no validation and no logging step."""
    before = send_at(17, name)
    process = lcg.run("train", *tiny(f"runs={tmp_path}"), before=before)
    run = only_run(tmp_path)
    assert process.code == code, process.err
    assert "stopped at step 17; the same command resumes from there" in process.err
    assert "Traceback" not in process.err
    assert checkpoint(run)["global_step"] == 17
    assert record(run)["training"] | {"seconds": 0} == {
        "status": "interrupted",
        "step": 17,
        "seconds": 0,
        "device": "cpu",
        "final_loss": float(metrics(run)[-1]["train/loss"] or metrics(run)[-2]["train/loss"]),
        "reason": "",
    }
    again = lcg.run("train", *tiny(f"runs={tmp_path}"))
    assert again.code == 0, again.err
    assert "at step 17 of 30" in again.err
    results = essence(run)
    previous = checkpoint(run, "previous")
    assert previous["global_step"] == 20
    assert differences(uninterrupted, results) == []


def test_sigterm_through_the_shell_command(tmp_path):
    """`python -m lcg train`, as a scheduler would stop it; the second process is Lightning's."""
    words = ("trainer.steps=100000", "trainer.checkpoint_every=50000", "trainer.devices=2")
    words = tiny(f"runs={tmp_path}", *words)
    process = subprocess.Popen(
        [sys.executable, "-m", "lcg", "train", *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(
        lambda: any(
            len(file.read_text().splitlines()) > 3 for file in tmp_path.glob("*/metrics.csv")
        )
    )
    process.terminate()
    errors = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 143, errors
    assert f"stopped at step {checkpoint(only_run(tmp_path))['global_step']};" in errors


def test_ctrl_c_reaches_every_process_and_only_the_trainer_answers(lcg, tmp_path):
    """A terminal signals the whole group: loader workers, too, and while they start."""
    words = tiny(f"runs={tmp_path}", "trainer.steps=100000", "data.workers=1")
    early = lcg.start("train", *words)
    wait_until(lambda: processes_below(early.pid) >= 2, explain=lambda: early.err)
    early.signal(signal.SIGINT, group=True)
    assert early.wait() == 130, early.err
    assert "Traceback" not in early.err
    process = lcg.start("train", *words)
    wait_until(lambda: "4," in (only_run(tmp_path) / "metrics.csv").read_text())
    process.signal(signal.SIGINT, group=True)
    assert process.wait() == 130, process.err
    assert "Traceback" not in process.err


def processes_below(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return len(file.read().split())


def test_a_second_ctrl_c_stops_at_once(lcg, tmp_path):
    """Here in the middle of a validation whose next batch asks to be stopped again."""
    before = send("SIGINT", "LadderValidation._go_on", "first == 4 and [os.kill(os.getpid(), 2)]")
    process = lcg.run("train", *tiny(f"runs={tmp_path}"), before=before)
    assert process.code == 130, process.err
    assert "Traceback" not in process.err
    assert "stopped at step" not in process.err
    assert checkpoint(only_run(tmp_path))["global_step"] == 10  # the last one due before step 15
    assert record(only_run(tmp_path))["training"]["status"] == "running"


def test_a_signal_during_validation_cuts_it_short(lcg, uninterrupted, tmp_path):
    """The resumed run starts with the validation that was cut short."""
    before = send("SIGTERM", "LadderValidation._go_on", "first == 4")
    process = lcg.run("train", *tiny(f"runs={tmp_path}"), before=before)
    run = only_run(tmp_path)
    assert process.code == 143, process.err
    assert checkpoint(run)["global_step"] == 15
    assert checkpoint(run)["callbacks"]["LadderValidation"]["pending"] == 15
    assert not (run / "checkpoints" / "best.ckpt").exists()
    assert not any(row["val/len_4/exact_match"] for row in metrics(run))
    assert lcg.run("train", *tiny(f"runs={tmp_path}")).code == 0
    assert differences(uninterrupted, essence(run)) == []


def test_a_signal_during_the_last_validation(lcg, uninterrupted, tmp_path):
    """All steps are done, but the run is not finished before its last validation is."""
    before = "count = []\n" + send(
        "SIGTERM", "LadderValidation._go_on", "count.append(first) or len(count) == 3"
    )
    process = lcg.run("train", *tiny(f"runs={tmp_path}"), before=before)
    run = only_run(tmp_path)
    assert process.code == 143, process.err
    assert checkpoint(run)["global_step"] == 30
    assert record(run)["training"]["status"] == "interrupted"
    # And once more, in the validation that the resumed run begins with.
    before = send("SIGTERM", "LadderValidation._go_on")
    assert lcg.run("train", *tiny(f"runs={tmp_path}"), before=before).code == 143
    assert record(run)["training"]["status"] == "interrupted"
    assert lcg.run("train", *tiny(f"runs={tmp_path}")).code == 0
    expected, found = uninterrupted | {"callbacks": None}, essence(run)
    # last.ckpt was written before the validation that it was pending.
    assert found.pop("callbacks")["LadderValidation"]["pending"] == 30
    assert differences(expected, found | {"callbacks": None}) == []


def test_a_signal_with_the_last_step(lcg, uninterrupted, tmp_path):
    """The run is finished and says so; what comes after training is left to the next call."""
    words = tiny(f"runs={tmp_path}", "evaluation.after_training=true")
    before = """
import os, signal
from lcg.runs import checkpoints
save_last = checkpoints.save_last

def sending(content, path):
    save_last(content, path)
    if content["global_step"] == 30:
        os.kill(os.getpid(), signal.SIGTERM)

checkpoints.save_last = sending
"""
    process = lcg.run("train", *words, before=before)
    run = only_run(tmp_path)
    assert process.code == 143, process.err
    assert record(run)["training"]["status"] == "finished"
    assert record(run)["ladder"] == []
    assert differences(uninterrupted, essence(run)) == []
    again = lcg.run("train", *words)
    assert again.code == 0, again.err
    assert len(record(run)["ladder"]) == 1


@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_before_the_first_step(lcg, uninterrupted, tmp_path, name, code):
    before = send(name, "Metrics.start")
    process = lcg.run("train", *tiny(f"runs={tmp_path}"), before=before)
    assert process.code == code, process.err
    assert "stopped at step 0" in process.err
    assert list((only_run(tmp_path) / "checkpoints").glob("*")) == []
    assert lcg.run("train", *tiny(f"runs={tmp_path}")).code == 0
    assert differences(uninterrupted, essence(only_run(tmp_path))) == []


def test_signals_belong_to_the_caller_again_afterwards(config):
    from lcg.training.loop import train

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert train(config(), progress=False).status == "finished"
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_training_in_a_thread_works_without_signals(config):
    import threading

    from lcg.training.loop import train

    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(train(config(), progress=False)))
    thread.start()
    thread.join()
    assert outcomes[0].status == "finished"


def test_a_signal_while_processes_ask_each_other_is_not_forgotten(monkeypatch):
    """It arrives inside all_reduce, where a waiting process spends its time: too late for this
    step, which all processes must agree on, and in time for the next."""
    import torch

    from lcg.training.signals import StopRequest

    stop = StopRequest()
    stop._group = "both"
    arriving = [signal.SIGTERM]

    def all_reduce(asked, *_):
        if arriving:
            os.kill(os.getpid(), arriving.pop())

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    with stop.listening():
        assert not stop.asked()
        assert stop.signal == signal.SIGTERM
        assert stop.asked()


def test_a_closed_terminal_saves_as_a_signal_does(lcg, uninterrupted, tmp_path):
    """Writing to it fails from then on, in the signal's handler and in the bar."""
    hang_up = """
import io, os, signal, sys
class Closed(io.FileIO):
    def write(self, data):
        raise OSError(5, "Input/output error")
def hang_up():
    os.close(2)
    closed = io.TextIOWrapper(io.BufferedWriter(Closed(os.devnull, "w")))
    sys.stderr.__init__(closed)
    os.kill(os.getpid(), signal.SIGHUP)
"""
    hang_up += at_step(17, "hang_up()")
    process = lcg.run("train", *tiny(f"runs={tmp_path}"), before=hang_up)
    run = only_run(tmp_path)
    assert process.code == 129, process.err
    assert checkpoint(run)["global_step"] == 17
    assert record(run)["training"]["status"] == "interrupted"
    assert lcg.run("train", *tiny(f"runs={tmp_path}")).code == 0
    assert differences(uninterrupted, essence(run)) == []


def test_nohup_keeps_a_run_going(lcg, uninterrupted, tmp_path):
    before = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    before += send_at(17, "SIGHUP")
    process = lcg.run("train", *tiny(f"runs={tmp_path}"), before=before)
    assert process.code == 0, process.err
    assert differences(uninterrupted, essence(only_run(tmp_path))) == []


SLEEPY = """
import multiprocessing, time
from dataclasses import dataclass
from typing import ClassVar

from lcg.tasks.copy import Copy


@dataclass
class Sleepy(Copy):
    name: ClassVar[str] = "sleepy"

    def sample(self, rng, lengths):
        if multiprocessing.parent_process() is not None:
            open("asleep", "a").close()
            time.sleep(3600)
        return super().sample(rng, lengths)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a child")
def test_no_worker_outlives_a_killed_trainer(lcg, tmp_path):
    """Not even one in the middle of a batch, where torch does not look for its parent."""
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    words = tiny(f"runs={tmp_path / 'runs'}", "task=./sleepy.py:Sleepy", "data.workers=2")
    process = lcg.start("train", *words, folder=tmp_path)
    wait_until((tmp_path / "asleep").exists, explain=lambda: process.err)
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        children = file.read().split()
    assert len(children) >= 2
    process.signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(alive, children)))


def alive(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
