"""Cells of options changed at evaluation: rows and curves of their own, beside the run's."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from lcg.results import choose, table
from lcg.results.aggregate import group_runs
from lcg.results.labels import change_labels
from lcg.results.plot import draw
from lcg.results.table import compare_runs
from lcg.runs.record import RunRecord

Make = Callable[..., RunRecord]

YARN = {"position.name": "yarn", "position.scale": 8.0, "position.source": "af5ff41c5071"}
LABEL = "softmax · rope → yarn, scale=8 at evaluation"


def evaluated(record: RunRecord, make: Make, ladder: dict, **changes) -> RunRecord:
    """The record with cells of a ladder evaluated with changes."""
    cells = make(ladder, attention=record.labels["attention"]).ladder
    return record.merge(replace(cell, changes=changes) for cell in cells)


@pytest.fixture
def records(make: Make) -> list[RunRecord]:
    """Two seeds, of which the changed cells would select the other; and another method."""
    first = make({32: 900, 64: 100}, position="rope", validation={32: (0.9, 1.0)})
    second = make({32: 800, 64: 90}, position="rope", seed=1, validation={32: (0.8, 1.0)})
    other = make({32: 700, 64: 200}, position="rope", attention="topk")
    return [
        evaluated(first, make, {32: 300, 64: 200, 128: 10}, **YARN),
        evaluated(second, make, {32: 950, 64: 800, 128: 700}, **YARN),
        evaluated(other, make, {64: 300}, **{"position.base": 5e5}),
    ]


def rows_of(text: str) -> dict[str, list[str]]:
    lines = [line for line in text.split("##")[2].splitlines() if "·" in line]
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    return {first: others for first, *others in cells[1:]}


def test_a_row_of_its_own_beside_the_runs_own(records) -> None:
    rows = rows_of(table(records).replace("### ", "## "))
    assert list(rows) == [
        "softmax · rope",
        LABEL,
        "topk · rope",
        "topk · rope → base=500000 at evaluation",
    ]
    numbers = {name: [cell.split(" ")[0] for cell in row[2:5]] for name, row in rows.items()}
    assert numbers["softmax · rope"] == ["90.0", "10.0", "—"]
    assert numbers[LABEL] == ["30.0", "20.0", "1.0"]
    assert numbers["topk · rope"] == ["70.0", "20.0", "—"]


def test_validation_selects_regardless_of_changed_cells(records) -> None:
    groups = group_runs(records)
    assert choose(records[:2]).record.seed == 0
    assert [group.best.record.seed for group in groups[:2]] == [0, 0]
    assert "†" not in table(records).partition("## Notes")[0], "training did not fail"
    assert [run.trained for run in groups[1].runs] == [True, True]


def test_only_the_runs_that_were_evaluated_so_are_in_its_group(records, make: Make) -> None:
    third = make({32: 990}, position="rope", seed=2, validation={32: (1.0, 1.0)})
    own, changed, *_ = group_runs([*records, third])
    assert [len(own.runs), own.best.record.seed] == [3, 2]
    assert [len(changed.runs), changed.best.record.seed] == [2, 0]


def test_it_is_compared_with_itself_as_it_was_trained(records) -> None:
    found = {d.group.name: d.baseline.name for d in compare_runs(records).differences}
    assert found == {
        LABEL: "softmax · rope",
        "topk · rope": "softmax · rope",
        "topk · rope → base=500000 at evaluation": "topk · rope",
    }
    pair = compare_runs(records).differences[0].lengths[64]
    assert pair.difference == pytest.approx(0.1)
    asked = compare_runs(records, baseline="yarn").differences
    assert {d.baseline.name for d in asked} == {LABEL} and len(asked) == 3


def test_csv_and_json_keep_them_apart(records) -> None:
    rows = list(csv.DictReader(io.StringIO(table(records, "csv"))))
    own = [r for r in rows if r["name"] == "softmax · rope"]
    changed = [r for r in rows if r["name"] == LABEL]
    assert {r["changes"] for r in own} == {""}
    assert {json.loads(r["changes"])["position.scale"] for r in changed} == {8.0}
    assert len(own) == 4 and len(changed) == 6
    document = json.loads(table(records, "json"))
    for group in document["groups"]:
        cells = [cell for run in group["runs"] for cell in run["ladder"]]
        assert cells and all(cell["changes"] == group["changes"] for cell in cells)


def test_latex_has_an_arrow(records) -> None:
    assert r"rope $\to$ yarn, scale=8 at evaluation" in table(records, "latex")


def test_a_curve_of_its_own(records) -> None:
    figure = draw(records)
    panel = figure.subfigs[0].axes[0]
    drawn = {tuple(map(float, line.get_xdata())) for line in panel.lines}
    assert (32.0, 64.0) in drawn and (32.0, 64.0, 128.0) in drawn
    texts = " ".join(text.get_text().replace("\n", " ") for text in panel.texts)
    assert LABEL in texts


def test_notes_of_training_come_once_and_those_of_cells_name_the_change(make: Make) -> None:
    record = make({32: 900}, position="rope", seed=0, lr=0.001)
    other = make({32: 900}, position="rope", lr=0.002, validation={32: (0.5, 0.5)})
    changed = evaluated(record, make, {64: "out_of_memory"}, **YARN)
    notes = table([changed, other]).partition("## Notes")[2]
    assert notes.count("is at the edge of the grid") == 1
    assert f"`{record.run}` with yarn, scale=8: out of memory at 64" in notes


def test_labels_of_changes() -> None:
    one, two = dict(YARN), YARN | {"position.source": "0123456789ab"}
    assert change_labels([YARN]) == ["yarn, scale=8"]
    assert change_labels([one, two]) == [
        "yarn, scale=8, source=af5ff41c",
        "yarn, scale=8, source=01234567",
    ]
    assert change_labels([{"position.source": "0123456789ab"}]) == ["source=01234567"]
    both = {"position.base": 5.0, "attention.normalizer.name": "topk", "attention.normalizer.k": 4}
    assert change_labels([both]) == ["base=5, normalizer=topk, k=4"]
    member = {"position.pattern.0.name": "yarn", "position.pattern.0.scale": 2.0}
    assert change_labels([member]) == ["position.pattern.0=yarn, scale=2"]


def test_changes_are_part_of_a_cells_key_in_any_order(records) -> None:
    record = records[0]
    cell = next(cell for cell in record.ladder if cell.changes)
    turned = replace(cell, changes=dict(reversed(cell.changes.items())))
    assert turned.key == cell.key
    assert len(record.merge([turned]).ladder) == len(record.ladder)
    other = replace(cell, changes=cell.changes | {"position.scale": 4.0})
    assert len(record.merge([other]).ladder) == len(record.ladder) + 1


def test_schema_1_has_the_runs_own_cells(make: Make, tmp_path) -> None:
    record = make({32: 900, 64: 100})
    body = record.to_dict() | {"schema": 1}
    for cell in body["ladder"]:
        del cell["changes"]
    (tmp_path / "results.json").write_text(json.dumps(body))
    assert RunRecord.load(tmp_path) == record
    record.save(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["schema"] == 2
