"""Tables of runs as data; `table` and `latex` print them, the report's template shows them.

Measures of cells are in percent with one decimal; `—` was not evaluated, a state in words stands
where there is no number, † marks the numbers of a run that did not train.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lcg.results.aggregate import TRAINED_AT, Group, RunResult, training_lengths
from lcg.results.breakdown import BREAKDOWNS, By, breakdowns
from lcg.results.labels import setting_text
from lcg.results.paired import Difference, rule
from lcg.results.published import Block, Verdict
from lcg.results.statistics import (
    EXACT_MATCH,
    NOT_EVALUATED,
    Mean,
    Measure,
    OverSeeds,
    wilson,
)

NOTHING = "—"
UNTRAINED = "†"
METHOD = "attention · position"
PAIRED = """\
Of the selected runs, sample by sample on the test set they share: Tango's score interval for paired
proportions, and the exact McNemar test. Both are about test samples, not about training seeds.
"""

OVER_LENGTHS = """\
NNCH score: mean token accuracy over all lengths beyond training, interpolated between those tested.
Effective length: the longest up to which every tested length reaches 90 %, or 85 % of the base, the
best value within the training lengths.
"""

DID_NOT_TRAIN = (
    f"{UNTRAINED} did not train: exact match below {100 * TRAINED_AT:.0f} % within the training "
    "lengths, at the shortest one tested (else the longest validated). Its numbers are "
    "shown and count in medians; a mean of the trained runs excludes them."
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


EMPTY = Entry(NOTHING, kind="none")


@dataclass(frozen=True)
class Table:
    """Rows under a header; the first column names the row.

    heading: its task, and `setting` if there is one. summaries: rows that are of several runs or
    published, by number. about: how to read it.
    """

    title: str
    task: str
    header: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    setting: str = ""
    summaries: frozenset[int] = frozenset()
    about: str = ""

    @property
    def heading(self) -> str:
        """The words above it, under the title that it shares with those of other tasks."""
        return f"{self.task}, {self.setting}" if self.setting else self.task

    @property
    def marked(self) -> bool:
        """True if a number of a run that did not train is among them."""
        return any(UNTRAINED in entry.text for row in self.rows for entry in row)


def best_table(
    groups: Sequence[Group], measure: Measure = EXACT_MATCH, block: Block | None = None
) -> Table:
    """One row per method: its selected run, and how many of its seeds trained.

    Under them stand the rows of a published block, which are exact matches, at its multiples of our
    longest training length.
    """
    end = max(group.train_range[1] for group in groups)
    own, published = lengths_of(groups), block.rows if block else ()
    lengths = sorted(
        {*own, *(round(multiple * end) for row in published for multiple in row.values)}
    )
    rows = [
        [
            *_run_row(group, group.best, lengths, measure, best=True),
            *_over_lengths(group.best, own, measure),
            Entry(trained_text(group)),
        ]
        for group in groups
    ]
    for row in published:
        missing = EMPTY if row.values else Entry("not found", kind="none")
        cells = dict.fromkeys(lengths, missing)
        for multiple, value in row.values.items():
            doubt = " (suspect)" if multiple in row.suspect else ""
            cells[round(multiple * end)] = Entry(percent(value) + doubt)
        name = Entry(f"published: {row.name}")
        rows.append([name, EMPTY, EMPTY, *cells.values(), EMPTY, EMPTY, EMPTY])
    interval = " [95 % Wilson interval]" if measure == EXACT_MATCH else ""
    title = f"{capital(measure.title)} ({measure.scale}), best run of each method by validation"
    return Table(
        title + interval,
        groups[0].task,
        [*_header(groups, lengths), "mean OOD", "effective length", "trained"],
        rows,
        setting=trained_at(groups),
        summaries=frozenset(range(len(groups), len(rows))),
    )


def metric_table(groups: Sequence[Group], measure: Measure) -> Table:
    """One row per method: a measure of the selected run at every length."""
    lengths = lengths_of(groups)
    rows = [_run_row(group, group.best, lengths, measure) for group in groups]
    title = f"{measure.title} ({measure.scale}) of the same runs"
    return Table(title, groups[0].task, _header(groups, lengths), rows)


def difference_table(
    found: Sequence[Difference], groups: Sequence[Group], baseline: str | None = None
) -> Table:
    """Selected runs of a task against a baseline's on the same samples: difference, interval,
    p-value.

    baseline: the name that was asked for.
    """
    sides = [side for each in found for side in (each.group.best, each.baseline.best)]
    lengths = sorted({length for side in sides for length in side.cells})
    rows = [
        [
            Entry(each.group.name, kind="method"),
            Entry(each.baseline.name, kind="method"),
            *(_difference(each, length) for length in lengths),
        ]
        for each in found
    ]
    title = "Difference from a baseline in points of exact match [95 % interval], p-value"
    header = ["method", "baseline", *_header(groups, lengths)[3:]]
    return Table(title, groups[0].task, header, rows, about=PAIRED + rule(baseline))


def run_table(groups: Sequence[Group], measure: Measure = EXACT_MATCH) -> Table:
    """One row per run, the selected one of each method in bold, then statistics over its seeds."""
    lengths = lengths_of(groups)
    rows: list[list[Entry]] = []
    summaries = set()
    for group in groups:
        for run in group.runs:
            row = _run_row(group, run, lengths, measure) + _over_lengths(run, lengths, measure)
            if run is group.best and group.choice.monitored is not None:
                row[:3] = [replace(entry, selected=True) for entry in row[:3]]
            rows.append(row)
        if len(group.seeds) > 1:
            summaries |= {len(rows), len(rows) + 1}
            rows += _summary(group, lengths, measure)
    title = "Every run, and seeds at the selected learning rate (bold: best run by validation)"
    header = [*_header(groups, lengths), "mean OOD", "effective length"]
    return Table(title, groups[0].task, header, rows, summaries=frozenset(summaries))


def summary_table(groups: Sequence[Group], measure: Measure = EXACT_MATCH) -> Table:
    """One row per run at the selected learning rate: its lengths in one number each."""
    rows = []
    for group in groups:
        for run in group.seeds:
            nnch = NOTHING if run.nnch_score is None else percent(run.nnch_score)
            beyond = _mean(run.mean_out_of_distribution(measure))
            effective = (_effective_length(run, measure, of_base) for of_base in (False, True))
            texts = (nnch, beyond, *effective)
            cells = [_number(text, run.trained is False) for text in texts]
            rows.append([*_run_row(group, run, (), measure), *cells])
    header = [*_header(groups, ()), "NNCH score", "mean OOD", "effective length", "85 % of base"]
    title = f"Over lengths, {measure.title} ({measure.scale}), runs at the selected learning rate"
    return Table(title, groups[0].task, header, rows, about=OVER_LENGTHS)


def breakdown_tables(groups: Sequence[Group], by: By) -> list[Table]:
    """Token accuracy of the selected run of each method by part of the target, or by distance to
    the evidence: a row for each length, a column for each bound.

    Raises ValueError, in one line, where no run holds any.
    """
    title = f"Token accuracy (%) by {BREAKDOWNS[by]}, best run of each method by validation"
    tables = []
    for task, found in breakdowns(groups, by).items():
        bounds = sorted({bound for _, _, counts in found for bound in counts})
        rows = []
        for group, length, counts in found:
            shares = (counts.get(bound) for bound in bounds)
            texts = [NOTHING if pair is None else percent(pair[0] / pair[1]) for pair in shares]
            cells = [_number(text, group.best.trained is False) for text in texts]
            rows.append([*_run_row(group, group.best, (), EXACT_MATCH), Entry(str(length)), *cells])
        names = [f"≤ {bound} %" if by == "part" else f"< {bound}" for bound in bounds]
        header = [*_header([group for group, _, _ in found], ()), "length", *names]
        tables.append(Table(title, task, header, rows))
    return tables


def verdict_table(found: Iterable[Verdict]) -> Table:
    """A row for every published number: ours beside it, and whether the two agree."""
    rows = []
    for v in found:
        ours = interval = NOTHING
        if v.correct is not None:
            ours = f"{percent(v.correct / v.samples)} ({v.correct}/{v.samples})"
            interval = f"[{percent(v.interval[0])}, {percent(v.interval[1])}]"
        texts = (v.title, str(v.length), percent(v.published), ours, interval, v.verdict, v.note)
        rows.append([*map(Entry, texts)])
    header = ["published row", "length", "published", "ours", "95 % interval", "verdict", "note"]
    return Table("Published numbers and ours", "", header, rows)


# ---- words and numbers


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal, without the sign."""
    return f"{100 * fraction:.1f}"


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def trained_text(group: Group) -> str:
    """k of n, and of how many of these that is unknown; — if it is of all."""
    if (counts := group.counts) is None:
        return NOTHING
    unknown = f", {counts['unknown']} unknown" if counts["unknown"] else ""
    return f"{counts['k']} of {counts['n']}{unknown}"


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


