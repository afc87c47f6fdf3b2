"""Runs as text: Markdown and LaTeX to read and paste, CSV and JSON to compute with."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from lcg.results.aggregate import Group, RunResult, group_runs
from lcg.results.labels import setting_text
from lcg.results.latex import latex
from lcg.results.notes import notes
from lcg.results.paired import Difference, differences
from lcg.results.published import Block, published_beside
from lcg.results.statistics import EXACT_MATCH, Measure, measure_named, wilson
from lcg.results.tables import Entry, Table, sections
from lcg.runs.record import Cell, RunRecord

FORMATS = ("markdown", "latex", "csv", "json")
TAG = re.compile(r"<(?=[A-Za-z/!?])")  # where HTML would begin


def table(
    records: Iterable[RunRecord],
    format: str = "markdown",
    extra_notes: Sequence[str] = (),
    baseline: str | None = None,
    published: bool = False,
    whole: bool = True,
    metric: str = EXACT_MATCH.name,
) -> str:
    """All runs as text; `extra_notes` come first among the notes (CSV has none).

    whole: otherwise markdown and LaTeX end after the selected run of each method. metric: what is
    shown of every length, summarised over lengths and seeds; runs are selected by the same rule
    whatever it is.

    Methods are compared with `baseline`, see `differences`. Published rows stand under a task whose
    runs were trained in the published setting, with `published` under every task that has some.
    Markdown and LaTeX are in percent, CSV and JSON are fractions in [0, 1]. CSV has runs alone.
    Raises ValueError for an unknown format, baseline or metric, or no records.
    """
    if format not in FORMATS:
        raise ValueError(f"format {format!r} is none of {', '.join(FORMATS)}")
    groups = group_runs(records)
    measure = measure_named(metric, [run.record for group in groups for run in group.runs])
    compared = differences(groups, baseline)
    if format == "csv":
        return _csv(groups, measure)
    beside = published_beside(groups, forced=published)
    lines = [*extra_notes, *notes(groups, measure, beside, baseline)]
    if format == "json":
        return _json(groups, lines, compared, beside, measure)
    shown = sections(groups, measure, beside, compared, baseline)
    render = markdown if format == "markdown" else latex
    return render(shown, lines) if whole else render(shown[:1], [])


def markdown(shown: Sequence[Sequence[tuple[str, Table]]], lines: Sequence[str]) -> str:
    """Sections of tables, padded to read well unrendered, and the notes."""
    parts = []
    for tables in shown:
        first = tables[0][1]
        parts += [f"## {_escape(first.title)}", *filter(None, [first.about])]
        for heading, table in tables:
            parts += [f"### {_escape(heading)}", markdown_table(table)]
    if lines:
        parts += ["## Notes", "\n".join(f"- {_escape(line)}" for line in lines)]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """One table: the first column left, the others right."""
    return aligned(table.header, [[_text(entry) for entry in row] for row in table.rows])


def _text(entry: Entry) -> str:
    text = f"{entry.text} {entry.note}".strip()
    return f"**{text}**" if entry.selected else text


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of texts."""
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
    """Keep a reason or a label from breaking out of its table cell or line, or being HTML."""
    text = " ".join(text.split()).replace("|", "\\|")
    parts = re.split(r"(`[^`]*`)", text)  # code is shown as it stands
    return "".join(p if p.startswith("`") else re.sub(TAG, r"\\<", p) for p in parts)


def rows(groups: Iterable[Group], measure: Measure = EXACT_MATCH) -> list[dict[str, Any]]:
    """Tidy data: a row for each run and length; a run without any length keeps one row."""
    found = []
    for group in groups:
        for run in group.runs:
            cells = [_cell_fields(cell) for cell in run.cells.values()]
            found += [_run_fields(group, run, measure) | cell for cell in cells or [{}]]
    return found


def _csv(groups: list[Group], measure: Measure) -> str:
    body = rows(groups, measure)
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
        "mean_out_of_distribution": run.mean_out_of_distribution(measure).value,
    }


def _cell_fields(cell: Cell) -> dict[str, Any]:
    low, high = wilson(cell.correct, cell.samples) if cell.state == "value" else ("", "")
    fields = dict(vars(cell))
    fields |= fields.pop("metrics") or {}
    del fields["outcomes"]  # a thousand bits are no number to compute with; JSON has them
    fields["evaluation_seed"] = fields.pop("seed")
    fields["evaluation_seconds"] = fields.pop("seconds")
    return {**fields, "exact_match": cell.exact_match, "wilson_low": low, "wilson_high": high}


def _json(
    groups: list[Group],
    lines: list[str],
    compared: list[Difference],
    beside: dict[str, Block],
    measure: Measure,
) -> str:
    body = {
        "schema": 1,
        "metric": measure.name,
        "groups": [_group_json(group, measure) for group in groups],
        "differences": [_difference_json(difference) for difference in compared],
        "published": [_published_json(block) for block in beside.values()],
        "notes": lines,
    }
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {
        "task": difference.group.task,
        "name": difference.group.name,
        "group": difference.group.key,
        "run": difference.group.best.record.run,
        "baseline": difference.baseline.name,
        "baseline_run": difference.baseline.best.record.run,
        "lengths": {
            str(length): {
                **asdict(pair),
                "difference": pair.difference,
                "interval": list(pair.interval),
                "p_value": pair.p_value,
            }
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
    lengths = sorted({length for run in group.seeds for length in run.cells})
    return {
        "task": group.task,
        "name": group.name,
        "group": group.key,
        "train_lengths": list(group.train_range),
        "best": group.best.record.run,
        "selected_lr": group.lr,
        "at_edge_of_grid": group.beyond_grid is not None,
        "selection": {
            "monitored": group.choice.monitored,
            "compared": list(group.choice.path),
            "tied": [record.run for record in group.choice.tied],
            "never_changed": group.choice.degenerate,
        },
        "trained": {"k": group.trained, "n": len(group.seeds), "unknown": group.unknown}
        if group.judged and group.unknown < len(group.seeds)
        else None,
        "seeds": [run.record.seed for run in group.seeds],
        "over_seeds": {
            name: asdict(statistics)
            for name, statistics in zip(
                [*map(str, lengths), "mean_out_of_distribution"],
                group.over_seeds(lengths, measure),
                strict=True,
            )
        },
        "runs": [
            {
                **run.record.to_dict(),
                "trained": run.trained,
                "effective_length": run.effective_length(measure),
                "mean_out_of_distribution": asdict(run.mean_out_of_distribution(measure)),
                "wilson": {
                    str(length): list(wilson(cell.correct, cell.samples))
                    for length, cell in run.cells.items()
                    if cell.state == "value"
                },
            }
            for run in group.runs
        ],
    }
