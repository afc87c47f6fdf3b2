"""Tables of runs as data; `table` and `latex` print them, the report's template shows them.

Measures of cells are in percent with one decimal; `—` was not evaluated, a state in words stands
where there is no number, † marks the numbers of a run that did not train.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lcg.results.aggregate import TRAINED_AT, Group, RunResult, training_lengths
from lcg.results.labels import setting_text
from lcg.results.paired import Difference, rule
from lcg.results.published import Block, Row, Verdict
from lcg.results.statistics import (
    EXACT_MATCH,
    FIELDS,
    NOT_EVALUATED,
    Mean,
    Measure,
    OverSeeds,
    mean,
    task_measures,
    wilson,
)

NOTHING = "—"
UNTRAINED = "†"
METHOD = "attention · position"
PAIRED = """\
Of the selected runs, sample by sample on the test set they share: Tango's score interval for paired
proportions, and the exact McNemar test. Both are about test samples, not about training seeds.
"""

DID_NOT_TRAIN = (
    f"{UNTRAINED} did not train: exact match below {100 * TRAINED_AT:.0f} % within the training "
    "lengths, at the shortest one tested (else the longest validated). Its numbers are "
    "shown and count in medians; a mean of those that trained leaves them out."
)


@dataclass(frozen=True)
class Entry:
    """One place of a table: `text`, and a `note` set smaller behind it, such as an interval.

    kind: a method's label, a state in place of a number, nothing, or any other text. about: why
    there is no number. selected: it is of the run that validation selects, and set in bold.
    """

    text: str
    note: str = ""
    kind: Literal["text", "method", "state", "none"] = "text"
    about: str = ""
    selected: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of entries under a header, the first column being names. title: what it shows.

    summaries: the rows that are no runs of their own, by number. about: how to read it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    summaries: frozenset[int] = frozenset()
    about: str = ""

    @property
    def marked(self) -> bool:
        """True if a number of a run that did not train is among them."""
        return any(UNTRAINED in entry.text for row in self.rows for entry in row)


EMPTY = Entry(NOTHING, kind="none")


def sections(
    groups: Sequence[Group],
    measure: Measure = EXACT_MATCH,
    published: Mapping[str, Block] | None = None,
    compared: Sequence[Difference] = (),
    baseline: str | None = None,
) -> list[list[tuple[str, Table]]]:
    """All tables of the groups: for each kind a list of (heading, table), one for each task.

    The selected runs come first and every run last. Between them stand the task's own measures and
    the differences, beside exact match alone. published: by task, the rows under ours. baseline:
    the name that was asked for.
    """
    tasks: dict[str, list[Group]] = {}
    for group in groups:
        tasks.setdefault(group.task, []).append(group)
    exact = measure == EXACT_MATCH
    blocks = published if exact and published else {}
    kinds = [
        [
            (f"{task}, {trained_at(own)}", best_table(own, measure, blocks.get(task)))
            for task, own in tasks.items()
        ]
    ]
    if exact:
        measures = {
            task: task_measures(run.record for group in own for run in group.runs)
            for task, own in tasks.items()
        }
        kinds += [
            [(task, metric_table(own, m)) for task, own in tasks.items() if m in measures[task]]
            for m in dict.fromkeys(m for own in measures.values() for m in own)
        ]
        pairs = {task: [each for each in compared if each.group.task == task] for task in tasks}
        kinds.append(
            [
                (task, difference_table(pairs[task], own, baseline))
                for task, own in tasks.items()
                if pairs[task]
            ]
        )
    kinds.append([(task, run_table(own, measure)) for task, own in tasks.items()])
    return [tables for tables in kinds if tables]


def best_table(
    groups: Sequence[Group], measure: Measure = EXACT_MATCH, block: Block | None = None
) -> Table:
    """One row per method: its selected run, and how many of its seeds trained.

    Under them stand the rows of a published block, which are exact matches.
    """
    end = max(group.train_range[1] for group in groups)
    published = [(row, published_at(row, end)) for row in block.rows] if block else []
    own = lengths_of(groups)
    lengths = sorted({*own, *(n for _, values in published for n in values)})
    header = [METHOD, "seed", "lr", *headings(groups, lengths)]
    header += ["mean OOD", "effective length", "trained"]
    rows = [
        [
            *_named(group, group.best),
            *(_value(group.best, length, measure, interval=True) for length in lengths),
            *_over_lengths(group.best, own, measure),
            Entry(trained_text(group)),
        ]
        for group in groups
    ]
    for row, values in published:
        missing = EMPTY if values else Entry("not found", kind="none")
        cells = [Entry(values[n]) if n in values else missing for n in lengths]
        rows.append([Entry(f"published: {row.name}"), EMPTY, EMPTY, *cells, EMPTY, EMPTY, EMPTY])
    best = "best run of each method by validation"
    intervals = " [95 % Wilson interval]" if measure == EXACT_MATCH else ""
    title = f"{capital(measure.title)} ({measure.scale}), {best}{intervals}"
    return Table(title, header, rows, frozenset(range(len(groups), len(rows))))


def metric_table(groups: Sequence[Group], measure: Measure) -> Table:
    """One row per method: a measure of the selected run at every length."""
    lengths = lengths_of(groups)
    rows = [
        [
            *_named(group, group.best, edge=False),
            *(_value(group.best, length, measure) for length in lengths),
        ]
        for group in groups
    ]
    title = f"{measure.title} ({measure.scale}) of the same runs"
    return Table(title, [METHOD, "seed", "lr", *headings(groups, lengths)], rows)


def difference_table(
    found: Sequence[Difference], groups: Sequence[Group], baseline: str | None = None
) -> Table:
    """Selected runs against a baseline's on the same samples: difference, interval, p-value.

    baseline: the name that was asked for.
    """
    compared = [group for difference in found for group in (difference.group, difference.baseline)]
    lengths = sorted({length for group in compared for length in group.best.cells})
    rows = [
        [
            *(Entry(group.name, kind="method") for group in (each.group, each.baseline)),
            *(_difference(each, length) for length in lengths),
        ]
        for each in found
    ]
    title = "Difference from a baseline in points of exact match [95 % interval], p-value"
    header = ["method", "baseline", *headings(groups, lengths)]
    return Table(title, header, rows, about=PAIRED + rule(baseline))


def run_table(groups: Sequence[Group], measure: Measure = EXACT_MATCH) -> Table:
    """One row per run, the selected one of each method in bold, then statistics over its seeds."""
    lengths = lengths_of(groups)
    header = [METHOD, "seed", "lr", *headings(groups, lengths), "mean OOD", "effective length"]
    rows: list[list[Entry]] = []
    summaries = set()
    for group in groups:
        for run in group.runs:
            named = _named(group, run, edge=False)
            if run is group.best and group.choice.monitored is not None:
                named = [replace(entry, selected=True) for entry in named]
            values = [_value(run, length, measure) for length in lengths]
            rows.append([*named, *values, *_over_lengths(run, lengths, measure)])
        if len(group.seeds) > 1:
            name, _, rate = _named(group, group.best, edge=False)
            for title, entries in _summary(group, lengths, measure):
                summaries.add(len(rows))
                rows.append([name, Entry(title), rate, *entries])
    best = "bold: best run by validation"
    return Table(
        f"Every run, and seeds at the selected learning rate ({best})",
        header,
        rows,
        frozenset(summaries),
    )


def verdict_table(found: Iterable[Verdict]) -> Table:
    """A row for every published number: ours beside it, and whether the two agree."""
    rows = []
    for v in found:
        ours = interval = EMPTY
        if v.correct is not None:
            ours = Entry(f"{percent(v.correct / v.samples)} ({v.correct}/{v.samples})")
            interval = Entry(f"[{percent(v.interval[0])}, {percent(v.interval[1])}]")
        published = Entry(percent(v.published))
        words = [Entry(v.title), Entry(str(v.length)), published, ours, interval]
        rows.append([*words, Entry(v.verdict), Entry(v.note)])
    header = ["published row", "length", "published", "ours", "95 % interval", "verdict", "note"]
    return Table("Published numbers and ours", header, rows)


# ---- what stands in a place


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal, without the sign."""
    return f"{100 * fraction:.1f}"


