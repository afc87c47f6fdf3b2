"""A sweep of 24 real runs, killed again and again, ends as one that nobody touched."""

import random
import time
from functools import partial
from pathlib import Path

import pytest
from processes import children, kill, wait_until
from sweeping.tiny_sweeps import launch, outcome, sweep_file, table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are read in /proc"),
]

KILLS = 10
SEED = 7


def saved(runs: Path) -> set[tuple[Path, int]]:
    """Return what changes when a run saves."""
    return {(file, file.stat().st_mtime_ns) for file in runs.glob("*/checkpoints/last.ckpt")}


def is_under_way(launcher: int, runs: Path, before: set) -> bool:
    """Return True if a launcher has workers, and something was saved since."""
    return bool(children(launcher)) and saved(runs) != before


def test_killed_again_and_again(tmp_path):
    grid = {
        "attention": ["softmax", "ssmax"],
        "optimizer.lr": [0.002, 0.008, 0.032],
        "seed": [0, 1, 2, 3],
    }
    file = sweep_file(tmp_path, grid)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    undisturbed = launch(str(file), "--workers=2", f"runs={calm}", folder=tmp_path)
    log = tmp_path / "launcher.log"
    assert undisturbed.wait(7200) == 0, log.read_text()

    chance = random.Random(SEED)
    workers_killed = 0
    words = (str(file), "--workers=2", f"runs={killed}")
    for _ in range(KILLS):
        before = saved(killed)
        launcher = launch(*words, folder=tmp_path)
        wait_until(partial(is_under_way, launcher.pid, killed, before), explain=log.read_text)
        time.sleep(chance.uniform(0, 2))
        if alive := children(launcher.pid):
            kill(chance.choice(alive))
            workers_killed += 1
        time.sleep(chance.uniform(0, 2))
        assert launcher.poll() is None, "it was done before it could be killed"
        launcher.kill()
        launcher.wait()
    last = launch(*words, folder=tmp_path)
    assert last.wait(7200) == 0, log.read_text()

    assert workers_killed >= KILLS // 2
    logs = "".join(path.read_text() for path in killed.glob("sweeps/*/logs/*.log"))
    assert "resuming" in logs, "no kill came in the middle of a run"
    expected = outcome(calm)
    assert len(expected) == 24
    assert all(record["training"]["status"] == "finished" for record in expected.values())
    assert outcome(killed) == expected
    assert table(killed) == table(calm)
