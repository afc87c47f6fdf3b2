"""Runs as text: Markdown and LaTeX to read and paste, CSV and JSON to compute with."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any, NamedTuple

from lcg.results.aggregate import Group, RunResult, group_runs
from lcg.results.breakdown import BREAKDOWNS
from lcg.results.labels import setting_text
from lcg.results.latex import latex
from lcg.results.notes import notes
from lcg.results.paired import Difference, differences
from lcg.results.published import Block, published_beside
from lcg.results.statistics import EXACT_MATCH, Measure, measure_named, task_measures, wilson
from lcg.results.tables import (
    Table,
    best_table,
    breakdown_tables,
    difference_table,
    metric_table,
    run_table,
    summary_table,
)
from lcg.runs.record import Cell, RunRecord

TAG = re.compile(r"<(?=[A-Za-z/!?])")  # where HTML would begin


class Comparison(NamedTuple):
    """Runs as every format shows them: grouped, against their baselines and published rows.

    tables: of the selected runs first and of every run last; between them stand the task's own
    measures and the differences, beside exact match alone. Those of all tasks follow each other
    under one title. published: by task, the block under ours.
    """

    groups: list[Group]
    measure: Measure
    differences: list[Difference]
    published: dict[str, Block]
    tables: list[Table]
    notes: list[str]


def compare_runs(
    records: Iterable[RunRecord],
    metric: str = EXACT_MATCH.name,
    baseline: str | None = None,
    published: bool = False,
) -> Comparison:
    """Arrange runs; the arguments are those of `table`, and so are the errors."""
    groups = group_runs(records)
    measure = measure_named(metric, [run.record for group in groups for run in group.runs])
    compared = differences(groups, baseline)
    beside = published_beside(groups, forced=published)
    tasks = {task: list(own) for task, own in groupby(groups, lambda group: group.task)}
    exact = measure == EXACT_MATCH
    blocks = beside if exact else {}
    tables = [best_table(own, measure, blocks.get(task)) for task, own in tasks.items()]
    if exact:
        records = {task: [r.record for g in own for r in g.runs] for task, own in tasks.items()}
        held = {task: task_measures(own) for task, own in records.items()}
        for extra in dict.fromkeys(each for own in held.values() for each in own):
            tables += [metric_table(tasks[task], extra) for task in tasks if extra in held[task]]
        for task, pairs in groupby(compared, lambda each: each.group.task):
            tables.append(difference_table(list(pairs), tasks[task], baseline))
    tables += [run_table(own, measure) for own in tasks.values()]
    lines = notes(groups, measure, beside, baseline)
    return Comparison(groups, measure, compared, beside, tables, lines)


def table(
    records: Iterable[RunRecord],
    format: str = "markdown",
    baseline: str | None = None,
    published: bool = False,
    metric: str = EXACT_MATCH.name,
    by: str = "length",
) -> str:
    """All runs as text.

    by: `length`, or instead `summary`, one number per run over its lengths, or token accuracy by
    `part` of the target or `distance` to the evidence, in Markdown or LaTeX.

    metric: what is shown of every length, summarised over lengths and seeds; runs are selected by
    the same rule whatever it is.

    Methods are compared with `baseline`, see `differences`. Published rows stand under a task whose
    runs were trained in the published setting, with `published` under every task that has some.
    Markdown and LaTeX are in percent, CSV and JSON are fractions in [0, 1]. CSV has runs alone.
    Raises ValueError for an unknown format, baseline or metric, or no records.
    """
    if format not in FORMATS:
        raise ValueError(f"format {format!r} is not one of {', '.join(FORMATS)}")
    if by not in BY:
        raise ValueError(f"by {by!r} is not one of {', '.join(BY)}")
    if by != "length" and format not in TEXTS:
        raise ValueError(f"--by {by} is for markdown and latex; json contains all of them")
    shown = compare_runs(records, metric, baseline, published)
    if by == "length":
        return FORMATS[format](shown)
    if by == "summary":
        tasks = groupby(shown.groups, lambda group: group.task)
        return TEXTS[format]([summary_table(list(own), shown.measure) for _, own in tasks], [])
    return TEXTS[format](breakdown_tables(shown.groups, by), [])


def markdown(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Sections of tables, padded to read well unrendered, and the notes."""
    parts = []
    for title, section in groupby(tables, lambda table: table.title):
        parts.append(f"## {_escape(title)}")
        for number, table in enumerate(section):
            parts += [table.about] if table.about and not number else []
            parts += [f"### {_escape(table.heading)}", markdown_table(table)]
    if notes:
        parts += ["## Notes", "\n".join(f"- {_escape(line)}" for line in notes)]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """One table: the first column left, the others right."""
    rows = []
    for row in table.rows:
        texts = [f"{entry.text} {entry.note}".strip() for entry in row]
        pairs = zip(texts, row, strict=True)
        rows.append([f"**{text}**" if entry.selected else text for text, entry in pairs])
    return aligned(table.header, rows)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of texts."""
    body = [[_escape(text) for text in row] for row in [header, *rows]]
    widths = [max(4, *map(len, column)) for column in zip(*body, strict=True)]
    body.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    lines = []
    for first, *others in body:
        padded = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        lines.append("| " + " | ".join(padded) + " |")
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Keep a reason or a label from breaking out of its table cell or line, or being HTML."""
    text = " ".join(text.split()).replace("|", "\\|")
    parts = re.split(r"(`[^`]*`)", text)  # code is shown as it stands
    return "".join(p if p.startswith("`") else re.sub(TAG, r"\\<", p) for p in parts)


