"""A task that is scored inside its sequence: what it is said to be, and who learns it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from lcg.commands.show import introduction
from lcg.config.compatibility import check_task
from lcg.config.schema import Model
from lcg.evaluation.scoring import score_teacher_forcing
from lcg.models.transformer import batch_tensors
from lcg.tasks.base import IGNORE, Task


@dataclass
class Asked(Task):
    """The label of every 0 is the symbol before it; nothing else is scored."""

    name: ClassVar[str] = "asked"
    kind: ClassVar[str] = "labelled"
    symbols: int = 5

    def sample(self, rng, lengths):
        source = rng.integers(0, self.symbols, (len(lengths), lengths.max()))
        source[:, 1], source[:, 0] = 0, np.maximum(source[:, 0], 1)
        before = np.roll(source, 1, axis=1)
        return source, np.where((source == 0) & (np.arange(lengths.max()) > 0), before, IGNORE)


def test_it_is_for_decoders():
    check_task(Model(kind="decoder"), Asked())
    for kind in ("encoder", "encoder_decoder"):
        with pytest.raises(ValueError, match=r"asked is a labelled task.*use model.kind=decoder$"):
            check_task(Model(kind=kind), Asked())
    assert "the positions with a label are scored" in introduction(Asked(), 8)


def test_it_is_scored_where_it_has_labels_and_nowhere_else():
    task = Asked()
    batch = batch_tensors(task.encode(np.random.default_rng(0), np.full(9, 12)))

    def model(inputs, *, select):
        """Says what came before, and nonsense wherever nothing is scored."""
        answer = torch.roll(inputs, 1, dims=1)
        answer[batch["labels"] == IGNORE] = task.pad
        answer[0, 2] = task.pad  # one of the first row's is wrong
        return torch.nn.functional.one_hot(answer, task.vocabulary).float()[:, select]

    score = score_teacher_forcing(model, batch["inputs"], batch["labels"])
    scored = int((batch["labels"] != IGNORE).sum())
    assert (score.samples, score.correct) == (9, 8)
    assert (score.positions, score.right) == (scored, scored - 1)
