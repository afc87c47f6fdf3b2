"""The lines under a table: what a reader must know before believing its numbers."""

from collections.abc import Iterator, Mapping

from lcg.results.aggregate import Group, RunResult
from lcg.results.labels import change_label
from lcg.results.paired import not_compared
from lcg.results.published import Block
from lcg.results.statistics import EXACT_MATCH, PASSES, Measure
from lcg.results.tables import DID_NOT_TRAIN


def notes(
    groups: list[Group],
    measure: Measure = EXACT_MATCH,
    beside: Mapping[str, Block] | None = None,
    baseline: str | None = None,
) -> list[str]:
    """One sentence each, worst first, in a deterministic order.

    beside: the published block under each task; baseline: see `differences`.
    """
    tasks: dict[str, list[Group]] = {}
    runs: dict[str, list[RunResult]] = {}
    for group in groups:
        runs.setdefault(group.task, []).extend(group.runs)
        tasks.setdefault(group.task, []).extend([] if group.changes else [group])
    unchanged = [group for own in tasks.values() for group in own]
    trained = [run for group in unchanged for run in group.runs]
    exact = measure == EXACT_MATCH
    lines = [*(() if exact else _measure(measure)), *_training(trained)]
    if exact:
        lines += [line for task, own in runs.items() for line in _all_zero(task, own)]
    lines += [line for run in trained for line in _selection(run)]
    lines += [line for own in runs.values() for run in own for line in _other_checkpoint(run)]
    lines += [line for group in unchanged for line in _group(group)]
    lines += [line for task, own in runs.items() for line in _evaluation(task, own)]
    lines += [line for group in groups for line in _missing(group.best)]
    for task, block in (beside or {}).items():
        lines += _published(task, block, tasks[task])
    return [*lines, *(not_compared(groups, baseline) if exact else ())]


def _measure(measure: Measure) -> Iterator[str]:
    """Say what only exact match has, and what an effective length is of another measure."""
    yield (
        f"The metric is {measure.title}. Intervals, differences from a baseline and published rows "
        "are of exact match only (leave out `--metric`), and † is judged by it."
    )
    if measure.accuracy:
        yield (
            f"Effective length is the longest length up to which {measure.title} is at least "
            f"{100 * PASSES:.0f} % at every tested one."
        )


def _training(runs: list[RunResult]) -> Iterator[str]:
    """Say how training ended where it did not finish, and explain † where any run has it."""
    words = {"running": "still training", "not_finite": "training was not finite"}
    for run in runs:
        training, steps = run.record.training, run.record.settings.get("steps")
        if training.status != "finished":
            of = f" of {steps}" if steps else ""
            text = f"{words.get(training.status, training.status)} at step {training.step}{of}"
            yield _about(run, text, training.reason)
    if any(run.trained is False for run in runs):
        yield DID_NOT_TRAIN


def _all_zero(task: str, runs: list[RunResult]) -> Iterator[str]:
    """Name a measure that tells runs apart where exact match does not, beyond training."""
    beyond = [cell for run in runs for n, cell in run.cells.items() if n > run.record.train_max]
    partly_right = any(cell.token_accuracy is not None for cell in beyond if cell.state == "value")
    if partly_right and not any(cell.correct for cell in beyond):
        yield (
            f"{task}: exact match is 0 at every length beyond training; "
            "`--metric token_accuracy` shows how much of each answer is right."
        )


def _selection(run: RunResult) -> Iterator[str]:
    """Say that a checkpoint was not chosen."""
    selection = run.record.selection
    if selection is not None and selection.degenerate:
        text = f"selection metric never changed ({selection.monitor})"
        yield _about(run, text, selection.reason)


def _other_checkpoint(run: RunResult) -> Iterator[str]:
    """Say that another checkpoint than the selected one was evaluated."""
    if (selection := run.record.selection) is None:
        return
    if other := [str(n) for n, cell in run.cells.items() if cell.step != selection.step]:
        text = f"evaluated at {', '.join(other)} with another checkpoint than the selected one"
        yield _about(run, f"{text}, step {selection.step}", "evaluate again")


