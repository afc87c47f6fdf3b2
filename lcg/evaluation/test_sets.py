"""The samples on which a run is validated and tested, as inputs of its kind of model.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from lcg.config import Config
from lcg.runs.record import Cell, cell_key
from lcg.tasks.base import IGNORE, Batch
from lcg.tasks.streams import EvalStream, samples_of


class TestSet:
    """The samples of a split at one length, `samples` of them, or all if there are fewer.

    seed: of `config.evaluation`, determines the samples.
    """

    __test__ = False  # pytest takes classes of this name for tests

    def __init__(self, config: Config, split: str, length: int, samples: int) -> None:
        self.config, self.split, self.length = config, split, length
        self.seed = config.evaluation.seed
        self.samples = samples_of(config.task, split, length, samples)
        self.token_length = int(config.task.token_length(length))

    @cached_property
    def stream(self) -> EvalStream:
        """Return the stream that draws them; raises ValueError if the split has none of this
        length."""
        config = self.config
        return EvalStream(
            *(config.task, self.seed, self.split, self.length),
            config.model.separate_source,
            config.position,
        )

    @cached_property
    def sample_size(self) -> tuple[int, int]:
        """Return the tokens of one sample, source and target together, and how many are scored.

        If rows differ in length, these are upper bounds. An encoder–decoder counts as a decoder
        over both in a row, which needs at least as much memory.
        """
        task, separate_source = self.config.task, self.config.model.separate_source
        if task.variable_length or task.partly_scored:  # each row is scored elsewhere
            return (self.token_length + 2 * separate_source,) * 2
        first = self.stream.batch(0, 1)
        tokens = first.inputs.shape[1] + (0 if first.source is None else first.source.shape[1])
        return tokens, int((first.labels != IGNORE).sum())

    def batch(self) -> Batch:
        """Return all samples in one batch."""
        return self.stream.batch(0, self.samples)

    def decoding(self, decode: str) -> str:
        """The decoding that `decode` amounts to: labels of tokens that were read are never decoded,
        since nothing is generated."""
        return decode if self.config.task.kind == "seq2seq" else "teacher_forcing"

    def cell_key(self, decode: str, step: int | None, changes: Mapping[str, Any] = {}) -> tuple:
        """Return the `Cell.key` of an evaluation of a checkpoint on this test set."""
        fields = (self.length, self.samples, self.seed, self.decoding(decode), step)
        return cell_key(*fields, changes)

    def cell(
        self, decode: str, step: int | None, changes: Mapping[str, Any] = {}, **found: Any
    ) -> Cell:
        """Return the cell of such an evaluation, with the measured fields."""
        fields = (self.length, self.samples, self.seed, self.decoding(decode), step)
        return Cell(*fields, tokens=self.token_length, changes=dict(changes), **found)


def ladder_of(config: Config) -> list[TestSet]:
    """Return the test sets of `config.evaluation`, the shortest first."""
    asked = config.evaluation
    return [TestSet(config, "test", n, asked.samples) for n in sorted(asked.lengths)]
