"""Break ties between runs by validating their checkpoints at longer and longer lengths.

The samples are those of the validation split, keyed by (evaluation seed, split, length): neither
training nor test sees them. What is found is merged into each run's results.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lcg.evaluation.evaluate import choose_device, load_model
from lcg.evaluation.ladder import Progress, evaluate_lengths
from lcg.evaluation.test_sets import TestSet
from lcg.results import Choice, choose
from lcg.results.selection import longer_lengths
from lcg.runs.files import Busy
from lcg.runs.record import RunRecord, Validation
from lcg.runs.run import Run
from lcg.runs.sources import Trust

REACH = 8  # times the monitored length: how far a tie is followed by default


def break_tie(
    runs: Mapping[Path, RunRecord],
    longest: int | None = None,
    device: str = "auto",
    progress: Progress = lambda length, done, total: None,
    metric: str = "exact_match",
    trust: Trust = "own",
) -> tuple[Choice, str]:
    """Validate the runs of one group that tie, until one is ahead or `longest` is passed.

    Returns the choice after that, and why a tie is left, or "". metric: see `choose`.
    The lengths are those above the monitored one that only some of the tied have, then 2, 4, …
    times the longest of all; `longest` is by default 8 times the monitored length. Each run is
    validated on as many samples as while it trained. What does not fit in memory, or cannot be read
    or written, ends it with a tie left. Every result is in results.json before the next is begun,
    and is not computed again.
    """
    held = dict(runs)
    while True:
        choice = choose(list(held.values()), metric)
        if choice.resolved or choice.monitored is None:
            return choice, ""
        limit = REACH * choice.monitored if longest is None else longest
        length = next_length(choice)
        if length > limit:
            return choice, f"longer than {limit} was not looked at, --longest={length} does"
        for directory, record in runs.items():
            tied = any(held[directory] is other for other in choice.tied)
            if tied and length not in held[directory].validation:
                try:
                    held[directory] = validate(directory, length, device, progress, trust)
                except (MemoryError, OSError, ValueError, Busy) as error:
                    return choice, f"{record.run} at length {length}: {error}"


def next_length(choice: Choice) -> int:
    """The shortest length above the last one compared that may tell the tied runs apart."""
    reached = choice.path[-1]
    known = longer_lengths(choice.tied, reached)
    return known[0] if known else 2 * reached


def validate(
    directory: Path,
    length: int,
    device: str = "auto",
    progress: Progress = lambda length, done, total: None,
    trust: Trust = "own",
) -> RunRecord:
    """Validate a run's selected checkpoint at one more length; returns the record as it now is.

    Raises MemoryError when it does not fit, ValueError when the run cannot be used, Busy when it is
    being trained.
    """
    run = Run(directory, trust)
    run.check_selected()
    config = run.config
    config.task.check_evaluation("validation", length)
    model, step = load_model(directory, config, choose_device(device))
    before = RunRecord.load(directory)
    selection = before.selection
    if selection is None or selection.step != step:
        recorded = "none" if selection is None else f"step {selection.step}"
        raise ValueError(f"best.ckpt is of step {step}, its record selects {recorded}; train it on")
    (cell,) = evaluate_lengths(
        model,
        [TestSet(config, "validation", length, config.validation.samples)],
        batch_size=config.evaluation.batch_size,
        step=step,
        on_progress=progress,
    )
    if cell.state == "out_of_memory":
        raise MemoryError(f"out of memory ({cell.reason})")
    found = {length: Validation(cell.exact_match, cell.token_accuracy)}
    with run.lock(), RunRecord.updating(directory):
        record = RunRecord.load(directory, before.hash)
        if record.selection != selection:
            raise ValueError("its training went on meanwhile and selected another checkpoint")
        record = record.with_validation(found)
        record.save(directory)
    return record
