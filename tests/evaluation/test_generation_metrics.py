"""Measures beside exact match: on the model's own words, for every kind of model."""

import numpy as np
import pytest
import torch

from lcg.config import load_config
from lcg.evaluation.ladder import evaluate_lengths, measured
from lcg.evaluation.scoring import generated, labelled, references, sources
from lcg.evaluation.test_sets import TestSet, ladder_of
from lcg.models.transformer import build_model
from lcg.tasks.base import IGNORE
from lcg.tasks.parallel_text import ParallelText
from lcg.tasks.streams import EvalStream

SMALL = """
    model.d_model=16 model.heads=2 model.d_ff=16 position=rope data.min_length=32
    data.max_length=32 validation.lengths=32 evaluation.lengths=32
""".split()  # noqa: SIM905


def drawn(task: str, kind: str):
    config = load_config([f"task={task}", f"model.kind={kind}", *SMALL])
    model = build_model(config).eval()
    with torch.no_grad():
        model.head.weight[config.task.eos] *= 4  # so that some rows end and others do not
    return config, model, EvalStream(config.task, 0, "test", 32, config.model.separate_source)


def one_by_one(model, prompt: list[int], source: torch.Tensor | None, count: int, eos: int):
    """A continuation without a cache, a batch or padding."""
    out = []
    while len(out) < count:
        reads = [torch.tensor([prompt + out])] + ([] if source is None else [source[None]])
        best = int(model(*reads)[0, -1].argmax())
        if best == eos:
            break
        out.append(best)
    return out


@pytest.mark.parametrize("kind", ["encoder_decoder", "decoder"])
def test_generated_rows_equal_decoding_in_a_loop(kind):
    config, model, stream = drawn("parallel_text", kind)
    task, batch = config.task, stream.batch(0, 5)
    rows = generated(model, task, batch)
    lengths = set()
    for i, row in enumerate(rows):
        prompt, source = [task.bos], None
        if kind == "encoder_decoder":
            source = torch.from_numpy(batch.source[i][batch.source[i] != task.pad])
        else:
            prompt = batch.inputs[i][: int((batch.labels[i] != IGNORE).argmax()) + 1].tolist()
            assert prompt[-1] == task.sep
        with torch.no_grad():
            assert row.tolist() == one_by_one(model, prompt, source, 64, task.eos)
        lengths.add(len(row))
    assert len(lengths) > 1


@pytest.mark.parametrize("kind", ["encoder_decoder", "decoder"])
def test_source_and_reference_are_the_pair(kind):
    config, _, stream = drawn("parallel_text", kind)
    task, batch = config.task, stream.batch(0, 40)
    drawn_pairs = stream.task.sample_block(None, np.full(64, 32), 0)
    for rows, side in zip(
        (sources(task, batch), references(task, batch)), drawn_pairs, strict=True
    ):
        for row, expected in zip(rows, side, strict=False):
            np.testing.assert_array_equal(row, expected[expected >= 0])


def test_masked_tokens_are_counted_one_by_one():
    config, model, stream = drawn("masked_lm", "encoder")
    right = scored = 0
    for start in range(30):
        batch = stream.batch(start, 1)
        with torch.no_grad():
            best = model(torch.from_numpy(batch.inputs))[0].argmax(dim=-1).numpy()
        for answer, label in zip(best, batch.labels[0], strict=True):
            scored += int(label != IGNORE)
            right += int(label != IGNORE and answer == label)
    for size in (7, 30, None):
        found = measured(model, TestSet(config, "test", 32, 30), size)
        assert found == {"masked_accuracy": pytest.approx(100 * right / scored)}
    assert len(labelled(model, config.task, stream.batch(0, 3))) == 3


def test_a_ladder_takes_what_there_is_and_measures_it(monkeypatch):
    monkeypatch.setattr(ParallelText, "metrics", ("letters",))
    monkeypatch.setattr(
        ParallelText, "measure", lambda self, own, right: {"letters": float(sum(map(len, right)))}
    )
    config, model, stream = drawn("parallel_text", "encoder_decoder")
    count = config.task.distinct_samples("test", 32)
    batch = stream.batch(0, count)
    letters = (batch.labels != IGNORE).sum() - count  # EOS is none
    cells = [
        *evaluate_lengths(model, [TestSet(config, "test", 32, 10**6)], metrics=True),
        *evaluate_lengths(model, [TestSet(config, "test", 32, 10**6)]),
    ]
    assert [cell.metrics for cell in cells] == [{"letters": float(letters)}, None]
    assert {cell.samples for cell in cells} == {count}


def test_metrics_that_do_not_fit_in_memory_cost_nothing_else(monkeypatch):
    """Batches are halved first; when one sample alone does not fit, the cell has its score."""
    config, model, _ = drawn("parallel_text", "encoder_decoder")
    sizes = []

    def too_large(model, task, batch):
        sizes.append(len(batch.inputs))
        raise RuntimeError("can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("lcg.evaluation.ladder.generated", too_large)
    (cell,) = evaluate_lengths(model, [TestSet(config, "test", 32, 8)], batch_size=4, metrics=True)
    assert sizes == [4, 2, 1]
    assert cell.state == "value" and cell.metrics is None


def test_labels_are_never_recorded_as_decoded():
    config = load_config(["task=n_back", "evaluation.decode=greedy", *SMALL])
    model = build_model(config).eval()
    (cell,) = evaluate_lengths(model, [TestSet(config, "test", 32, 4)], decode="greedy")
    assert cell.decode == "teacher_forcing" and cell.close_calls is not None
    config.evaluation.samples = 4
    (test_set,) = ladder_of(config)
    assert cell.key == test_set.cell_key("greedy", None)


@pytest.mark.parametrize("found", [{"bleu": float("nan")}, {"bleu": "high"}, 3])
def test_a_measure_that_is_not_a_number_is_refused(monkeypatch, found):
    config, model, _ = drawn("parallel_text", "encoder_decoder")
    monkeypatch.setattr(ParallelText, "measure", lambda self, own, right: found)
    with pytest.raises(
        ValueError, match=r"ParallelText.measure\(\) returned .*, expected finite num"
    ):
        measured(model, TestSet(config, "test", 32, 2), 2)
