"""What an evaluation shows while it runs: a bar for the length under way, a line for each done."""

from __future__ import annotations

from pathlib import Path

from lcg.results import Cell, wilson
from lcg.results.measures import Measure
from lcg.speaking import say
from lcg.tasks.streams import samples_of


def evaluate_and_say(run: Path, config, device: str = "auto") -> None:
    """Evaluate one run at its test lengths, with a line per length on stderr."""
    from lcg.evaluation.run import evaluate

    say(f"{run}: test ladder, {_samples(config)} samples per length")
    bar = LengthBar()
    try:
        for cell in evaluate(run, config, device, bar):
            bar.close()
            say(f"  {cell.length:>7,}  {cell_text(cell)}")
    finally:
        bar.close()


def _samples(config) -> str:
    """How many are asked for; "up to" where the test split has fewer at a length."""
    asked, task = config.evaluation, config.task
    fewest = min(samples_of(task, "test", length, asked.samples) for length in asked.lengths)
    return f"{asked.samples}" if fewest == asked.samples else f"up to {asked.samples}"


def cell_text(cell: Cell) -> str:
    """One result with its Wilson interval and time, or why there is none."""
    if cell.state != "value":
        return f"{cell.state.replace('_', ' ')}: {cell.reason}"
    low, high = wilson(cell.correct, cell.samples)
    metrics = "".join(f"   {Measure(k).title} {v:.1f}" for k, v in (cell.metrics or {}).items())
    return (
        f"exact match {100 * cell.exact_match:5.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        f"   tokens {100 * cell.token_accuracy:5.1f} %{metrics}   {cell.seconds:.1f} s"
    )


class LengthBar:
    """A progress bar per length, gone when the length is done; nothing where there is no terminal.

    Called with the length, the samples done, and the samples in all.
    """

    def __init__(self) -> None:
        self._bar = None

    def __call__(self, length: int, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            title = f"  {length:>7,}"
            self._bar = tqdm(total=total, desc=title, unit="sample", leave=False, disable=None)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
