"""The lines under a table: what a reader must know before believing its numbers."""

from collections.abc import Iterable, Mapping

from lcg.results.aggregate import Group, RunResult
from lcg.results.paired import not_compared
from lcg.results.published import Block
from lcg.results.statistics import EXACT_MATCH, FIELDS, PASSES, Measure
from lcg.results.tables import DID_NOT_TRAIN, state_text


def notes(
    groups: list[Group],
    measure: Measure = EXACT_MATCH,
    beside: Mapping[str, Block] | None = None,
    baseline: str | None = None,
) -> list[str]:
    """One sentence each, worst first, in a deterministic order.

    beside: the published block under each task; baseline: see `differences`.
    """
    runs = [run for group in groups for run in group.runs]
    return [
        *_measure(measure),
        *_training(runs),
        *_all_zero(groups, measure),
        *_selection(runs),
        *(line for group in groups for line in _group(group)),
        *_evaluation(runs),
        *_missing([group.best for group in groups]),
        *(
            line
            for task, block in (beside or {}).items()
            for line in _published(task, block, groups)
        ),
        *(not_compared(groups, baseline) if measure == EXACT_MATCH else ()),
    ]


def _measure(measure: Measure) -> Iterable[str]:
    """Say what only exact match has, and what an effective length is of another measure."""
    if measure == EXACT_MATCH:
        return
    yield (
        f"Shown is {measure.title}; intervals, differences from a baseline and published rows are "
        "of exact match alone (leave `--metric` out), and † is judged by it."
    )
    if measure.name in FIELDS:
        yield (
            f"Effective length is the longest length up to which {measure.title} is at least "
            f"{100 * PASSES:.0f} % at every tested one."
        )


def _training(runs: list[RunResult]) -> Iterable[str]:
    """Say how training ended where it did not finish, and explain † where any run has it."""
    status = {"running": "still training", "not_finite": "training was not finite"}
    for run in runs:
        training, steps = run.record.training, run.record.settings.get("steps")
        if training.status != "finished":
            where = f"at step {training.step}" + (f" of {steps}" if steps else "")
            text = f"{status.get(training.status, training.status)} {where}"
            yield _about(run, text, training.reason)
    if any(run.trained is False for run in runs):
        yield DID_NOT_TRAIN


def _all_zero(groups: list[Group], measure: Measure) -> Iterable[str]:
    """Tasks in which exact match tells nothing apart beyond training, and what does."""
    if measure != EXACT_MATCH:
        return
    for task in dict.fromkeys(group.task for group in groups):
        runs = [run for group in groups if group.task == task for run in group.runs]
        beyond = [
            cell
            for run in runs
            for length, cell in run.cells.items()
            if length > run.record.train_max and cell.state == "value"
        ]
        partly_right = any(cell.token_accuracy is not None for cell in beyond)
        if partly_right and not any(cell.correct for cell in beyond):
            yield (
                f"{task}: exact match is 0 at every length beyond training; "
                "`--metric token_accuracy` shows how much of each answer is right."
            )


def _selection(runs: list[RunResult]) -> Iterable[str]:
    for run in runs:
        selection = run.record.selection
        if selection is None:
            continue
        if selection.degenerate:
            text = f"selection metric never changed ({selection.monitor})"
            yield _about(run, text, selection.reason)
        other = [str(n) for n, cell in run.cells.items() if cell.step != selection.step]
        if other:
            lengths = ", ".join(other)
            text = f"evaluated at {lengths} with another checkpoint than the selected one"
            yield _about(run, f"{text}, step {selection.step}", "evaluate again")


def _group(group: Group) -> Iterable[str]:
    title = f"{group.task}, {group.name}"
    choice = group.choice
    if len(group.runs) > 1 and choice.monitored is None:
        yield f"{title}: no validation results; the lowest seed stands in for the best run."
    elif not choice.resolved:
        yield (
            f"{title}: {len(choice.tied)} runs tie by validation up to length {choice.path[-1]}, "
            f"and the lowest seed stands in for the best; `lcg select` breaks it."
        )
    if len(group.runs) > 1 and choice.degenerate:
        yield f"{title}: selection metric never changed: {choice.degenerate}."
    if (beyond := group.beyond_grid) is not None:
        yield (
            f"{title}: the best learning rate, {group.lr:g}, is at the edge of the grid "
            f"(try {beyond:.3g})."
        )
    unknown = sum(run.judged and run.trained is None for run in group.seeds)
    if unknown:
        of = f"{unknown} of {len(group.seeds)} seeds"
        yield f"{title}: in-distribution accuracy of {of} is unknown."