def _group(group: Group) -> Iterator[str]:
    """Say how far validation tells a group's runs apart, and what is unknown of its seeds."""
    title, choice = f"{group.task}, {group.name}", group.choice
    if len(group.runs) > 1 and choice.monitored is None:
        yield f"{title}: no validation results; the run with the lowest seed is shown as the best."
    elif not choice.resolved:
        yield (
            f"{title}: {len(choice.tied)} runs tie by validation up to length {choice.path[-1]}; "
            f"the one with the lowest seed is shown as the best. `lcg select` breaks the tie."
        )
    if len(group.runs) > 1 and choice.degenerate:
        yield f"{title}: selection metric never changed: {choice.degenerate}."
    if (beyond := group.beyond_grid) is not None:
        best = f"{title}: the best learning rate, {group.lr:g}, is at the edge of the grid"
        yield f"{best} (try {beyond:.3g})."
    if unknown := sum(run.judged and run.trained is None for run in group.seeds):
        of = f"{unknown} of {len(group.seeds)} seeds"
        yield f"{title}: in-distribution accuracy of {of} is unknown."


def _published(task: str, block: Block, groups: list[Group]) -> Iterator[str]:
    """Name the source of published rows, differences in setting, and cells that are doubted."""
    end = max(group.train_range[1] for group in groups)
    start, (low, high) = f"{task}, published", block.train_lengths
    rows = "; ".join(
        f"{row.name} as transcribed by {row.transcriber}" if row.values else f"{row.name} not found"
        for row in block.rows
    )
    yield (
        f"{start}: {block.source}, {block.samples} samples per length, trained at "
        f"{low}–{high} for {block.steps} steps of {block.batch_size} by the authors' "
        f"configuration: {rows}. "
        "The version is given where the transcriber states it."
    )
    for group in groups:
        if block.fits(group.best.record) and (more := block.deviations(group.best.record)):
            yield f"{start}: {group.name} has {'; '.join(more)}."
    if other := [group.name for group in groups if not block.fits(group.best.record)]:
        yield (
            f"{start}: the setting differs from that of {', '.join(other)} (task "
            "options, training lengths or position encoding); only multiples can be compared."
        )
    steps = {group.best.record.settings.get("steps") for group in groups} - {None, block.steps}
    if steps:
        ours = ", ".join(map(str, sorted(steps)))
        yield f"{start}: {block.steps} training steps, here {ours}."
    for row in block.rows:
        for multiple, reason in row.suspect.items():
            yield f"{start}, suspect: {row.name} at {round(multiple * end)}: {reason}."


def _evaluation(task: str, runs: list[RunResult]) -> Iterator[str]:
    """Lengths at which rows of one task were not measured on the same samples."""
    test_sets: dict[str, list[str]] = {}
    for length in sorted({length for run in runs for length in run.cells}):
        setups: dict[tuple[int, int], list[str]] = {}
        for run in runs:
            cell = run.cells.get(length)
            if cell is not None and cell.state == "value":
                setups.setdefault((cell.samples, cell.seed), []).append(_title(run))
        if len(setups) > 1:
            test_sets.setdefault(_describe(setups), []).append(str(length))
    for text, lengths in test_sets.items():
        yield f"{task} at {', '.join(lengths)}: rows differ in their test set: {text}."


def _describe(setups: dict[tuple[int, int], list[str]]) -> str:
    several_seeds = len({seed for _, seed in setups}) > 1
    parts = []
    for (samples, seed), runs in sorted(setups.items(), key=lambda item: (len(item[1]), item[0])):
        of = f" of evaluation seed {seed}" if several_seeds else ""
        where = "elsewhere" if len(parts) == len(setups) - 1 else f"in {', '.join(runs)}"
        parts.append(f"{samples} samples{of} {where}")
    return "; ".join(parts)


def _missing(run: RunResult) -> Iterator[str]:
    """Why the best run has no value somewhere."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for length, cell in run.cells.items():
        if cell.state != "value":
            reasons.setdefault((cell.state, cell.reason), []).append(str(length))
    for (state, reason), lengths in reasons.items():
        yield _about(run, f"{state.replace('_', ' ')} at {', '.join(lengths)}", reason)


def _about(run: RunResult, text: str, reason: str) -> str:
    because = f" ({reason.rstrip('.')})" if reason else ""
    return f"{_title(run)}: {text}{because}."


def _title(run: RunResult) -> str:
    changed = f" with {change_label(run.changes)}" if run.changes else ""
    return f"`{run.record.run}`{changed}"
