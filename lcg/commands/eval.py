"""Evaluate runs at more lengths."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lcg.commands.args import Parser, add_trust, trusted
from lcg.evaluation.test_sets import ladder_of
from lcg.log import log
from lcg.results import wilson
from lcg.results.statistics import Measure
from lcg.runs.record import Cell


def run(words: list[str]) -> int:
    from lcg.config import with_overrides
    from lcg.config.help import describe_fields
    from lcg.config.schema import Evaluation
    from lcg.runs.record import RunRecord
    from lcg.runs.run import Run
    from lcg.training.devices import evaluation_problem

    parser = Parser(
        "eval",
        "RUN … [key=value …] [--device NAME]",
        __doc__,
        epilog="What is not given is as the run has it. Defaults:\n"
        + describe_fields(Evaluation()),
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add_trust(parser)
    fields = [field.name for field in dataclasses.fields(Evaluation)]
    options, words = parser.parse_words(words, lambda name: [name] if name in fields else [])
    runs = [Path(word) for word in words if "=" not in word or Path(word).exists()]
    overrides = [word for word in words if Path(word) not in runs]
    if not runs:
        raise ValueError("name a run directory to evaluate")
    if any(word.lstrip("-").startswith("after_training=") for word in overrides):
        raise ValueError("after_training is about `lcg train`; it changes nothing here")
    configs, problems = {}, []
    for run in runs:  # what was typed is checked before any run is evaluated
        Run(run).check()
    for run in runs:
        try:
            config = Run(run, trusted(options)).config
        except ValueError as error:  # of this run; the others are evaluated
            problems.append(str(error))
            continue
        config.evaluation = with_overrides(config.evaluation, overrides, "evaluation")
        for length in config.evaluation.lengths:
            config.task.check_evaluation("test", length)
        if problem := evaluation_problem(config):
            raise ValueError(problem)
        try:
            Run(run).check_selected()
            RunRecord.load(run)
        except ValueError as error:
            problems.append(str(error))
            continue
        configs[run] = config
    if not configs:
        raise ValueError(" | ".join(problems))
    from lcg.evaluation.evaluate import choose_device
    from lcg.runs.wandb_logger import send_record

    choose_device(options.device)

    for run, config in configs.items():
        try:
            before = RunRecord.load(run)
            evaluate_and_say(run, config, options.device)
        except ValueError as error:
            if len(runs) == 1:
                raise
            problems.append(str(error))
            continue
        if RunRecord.load(run) != before:
            send_record(config, run)
    for problem in problems:
        log.warning(f"lcg: {problem}")
    return 2 if problems else 0


def evaluate_and_say(run: Path, config, device: str = "auto") -> None:
    """Evaluate one run at its test lengths, with a line per length on stderr."""
    from lcg.evaluation.evaluate import evaluate

    log.info(f"{run}: test ladder, {_samples(config)} samples per length")
    bar = LengthBar()
    try:
        for cell in evaluate(run, config, device, bar):
            bar.close()
            log.info(f"  {cell.length:>7,}  {cell_text(cell)}")
    finally:
        bar.close()


def _samples(config) -> str:
    """The count asked for; "up to" where the test split has fewer at a length."""
    asked = config.evaluation.samples
    return f"{asked}" if all(s.samples == asked for s in ladder_of(config)) else f"up to {asked}"


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
