"""What a table says in words and numbers, the same in Markdown and on a page of HTML.

Percentages of exact matches with one decimal; `—` was not evaluated, words stand where there is no
value, and what stands there in words is in no mean.
"""

from collections.abc import Iterable

from lcg.results.differences import Difference
from lcg.results.groups import Group, Run, setting_text
from lcg.results.paired import Paired
from lcg.results.published import Row
from lcg.results.statistics import NOT_EVALUATED, Mean, OverSeeds, mean, wilson

NOTHING = "—"
DID_NOT_TRAIN = "did not train"
METRICS = {"bleu": "BLEU", "chrf": "chrF", "masked_accuracy": "masked-token accuracy"}


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal, without the sign."""
    return f"{100 * fraction:.1f}"


def lengths_of(groups: Iterable[Group]) -> list[int]:
    """All lengths at which any run was evaluated."""
    return sorted({n for group in groups for run in group.runs for n in run.cells})


def headings(groups: Iterable[Group], lengths: Iterable[int]) -> list[str]:
    """The training maximum is marked, what lies beyond is its multiple, if it is shared.

    512 (8×) is the length 512, 8 times the longest training length.
    """
    ends = {group.train_range[1] for group in groups}
    if len(ends) > 1:
        return [str(n) for n in lengths]
    (end,) = ends
    return [str(n) if n < end else f"{n} ({_multiple(n, end)})" for n in lengths]


def _multiple(length: int, end: int) -> str:
    return "train" if length == end else f"{round(length / end, 2):g}×"


def state_text(state: str) -> str:
    """A cell's state in words."""
    return state.replace("_", " ")


def value_text(run: Run, length: int) -> str:
    """The percentage at a length, or the state in words, or —."""
    state = run.state(length)
    if state is None:
        return NOTHING
    return percent(run.exact_match(length)) if state == "value" else state_text(state)


def interval_text(run: Run, length: int) -> str:
    """The Wilson interval of a value, empty where there is none."""
    if run.state(length) != "value":
        return ""
    cell = run.cells[length]
    low, high = wilson(cell.correct, cell.samples)
    return f"[{percent(low)}, {percent(high)}]"


def mean_beyond_training(run: Run, lengths: Iterable[int]) -> str:
    """Over those of the lengths beyond training, with how many of them it has where some are
    missing; of a run that did not train there is none."""
    if run.trained is False:
        return DID_NOT_TRAIN
    return _mean(mean(run.exact_match(n) for n in lengths if n > run.record.train_max))


def effective_length(run: Run) -> str:
    """≥ L if the longest evaluated length passes, < L if the shortest fails."""
    evaluated = [n for n, cell in run.cells.items() if cell.state not in NOT_EVALUATED]
    reached = run.effective_length
    if not evaluated:
        return NOTHING
    if run.trained is False:
        return DID_NOT_TRAIN
    if reached is None:
        return f"< {evaluated[0]}"
    return f"≥ {reached}" if reached == evaluated[-1] else str(reached)


def trained_text(group: Group) -> str:
    """k of n, or — where exact match does not say who trained."""
    return f"{group.trained} of {len(group.seeds)}" if group.judged else NOTHING


def median_beyond_training(group: Group) -> str:
    """The median of the mean beyond training, over the seeds at the selected learning rate."""
    if all(run.trained is False for run in group.seeds):
        return DID_NOT_TRAIN
    return _median(group.over_seeds(())[-1])


def summary(group: Group, lengths: list[int]) -> list[tuple[str, list[str]]]:
    """Title and texts, a column per length, then the mean beyond training and effective length.

    Over the seeds at the selected learning rate, of what is shown as a number: a run that did not
    train, ran out of memory or was not finite is counted, (2 of 3), and not taken for 0. Where no
    seed trained there is nothing to summarise.
    """
    n, k = len(group.seeds), group.trained
    if all(run.trained is False for run in group.seeds):
        return [(f"0 of {n} trained", [DID_NOT_TRAIN] * (len(lengths) + 2))]
    stats = group.over_seeds(lengths)
    median = [*map(_median, stats), _effective_range(group)]
    failed = group.judged and any(run.trained is False for run in group.seeds)
    means = [*(_mean(s.mean_trained if failed else s.mean_all) for s in stats), NOTHING]
    return [("median [range]", median), (f"mean of {k} trained" if failed else "mean", means)]