def lengths_of(groups: Iterable[Group]) -> list[int]:
    """All lengths at which any run was evaluated."""
    return sorted({n for group in groups for run in group.runs for n in run.cells})


# ---- parts of rows


def _header(groups: Iterable[Group], lengths: Iterable[int]) -> list[str]:
    """Method, seed and rate, then lengths: the training maximum marked, and what lies beyond as
    its multiple if it is shared. 512 (8×) is the length 512, 8 times the longest training length.
    """
    ends = {group.train_range[1] for group in groups}
    header = [METHOD, "seed", "lr"]
    for n in lengths:
        multiple = "train" if n in ends else f"{round(n / max(ends), 2):g}×"
        shown = len(ends) == 1 and n >= max(ends)
        header.append(f"{n} ({multiple})" if shown else str(n))
    return header


def _run_row(
    group: Group, run: RunResult, lengths: Iterable[int], measure: Measure, best: bool = False
) -> list[Entry]:
    """The method, the seed and the learning rate of a run, and its value at each length.

    best: with intervals, and the rate marked where it is at the edge of its grid.
    """
    rate = Entry(setting_text(run.record.lr))
    if best and group.beyond_grid is not None:
        about = f"the edge of the grid (try {group.beyond_grid:.3g})"
        rate = replace(rate, note="(edge)", about=about)
    values = [_value(run, length, measure, interval=best) for length in lengths]
    return [Entry(group.name, kind="method"), Entry(str(run.record.seed)), rate, *values]


