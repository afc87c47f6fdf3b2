"""Tables of runs: Markdown to read and paste, CSV and JSON to compute with."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from lcg.results.differences import Difference, differences
from lcg.results.groups import Group, Run, group_runs, setting_text
from lcg.results.markdown import markdown
from lcg.results.notes import notes, published_notes
from lcg.results.published import Block, published_beside
from lcg.results.record import RunRecord
from lcg.results.statistics import wilson

FORMATS = ("markdown", "csv", "json")


def table(
    records: Iterable[RunRecord],
    format: str = "markdown",
    extra_notes: Sequence[str] = (),
    baseline: str | None = None,
    published: bool = False,
    whole: bool = True,
) -> str:
    """All runs as text; `extra_notes` come first among the notes (CSV has none).

    whole: otherwise markdown ends after the selected run of each method.

    Methods are compared with `baseline`, see `differences`. Published rows stand under a task whose
    runs were trained in the published setting, with `published` under every task that has some.
    Markdown is in percent, CSV and JSON are fractions in [0, 1]. CSV has runs alone.
    Raises ValueError for an unknown format, an unknown baseline, or no records.
    """
    if format not in FORMATS:
        raise ValueError(f"format {format!r} is none of {', '.join(FORMATS)}")
    groups = group_runs(records)
    compared = differences(groups, baseline)
    if format == "csv":
        return _csv(groups)
    beside = published_beside(groups, forced=published)
    lines = [*extra_notes, *notes(groups), *published_notes(groups, beside)]
    if format == "markdown":
        return markdown(groups, lines, compared, beside, whole)
    return _json(groups, lines, compared, beside)


def _csv(groups: list[Group]) -> str:
    """Tidy: one row per run and length; a run without any length keeps one row."""
    rows = []
    for group in groups:
        for run in group.runs:
            # What an untrained run scored beyond training stands there, but is no `value`.
            cells = [
                {**_cell_fields(cell), "state": run.state(length)}
                for length, cell in run.cells.items()
            ]
            own = _run_fields(group, run)
            rows += [{**own, **cell} for cell in cells or [{}]]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _run_fields(group: Group, run: Run) -> dict[str, Any]:
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
        "degenerate_selection": "" if selection is None else int(selection.degenerate),
        "effective_length": run.effective_length,
        "mean_out_of_distribution": run.mean_out_of_distribution.value,
    }


def _cell_fields(cell: Any) -> dict[str, Any]:
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
) -> str:
    document = {
        "schema": 1,
        "groups": [_group_json(group) for group in groups],
        "differences": [_difference_json(difference) for difference in compared],
        "published": [_published_json(block) for block in beside.values()],
        "notes": lines,
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


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


def _group_json(group: Group) -> dict[str, Any]:
    lengths = sorted({length for run in group.seeds for length in run.cells})
    return {
        "task": group.task,
        "name": group.name,
        "group": group.key,
        "train_lengths": list(group.train_range),
        "best": group.best.record.run,
        "selected_lr": group.lr,
        "not_bracketed": group.not_bracketed is not None,
        "selection": {
            "monitored": group.choice.monitored,
            "compared": list(group.choice.path),
            "tied": [record.run for record in group.choice.tied],
            "degenerate": group.choice.degenerate,
        },
        "trained": {"k": group.trained, "n": len(group.seeds)} if group.judged else None,
        "seeds": [run.record.seed for run in group.seeds],
        "over_seeds": {
            name: asdict(statistics)
            for name, statistics in zip(
                [*map(str, lengths), "mean_out_of_distribution"],
                group.over_seeds(lengths),
                strict=True,
            )
        },
        "runs": [
            {
                **run.record.to_dict(),
                "trained": run.trained,
                "effective_length": run.effective_length,
                "mean_out_of_distribution": asdict(run.mean_out_of_distribution),
                "wilson": {
                    str(length): list(wilson(cell.correct, cell.samples))
                    for length, cell in run.cells.items()
                    if cell.state == "value"
                },
            }
            for run in group.runs
        ],
    }
