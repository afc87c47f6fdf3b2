"""Two processes on a CPU (gloo) through the shell command: the same batches, one set of books."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
import torch
from processes import (
    LIMIT,
    ROOT,
    Process,
    checkpoint,
    differences,
    essence,
    metrics,
    only_run,
    record,
    wait_until,
)
from tiny import tiny

# Without dropout: each process draws its own masks.
WORDS = ("model.dropout=0", "trainer.devices=2")


@pytest.fixture
def start():
    """Start `lcg train`; Lightning starts the second process by the same command, so it is a real
    one. What is still running at the end of a test is killed."""
    started = []

    def start(*words: str, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "lcg", "train", *tiny(*WORDS, *words)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def group_members(group: int) -> list[int]:
    """Processes of a group, those that are dead but not yet waited for included."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            found.append(int(entry))
    return found


def rank(pid: int) -> int:
    with open(f"/proc/{pid}/environ") as file:
        return 1 if "LOCAL_RANK=1" in file.read().split("\0") else 0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def imports_torch(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/maps") as file:
            return "libtorch" in file.read()
    except OSError:
        return False


def assert_nobody_left(process: subprocess.Popen) -> None:
    wait_until(lambda: group_members(process.pid) == [])


@pytest.fixture
def one_device(lcg, tmp_path):
    """The directory of the same run on one device."""
    process = lcg.run("train", *tiny("model.dropout=0", f"runs={tmp_path / 'one'}"))
    assert process.code == 0, process.err
    return only_run(tmp_path / "one")


def test_two_devices_of_a_launcher_train_as_one(lcg, one_device, tmp_path):
    """As below, with both processes started here, in milliseconds, as torchrun would."""
    runs = tmp_path / "two"

    def both(*words: str) -> list[Process]:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        words = tiny(*WORDS, f"runs={runs}", *words)
        places = [where | {"LOCAL_RANK": rank, "RANK": rank, "WORLD_SIZE": "2"} for rank in "01"]
        return [lcg.start("train", *words, environment=place) for place in places]

    first, second = both("validation.samples=2000000")
    wait_until(
        lambda: any("\n12," in f.read_text() for f in runs.glob("*/metrics.csv")),
        explain=lambda: first.err + second.err,
    )
    first.signal(signal.SIGTERM)
    assert (first.wait(), second.wait()) == (143, 0), first.err + second.err
    assert "Traceback" not in first.err + second.err
    assert "training lengths" in first.err and second.err == ""
    run = only_run(runs)
    stopped_at = checkpoint(run)["global_step"]
    assert stopped_at in (12, 13, 14, 15)
    first, second = both()
    assert (first.wait(), second.wait()) == (0, 0), first.err + second.err
    assert f"at step {stopped_at} of 30" in first.err
    assert record(run)["training"]["status"] == "finished"
    assert_same_training(one_device, run)


@pytest.mark.slow
def test_two_devices_train_as_one(start, one_device, tmp_path):
    """Stopped in between by SIGTERM to the first of them, and resumed.

    With a length per sample, the two processes score different numbers of tokens: their losses
    must be weighted by these to give the gradient of the whole batch.
    """
    runs = tmp_path / "two"
    process = start(f"runs={runs}", "validation.samples=2000000")
    wait_until(lambda: any("\n12," in f.read_text() for f in runs.glob("*/metrics.csv")))
    process.terminate()
    errors = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    assert errors.count("training lengths") == 1  # only one process talks
    run = only_run(runs)
    stopped_at = checkpoint(run)["global_step"]
    assert stopped_at in (12, 13, 14, 15)  # the validation at 15 would take minutes
    assert_nobody_left(process)

    process = start(f"runs={runs}")
    errors = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 0, errors
    assert f"at step {stopped_at} of 30" in errors
    assert_nobody_left(process)
    assert record(run)["training"]["status"] == "finished"

    assert_same_training(one_device, run)


def assert_same_training(one_device, run):
    """As one device did, up to the order of sums."""
    one, two = checkpoint(one_device), checkpoint(run)
    for name, weights in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], weights, atol=2e-5, rtol=1e-4)
    # Each row once, and of the whole batch, not of one process's share.
    expected = [row for row in metrics(one_device) if row["train/loss"]]
    found = [row for row in metrics(run) if row["train/loss"]]
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for a, b in zip(found, expected, strict=True):
        for name in ("train/loss", "train/lr", "train/grad_norm"):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-4)
    # The same weights as at the start would pass the comparison above, so: they have moved.
    initial = checkpoint(one_device, "previous")["state_dict"]
    assert any(not torch.allclose(initial[n], w, atol=1e-4) for n, w in one["state_dict"].items())