def _value(run: RunResult, length: int, measure: Measure, interval: bool) -> Entry:
    """A number, marked if the run did not train; else the state in words, or —."""
    cell = run.cells.get(length)
    if cell is not None and cell.state != "value":
        return Entry(cell.state.replace("_", " "), kind="state", about=cell.reason)
    if (value := run.value(length, measure)) is None:
        return EMPTY
    note = ""
    if interval and measure == EXACT_MATCH:
        note = "[{}, {}]".format(*map(percent, wilson(cell.correct, cell.samples)))
    return _number(percent(value), run.trained is False, note)


def _number(text: str, untrained: bool, note: str = "") -> Entry:
    """A number, marked if it is of a run that did not train."""
    return EMPTY if text == NOTHING else Entry(f"{text} {UNTRAINED}" if untrained else text, note)


def _over_lengths(run: RunResult, lengths: Sequence[int], measure: Measure) -> list[Entry]:
    """The mean beyond training, over those of `lengths`, and the effective length."""
    beyond = _mean(run.mean_out_of_distribution(measure, lengths))
    texts = (beyond, _effective_length(run, measure))
    return [_number(text, run.trained is False) for text in texts]


def _effective_length(run: RunResult, measure: Measure, of_base: bool = False) -> str:
    """≥ L if the longest evaluated length passes, < L if the shortest fails; of proportions."""
    evaluated = [n for n, cell in run.cells.items() if cell.state not in NOT_EVALUATED]
    if not evaluated or not measure.accuracy:
        return NOTHING
    reached = run.effective_length(measure, of_base)
    if reached is None:
        return f"< {evaluated[0]}"
    return f"≥ {reached}" if reached == evaluated[-1] else str(reached)


def _summary(group: Group, lengths: list[int], measure: Measure) -> list[list[Entry]]:
    """Two rows: per length, then of the mean beyond training and of the effective length.

    The median is over all seeds at the selected learning rate that have a number, marked where some
    of them did not train; the mean is over those that trained if there are any.
    """
    stats = group.over_seeds(lengths, measure)
    name, _, rate = _run_row(group, group.best, (), measure)
    medians = [*map(_median, stats), _effective_range(group, measure)]
    judged = all(run.judged for run in group.seeds)
    partly = judged and group.untrained and group.trained > 0
    means = [_mean(s.mean_trained if partly else s.mean_all) for s in stats]
    title = f"mean of {group.trained} trained" if partly else "mean"
    return [
        [name, Entry(title), rate, *(_number(text, marked) for text in texts)]
        for title, texts, marked in (
            ("median [range]", medians, group.untrained),
            (title, [*means, NOTHING], group.untrained and not partly),
        )
    ]


def _mean(mean: Mean) -> str:
    """The mean, with how many values it is over where some are missing."""
    if mean.value is None:
        return NOTHING
    return percent(mean.value) + (f" ({mean.n} of {mean.of})" if mean.n < mean.of else "")


def _median(stats: OverSeeds) -> str:
    """The median and the range, with how many values they are over where some are missing."""
    if stats.median is None:
        return NOTHING
    present, low, high = stats.mean_all.n, percent(stats.low), percent(stats.high)
    count = f" ({present} of {stats.runs})" if present < stats.runs else ""
    return f"{percent(stats.median)} [{low}, {high}]{count}"


def _effective_range(group: Group, measure: Measure) -> str:
    """Lower median and range of the effective length over the seeds that were evaluated."""
    runs = [run for run in group.seeds if run.cells]
    runs.sort(key=lambda run: run.effective_length(measure) or 0)
    if not runs or not measure.accuracy:
        return NOTHING
    places = (0, (len(runs) - 1) // 2, -1)
    low, middle, high = (_effective_length(runs[i], measure) for i in places)
    count = f" ({len(runs)} of {len(group.seeds)})" if len(runs) < len(group.seeds) else ""
    return f"{middle} [{low}, {high}]{count}"


def _difference(difference: Difference, length: int) -> Entry:
    """Points, interval and p-value of a pair, or why there is none."""
    sides = (difference.group.best, difference.baseline.best)
    if (pair := difference.lengths.get(length)) is not None:
        low, high = (f"{100 * bound:+.1f}" for bound in pair.interval)
        p = "p < 0.0001" if pair.p_value < 1e-4 else f"p = {pair.p_value:.2g}"
        untrained = any(side.trained is False for side in sides)
        return _number(f"{100 * pair.difference:+.1f}", untrained, f"[{low}, {high}], {p}")
    states = [side.state(length) for side in sides]
    for state, whose in zip(states, ("", "baseline "), strict=True):
        if state not in (None, "value"):
            return Entry(whose + state.replace("_", " "), kind="state")
    return EMPTY if None in states else Entry(difference.obstacle(length), kind="state")
