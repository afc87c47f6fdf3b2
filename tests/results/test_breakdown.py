"""One number over lengths, and token accuracy by part of the target and by distance."""

from dataclasses import replace

import pytest

from lcg.results import table
from lcg.results.breakdown import plot_breakdown
from lcg.results.statistics import nnch_score
from lcg.runs.record import Cell, RunRecord


@pytest.fixture
def records(make) -> list[RunRecord]:
    """Softmax with counts at two of three lengths, entmax with none, parity without distances."""
    softmax = make({32: 1000, 64: 850, 128: 849})
    counts = {"by_part": {10: [9, 10], 50: [1, 8]}, "by_distance": {1: [3, 3], 64: [5, 9]}}
    cells = [*(replace(cell, **counts) for cell in softmax.ladder[:2]), softmax.ladder[2]]
    parity = make({32: 900}, task="parity")
    return [
        replace(softmax, ladder=tuple(cells)),
        make({32: 1000, 64: 700}, attention="entmax15"),
        replace(parity, ladder=(replace(parity.ladder[0], by_part={100: [1, 4]}),)),
    ]


def body(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]


def test_counts_survive_the_file(records, tmp_path):
    records[0].save(tmp_path)
    assert RunRecord.load(tmp_path) == records[0]
    assert RunRecord.load(tmp_path).ladder[0].by_distance == {1: [3, 3], 64: [5, 9]}


@pytest.mark.parametrize("pair", [[2, 1], [0, 0], [-1, 3], [1], [1, 2, 3]])
def test_counts_that_cannot_be_are_refused(pair):
    with pytest.raises(ValueError, match="by_part has"):
        Cell(8, 4, 0, correct=1, by_part={10: pair})


def test_tables_by_distance_and_by_part(records):
    head, _, *rows = body(table(records, by="distance"))
    assert head[3:] == ["length", "< 1", "< 64"]
    assert [row[3:] for row in rows] == [["32", "100.0", "55.6"], ["64", "100.0", "55.6"]]
    text = table(records, by="part")
    assert "### copy" in text and "### parity" in text
    assert body(text)[-1][3:] == ["32", "25.0"]
    assert r"\begin{table}" in table(records, "latex", by="part")


def test_metrics_that_no_run_has_are_an_error_of_one_line(records):
    with pytest.raises(ValueError, match="no run has token accuracy by tokens to the evidence"):
        table(records[1:], by="distance")
    with pytest.raises(ValueError, match="--by part is for markdown and latex"):
        table(records, "csv", by="part")
    with pytest.raises(ValueError, match="by 'half' is not one of length, summary, part, distance"):
        table(records, by="half")


@pytest.mark.parametrize("by", ["part", "distance"])
def test_the_picture(records, tmp_path, by):
    file = plot_breakdown(records, tmp_path / "by.svg", by)
    assert b"<svg" in file.read_bytes()
    with pytest.raises(ValueError, match="no run has token accuracy"):
        plot_breakdown([records[1]], tmp_path / "none.svg", by)


def test_effective_length_of_the_base(records):
    """100 % at 32, so 64 passes with 85 % of it and not with 90 %; 84.9 % at 128 does not."""
    head, _, *rows = body(table(records[:2], by="summary"))
    found = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    softmax = found["softmax · nape"]
    assert (softmax["effective length"], softmax["85 % of base"]) == ("32", "64")


def naive(points: dict[int, float], train_max: int) -> float:
    """The mean over every length, each interpolated by itself."""
    known, values = sorted(points), []
    for n in range(train_max + 1, known[-1] + 1):
        right = min(m for m in known if m >= n)
        left = max((m for m in known if m < right), default=right)
        share = (n - left) / (right - left)
        values.append(points[left] * (1 - share) + points[right] * share)
    return sum(values) / len(values)


@pytest.mark.parametrize("train_max", [4, 5, 7])
def test_nnch_score_is_the_mean_over_every_length(train_max):
    points = {2: 1.0, 4: 0.9, 9: 0.5, 10: 0.75, 21: 0.25}
    cells = [Cell(n, 4, 0, correct=1, token_accuracy=value) for n, value in points.items()]
    assert nnch_score(reversed(cells), train_max) == pytest.approx(naive(points, train_max))
    assert nnch_score(cells[:2], train_max) is None
    assert nnch_score(cells[2:], train_max) is None
