"""Targets against predictions, and where samples first go wrong."""

import re

import numpy as np
import pytest

from lcg.diagnostics import errors
from lcg.diagnostics.errors import comparison, first_errors, histogram
from lcg.evaluation.evaluate import load_model
from lcg.evaluation.ladder import evaluate_lengths
from lcg.evaluation.test_sets import TestSet
from lcg.registry import available
from lcg.runs.run import Run

TASKS = available("task")


def naive_first(target, predicted):
    for i, (a, b) in enumerate(zip(target, predicted, strict=True)):
        if a != b:
            return i
    return -1


def test_first_errors():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, (200, 7))
    predicted = np.where(rng.random((200, 7)) < 0.8, target, 3)
    expected = [naive_first(a, b) for a, b in zip(target, predicted, strict=True)]
    assert -1 in expected
    assert first_errors(target, predicted).tolist() == expected


def test_histogram_is_one_line_of_counts():
    line = histogram(np.array([0, 0, 0, 0, 5, -1, 9]), 10)
    assert re.search(r"first errors of 6 samples over positions 1 to 10: \|█    ▂   ▂\|", line)
    assert line.endswith("median 1, earliest 1")
    many = histogram(np.arange(1000), 1000)
    assert many.count("█") == 40 and "\n" not in many
    assert "|█|" in histogram(np.array([0]), 1)


def parsed(text):
    """(target, predicted, mark) of every column that is shown, by the rows' own alignment."""
    cells = []
    blocks = re.split(r"^  (?:positions|…).*\n?", text, flags=re.M)
    for block in filter(str.strip, blocks):
        rows = {line[: errors.INDENT].strip(): line[errors.INDENT :] for line in block.split("\n")}
        ends = [m.end() for m in re.finditer(r"\S+", rows["target"])]
        assert ends == [m.end() for m in re.finditer(r"\S+", rows["predicted"])]
        marks = rows.get("", "").ljust(max(ends))
        pairs = zip(rows["target"].split(), rows["predicted"].split(), strict=True)
        cells += [(a, b, marks[end - 1].strip()) for (a, b), end in zip(pairs, ends, strict=True)]
    return cells


@pytest.mark.parametrize("name", TASKS)
def test_columns_are_aligned_and_marked(name):
    task = TASKS[name]()
    length = max(12, task.min_length)
    batch = task.encode(np.random.default_rng(1), np.array([length]))
    scored = batch.labels[0] != -100
    target, inputs = batch.labels[0][scored], batch.inputs[0][scored]
    predicted = target.copy()
    changed = sorted({0, len(target) // 2, len(target) - 1})
    predicted[changed] = (predicted[changed] + 1) % task.symbol_count
    wrong = target != predicted
    text = comparison(task, inputs, target, predicted, width=500)
    first = naive_first(target, predicted)
    expected = [
        (task.text(a), task.text(b), "!" if i == first else "^" if wrong[i] else "")
        for i, (a, b) in enumerate(zip(target, predicted, strict=True))
    ]
    assert parsed(text) == expected
    assert ("reads" in text) == (task.kind != "seq2seq")


def test_correct_blocks_are_counted_and_colour_marks_errors():
    task = TASKS["copy"]()
    target = np.arange(200) % 10
    predicted = target.copy()
    predicted[[100, 103]] = 11
    text = comparison(task, target, target, predicted, width=60)
    lines = text.split("\n")
    assert all(len(line) <= 60 for line in lines)
    counts = [int(n) for n in re.findall(r"… (\d+) positions, none wrong", text)]
    assert len(counts) == 2 and sum(counts) + len(parsed(text)) == 200
    assert text.count("!") == 1 and text.count("^") == 1
    assert "\033" not in text
    coloured = comparison(task, target, target, predicted, width=60, colour=True)
    assert coloured.count(errors.FIRST_RED) == coloured.count(errors.RED) == 1
    assert re.sub(r"\033\[[\d;]*m", "", coloured) == text


def test_a_sample_that_is_all_wrong_is_cut_short():
    task = TASKS["copy"]()
    target = np.zeros(1000, int)
    text = comparison(task, target, target, target + 1, width=60)
    assert text.count("positions ") == errors.BLOCKS
    last = re.search(r"… (\d+) positions, (\d+) wrong$", text)
    assert last[1] == last[2] == str(1000 - len(parsed(text)))


def test_answers_are_those_that_are_evaluated(tiny_run):
    config = Run(tiny_run).config
    model, _ = load_model(tiny_run, config)
    test_set, done = TestSet(config, "test", 8, 5), []
    found = errors.answer(model, test_set, lambda *words: done.append(words))
    (cell,) = evaluate_lengths(model, [test_set])
    assert (found.predicted == found.target).mean() == pytest.approx(cell.token_accuracy)
    assert done[-1] == (5, 5)
    batch = test_set.batch()
    assert (found.reads[0].numpy() == batch.inputs).all()
    assert (found.inputs == batch.inputs[:, found.positions]).all()
    assert (found.target == batch.labels[:, found.positions]).all()
