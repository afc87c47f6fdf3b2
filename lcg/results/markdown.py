"""Markdown: per task a table with one line per method, the differences between methods, a table
with every run, then the notes.

Percentages of exact matches; `—` was not evaluated, words stand where there is no value.
"""

from collections.abc import Mapping, Sequence

from lcg.results.differences import Difference
from lcg.results.groups import Group, Run, setting_text, training_lengths
from lcg.results.paired import Paired
from lcg.results.published import Block, Row
from lcg.results.statistics import Mean, OverSeeds, over_seeds, wilson

NOTHING = "—"


DIFFERENCES = """## Difference from a baseline in points of exact match [95 % interval], p-value

Of the selected runs, sample by sample on the test set they share: Tango's score interval for paired
proportions, and the exact McNemar test. Both are about test samples, not about training seeds."""


def markdown(
    groups: list[Group],
    notes: list[str],
    differences: Sequence[Difference] = (),
    published: Mapping[str, Block] | None = None,
) -> str:
    """The whole document, ending in a newline: what to paste first, everything else after it.

    published: by task, what stands under ours.
    """
    tasks = {group.task: [] for group in groups}
    for group in groups:
        tasks[group.task].append(group)
    parts = ["## Exact match (%), best run of each method by validation [95 % Wilson interval]"]
    for task, own in tasks.items():
        parts += [_heading(task, own), _best_table(own, (published or {}).get(task))]
    if differences:
        parts.append(DIFFERENCES)
        for task in tasks:
            if own := [difference for difference in differences if difference.group.task == task]:
                parts += [f"### {_escape(task)}", _difference_table(own, tasks[task])]
    parts.append("## Every run, and seeds at the selected learning rate (**bold**: best run)")
    for task, own in tasks.items():
        lengths = _lengths(own)
        parts += [f"### {_escape(task)}", _run_table(own, lengths, _columns(own, lengths))]
    if notes:
        parts += ["## Notes", "\n".join(f"- {_escape(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def _heading(task: str, groups: list[Group]) -> str:
    return f"### {_escape(task)}, trained at {training_lengths(groups)}{_samples(groups)}"


def _lengths(groups: list[Group]) -> list[int]:
    return sorted({n for group in groups for run in group.runs for n in run.cells})


def _columns(groups: list[Group], lengths: list[int]) -> list[str]:
    """Headings: the training maximum is marked, what lies beyond is its multiple, if it is shared.

    512 (8×) is the length 512, 8 times the longest training length.
    """
    ends = {group.train_range[1] for group in groups}
    if len(ends) > 1:
        return [str(n) for n in lengths]
    (end,) = ends
    return [str(n) if n < end else f"{n} ({_multiple(n, end)})" for n in lengths]


def _multiple(length: int, end: int) -> str:
    return "train" if length == end else f"{round(length / end, 2):g}×"


def _samples(groups: list[Group]) -> str:
    cells = [cell for group in groups for run in group.runs for cell in run.cells.values()]
    counts = {cell.samples for cell in cells if cell.state == "value"}
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return f", {low if low == high else f'{low}–{high}'} samples per length"


def _best_table(groups: list[Group], block: Block | None) -> str:
    """One line per method, and under them those of the published block."""
    end = max(group.train_range[1] for group in groups)
    published = [_published_at(row, end) for row in block.rows] if block else []
    lengths = sorted({*_lengths(groups), *(n for values in published for n in values)})
    header = ["attention · position", "seed", "lr", *_columns(groups, lengths)]
    header += ["mean OOD", "effective length", "trained"]
    rows = []
    for group in groups:
        best = group.best
        edge = "" if group.not_bracketed is None else " (edge)"
        rows.append(
            [
                group.name,
                str(best.record.seed),
                setting_text(best.record.lr) + edge,
                *(_cell(best, length, interval=True) for length in lengths),
                _run_mean(best),
                _effective(best),
                f"{group.trained} of {len(group.seeds)}",
            ]
        )
    for row, values in zip(block.rows if block else (), published, strict=True):
        cells = [values.get(length, NOTHING if values else "not found") for length in lengths]
        rows.append([f"published: {row.name}", *[NOTHING] * 2, *cells, *[NOTHING] * 3])
    return markdown_table(header, rows)


def _published_at(row: Row, end: int) -> dict[int, str]:
    """A published row at multiples of the longest training length `end`, doubts marked."""
    return {
        round(multiple * end): percent(value) + (" (suspect)" if multiple in row.suspect else "")
        for multiple, value in row.values.items()
    }


def _difference_table(differences: list[Difference], groups: list[Group]) -> str:
    compared = [group for d in differences for group in (d.group, d.baseline)]
    lengths = sorted({length for group in compared for length in group.best.cells})
    rows = []
    for difference in differences:
        row = [difference.group.name, difference.baseline.name]
        for length in lengths:
            pair = difference.lengths.get(length)
            row.append(_no_pair(difference, length) if pair is None else _pair(pair))
        rows.append(row)
    return markdown_table(["method", "baseline", *_columns(groups, lengths)], rows)


def _no_pair(difference: Difference, length: int) -> str:
    """Why two runs are not compared at a length: the state of the one without a value, or —."""
    for group in (difference.group, difference.baseline):
        state = group.best.state(length)
        if state not in (None, "value"):
            whose = "" if group is difference.group else "baseline "
            return whose + state.replace("_", " ")
    return NOTHING


def _pair(pair: Paired) -> str:
    low, high = (f"{100 * bound:+.1f}" for bound in pair.interval)
    p = "p < 0.0001" if pair.p_value < 1e-4 else f"p = {pair.p_value:.2g}"
    return f"{100 * pair.difference:+.1f} [{low}, {high}], {p}"


def _run_table(groups: list[Group], lengths: list[int], columns: list[str]) -> str:
    header = ["attention · position", "seed", "lr", *columns, "mean OOD", "effective length"]
    rows = []
    for group in groups:
        for run in group.runs:
            row = [group.name, str(run.record.seed), setting_text(run.record.lr)]
            row += [_cell(run, length) for length in lengths]
            row += [_run_mean(run), _effective(run)]
            if run is group.best:
                row[:3] = [f"**{text}**" for text in row[:3]]
            rows.append(row)
        if len(group.seeds) > 1:
            rows += _summary_rows(group, lengths)
    return markdown_table(header, rows)


def _summary_rows(group: Group, lengths: list[int]) -> list[list[str]]:
    """Median and range over the seeds, and the mean over all beside the mean over the trained.

    Where no seed trained there is nothing to summarise beyond that.
    """
    trained = [run.trained for run in group.seeds]
    columns = [[run.exact_match(length) for run in group.seeds] for length in lengths]
    columns.append([run.mean_out_of_distribution.value for run in group.seeds])
    stats = [over_seeds(column, trained) for column in columns]
    n, k, lr = len(group.seeds), group.trained, setting_text(group.lr)
    if trained.count(False) == n:
        nothing = ["did not train"] * (len(stats) + 1)
        return [[group.name, f"0 of {n} trained", lr, *nothing]]
    rows = [[group.name, "median [range]", lr, *map(_median, stats), _effective_range(group)]]
    if 0 < k < n:
        rows.append([group.name, f"mean of {k} trained", lr])
        rows[-1] += [*(_mean(s.mean_trained) for s in stats), NOTHING]
    rows.append([group.name, f"mean of all {n}", lr, *(_mean(s.mean_all) for s in stats), NOTHING])
    return rows


def _cell(run: Run, length: int, interval: bool = False) -> str:
    state = run.state(length)
    if state is None:
        return NOTHING
    if state != "value":
        return state.replace("_", " ")
    cell = run.cells[length]
    text = percent(cell.exact_match)
    if interval:
        low, high = wilson(cell.correct, cell.samples)
        text += f" [{percent(low)}, {percent(high)}]"
    return text


def _run_mean(run: Run) -> str:
    return "did not train" if run.trained is False else _mean(run.mean_out_of_distribution)


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


def _effective(run: Run) -> str:
    """≥ L if the longest evaluated length passes, < L if the shortest fails."""
    evaluated = [n for n, cell in run.cells.items() if cell.exact_match is not None]
    reached = run.effective_length
    if not evaluated:
        return NOTHING
    if run.trained is False:
        return "did not train"
    if reached is None:
        return f"< {evaluated[0]}"
    return f"≥ {reached}" if reached == evaluated[-1] else str(reached)


def _effective_range(group: Group) -> str:
    """Lower median and range of the effective length over the seeds that trained."""
    runs = [run for run in group.seeds if run.trained is not False and run.cells]
    runs.sort(key=lambda run: run.effective_length or 0)
    if not runs:
        return NOTHING
    low, middle, high = (_effective(runs[i]) for i in (0, (len(runs) - 1) // 2, -1))
    count = f" ({len(runs)} of {len(group.seeds)})" if len(runs) < len(group.seeds) else ""
    return f"{middle} [{low}, {high}]{count}"


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * fraction:.1f}"


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, padded to read well unrendered: first column left, the others right."""
    body = [[_escape(text) for text in row] for row in [header, *rows]]
    widths = [max(4, *map(len, column)) for column in zip(*body, strict=True)]
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in [body[0], rules, *body[1:]]:
        padded = [text.rjust(width) for text, width in zip(row, widths, strict=True)]
        padded[0] = row[0].ljust(widths[0])
        lines.append("| " + " | ".join(padded) + " |")
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Keep a reason or a label from breaking out of its table cell or line."""
    return " ".join(text.split()).replace("|", "\\|")
