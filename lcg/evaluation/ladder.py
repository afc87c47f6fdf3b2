"""Evaluate at a ladder of lengths: one cell of results per length, whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from lcg.evaluation import memory
from lcg.evaluation.generation_metrics import measured
from lcg.evaluation.scoring import Score, addressed_draws, score_greedy, score_teacher_forcing
from lcg.evaluation.test_sets import decoding, stream_of
from lcg.models.model_inputs import tensors
from lcg.runs.record import Cell
from lcg.tasks.streams import samples_of

Progress = Callable[[int, int, int], None]  # length, samples done, samples in all


def climb(
    model,
    config,
    lengths: Iterable[int],
    samples: int,
    *,
    split: str,
    seed: int,
    decode: str = "teacher_forcing",
    batch_size: int | None = None,
    step: int | None = None,
    measure: bool = False,
    progress: Progress = lambda length, done, total: None,
) -> Iterator[Cell]:
    """Yield the result of each length as soon as it is known.

    Samples depend on (seed, split, length) alone. A length that does not fit in memory yields a
    cell that says so, and the next length follows. A split that has fewer samples is taken whole.
    With `measure` a cell also has the metrics of a task that has some.
    """
    training = model.training
    model.eval()
    decoded = decoding(config, decode)
    try:
        for length in lengths:
            count = samples_of(config.task, split, length, samples)
            identity = {"length": length, "samples": count, "seed": seed, "step": step}
            identity |= {"decode": decoded, "tokens": int(config.task.token_length(length))}
            started = time.perf_counter()
            try:
                score = _score_length(
                    model, config, length, count, split, seed, decoded, batch_size, progress
                )
            except MemoryError as error:
                yield Cell(**identity, state="out_of_memory", reason=str(error))
                continue
            if not score.finite:
                reason, seconds = "the model's logits are not finite", _since(started)
                yield Cell(**identity, state="not_finite", reason=reason, seconds=seconds)
                continue
            metrics = None
            if measure and config.task.metrics:
                stream = stream_of(config, split, length, seed)
                with suppress(MemoryError):  # then the cell has what is known without them
                    metrics = measured(model, config, stream, count, batch_size)
            yield Cell(
                **identity,
                correct=score.correct,
                token_accuracy=score.right / score.positions,
                prefix=score.prefix / score.samples,
                close_calls=None if decoded == "greedy" else score.close_calls,
                seconds=_since(started),
                outcomes=score.outcomes_in_hexadecimal,
                metrics=metrics,
            )
    finally:
        model.train(training)


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 3)


def _score_length(model, config, length, samples, split, seed, decode, batch_size, progress):
    """The score of all samples of one length; raises MemoryError when not even one sample fits."""
    device = next(model.parameters()).device
    tokens = int(config.task.token_length(length))
    if batch_size is None:
        memory.check_fits(config, tokens, device)  # before a block of them is drawn
    stream = stream_of(config, split, length, seed)
    tokens, scored = memory.tokens_of(config, stream)
    if batch_size is None:
        memory.check_fits(config, tokens, device, scored)
    size = batch_size or memory.batch_size(config, tokens, scored, samples, device)
    score_batch = score_greedy if decode == "greedy" else score_teacher_forcing
    total = Score()

    def scored_batch(batch) -> Score:
        with addressed_draws(seed, split, length, device):
            return score_batch(model, **tensors(batch, device))

    for score in memory.in_batches(stream, samples, size, scored_batch):
        total = total + score
        progress(length, total.samples, samples)
    return total