def _mean(mean: Mean) -> str:
    """The mean, with how many values it is over where some are missing."""
    if mean.value is None:
        return NOTHING
    return percent(mean.value) + (f" ({mean.n} of {mean.of})" if mean.n < mean.of else "")


def _median(stats: OverSeeds) -> str:
    if stats.median is None:
        return NOTHING
    text = f"{percent(stats.median)} [{percent(stats.low)}, {percent(stats.high)}]"
    present = stats.mean_all.n
    return text + (f" ({present} of {stats.runs})" if present < stats.runs else "")


def _effective_range(group: Group) -> str:
    """Lower median and range of the effective length over the seeds that trained."""
    runs = [run for run in group.seeds if run.trained is not False and run.cells]
    runs.sort(key=lambda run: run.effective_length or 0)
    if not runs:
        return NOTHING
    low, middle, high = (effective_length(runs[i]) for i in (0, (len(runs) - 1) // 2, -1))
    count = f" ({len(runs)} of {len(group.seeds)})" if len(runs) < len(group.seeds) else ""
    return f"{middle} [{low}, {high}]{count}"


def published_at(row: Row, end: int) -> dict[int, str]:
    """A published row at multiples of the longest training length `end`, doubts marked."""
    return {
        round(multiple * end): percent(value) + (" (suspect)" if multiple in row.suspect else "")
        for multiple, value in row.values.items()
    }


def no_pair_text(difference: Difference, length: int) -> str:
    """Why two runs are not compared at a length: the state of the one without a value, or —."""
    for group in (difference.group, difference.baseline):
        state = group.best.state(length)
        if state not in (None, "value"):
            return ("" if group is difference.group else "baseline ") + state_text(state)
    return NOTHING


def compared_lengths(differences: Iterable[Difference]) -> list[int]:
    """All lengths at which any of the compared runs was evaluated."""
    groups = [group for d in differences for group in (d.group, d.baseline)]
    return sorted({length for group in groups for length in group.best.cells})


def paired_text(pair: Paired) -> tuple[str, str, str]:
    """Difference in points, its interval, and the p-value."""
    low, high = (f"{100 * bound:+.1f}" for bound in pair.interval)
    p = "p < 0.0001" if pair.p_value < 1e-4 else f"p = {pair.p_value:.2g}"
    return f"{100 * pair.difference:+.1f}", f"[{low}, {high}]", p


def samples_text(groups: Iterable[Group]) -> str:
    """How many samples are behind each value: "200", "100–1000", "" where there is none."""
    cells = [cell for group in groups for run in group.runs for cell in run.cells.values()]
    counts = {cell.samples for cell in cells if cell.state == "value"}
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}–{high}"


def metrics_of(groups: Iterable[Group]) -> list[str]:
    """The names of all that was measured beside exact match, in the order of the records."""
    cells = [cell for group in groups for run in group.runs for cell in run.cells.values()]
    return list(dict.fromkeys(name for cell in cells for name in cell.metrics or ()))


def metric_title(name: str) -> str:
    """What a metric is called in a table."""
    return METRICS.get(name, name.replace("_", " "))


def metric_text(run: Run, length: int, name: str) -> str:
    """A metric at a length, the state in words where there is no value, or —."""
    cell = run.cells.get(length)
    if cell is None or (cell.state == "value" and name not in (cell.metrics or {})):
        return NOTHING
    return f"{cell.metrics[name]:.1f}" if cell.state == "value" else state_text(cell.state)


def rate_text(run: Run) -> str:
    """Its learning rate."""
    return setting_text(run.record.lr)
