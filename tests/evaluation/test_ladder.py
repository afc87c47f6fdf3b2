"""The ladder: what a cell says, that batching does not change it, what happens without room."""

import pytest
import torch

from lcg.config import load_config
from lcg.evaluation import ladder, memory
from lcg.evaluation.scoring import score_greedy, score_teacher_forcing, scored_positions
from lcg.evaluation.test_sets import TestSet
from lcg.models.transformer import build_model
from lcg.tasks.streams import EvalStream

SMALL = ["model.d_model=16", "model.heads=2", "model.d_ff=16", "validation.lengths=8"]


class Knows(torch.nn.Module):
    """Answers a copy task rightly, but for the samples and positions it is told to miss."""

    def __init__(self, task, wrong=()):
        super().__init__()
        self.task, self.wrong, self.seen = task, set(wrong), 0
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens, select=None, cache=None):
        source = tokens[:, 1 : 1 + (tokens.shape[1] - 2) // 2]
        answer = torch.cat([source, torch.full_like(source[:, :1], self.task.eos)], dim=1)
        logits = torch.nn.functional.one_hot(answer, self.task.vocabulary).float()
        for row in range(len(tokens)):
            for sample, position in self.wrong:
                if sample == self.seen + row:
                    logits[row, position] = logits[row, position].roll(1)
        self.seen += len(tokens)
        return logits


def evaluate(model, config, lengths, samples=100, **options):
    sets = [TestSet(config, "test", length, samples) for length in lengths]
    return list(ladder.evaluate_lengths(model, sets, **options))


def test_cell_counts_samples_tokens_and_prefix():
    config = load_config(["task=copy", *SMALL])
    model = Knows(config.task, wrong=[(3, 0), (3, 4), (70, 8)])
    (cell,) = evaluate(model, config, [8])
    assert (cell.state, cell.correct, cell.samples, cell.tokens) == ("value", 98, 100, 19)
    assert cell.token_accuracy == pytest.approx(1 - 3 / 900)  # 8 symbols and EOS per sample
    assert cell.prefix == pytest.approx(1 - (9 + 1) / 900)  # all of sample 3, the EOS of sample 70
    assert cell.close_calls == 0
    assert [i for i in range(100) if not cell.bits >> (99 - i) & 1] == [3, 70]
    assert cell.outcomes == "e" + "f" * 16 + "d" + "f" * 7


@pytest.mark.parametrize(
    "task",
    ["copy", "n_back"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("flip_flop", "max_retrieval")],
)
def test_result_does_not_depend_on_batch_size(task):
    words = [f"task={task}", *SMALL[:-1], "data.min_length=12", "validation.lengths=12"]
    config = load_config(words)
    model = build_model(config).eval()
    for head in model.parameters():  # make argmax near the edge as often as possible
        head.data.mul_(0.5)
    kept = [
        [
            (c.correct, c.token_accuracy, round(c.prefix, 12), c.outcomes)
            for c in evaluate(model, config, [12, 17], 90, batch_size=size)
        ]
        for size in (1, 7, 64, 90)
    ]
    assert kept[0] == kept[1] == kept[2] == kept[3]
    assert len(kept[0][0][-1]) == 23, "90 bits are 23 hexadecimal digits"


def test_validation_and_test_samples_differ_and_are_the_run_seeds_business_never():
    config = load_config(["task=copy", *SMALL])
    test = EvalStream(config.task, 0, "test", 8).batch(0, 64).inputs
    validation = EvalStream(config.task, 0, "validation", 8).batch(0, 64).inputs
    assert (test != validation).any(axis=1).mean() > 0.9


def test_a_length_out_of_memory_is_recorded_and_the_next_follows(monkeypatch):
    config = load_config(["task=copy", *SMALL])
    model = build_model(config)
    room = memory.forward_bytes(config, 1, 40, 20) / memory.SHARE
    monkeypatch.setattr(memory, "available_bytes", lambda device: room)
    cells = evaluate(model, config, [8, 4096, 9], 4)
    assert [cell.state for cell in cells] == ["value", "out_of_memory", "value"]
    assert "GiB" in cells[1].reason and cells[1].correct is None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
)
def test_allocation_that_fails_halves_the_batch(monkeypatch, error):
    config = load_config(["task=copy", *SMALL])
    model, sizes, score = build_model(config), [], ladder.score_teacher_forcing

    def at_most(limit):
        def run(model, inputs, labels, **options):
            sizes.append(len(inputs))
            if len(inputs) > limit:
                raise error
            return score(model, inputs, labels, **options)

        return run

    monkeypatch.setattr(ladder, "score_teacher_forcing", at_most(5))
    (cell,) = evaluate(model, config, [8], 20, batch_size=20)
    assert cell.state == "value" and sizes == [20, 10, 5, 5, 5, 5]
    monkeypatch.setattr(ladder, "score_teacher_forcing", at_most(0))
    (cell,) = evaluate(model, config, [8], 20, batch_size=2)
    assert cell.state == "out_of_memory" and "allocate" in cell.reason