def lengths_of(groups: Iterable[Group]) -> list[int]:
    """All lengths at which any run was evaluated."""
    return sorted({n for group in groups for run in group.runs for n in run.cells})


def headings(groups: Iterable[Group], lengths: Iterable[int]) -> list[str]:
    """Lengths, the training maximum marked, and what lies beyond as its multiple if it is shared.

    512 (8×) is the length 512, 8 times the longest training length.
    """
    ends = {group.train_range[1] for group in groups}
    if len(ends) > 1:
        return [str(n) for n in lengths]
    (end,) = ends
    multiples = {n: "train" if n == end else f"{round(n / end, 2):g}×" for n in lengths}
    return [str(n) if n < end else f"{n} ({multiples[n]})" for n in lengths]


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def state_text(state: str) -> str:
    """A cell's state in words."""
    return state.replace("_", " ")


def trained_text(group: Group) -> str:
    """k of n, and of how many of these that is unknown; — if it is of all."""
    if not group.judged or group.unknown == len(group.seeds):
        return NOTHING
    unknown = f", {group.unknown} unknown" if group.unknown else ""
    return f"{group.trained} of {len(group.seeds)}{unknown}"


def published_at(row: Row, end: int) -> dict[int, str]:
    """A published row at multiples of the longest training length `end`, doubts marked."""
    return {
        round(multiple * end): percent(value) + (" (suspect)" if multiple in row.suspect else "")
        for multiple, value in row.values.items()
    }


def span(numbers: Iterable[int]) -> str:
    """The lowest and the highest number: "1–3", or "2" if they are the same."""
    ordered = sorted(numbers)
    return "–".join(map(str, dict.fromkeys((ordered[0], ordered[-1]))))


