"""Markdown: per task a table with one line per method, the differences between methods, a table
with every run, then the notes.

Percentages of exact matches; `—` was not evaluated, words stand where there is no value.
"""

from collections.abc import Iterable, Mapping, Sequence

from lcg.results.differences import Difference
from lcg.results.groups import Group, Run, training_lengths
from lcg.results.published import Block, Verdict
from lcg.results.wording import (
    NOTHING,
    compared_lengths,
    effective_length,
    headings,
    interval_text,
    lengths_of,
    mean_beyond_training,
    metric_text,
    metric_title,
    metrics_of,
    no_pair_text,
    paired_text,
    percent,
    published_at,
    rate_text,
    samples_text,
    summary,
    trained_text,
    value_text,
)

DIFFERENCES = """## Difference from a baseline in points of exact match [95 % interval], p-value

Of the selected runs, sample by sample on the test set they share: Tango's score interval for paired
proportions, and the exact McNemar test. Both are about test samples, not about training seeds."""


def markdown(
    groups: list[Group],
    notes: list[str],
    differences: Sequence[Difference] = (),
    published: Mapping[str, Block] | None = None,
    whole: bool = True,
) -> str:
    """The document, ending in a newline: what to paste first and, if `whole`, all else after it.

    published: by task, what stands under ours.
    """
    tasks = {group.task: [] for group in groups}
    for group in groups:
        tasks[group.task].append(group)
    parts = ["## Exact match (%), best run of each method by validation [95 % Wilson interval]"]
    for task, own in tasks.items():
        parts += [_heading(task, own), _best_table(own, (published or {}).get(task))]
    if not whole:
        return "\n\n".join(parts) + "\n"
    for task, own in tasks.items():
        for name in metrics_of(own):
            title = f"## {metric_title(name)} (0 to 100) of the same runs: {_escape(task)}"
            parts += [title, _metric_table(own, name)]
    if differences:
        parts.append(DIFFERENCES)
        for task in tasks:
            if own := [difference for difference in differences if difference.group.task == task]:
                parts += [f"### {_escape(task)}", _difference_table(own, tasks[task])]
    parts.append("## Every run, and seeds at the selected learning rate (**bold**: best run)")
    for task, own in tasks.items():
        parts += [f"### {_escape(task)}", _run_table(own, lengths_of(own))]
    if notes:
        parts += ["## Notes", "\n".join(f"- {_escape(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def _heading(task: str, groups: list[Group]) -> str:
    samples = samples_text(groups)
    behind = f", {samples} samples per length" if samples else ""
    return f"### {_escape(task)}, trained at {training_lengths(groups)}{behind}"


def _best_table(groups: list[Group], block: Block | None) -> str:
    """One line per method, and under them those of the published block."""
    end = max(group.train_range[1] for group in groups)
    published = [published_at(row, end) for row in block.rows] if block else []
    lengths = sorted({*lengths_of(groups), *(n for values in published for n in values)})
    header = ["attention · position", "seed", "lr", *headings(groups, lengths)]
    header += ["mean OOD", "effective length", "trained"]
    rows = []
    for group in groups:
        best = group.best
        edge = "" if group.not_bracketed is None else " (edge)"
        cells = [f"{value_text(best, n)} {interval_text(best, n)}".strip() for n in lengths]
        row = [group.name, str(best.record.seed), rate_text(best) + edge, *cells]
        rows.append(
            [
                *row,
                mean_beyond_training(best, lengths_of(groups)),
                effective_length(best),
                trained_text(group),
            ]
        )
    for row, values in zip(block.rows if block else (), published, strict=True):
        cells = [values.get(length, NOTHING if values else "not found") for length in lengths]
        rows.append([f"published: {row.name}", *[NOTHING] * 2, *cells, *[NOTHING] * 3])
    return markdown_table(header, rows)


def _metric_table(groups: list[Group], name: str) -> str:
    """One line per method: the selected run at every length, and how many samples it had."""
    lengths = lengths_of(groups)
    header = ["attention · position", "seed", "lr", *headings(groups, lengths)]
    rows = []
    for group in groups:
        best = group.best
        texts = [metric_text(best, length, name) for length in lengths]
        rows.append([group.name, str(best.record.seed), rate_text(best), *texts])
    return markdown_table(header, rows)


def _difference_table(differences: list[Difference], groups: list[Group]) -> str:
    lengths = compared_lengths(differences)
    rows = []
    for difference in differences:
        row = [difference.group.name, difference.baseline.name]
        for length in lengths:
            pair = difference.lengths.get(length)
            if pair is None:
                row.append(no_pair_text(difference, length))
            else:
                row.append("{} {}, {}".format(*paired_text(pair)))
        rows.append(row)
    return markdown_table(["method", "baseline", *headings(groups, lengths)], rows)


def _run_table(groups: list[Group], lengths: list[int]) -> str:
    header = ["attention · position", "seed", "lr", *headings(groups, lengths)]
    header += ["mean OOD", "effective length"]
    rows = []
    for group in groups:
        rows += [_run_row(group, run, lengths) for run in group.runs]
        if len(group.seeds) > 1:
            for title, texts in summary(group, lengths):
                rows.append([group.name, title, rate_text(group.best), *texts])
    return markdown_table(header, rows)


def _run_row(group: Group, run: Run, lengths: list[int]) -> list[str]:
    row = [group.name, str(run.record.seed), rate_text(run)]
    if run is group.best:
        row = [f"**{text}**" for text in row]
    row += [value_text(run, length) for length in lengths]
    return [*row, mean_beyond_training(run, lengths), effective_length(run)]


def verdict_table(found: Iterable[Verdict]) -> str:
    """What `verdicts` found, ending in a newline."""
    rows = []
    for v in found:
        ours = interval = NOTHING
        if v.correct is not None:
            ours = f"{percent(v.correct / v.samples)} ({v.correct}/{v.samples})"
            interval = f"[{percent(v.interval[0])}, {percent(v.interval[1])}]"
        rows.append(
            [v.title, str(v.length), percent(v.published), ours, interval, v.verdict, v.note]
        )
    header = ["published row", "length", "published", "ours", "95 % interval", "verdict", "note"]
    return markdown_table(header, rows) + "\n"


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