def test_other_errors_are_not_taken_for_memory(monkeypatch):
    config = load_config(["task=copy", *SMALL])

    def broken(model, inputs, labels, **options):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(ladder, "score_teacher_forcing", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        evaluate(build_model(config), config, [8], 4)


def test_logits_that_are_not_finite_are_a_state():
    config = load_config(["task=copy", *SMALL])
    model = build_model(config)
    model.head.weight.data[0, 0] = torch.nan
    (cell,) = evaluate(model, config, [8], 4)
    assert cell.state == "not_finite" and cell.correct is None


def test_model_is_left_in_the_mode_it_was_found_in():
    config = load_config(["task=copy", *SMALL])
    for training in (True, False):
        model = build_model(config).train(training)
        evaluate(model, config, [8], 2)
        assert model.training is training


def test_progress_reaches_the_end_of_each_length():
    config = load_config(["task=copy", *SMALL])
    seen = []
    evaluate(
        build_model(config),
        config,
        [8, 9],
        10,
        batch_size=4,
        on_progress=lambda length, done, total: seen.append((length, done, total)),
    )
    assert seen == [(n, d, 10) for n in (8, 9) for d in (4, 8, 10)]


@pytest.mark.parametrize("attention", ["softmax", "asentmax", "stick_breaking"])
def test_greedy_decoding_agrees_with_teacher_forcing(attention):
    """Sample by sample and position by position, on a model that is right here and there."""
    words = [f"attention={attention}", "task=copy", "task.symbols=2", *SMALL]
    config = load_config(words)
    model = build_model(config).eval()
    batch = EvalStream(config.task, 0, "test", 9).batch(0, 64)
    inputs, labels = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)
    forced, greedy = (
        score_teacher_forcing(model, inputs, labels),
        score_greedy(model, inputs, labels),
    )
    assert forced.close_calls == 0
    assert (forced.correct, forced.prefix) == (greedy.correct, greedy.prefix)
    assert len(scored_positions(labels)) == 10


def test_estimate_is_above_what_is_used():
    """Peak memory of a pass, measured by torch's own profiler, against the estimate."""
    config = load_config(["task=copy", "attention=asentmax", "validation.lengths=8"])
    model = build_model(config).eval()
    for length, count in ((32, 16), (256, 4), (700, 1)):
        batch = EvalStream(config.task, 0, "test", length).batch(0, count)
        inputs, labels = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)
        with torch.profiler.profile(profile_memory=True) as profile:
            score_teacher_forcing(model, inputs, labels)
        peak = running = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                running += event.nbytes()
                peak = max(peak, running)
        estimate = memory.forward_bytes(config, count, inputs.shape[1], length + 1)
        assert peak > 2**20
        assert peak <= estimate <= 40 * peak, (length, peak / 2**20, estimate / 2**20)
