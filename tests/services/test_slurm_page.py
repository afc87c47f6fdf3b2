"""The Slurm array of docs/scaling-out.md, as it stands there, in a real Slurm of one node."""

import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from processes import wait_until
from services.conftest import make_sweep, page
from services.slurm import Slurm, missing
from sweeping.tiny_sweeps import outcome, table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
pytest.importorskip("psycopg", reason="needs psycopg: pip install 'lcg[postgres]'")


@pytest.fixture
def slurm():
    cluster = Slurm()
    yield cluster
    cluster.close()


def workers(runs: Path) -> list[int]:
    """The processes that train runs below a folder."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            words = Path(f"/proc/{entry}/cmdline").read_text().split("\0")
            if "train" in words and f"runs={runs}" in words:
                found.append(int(entry))
    return found


class Array:
    """The page's script, submitted in a folder of its own where `table1_sort` is a tiny sweep."""

    def __init__(self, slurm: Slurm, folder: Path, study: str) -> None:
        self.slurm, self.folder, self.runs = slurm, folder, folder / "runs"
        self.script = folder / "array.sh"
        self.script.write_text(page("srun lcg sweep"))
        make_sweep(folder).rename(folder / "table1_sort")
        path = f"{Path(sys.executable).parent}:{slurm.environment['PATH']}"
        self.variables = {"STUDY": study, "SCRATCH": str(folder), "PATH": path}
        self.submit()

    def submit(self) -> None:
        """As many tasks as fit the node at a time."""
        self.job = self.slurm.submit(self.script, "--array=0-1", **self.variables)

    def said(self, task: int) -> str:
        """Return what a task has printed since it was last started."""
        file = self.folder / f"slurm-{self.job}_{task}.out"
        return file.read_text() if file.exists() else ""

    def all_said(self) -> str:
        """Return what all tasks and their runs have printed."""
        files = [*self.folder.glob("slurm-*.out"), *self.runs.glob("sweeps/*/logs/*.log")]
        return "\n".join(f"{file.name}:\n{file.read_text()}" for file in files)

    def show(self, task: int) -> str:
        """Return what Slurm knows of a task; nothing when it is over and forgotten."""
        return self.slurm.call("scontrol", "show", "job", f"{self.job}_{task}", check=False)

    def is_over(self, task: int | None = None) -> bool:
        """Return True if a task, or every job, has left the queue."""
        job = [] if task is None else [f"--jobs={self.job}_{task}"]
        return not self.slurm.call("squeue", "-h", *job, check=False)

    def wait(self, condition) -> None:
        wait_until(condition, 300, lambda: self.all_said() + self.slurm.logs())

    def hold_a_run_of_each(self) -> None:
        """Wait until both tasks have saved a checkpoint, and keep their runs from going on."""
        for task in (0, 1):
            self.wait(lambda task=task: ": started" in self.said(task))
            (run,) = re.findall(r"(\S+): started", self.said(task))
            checkpoints = self.runs / run / "checkpoints"
            self.wait(lambda saved=checkpoints / "last.ckpt": saved.exists())
        assert len(workers(self.runs)) == 2
        self.send(signal.SIGSTOP)

    def send(self, number: int) -> None:
        for pid in workers(self.runs):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def test_the_array_of_the_page(slurm, postgres, alone, tmp_path):
    """Both tasks start on an empty database; one is requeued, the other runs out of time.

    What is asked of the node is the page's; that two tasks are submitted instead of sixteen, and
    that the second one's time is cut, is said to Slurm from outside.
    """
    postgres.create("slurm")
    array = Array(slurm, tmp_path, f"postgresql://lcg:secret@127.0.0.1:{postgres.port}/slurm")
    array.hold_a_run_of_each()

    slurm.call("scontrol", "requeue", f"{array.job}_0")
    array.wait(lambda: "Restarts=1" in array.show(0))
    slurm.call("scontrol", "update", f"JobId={array.job}_1", "TimeLimit=2")  # TERM@120: now
    array.wait(lambda: "stopping: saving 1 run" in array.said(1))
    array.send(signal.SIGCONT)
    array.wait(lambda: array.is_over(1))
    array.submit()
    array.wait(array.is_over)

    said = array.all_said()
    assert "Traceback" not in said, said
    assert len(re.findall(r"resuming \S+ at step", said)) == 2, said
    assert outcome(tmp_path / "runs") == alone[0]
    assert table(tmp_path / "runs") == alone[1]