@pytest.mark.slow
def test_two_nodes_train_as_one(start, one_device, tmp_path):
    """Two machines, as far as Lightning can tell; SIGTERM reaches the second one only."""
    port = free_port()

    def both(*words: str) -> list[tuple[int, str]]:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        words = (*words, f"runs={tmp_path / 'two'}", "trainer.devices=1", "trainer.nodes=2")
        nodes = [start(*words, NODE_RANK=str(rank), **where) for rank in (0, 1)]
        if "validation.samples=2000000" in words:
            files = (tmp_path / "two").glob
            wait_until(lambda: any("\n12," in f.read_text() for f in files("*/metrics.csv")))
            nodes[1].terminate()
        errors = [node.communicate(timeout=LIMIT)[1] for node in nodes]
        return [(node.returncode, text) for node, text in zip(nodes, errors, strict=True)]

    (first, errors), (second, silent) = both("validation.samples=2000000")
    assert (first, second) == (143, 0), errors + silent
    assert "training lengths" in errors and "training lengths" not in silent
    (first, errors), (second, silent) = both()
    assert (first, second) == (0, 0), errors + silent
    assert_same_training(one_device, only_run(tmp_path / "two"))


@pytest.mark.slow
def test_the_page_s_two_nodes_are_two_devices_bit_for_bit(start, tmp_path):
    """The two commands of docs/scaling-out.md, at the size of this machine, and with dropout: the
    process of node 1 draws what the second process of one node does."""
    page = (ROOT / "docs" / "scaling-out.md").read_text()
    commands = re.findall(r"^NODE_RANK=\d .*", page, re.MULTILINE)
    assert len(commands) == 2
    ours = {"experiment": None, "trainer.devices": "1", "runs": str(tmp_path / "nodes")}
    ours |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = []
    for command in commands:
        before, after = command.split(" lcg train ")
        environment, given = (dict(w.split("=", 1) for w in t.split()) for t in (before, after))
        environment = {key: ours.get(key, text) for key, text in environment.items()}
        given = {key: ours.get(key, text) for key, text in given.items()} | {"model.dropout": "0.1"}
        words = [f"{key}={text}" for key, text in given.items() if text is not None]
        started.append(start(*words, **environment))
    said = [node.communicate(timeout=LIMIT)[1] for node in started]
    assert [node.returncode for node in started] == [0, 0], said

    one_node = start("model.dropout=0.1", f"runs={tmp_path / 'devices'}")
    errors = one_node.communicate(timeout=LIMIT)[1]
    assert one_node.returncode == 0, errors
    nodes, devices = (essence(only_run(tmp_path / name)) for name in ("nodes", "devices"))
    assert differences(devices, nodes) == []


def test_a_node_that_does_not_know_the_others_is_refused(start, tmp_path):
    process = start(f"runs={tmp_path / 'runs'}", "trainer.devices=1", "trainer.nodes=2")
    errors = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 2
    assert "trainer.nodes=2 needs NODE_RANK, MASTER_ADDR, MASTER_PORT" in errors
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_not_finite_ends_both_processes_with_code_4(start, tmp_path):
    process = start(f"runs={tmp_path}", "optimizer.lr=1e6", "optimizer.weight_decay=1e6")
    errors = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 4, errors
    assert record(only_run(tmp_path))["training"]["status"] == "not_finite"
    assert_nobody_left(process)


@pytest.mark.slow
def test_a_killed_process_takes_the_first_with_it(start, tmp_path):
    """Nobody hangs, and the run can be resumed. A first one that fails: see the full disk."""
    process = start(f"runs={tmp_path}", "trainer.steps=100000", "validation.every=50000")
    wait_until(lambda: list(tmp_path.glob("*/checkpoints/last.ckpt")))
    ranks = {rank(pid): pid for pid in group_members(process.pid)}
    assert ranks[0] == process.pid
    os.kill(ranks[1], signal.SIGKILL)
    process.communicate(timeout=LIMIT)
    assert process.returncode != 0
    assert_nobody_left(process)
    assert checkpoint(only_run(tmp_path))["global_step"] >= 10


@pytest.mark.slow
def test_ctrl_c_while_the_processes_start(start, tmp_path):
    process = start(f"runs={tmp_path}")
    wait_until(lambda: len(group_members(process.pid)) >= 2)
    wait_until(lambda: any(map(imports_torch, group_members(process.pid)[1:])))
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 130, errors
    assert_nobody_left(process)


@pytest.mark.slow
def test_a_full_disk_ends_both_processes(start, tmp_path):
    """A failure in the first process does not leave the second waiting for it."""
    import resource

    process = start(f"runs={tmp_path}", "trainer.steps=100000", "validation.every=50000")
    wait_until(lambda: list(tmp_path.glob("*/checkpoints/last.ckpt")))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
    errors = process.communicate(timeout=LIMIT)[1]
    assert process.returncode not in (0, None)
    assert ": File too large; the files are intact" in errors
    assert_nobody_left(process)