def _published(task: str, block: Block, groups: list[Group]) -> Iterable[str]:
    """Name the source of published rows, differences in setting, and cells that are doubted."""
    own = [group for group in groups if group.task == task]
    end = max(group.train_range[1] for group in own)
    rows = "; ".join(
        f"{row.name} as transcribed by {row.transcriber}" if row.values else f"{row.name} not found"
        for row in block.rows
    )
    low, high = block.train_lengths
    yield (
        f"{task}, published: {block.source}, {block.samples} samples per length, trained at "
        f"{low}–{high} for {block.steps} steps of {block.batch_size} by the authors' "
        f"configuration: {rows}. "
        "The version is given where the transcriber says it."
    )
    for group in own:
        if block.fits(group.best.record) and (more := block.deviations(group.best.record)):
            yield f"{task}, published: {group.name} has {'; '.join(more)}."
    other = [group.name for group in own if not block.fits(group.best.record)]
    if other:
        yield (
            f"{task}, published: the setting differs from that of {', '.join(other)} (task "
            "options, training lengths or position encoding); only multiples can be compared."
        )
    steps = {group.best.record.settings.get("steps") for group in own} - {None, block.steps}
    if steps:
        ours = ", ".join(map(str, sorted(steps)))
        yield f"{task}, published: {block.steps} training steps, here {ours}."
    for row in block.rows:
        for multiple, reason in row.suspect.items():
            length = round(multiple * end)
            yield f"{task}, published, suspect: {row.name} at {length}: {reason}."


def _evaluation(runs: list[RunResult]) -> Iterable[str]:
    """Lengths at which rows of one task were not measured on the same samples."""
    lengths: dict[tuple[str, str], list[int]] = {}
    for task in dict.fromkeys(run.record.labels["task"] for run in runs):
        own = [run for run in runs if run.record.labels["task"] == task]
        for length in sorted({length for run in own for length in run.cells}):
            setups: dict[tuple[int, int], list[str]] = {}
            for run in own:
                cell = run.cells.get(length)
                if cell is not None and cell.state == "value":
                    setups.setdefault((cell.samples, cell.seed), []).append(f"`{run.record.run}`")
            if len(setups) > 1:
                lengths.setdefault((task, _describe(setups)), []).append(length)
    for (task, description), at in lengths.items():
        yield f"{task} at {', '.join(map(str, at))}: rows differ in their test set: {description}."


def _describe(setups: dict[tuple[int, int], list[str]]) -> str:
    ordered = sorted(setups.items(), key=lambda item: (len(item[1]), item[0]))
    several_seeds = len({seed for _, seed in setups}) > 1
    parts = []
    for index, ((samples, seed), runs) in enumerate(ordered):
        what = f"{samples} samples" + (f" of evaluation seed {seed}" if several_seeds else "")
        last = index == len(ordered) - 1
        parts.append(f"{what} elsewhere" if last else f"{what} in {', '.join(runs)}")
    return "; ".join(parts)


def _missing(runs: list[RunResult]) -> Iterable[str]:
    """Why the best run has no value somewhere."""
    for run in runs:
        reasons: dict[tuple[str, str], list[str]] = {}
        for length, cell in run.cells.items():
            if cell.state != "value":
                reasons.setdefault((cell.state, cell.reason), []).append(str(length))
        for (state, reason), lengths in reasons.items():
            yield _about(run, f"{state_text(state)} at {', '.join(lengths)}", reason)


def _about(run: RunResult, text: str, reason: str) -> str:
    sentence = f"`{run.record.run}`: {text}" + (f" ({reason.rstrip('.')})" if reason else "")
    return f"{sentence}."
