"""Measures of a task beside exact match: kept in the record, shown in every format."""

import csv
import io
import json
from dataclasses import replace

import pytest

from lcg.results import plot, table
from lcg.results.aggregate import group_runs
from lcg.results.tables import best_table
from lcg.runs.record import RunRecord, Training


@pytest.fixture
def records(make) -> list[RunRecord]:
    """Two methods of which one was not evaluated at 64, and a task without metrics."""
    softmax = make({32: 10, 64: 5}, task="parallel_text", attention="softmax")
    entmax = make({32: 12}, task="parallel_text", attention="entmax15")
    ladder = [(softmax, [(31.25, 50.0), (20.0, 41.06)]), (entmax, [(33.333, 51.0)])]
    found = []
    for record, values in ladder:
        cells = [
            replace(cell, metrics={"bleu": bleu, "chrf": chrf})
            for cell, (bleu, chrf) in zip(record.ladder, values, strict=True)
        ]
        found.append(replace(record, ladder=tuple(cells)))
    return [*found, make({32: 900})]


def test_metrics_survive_the_file(records, tmp_path):
    records[0].save(tmp_path)
    assert RunRecord.load(tmp_path) == records[0]


def test_markdown_has_a_block_for_each_metric(records):
    text = table(records)
    blocks = [part for part in text.split("\n## ") if " of the same runs" in part]
    assert [block.split(" (")[0] for block in blocks] == ["BLEU", "chrF"]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in blocks[0].splitlines()[4:]]
    assert rows[0] == ["attention · position", "seed", "lr", "32 (train)", "64 (2×)"]
    assert sorted(rows[2:4]) == [
        ["entmax15 · nape", "0", "0.001", "33.3", "—"],
        ["softmax · nape", "0", "0.001", "31.2", "20.0"],
    ]
    assert "copy" not in "".join(blocks)


def test_csv_and_json_have_the_numbers(records):
    rows = list(csv.DictReader(io.StringIO(table(records, "csv"))))
    assert {(row["attention"], row["length"]): row["chrf"] for row in rows if row["chrf"]} == {
        ("softmax", "32"): "50.0",
        ("softmax", "64"): "41.06",
        ("entmax15", "32"): "51.0",
    }
    groups = json.loads(table(records, "json"))["groups"]
    cells = [c for g in groups for run in g["runs"] for c in run["ladder"] if c["metrics"]]
    assert {"bleu": 20.0, "chrf": 41.06} in [cell["metrics"] for cell in cells]


def test_a_translation_is_not_judged_by_exact_match(records, make):
    """5 of 1000 samples are exact at twice the length: a value, and no verdict on the training."""
    assert "did not train" not in table(records)
    assert "did not train" in table([make({32: 10, 64: 5})])


def test_nothing_counts_the_translations_that_trained(records, tmp_path):
    """Neither in words nor in numbers; a task that is judged stays counted beside them."""
    text = table(records)
    rows = [row for row in text.split("\n## ")[0].splitlines() if "· nape" in row]
    counts = {row.split("|")[-2].strip(): "[" in row for row in rows}
    assert counts == {"—": True, "1 of 1": True}
    assert "is unknown" not in text
    trained = [group["trained"] for group in json.loads(table(records, "json"))["groups"]]
    assert trained == [{"k": 1, "n": 1, "unknown": 0}, None, None]
    drawn = plot(records, tmp_path / "accuracy.svg").read_text()
    assert "<!-- entmax15 · nape -->" in drawn
    last = [row[-1].text for row in best_table(group_runs(records)).rows]
    assert sorted(last) == ["1 of 1", "—", "—"]


def test_a_translation_that_diverged_leaves_the_others_their_mean(records, make):
    """Seeds that nobody judged are no 'mean of 0 trained'."""
    diverged = make(task="parallel_text", seed=1, training=Training("not_finite", 3))
    text = table([records[0], replace(diverged, validation={})])
    assert "mean of 0 trained" not in text
    assert "0 of 2" not in text
    assert "did not train" in text
