"""Tables of runs: Markdown to read and paste, CSV and JSON to compute with."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from lcg.results.groups import Group, Run, group_runs, setting_text
from lcg.results.markdown import markdown
from lcg.results.notes import notes
from lcg.results.record import RunRecord
from lcg.results.statistics import over_seeds, wilson

FORMATS = ("markdown", "csv", "json")


def table(
    records: Iterable[RunRecord], format: str = "markdown", extra_notes: Sequence[str] = ()
) -> str:
    """All runs as text; `extra_notes` come first among the notes (CSV has none).

    Markdown is in percent, CSV and JSON are fractions in [0, 1]. Raises ValueError for an unknown
    format or no records.
    """
    if format not in FORMATS:
        raise ValueError(f"format {format!r} is none of {', '.join(FORMATS)}")
    groups = group_runs(records)
    if format == "csv":
        return _csv(groups)
    lines = [*extra_notes, *notes(groups)]
    return markdown(groups, lines) if format == "markdown" else _json(groups, lines)


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
            rows += [{**_run_fields(group, run), **cell} for cell in cells or [{}]]
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
    fields = asdict(cell)
    fields["evaluation_seed"] = fields.pop("seed")
    fields["evaluation_seconds"] = fields.pop("seconds")
    return {**fields, "exact_match": cell.exact_match, "wilson_low": low, "wilson_high": high}


def _json(groups: list[Group], lines: list[str]) -> str:
    document = {"schema": 1, "groups": [_group_json(group) for group in groups], "notes": lines}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _group_json(group: Group) -> dict[str, Any]:
    lengths = sorted({length for run in group.seeds for length in run.cells})
    trained = [run.trained for run in group.seeds]
    return {
        "task": group.task,
        "name": group.name,
        "group": group.key,
        "train_lengths": list(group.train_range),
        "best": group.best.record.run,
        "selected_lr": group.lr,
        "not_bracketed": group.not_bracketed is not None,
        "trained": {"k": group.trained, "n": len(group.seeds)},
        "seeds": [run.record.seed for run in group.seeds],
        "over_seeds": {
            **{
                str(length): asdict(
                    over_seeds([r.exact_match(length) for r in group.seeds], trained)
                )
                for length in lengths
            },
            "mean_out_of_distribution": asdict(
                over_seeds([r.mean_out_of_distribution.value for r in group.seeds], trained)
            ),
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
