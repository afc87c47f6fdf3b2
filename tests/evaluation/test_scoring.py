"""Scores of rows that are scored at different positions, and of models that read a source."""

import numpy as np
import pytest
import torch
from oracles.registered import randomize
from oracles.variable_length import Ragged, RaggedMasked

from lcg.attention import Attention
from lcg.attention.normalizers.entmax import Entmax
from lcg.config.schema import Model
from lcg.evaluation.scoring import score_greedy, score_teacher_forcing
from lcg.models.transformer import Decoder, Encoder, EncoderDecoder, batch_tensors, model_inputs
from lcg.positional.rotary import RoPE
from lcg.tasks.base import IGNORE
from lcg.tasks.streams import eval_batch

CLASSES = {"decoder": Decoder, "encoder": Encoder, "encoder_decoder": EncoderDecoder}


def made(kind, task):
    model = Model(kind=kind, d_model=16, heads=2, d_ff=16)
    torch.manual_seed(0)
    made = CLASSES[kind](model, Attention(Entmax()), RoPE(), task.vocabulary, task.pad)
    randomize(made)
    return made.eval()


def own_answers(model, batch, share=0.5):
    """Labels that the model itself gives, in some rows; so that some samples are right."""
    with torch.no_grad():
        best = model(*model_inputs(batch)).argmax(-1)
    labels = batch["labels"].clone()
    rows = torch.arange(len(labels)) < share * len(labels)
    replaced = (labels != IGNORE) & rows[:, None]
    labels[replaced] = best[replaced]
    return labels


@pytest.mark.parametrize(
    ("kind", "task"),
    [("encoder", RaggedMasked()), ("decoder", Ragged()), ("encoder_decoder", Ragged())],
    ids=lambda part: part if isinstance(part, str) else part.name,
)
def test_scores_are_what_a_count_row_by_row_gives(kind, task):
    model = made(kind, task)
    batch = batch_tensors(eval_batch(task, 0, "test", 9, 0, 12, kind == "encoder_decoder"))
    batch["labels"] = own_answers(model, batch)
    score = score_teacher_forcing(model, **batch)
    right = positions = 0
    exact, prefix = [], 0.0
    for i, labels in enumerate(batch["labels"].tolist()):
        with torch.no_grad():  # this row alone, without its padding
            row = [tokens[i][tokens[i] != task.pad][None] for tokens in model_inputs(batch)]
            best = model(*row).argmax(-1)[0].tolist()
        scored = [j for j, label in enumerate(labels) if label != IGNORE]
        hits = [best[j] == labels[j] for j in scored]
        right, positions = right + sum(hits), positions + len(hits)
        exact.append(all(hits))
        prefix += (hits.index(False) if False in hits else len(hits)) / len(hits)
    assert 0 < sum(exact) < 12
    assert (score.samples, score.correct) == (12, sum(exact))
    assert (score.right, score.positions) == (right, positions)
    assert score.prefix == pytest.approx(prefix)
    assert score.outcomes == "".join("01"[flag] for flag in exact)
    assert score.finite


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_greedy_scores_are_teacher_forced_scores(kind):
    """Make targets of unequal lengths; in half of the rows the model would write them itself."""
    task = Ragged()
    model = made(kind, task)
    drawn = eval_batch(task, 0, "test", 9, 0, 10, kind == "encoder_decoder")
    batch = batch_tensors(drawn)
    for i in range(5):  # the model's own continuation as the target
        labels = batch["labels"][i]
        scored = (labels != IGNORE).nonzero()[:, 0]
        start, count = int(scored[0]), len(scored)
        known = [tokens[i : i + 1] for tokens in model_inputs(batch)]
        known[0] = known[0][:, : start + 1]
        written = model.greedy(*known, count=count)[0]
        labels[scored] = written
        batch["inputs"][i, start + 1 : start + count] = written[:-1]
    forced, greedy = score_teacher_forcing(model, **batch), score_greedy(model, **batch)
    assert forced.outcomes == greedy.outcomes
    assert greedy.correct >= 5 and greedy.finite
    assert greedy.positions == forced.positions == int((drawn.labels != IGNORE).sum())


def test_a_row_in_which_nothing_is_scored_has_nothing_to_get_wrong():
    task = RaggedMasked()
    batch = batch_tensors(eval_batch(task, 0, "test", 9, 0, 3))
    batch["labels"][1] = IGNORE
    score = score_teacher_forcing(made("encoder", task), **batch)
    assert score.positions == int((batch["labels"] != IGNORE).sum())
    assert score.outcomes[1] == "1"
    assert np.isfinite(score.prefix)
