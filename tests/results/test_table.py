"""The three table formats: a golden page, the notes, and what machines read back."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lcg.results import table
from lcg.runs.record import RunRecord, Selection, Training

Make = Callable[..., RunRecord]
GOLDEN = Path(__file__).with_name("golden_table.md")


def small_set(make: Make) -> list[RunRecord]:
    """Three seeds of which one did not train, a second learning rate, a method out of memory."""
    good, fair, bad = {128: (0.9, 1.0)}, {128: (0.5, 0.9)}, {128: (0.0, 0.2)}
    return [
        make({32: 1000, 64: 982, 128: 700}, seed=0, validation=good),
        make({32: 990, 64: 800, 128: "skipped"}, seed=1, validation=fair),
        make({32: 20, 64: 0, 128: 0}, seed=2, validation=bad),
        make({32: 950, 64: 500}, seed=0, lr=0.0003, validation=fair),
        make({32: 1000, 64: 1000, 128: "out_of_memory"}, attention="asentmax"),
        make({32: 10, 64: 0, 128: 0}, position="nope", validation=bad),
    ]


def test_golden_markdown(make: Make) -> None:
    assert table(small_set(make)) == GOLDEN.read_text(encoding="utf-8")


def test_the_order_of_records_changes_nothing(make: Make) -> None:
    records = small_set(make)
    for kind in ("markdown", "csv", "json"):
        assert table(records[::-1], kind) == table(records, kind)


def rows(text: str, start: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.replace("*", "").startswith(f"| {start}")]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("state", ["skipped", "out_of_memory", "did_not_train", "not_finite"])
def test_states_are_words_and_never_averaged_as_zero(make: Make, state: str) -> None:
    records = [make({32: 1000, 64: 800}), make({32: 1000, 64: state}, seed=1)]
    best, first, second, median, mean = rows(table(records), "softmax")
    assert best[4].startswith("80.0 [")
    assert (first[4], second[4]) == ("80.0", state.replace("_", " "))
    assert median[4] == "80.0 [80.0, 80.0] (1 of 2)"
    assert mean[4] == "80.0 (1 of 2)"
    assert second[5] == "—", "nor is the mean over lengths a 0"
    (group,) = json.loads(table(records, "json"))["groups"]
    assert group["over_seeds"]["64"]["values"] == [0.8, None]
    assert group["over_seeds"]["64"]["mean_all"] == {"value": 0.8, "n": 1, "of": 2}
    cells = list(csv.DictReader(io.StringIO(table(records, "csv"))))
    empty = next(cell for cell in cells if cell["state"] == state)
    assert (empty["exact_match"], empty["correct"], empty["wilson_low"]) == ("", "", "")


def test_the_best_run_without_a_value_is_a_word(make: Make) -> None:
    for state in ("skipped", "out_of_memory", "not_finite"):
        best = rows(table([make({32: 1000, 64: state})]), "softmax")[0]
        assert (best[4], best[5]) == (state.replace("_", " "), "—")


def test_lengths_are_headed_as_multiples_of_a_shared_training_maximum(make: Make) -> None:
    text = table([make({16: 1000, 32: 1000, 48: 900, 128: 1, 32768: 0})])
    header = [part.strip() for part in text.splitlines()[4].split("|")]
    assert header[4:9] == ["16", "32 (train)", "48 (1.5×)", "128 (4×)", "32768 (1024×)"]
    mixed = [make({64: 900}), make({64: 900}, group="b", settings={"train_lengths": [8, 64]})]
    assert "(2×)" not in table(mixed) and "(train)" not in table(mixed)


def test_untrained_runs_are_marked_and_in_no_mean_of_the_trained(make: Make) -> None:
    """They are shown and in the median, which is marked; the mean of the trained lacks them."""
    records = [make({32: 1000, 64: 800}), make({32: 150, 64: 20}, seed=1)]
    assert rows(table(records), "softmax")[2][1:5] == ["1", "0.001", "15.0 †", "2.0 †"]
    median, mean = rows(table(records), "softmax")[-2:]
    assert median[1:5] == [
        "median [range]",
        "0.001",
        "57.5 [15.0, 100.0] †",
        "41.0 [2.0, 80.0] †",
    ]
    assert mean[1:5] == ["mean of 1 trained", "0.001", "100.0", "80.0"]


def test_where_training_is_unknown_the_mean_is_over_all(make: Make) -> None:
    records = [make({64: 800}, seed=seed, validation={}) for seed in (0, 1)]
    assert rows(table(records), "softmax")[-1][1:4] == ["mean", "0.001", "80.0"]


def test_every_task_has_its_section_and_lengths(make: Make) -> None:
    length = {"train_lengths": [16, 16]}
    text = table([make({32: 1000}), make({16: 90}, task="sort", samples=100, settings=length)])
    assert "### copy, trained at lengths 8–32, 1000 samples per length" in text
    assert "### sort, trained at length 16, 100 samples per length" in text
    assert "| 16 (train) |" in text.replace("  ", "")


def test_notes(make: Make) -> None:
    stopped = Training("interrupted", 500, reason="stopped by a signal")
    flat = Selection(2000, "val/len_128/exact_match", 0.0, degenerate=True, reason="all zero")
    moved = Selection(1800, "val/len_128/exact_match", 0.9)
    records = [
        make({64: 900}, training=stopped),
        make({64: 900}, seed=1, selection=flat),
        make({64: 900}, seed=2, selection=moved),
        make({64: 90}, seed=3, samples=100),
        make({64: 900}, lr=0.01, seed=9, validation={32: (0.0, 0.0)}),
    ]
    page = table(records)
    run = "- `copy-softmax-nape-s{}-lr0.001`: ".format
    assert page.partition("## Notes\n\n")[2].splitlines() == [
        run(0) + "interrupted at step 500 of 2000 (stopped by a signal).",
        "- † did not train: exact match below 50 % within the training lengths, at the shortest "
        "one tested (else the longest validated). Its numbers are shown and count in medians; a "
        "mean of the trained runs excludes them.",
        run(1) + "selection metric never changed (val/len_128/exact_match) (all zero).",
        run(2) + "evaluated at 64 with another checkpoint than the selected one, step 1800 "
        "(evaluate again).",
        "- copy, softmax · nape: 4 runs tie by validation up to length 32; the one with the lowest "
        "seed is shown as the best. `lcg select` breaks the tie.",
        "- copy, softmax · nape: the best learning rate, 0.001, is at the edge of the grid "
        "(try 0.0001).",
        "- copy, softmax · nape: in-distribution accuracy of 1 of 4 seeds is unknown.",
        "- copy at 64: rows differ in their test set: "
        + "100 samples in `copy-softmax-nape-s3-lr0.001`; 1000 samples elsewhere.",
    ]


def test_notes_on_evaluation_seeds_and_missing_validation(make: Make) -> None:
    records = [make({64: 900}), make({64: 900}, seed=1, evaluation_seed=2)]
    text = table([replace(record, validation={}) for record in records])
    assert "no validation results; the run with the lowest seed is shown" in text
    assert "1000 samples of evaluation seed 2 elsewhere" in text
    assert "in-distribution accuracy of 2 of 2 seeds is unknown" in text
    assert "0 of" not in text and "**softmax" not in text, "nothing says which run is the best"


def test_text_cannot_break_the_table(make: Make) -> None:
    text = table([make({64: 900}, attention="a|b\nc")])
    assert "a\\|b c · nape" in text


def test_csv_is_tidy(make: Make) -> None:
    parsed = list(csv.DictReader(io.StringIO(table([*small_set(make), make(task="idle")], "csv"))))
    assert len(parsed) == 5 * 3 + 2 + 1, "a run never evaluated keeps a row"
    row = next(r for r in parsed if r["best"] == "1" and r["attention"] == "softmax")
    assert (row["task"], row["length"], row["samples"], row["correct"]) == (
        "copy",
        "32",
        "1000",
        "1000",
    )
    assert float(row["exact_match"]) == 1.0
    assert float(row["wilson_low"]) == pytest.approx(0.99617, abs=1e-5)
    skipped = next(r for r in parsed if r["state"] == "skipped")
    assert (skipped["exact_match"], skipped["correct"], skipped["wilson_low"]) == ("", "", "")
    assert {r["trained"] for r in parsed if r["seed"] == "2"} == {"0"}


def test_json_holds_everything(make: Make) -> None:
    records = small_set(make)
    document = json.loads(table(records, "json"))
    asentmax, softmax, nope = document["groups"]
    assert (asentmax["name"], nope["trained"]) == (
        "asentmax · nape",
        {"k": 0, "n": 1, "unknown": 0},
    )
    assert softmax["best"] == records[0].run
    assert softmax["trained"] == {"k": 2, "n": 3, "unknown": 0}
    assert softmax["over_seeds"]["128"]["values"] == [0.7, None, 0.0]
    assert softmax["over_seeds"]["128"]["mean_trained"] == {"value": 0.7, "n": 1, "of": 2}
    assert softmax["runs"][1]["ladder"] == records[0].to_dict()["ladder"]
    assert len(softmax["runs"]) == 4
    assert document["notes"]


def test_errors(make: Make) -> None:
    with pytest.raises(ValueError, match="'html' is not one of markdown, latex, csv, json"):
        table([make()], "html")
    with pytest.raises(ValueError, match="no runs"):
        table([])
