"""Sequences as people read them: aligned, source and target plain, what is scored marked."""

import numpy as np
import pytest
from sampling import sampled

from lcg import registry
from lcg.commands.show import introduction, sequence
from lcg.tasks.base import IGNORE

TASKS = registry.available("task")


def columns(block: str) -> list[tuple[str, ...]]:
    """The cells of one block of aligned rows, a column for each token read."""
    rows = block.splitlines()
    names = [row[2:11].strip() for row in rows]
    assert names in (["input", "label", ""], ["input"])
    rows = [row[11:] for row in rows]
    width = max(map(len, rows))
    rows = [row.ljust(width) for row in rows] + [" " * width] * (3 - len(rows))
    starts = [i for i in range(width) if any(r[i] != " " for r in rows)]
    cells, begin = [], starts[0]
    for i in range(begin, width + 1):
        if i == width or all(row[i] == " " for row in rows):
            if i > begin:
                cells.append(tuple(row[begin:i].strip() for row in rows))
            begin = i + 1
    return cells


@pytest.mark.parametrize("row", sampled(TASKS, [100, 40], seed="show"), ids=str)
def test_every_token_is_shown_in_its_place(row):
    name, width = row
    task = TASKS[name]()
    length = max(20, task.min_length)
    text = sequence(task, length, seed=5, width=width)
    assert all(len(line) <= width for line in text.splitlines())
    batch = task.encode(np.random.default_rng(5), np.array([length]))
    expected = [
        (task.text(read), "", "") if answer == IGNORE else (task.text(read), task.text(answer), "^")
        for read, answer in zip(batch.inputs[0], batch.labels[0], strict=True)
    ]
    aligned = text[text.index("  input") :]
    shown = [cell for block in aligned.split("\n\n") for cell in columns(block)]
    assert shown == expected


def test_source_and_target_are_plain(call):
    code, out, err = call("show", "task=reverse", "task.symbols=9", "length=6", "count=2")
    assert (code, err) == (0, "")
    blocks = out.split("\n\n")
    assert len(blocks) == 4  # what it is, two sequences, what is known of it
    assert "Tokens to the evidence at 64×" in blocks.pop()
    assert blocks[0].startswith(
        "reverse, nominal length 6: 6 source tokens, 15 in all; target and <eos> are scored"
    )
    for block in blocks[1:]:
        named = {line.split()[0]: line.split()[1:] for line in block.splitlines()}
        assert named["target"] == named["source"][::-1]
        assert named["input"] == ["<bos>", *named["source"], "<sep>", *named["target"]]
        assert named["label"] == [*named["target"], "<eos>"]
        assert named["^"] == ["^"] * 6


def test_shown_samples_depend_on_the_seed_alone(call):
    first = call("show", "task=sort", "count=2")[1]
    assert first == call("show", "count=2", "task=sort", "seed=0")[1]
    second = call("show", "task=sort", "count=1", "seed=1")[1]
    assert second.split("\n\n")[1] == first.split("\n\n")[2]


def test_a_task_of_labels_has_no_source_beside_them(call):
    out = call("show", "task=local_count", "length=5", "count=1")[1]
    assert "every symbol but <bos> is scored" in out
    assert "  source " not in out
    marks = out.split("\n\n")[1].splitlines()[-1]
    assert marks.split() == ["^"] * 5


def test_an_experiment_s_task(call):
    out = call("show", "experiment=quick/mqmtar", "length=20")[1]
    assert out.startswith("mqmtar, nominal length 20: ")


def test_a_sequence_without_scored_positions_in_a_block():
    task = TASKS["mqmtar"]()
    text = sequence(task, 64, seed=0, width=60)
    blocks = text[text.index("  input") :].split("\n\n")
    assert [len(block.splitlines()) for block in blocks][:2] == [1, 1]
    assert len(blocks[-1].splitlines()) == 3


def test_introduction_counts_tokens():
    assert "8 source tokens, 19 in all" in introduction(TASKS["copy"](), 8)
    mqmtar = introduction(TASKS["mqmtar"](), 64)  # nominal and token length differ
    assert "nominal length 64: 76 source tokens, 91 in all" in mqmtar


def test_inputs_of_encoder_and_decoder(call):
    code, out, err = call(
        "show", "task=reverse", "length=6", "count=1", "model.kind=encoder_decoder"
    )
    assert (code, err) == (0, "")
    named = {line.split()[0]: line.split()[1:] for line in out.split("\n\n")[1].splitlines()}
    source = named["encoder"][1:-1]
    assert named["encoder"] == ["<bos>", *source, "<eos>"] and len(source) == 6
    assert named["input"] == ["<bos>", *source[::-1]]
    assert named["label"] == [*source[::-1], "<eos>"]
    code, _, err = call("show", "task=n_back", "model.kind=encoder_decoder")
    assert code == 2 and "tagging task" in err


def test_an_encoding_against_distance(call, tmp_path):
    code, out, err = call("show", "position=nape", "heads=4", "length=9")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()[2:]]
    assert rows[2] == ["2", "-2", "-1", "0", "0"] and rows[-1] == ["8", "-8", "-4", "0", "0"]
    file = tmp_path / "alibi.svg"
    code, out, err = call("show", "position=alibi", "-o", str(file))
    assert (code, out.strip()) == (0, str(file)) and b"<svg" in file.read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["position=nope"], "nope: scores do not depend on distance"),
        (["position=alibi", "task=copy"], "task=copy has no effect here"),
        (["position=alibi", "length=100000"], "length in 2 to 16384"),
        (["position=alibi", "-o", "alibi.gif"], "cannot draw to '.gif'"),
        (["position=alibo"], "did you mean alibi?"),
    ],
)
def test_an_encoding_that_cannot_be_shown(call, words, message):
    code, out, err = call("show", *words)
    assert code == 2 and message in err and not out
