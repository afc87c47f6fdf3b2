"""Closed, full and plain-ASCII streams, and Python without docstrings: every command works."""

import os
import subprocess
import sys

import pytest

COMMANDS = ["list", "--help", "train --help", "show task=copy", "table runs/run", "sweep --help"]
SURROUNDINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "no docstrings": {"PYTHONOPTIMIZE": "2", "PYTHONDONTWRITEBYTECODE": "1"},
}
RECORD = """{"schema": 1, "run": "run", "hash": "h", "group": "g", "labels": {"task": "copy",
    "attention": "softmax", "position": "nape"}, "settings": {"seed": 0, "lr": 0.001,
    "train_lengths": [8, 32]}, "training": {"status": "finished", "step": 9}, "ladder":
    [{"length": 32, "samples": 100, "seed": 0, "correct": 99}]}"""


@pytest.fixture
def shell(here):
    """Run a shell line in which `lcg` is the command; returns what came of it."""
    (here / "runs/run").mkdir(parents=True)
    (here / "runs/run/results.json").write_text(RECORD)

    def shell(line: str, **environment: str) -> subprocess.CompletedProcess:
        start = f'lcg() {{ "{sys.executable}" -m lcg "$@"; }}\n'
        known = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        return subprocess.run(
            ["bash", "-c", start + line], capture_output=True, text=True, env=known, timeout=300
        )

    return shell


@pytest.mark.parametrize("command", COMMANDS)
def test_closed_and_full_streams(command, shell):
    for closed in (">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"):
        done = shell(f"lcg {command} {closed}")
        assert (done.returncode, done.stderr) == (0, ""), closed
    done = shell(f"lcg {command} >/dev/full")
    assert (done.returncode, done.stderr) == (1, "lcg: cannot write: No space left on device\n")


def test_mistakes_keep_their_exit_code_with_closed_streams(shell):
    for closed in (">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"):
        assert shell(f"lcg train task=cop {closed}").returncode == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_output_is_printed_in_every_environment(command, shell):
    usual = shell(f"lcg {command}").stdout
    for surroundings, environment in SURROUNDINGS.items():
        done = shell(f"lcg {command}", **environment)
        assert (done.returncode, done.stderr) == (0, "")
        if surroundings == "no docstrings":
            assert done.stdout and "Copy(" not in done.stdout
        else:
            assert done.stdout == usual.encode("ascii", "replace").decode()


def trained_all_the_same(folder) -> bool:
    assert "Traceback" not in (folder / "runs/mine/metrics.csv").read_text()
    return '"finished"' in (folder / "runs/mine/results.json").read_text()


@pytest.mark.parametrize(
    ("streams", "environment"),
    [
        ("", SURROUNDINGS["C"]),
        pytest.param("", SURROUNDINGS["ascii"], marks=pytest.mark.slow),
        pytest.param("", SURROUNDINGS["no docstrings"], marks=pytest.mark.slow),
        pytest.param("<&- >&- 2>&-", {}, marks=pytest.mark.slow),
        pytest.param("2>/dev/full", {}, marks=pytest.mark.slow),
    ],
)
def test_a_run_is_trained_all_the_same(streams, environment, shell, here, tiny):
    words = " ".join(tiny("name=mine", "wandb.mode=offline"))
    done = shell(f"lcg train {words} {streams}", **environment)
    assert done.returncode == 0, done.stderr
    assert trained_all_the_same(here)


CLOSED = """
import os, sys
for number in range(3):
    os.close(number)
sys.stdin = sys.stdout = sys.stderr = None
"""
FULL = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"


@pytest.mark.parametrize("before", [CLOSED, FULL], ids=["closed", "full"])
def test_a_run_is_trained_with_closed_streams(before, here, tiny, fork_server):
    """The streams are as Python starts with them, in a process that need not import torch."""
    words = tiny("name=mine", "wandb.mode=offline")
    assert fork_server.run("train", *words, folder=here, before=before).code == 0
    assert trained_all_the_same(here)
