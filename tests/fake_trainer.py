"""Stands in for `lcg train`: leaves what a run leaves behind, and fails as it is told to.

Called with the words of a run. The file named by FAKE_PLAN is JSON: the run's seed to what it does
at each attempt, the last for all later ones: ok, crash, not_finite, bad, full, killed, wait (until
SIGTERM, then 143), or a list of validation values that it writes before it is ok; "wait" may be one
of them.
"""

import csv
import json
import os
import signal
import sys
import time
from pathlib import Path

from tiny import fabricate

from lcg.config import experiment_identity, identity, load_config
from lcg.runs.files import LAST, PROVENANCE, Busy, locked
from lcg.runs.provenance import code_digest
from lcg.runs.record import Selection, Training
from lcg.runs.run import Run


def main(words: list[str]) -> int:
    config = load_config(words)
    run = Run.place(config)
    plan = json.loads(Path(os.environ["FAKE_PLAN"]).read_text())
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        with locked(run.path):
            attempts = run.path / "attempts"
            done = len(attempts.read_text()) if attempts.exists() else 0
            attempts.write_text("x" * (done + 1))
            actions = plan.get(str(config.seed), ["ok"])
            return act(actions[min(done, len(actions) - 1)], config, run)
    except Busy:
        return 3


def act(action, config, run: Run) -> int:
    (run.path / "words.json").write_text(json.dumps(sys.argv[1:]))
    (run.path / PROVENANCE).write_text(json.dumps({"code": code_digest()}))
    if action == "crash":
        print("Traceback …\nRuntimeError: it broke", file=sys.stderr)
        return 1
    if action == "progress":  # a checkpoint, and then a crash
        run.checkpoints.mkdir(exist_ok=True)
        (run.checkpoints / LAST).write_text(str(time.time()))
        return 1
    if action == "full":
        print("lcg: last.ckpt: No space left on device; make room", file=sys.stderr)
        return 1
    if action == "bad":
        print("lcg: this cannot be", file=sys.stderr)
        return 2
    if action == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "wait":
        time.sleep(10**6)
    if action == "not_finite":
        save(config, run.path, "not_finite", None)
        return 4
    values = action if isinstance(action, list) else [config.seed / 100]
    length = config.validation.monitored
    with run.metrics_file.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "train/loss", f"val/len_{length}/exact_match"])
        for count, value in enumerate(values, start=1):
            if value == "wait":
                time.sleep(10**6)
            writer.writerow([10 * count, "", value])
            file.flush()
    save(config, run.path, "finished", values[-1])
    return 0


def save(config, directory: Path, status: str, value: float | None) -> None:
    asked, length = config.evaluation, config.validation.monitored
    monitor = f"val/len_{length}/exact_match"
    fabricate(
        {} if value is None else dict.fromkeys(asked.lengths, 0),
        samples=asked.samples,
        evaluation_seed=asked.seed,
        step=10,
        seed=config.seed,
        lr=config.optimizer.lr,
        group=experiment_identity(config),
        validation={} if value is None else {length: (value, value)},
        settings={"train_lengths": [config.data.min_length, config.data.max_length]},
        run=directory.name,
        hash=identity(config),
        labels=config.labels,
        training=Training(status, config.trainer.steps, seconds=1.0, reason="not finite"),
        selection=None if value is None else Selection(10, monitor, value, value),
    ).save(directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
