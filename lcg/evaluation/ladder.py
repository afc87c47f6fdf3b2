"""Climb a ladder of lengths: one cell of results per length, whatever happens on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import torch

from lcg.evaluation import memory
from lcg.evaluation.scoring import Score, score_greedy, score_teacher_forcing
from lcg.models.reads import tensors
from lcg.results import Cell
from tasks.streams import EvalStream

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
    progress: Progress = lambda length, done, total: None,
) -> Iterator[Cell]:
    """Yield the result of each length as soon as it is known.

    Samples depend on (seed, split, length) alone. A length that does not fit in memory yields a
    cell that says so and the ladder goes on.
    """
    training = model.training
    model.eval()
    try:
        for length in lengths:
            identity = {"length": length, "samples": samples, "seed": seed, "step": step}
            identity |= {"decode": decode, "tokens": int(config.task.token_length(length))}
            started = time.perf_counter()
            try:
                score = _score_length(
                    model, config, length, samples, split, seed, decode, batch_size, progress
                )
            except MemoryError as error:
                yield Cell(**identity, state="out_of_memory", reason=str(error))
                continue
            seconds = round(time.perf_counter() - started, 3)
            if not score.finite:
                reason = "the model's logits are not finite"
                yield Cell(**identity, state="not_finite", reason=reason, seconds=seconds)
                continue
            yield Cell(
                **identity,
                correct=score.correct,
                token_accuracy=score.right / score.positions,
                prefix=score.prefix / score.samples,
                close_calls=None if decode == "greedy" else score.close_calls,
                seconds=seconds,
                outcomes=score.outcomes_in_hexadecimal,
            )
    finally:
        model.train(training)


def _score_length(model, config, length, samples, split, seed, decode, batch_size, progress):
    """The score of all samples of one length; raises MemoryError when not even one sample fits."""
    device = next(model.parameters()).device
    tokens = int(config.task.token_length(length))
    if batch_size is None:
        memory.check_fits(config, tokens, device)  # before a block of them is drawn
    stream = EvalStream(config.task, seed, split, length, config.model.apart)
    tokens, scored = memory.tokens_of(config, stream)
    if batch_size is None:
        memory.check_fits(config, tokens, device, scored)
    size = batch_size or memory.batch_size(config, tokens, scored, samples, device)
    # A label at every position is not generated: there is nothing to decode.
    greedy = decode == "greedy" and config.task.kind == "seq2seq"
    score_batch = score_greedy if greedy else score_teacher_forcing
    total, done = Score(), 0
    while done < samples:
        batch = stream.batch(done, min(size, samples - done))
        try:
            total = total + score_batch(model, **tensors(batch, device))
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if device.type == "cuda":
                torch.cuda.empty_cache()
            if size == 1:
                raise MemoryError(str(error).splitlines()[0]) from None
            size //= 2
            continue
        done += len(batch.inputs)
        progress(length, done, samples)
    return total


def _is_out_of_memory(error: Exception) -> bool:
    # The CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
