"""Every measure in every format: --metric, LaTeX, and where exact match tells nothing apart."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from lcg.results import choose, plot, table
from lcg.results.latex import escaped
from lcg.runs.record import RunRecord

Make = Callable[..., RunRecord]


def with_tokens(record: RunRecord, **accuracies: float) -> RunRecord:
    """A record whose cells hold token accuracies, by length."""
    cells = [
        replace(cell, token_accuracy=accuracies.get(f"n{cell.length}")) for cell in record.ladder
    ]
    return replace(record, ladder=tuple(cells))


@pytest.fixture
def records(make: Make) -> list[RunRecord]:
    """Exact match 0 beyond training, token accuracy 60 and 20 %, and one out of memory."""
    ladder = {32: 900, 64: 0}
    return [
        with_tokens(make(ladder, task="sort"), n32=0.99, n64=0.6),
        with_tokens(make({**ladder, 128: "out_of_memory"}, task="sort", attention="topk"), n64=0.2),
    ]


def test_another_metric_in_the_table(records) -> None:
    text = table(records, metric="token_accuracy")
    assert "## Token accuracy (%), best run of each method by validation\n" in text
    rows = {
        line.split("|")[1].strip(): line.split("|") for line in text.splitlines() if "·" in line
    }
    assert [part.strip() for part in rows["**softmax · nape**"][4:8]] == [
        "99.0",
        "60.0",
        "—",
        "60.0 (1 of 2)",
    ]
    assert "out of memory" in text and "Wilson" not in text and "Difference" not in text


def test_another_metric_in_csv_and_json(records) -> None:
    (row, *_) = csv.DictReader(io.StringIO(table(records, "csv", metric="token_accuracy")))
    assert (row["metric"], row["mean_out_of_distribution"]) == ("token_accuracy", "0.6")
    document = json.loads(table(records, "json", metric="token_accuracy"))
    assert document["groups"][0]["over_seeds"]["64"]["values"] == [0.6]


def test_another_metric_in_the_plot(records, tmp_path) -> None:
    text = plot(records, tmp_path / "x.svg", metric="token_accuracy").read_text()
    assert "<!-- token accuracy (%) -->" in text


@pytest.mark.parametrize("show", [table, lambda r, metric: plot(r, "x.svg", metric)])
def test_an_unknown_metric_lists_those_that_runs_hold(records, show) -> None:
    bleu = [replace(cell, metrics={"bleu": 9.0}) for cell in records[0].ladder]
    records = [replace(records[0], ladder=tuple(bleu)), records[1]]
    with pytest.raises(ValueError, match=r"the runs have exact_match, token_accuracy, bleu$"):
        show(records, metric="accuracy")


def test_an_exact_match_of_zero_names_the_other_measure(records, make) -> None:
    assert "`--metric token_accuracy` shows" in table(records)
    assert "--metric token_accuracy" not in table([make({32: 900, 64: 0})]), "it has none"
    better = with_tokens(make({32: 900, 64: 1}), n64=0.5)
    assert "--metric token_accuracy" not in table([better])


def test_selection_by_token_accuracy(make: Make) -> None:
    exact = make(seed=0, validation={64: (0.5, 0.6)})
    tokens = make(seed=1, validation={64: (0.4, 0.9)})
    assert choose([exact, tokens]).record is exact
    assert choose([exact, tokens], "token_accuracy").record is tokens
    with pytest.raises(
        ValueError, match="--metric bleu: validation measures exact_match and token"
    ):
        choose([exact], "bleu")


def test_latex_escapes_what_has_a_meaning() -> None:
    assert escaped("50 % & #1_$x^2~{\\}") == (
        r"50 \% \& \#1\_\$x\textasciicircum{}2\textasciitilde{}\{\textbackslash{}\}"
    )
    assert escaped("α · 4× ≥ 9 — é †") == (r"$\alpha$ $\cdot$ 4$\times$ $\geq$ 9 --- é $^\dagger$")
    assert escaped("中") == "[U+4E2D]", "pdflatex has no such letter"


def test_latex_prints_how_to_read_a_table(make: Make) -> None:
    text = table([make({32: 900}), make({32: 100}, attention="topk")], "latex")
    under = [part.partition("\\end{table}")[0] for part in text.split("\\end{tabular}}")[1:]]
    assert all(r"$^\dagger$ did not train: exact match below 50 \%" in part for part in under)
    assert "The baseline is softmax" in under[1] and "-{}-baseline NAME" in under[1]
    assert "\\parbox" not in table([make({32: 900})], "latex"), "nothing needs to be said"


def test_another_metric_names_the_omitted_columns(records) -> None:
    text = table(records, metric="token_accuracy")
    assert "Intervals, differences from a baseline and published rows are of exact match" in text
    assert "up to which token accuracy is at least 90 % at every tested one" in text


def test_markdown_shows_what_would_be_html(make: Make) -> None:
    text = table([make({32: 900}, attention="<b>x"), make({32: 100}, attention="y", seed=1)])
    assert "\\<b>x · nape" in text and " <b>" not in text
    assert " < 32 † " in text, "which no HTML begins with"


def test_latex_has_the_numbers_of_the_markdown(make: Make) -> None:
    records = [
        make({32: 1000, 64: 982, 128: "out_of_memory"}, attention="a_b&c%"),
        make({32: 150, 64: 20}),
        make({32: 140, 64: 10}, seed=1),
    ]
    text = table(records, "latex")
    assert text.startswith("% \\usepackage{booktabs,graphicx}\n")
    tables = text.split("\\begin{tabular}")[1:]
    assert len(tables) == 3 and text.count("\\toprule") == text.count("\\bottomrule") == 3
    assert r"a\_b\&c\% $\cdot$ nape" in tables[0]
    assert r"\shortstack[r]{15.0 $^\dagger$\\{\tiny [12.9, 17.3]}}" in tables[0]
    for body in tables:
        columns = body[1 : body.index("}")]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {row.count(" & ") + 1 for row in rows} == {len(columns)}
    assert "98.2" in text and "98.2" in table(records)
