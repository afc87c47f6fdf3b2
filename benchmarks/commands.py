"""Time commands from start to end: `python -m benchmarks.commands`.

Help, lists and refusals must be answered within a second, and looking into a run at 512 tokens
within a minute; each in a process of its own, beside a Python that does nothing. CPU seconds, and
wall time for information.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.report import positive, publish

TINY = [
    *("name=tiny", "model.d_model=16", "model.heads=2", "model.d_ff=16", "data.batch_size=8"),
    *("trainer.steps=6", "trainer.checkpoint_every=3", "optimizer.warmup_steps=2"),
    *("trainer.accelerator=cpu", "trainer.threads=1", "validation.every=3"),
    *("validation.samples=8", "evaluation.after_training=false", "wandb.mode=disabled"),
]
NOTHING = "python -c pass"
COMMANDS = {  # words: the exit code that is right, and the bound in CPU seconds
    "--help": (0, 1.0),
    "train --help": (0, 1.0),
    "list": (0, 1.0),
    "train attention=asentmx": (2, 1.0),
    "inspect runs/tiny --length 512": (0, 60.0),
}


def run(words: list[str], code: int, folder: str) -> tuple[float, float]:
    """CPU and wall seconds of a command, which must end with this exit code."""
    before, started = _processor_seconds(), time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode != code:
        raise SystemExit(
            f"not timed: {' '.join(words)} ended with {done.returncode}: {done.stderr}"
        )
    return _processor_seconds() - before, seconds


def _processor_seconds() -> float:
    """CPU seconds of all processes started here that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=3)
    options = parser.parse_args(arguments)
    times: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run(["-m", "lcg", "train", *TINY], 0, folder)
        for _ in range(options.rounds):
            times.setdefault(NOTHING, []).append(run(["-c", "pass"], 0, folder))
            for words, (code, _bound) in COMMANDS.items():
                found = run(["-m", "lcg", *words.split()], code, folder)
                times.setdefault(words, []).append(found)
    rows, late = [], False
    for words, found in times.items():
        cpu, wall = (statistics.median(column) for column in zip(*found, strict=True))
        bound = COMMANDS[words][1] if words in COMMANDS else None
        late |= bound is not None and cpu > bound
        name = f"`{words}`" if bound is None else f"`lcg {words}`"
        rows.append([name, f"{cpu:.2f}", f"{wall:.2f}", "" if bound is None else f"≤ {bound:g}"])
    title = "Seconds of commands, from the start of Python to its end"
    header = ["command", "CPU s", "wall s", "bound of CPU s"]
    publish("commands", title, header, rows, {"seconds": times})
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