def trained_at(groups: Sequence[Group]) -> str:
    """The setting in words: "trained at lengths 8–32, 200 samples per length"."""
    cells = [cell for group in groups for run in group.runs for cell in run.cells.values()]
    counts = {cell.samples for cell in cells if cell.state == "value"}
    behind = f", {span(counts)} samples per length" if counts else ""
    return f"trained at {training_lengths(groups)}{behind}"


def _named(group: Group, run: RunResult, edge: bool = True) -> list[Entry]:
    """The method, and the seed and learning rate of a run; `edge` marks the end of the grid."""
    at_edge = edge and group.beyond_grid is not None
    rate = Entry(
        setting_text(run.record.lr),
        "(edge)" if at_edge else "",
        about=f"the edge of the grid (try {group.beyond_grid:.3g})" if at_edge else "",
    )
    return [Entry(group.name, kind="method"), Entry(str(run.record.seed)), rate]


def _value(run: RunResult, length: int, measure: Measure, interval: bool = False) -> Entry:
    """A number, marked if the run did not train; else the state in words, or —."""
    cell = run.cells.get(length)
    if cell is None:
        return EMPTY
    if cell.state != "value":
        return Entry(state_text(cell.state), kind="state", about=cell.reason)
    value = measure.of(cell)
    if value is None:
        return EMPTY
    note = ""
    if interval and measure == EXACT_MATCH:
        low, high = wilson(cell.correct, cell.samples)
        note = f"[{percent(low)}, {percent(high)}]"
    return Entry(_marked(percent(value), run.trained is False), note)


def _marked(text: str, untrained: bool) -> str:
    return f"{text} {UNTRAINED}" if untrained and text != NOTHING else text


def _over_lengths(run: RunResult, lengths: Iterable[int], measure: Measure) -> list[Entry]:
    """The mean beyond training, over those of `lengths`, and the effective length."""
    beyond = mean(run.value(n, measure) for n in lengths if n > run.record.train_max)
    texts = [_mean(beyond), effective_length_text(run, measure)]
    return [Entry(_marked(text, run.trained is False)) for text in texts]


def effective_length_text(run: RunResult, measure: Measure) -> str:
    """≥ L if the longest evaluated length passes, < L if the shortest fails; of proportions."""
    evaluated = [n for n, cell in run.cells.items() if cell.state not in NOT_EVALUATED]
    if not evaluated or measure.name not in FIELDS:
        return NOTHING
    reached = run.effective_length(measure)
    if reached is None:
        return f"< {evaluated[0]}"
    return f"≥ {reached}" if reached == evaluated[-1] else str(reached)


def _summary(group: Group, lengths: list[int], measure: Measure) -> list[tuple[str, list[Entry]]]:
    """Title and entries, a column per length, then the mean beyond training and effective length.

    The median is over all seeds at the selected learning rate that have a number, marked where some
    of them did not train; the mean is over those that trained if there are any.
    """
    stats = group.over_seeds(lengths, measure)
    median = [*map(_median, stats), _effective_range(group, measure)]
    partly = group.judged and group.untrained and group.trained > 0
    means = [_mean(s.mean_trained if partly else s.mean_all) for s in stats]
    title = f"mean of {group.trained} trained" if partly else "mean"
    marked = group.untrained and not partly
    return [
        ("median [range]", [Entry(_marked(text, group.untrained)) for text in median]),
        (title, [*(Entry(_marked(text, marked)) for text in means), EMPTY]),
    ]


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


def _effective_range(group: Group, measure: Measure) -> str:
    """Lower median and range of the effective length over the seeds that were evaluated."""
    runs = [run for run in group.seeds if run.cells]
    runs.sort(key=lambda run: run.effective_length(measure) or 0)
    if not runs or measure.name not in FIELDS:
        return NOTHING
    places = (0, (len(runs) - 1) // 2, -1)
    low, middle, high = (effective_length_text(runs[i], measure) for i in places)
    count = f" ({len(runs)} of {len(group.seeds)})" if len(runs) < len(group.seeds) else ""
    return f"{middle} [{low}, {high}]{count}"


def _difference(difference: Difference, length: int) -> Entry:
    """Points, interval and p-value of a pair, or why there is none."""
    sides = (difference.group, difference.baseline)
    if (pair := difference.lengths.get(length)) is not None:
        low, high = (f"{100 * bound:+.1f}" for bound in pair.interval)
        p = "p < 0.0001" if pair.p_value < 1e-4 else f"p = {pair.p_value:.2g}"
        untrained = any(side.best.trained is False for side in sides)
        points = _marked(f"{100 * pair.difference:+.1f}", untrained)
        return Entry(points, f"[{low}, {high}], {p}")
    states = [side.best.state(length) for side in sides]
    for state, whose in zip(states, ("", "baseline "), strict=True):
        if state not in (None, "value"):
            return Entry(whose + state_text(state), kind="state")
    return EMPTY if None in states else Entry(difference.obstacle(length), kind="state")
