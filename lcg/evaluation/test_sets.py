"""The samples that a run is validated and tested on, as its kind of model reads them.

Nothing here imports torch.
"""

from __future__ import annotations

from lcg.config import Config
from lcg.tasks.base import Batch
from lcg.tasks.streams import EvalStream, samples_of


def stream_of(config: Config, split: str, length: int, seed: int | None = None) -> EvalStream:
    """The samples of a split at a length; seed: which ones, None: those of `evaluation.seed`.

    Raises ValueError, in one line, where the split has none of this length.
    """
    seed = config.evaluation.seed if seed is None else seed
    return EvalStream(config.task, seed, split, length, config.model.apart)


def first_samples(config: Config, split: str, length: int, count: int) -> Batch:
    """The first samples of a split, as many as it has without repeating any, at most `count`."""
    stream = stream_of(config, split, length)
    return stream.batch(0, samples_of(config.task, split, length, count))


def decoding(config: Config, decode: str) -> str:
    """How this config's task is decoded where `decode` is asked for: a label at every position is
    not generated, so there is nothing to decode."""
    return decode if config.task.kind == "seq2seq" else "teacher_forcing"


def rung(config: Config, length: int, step: int | None) -> tuple:
    """The `Cell.key` that `config.evaluation` asks for at a length of the test ladder, of the
    checkpoint of a step. A split that has fewer samples than asked is taken whole."""
    asked = config.evaluation
    samples = samples_of(config.task, "test", length, asked.samples)
    return (length, samples, asked.seed, decoding(config, asked.decode), step)