def rows(groups: Iterable[Group], measure: Measure = EXACT_MATCH) -> list[dict[str, Any]]:
    """Tidy data: a row for each run and length; a run without any length keeps one row."""
    return [
        _run_fields(group, run, measure) | fields
        for group in groups
        for run in group.runs
        for fields in [_cell_fields(cell) for cell in run.cells.values()] or [{}]
    ]


def _csv(shown: Comparison) -> str:
    body = rows(shown.groups, shown.measure)
    columns = list(dict.fromkeys(key for row in body for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(body)
    return text.getvalue()


def _run_fields(group: Group, run: RunResult, measure: Measure) -> dict[str, Any]:
    record, selection = run.record, run.record.selection
    settings = {k: v for k, v in record.settings.items() if k != "train_lengths"}
    return {
        **record.labels,
        "name": group.name,
        "changes": json.dumps(run.changes, ensure_ascii=False) if run.changes else "",
        "group": record.group,
        "run": record.run,
        "hash": record.hash,
        **{key: setting_text(v) if isinstance(v, list) else v for key, v in settings.items()},
        "train_min": record.train_min,
        "train_max": record.train_max,
        "best": int(run is group.best),
        "selected_lr": int(record.lr == group.lr),
        "trained": "" if run.trained is None else int(run.trained),
        "status": record.training.status,
        "trained_steps": record.training.step,
        "selected_step": "" if selection is None else selection.step,
        "monitor_never_changed": "" if selection is None else int(selection.degenerate),
        "metric": measure.name,
        "effective_length": run.effective_length(measure),
        "effective_length_of_base": run.effective_length(measure, of_base=True),
        "nnch_score": run.nnch_score,
        "mean_out_of_distribution": run.mean_out_of_distribution(measure).value,
    }


def _cell_fields(cell: Cell) -> dict[str, Any]:
    low, high = wilson(cell.correct, cell.samples) if cell.state == "value" else ("", "")
    fields = dict(vars(cell))
    fields |= fields.pop("metrics") or {}
    for name in ("changes", "outcomes", "by_part", "by_distance"):
        del fields[name]  # of the run, or no number to compute with; JSON has them
    fields["evaluation_seed"] = fields.pop("seed")
    fields["evaluation_seconds"] = fields.pop("seconds")
    return {**fields, "exact_match": cell.exact_match, "wilson_low": low, "wilson_high": high}


def _json(shown: Comparison) -> str:
    body = {
        "schema": 1,
        "metric": shown.measure.name,
        "groups": [_group_json(group, shown.measure) for group in shown.groups],
        "differences": [_difference_json(difference) for difference in shown.differences],
        "published": [_published_json(block) for block in shown.published.values()],
        "notes": shown.notes,
    }
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _difference_json(difference: Difference) -> dict[str, Any]:
    derived = ("difference", "interval", "p_value")
    return {
        "task": difference.group.task,
        "name": difference.group.name,
        "group": difference.group.key,
        "changes": difference.group.changes,
        "run": difference.group.best.record.run,
        "baseline": difference.baseline.name,
        "baseline_run": difference.baseline.best.record.run,
        "lengths": {
            str(length): asdict(pair) | {name: getattr(pair, name) for name in derived}
            for length, pair in difference.lengths.items()
        },
    }


def _published_json(block: Block) -> dict[str, Any]:
    body = asdict(block)
    for row in body["rows"]:
        for name in ("values", "suspect"):
            row[name] = {f"{multiple:g}": value for multiple, value in row[name].items()}
    return body


def _group_json(group: Group, measure: Measure) -> dict[str, Any]:
    names = [*map(str, group.lengths), "mean_out_of_distribution"]
    statistics = map(asdict, group.over_seeds(group.lengths, measure))
    return {
        "task": group.task,
        "name": group.name,
        "group": group.key,
        "changes": group.changes,
        "train_lengths": group.train_range,
        "best": group.best.record.run,
        "selected_lr": group.lr,
        "at_edge_of_grid": group.beyond_grid is not None,
        "selection": {
            "monitored": group.choice.monitored,
            "compared": group.choice.path,
            "tied": [record.run for record in group.choice.tied],
            "never_changed": group.choice.degenerate,
        },
        "trained": group.counts,
        "seeds": [run.record.seed for run in group.seeds],
        "over_seeds": dict(zip(names, statistics, strict=True)),
        "runs": [_run_json(run, measure) for run in group.runs],
    }


def _run_json(run: RunResult, measure: Measure) -> dict[str, Any]:
    record = replace(
        run.record, ladder=tuple(c for c in run.record.ladder if c.changes == run.changes)
    )
    return record.to_dict() | {
        "trained": run.trained,
        "effective_length": run.effective_length(measure),
        "effective_length_of_base": run.effective_length(measure, of_base=True),
        "nnch_score": run.nnch_score,
        "mean_out_of_distribution": asdict(run.mean_out_of_distribution(measure)),
        "wilson": {
            str(length): wilson(cell.correct, cell.samples)
            for length, cell in run.cells.items()
            if cell.state == "value"
        },
    }


TEXTS = {"markdown": markdown, "latex": latex}
BY = ("length", "summary", *BREAKDOWNS)
FORMATS = {
    **{
        name: (lambda shown, text=text: text(shown.tables, shown.notes))
        for name, text in TEXTS.items()
    },
    "csv": _csv,
    "json": _json,
}
