"""Estimate the memory of a forward pass, and compare it with the available memory.

On a CPU many small allocations beyond memory raise no error: the kernel kills the process. So the
requirement is estimated before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from lcg.attention.functional import scores_at_once
from lcg.evaluation.test_sets import TestSet
from lcg.system import host_memory
from lcg.tasks.base import Batch

Found = TypeVar("Found")

SHARE = 0.6  # of the available memory that one forward pass may plan to use


def forward_bytes(config, batch: int, tokens: int, scored: int) -> int:
    """Return an upper estimate of the peak memory of one evaluation pass over batch × tokens."""
    model = config.model
    attentions = config.attention.pattern or [config.attention]
    queries = batch * model.heads * tokens
    entries = max(scores_at_once(own.backend, queries, tokens) for own in attentions)
    scores = 12 * 4 * entries  # scores, biased, candidates, weights and a solver's temporaries
    bias = 2 * 8 * entries
    width = model.heads * model.width_of_head
    activations = 4 * batch * tokens * (10 * model.d_model + 6 * width + 3 * model.d_ff)
    logits = 3 * 4 * batch * scored * config.task.vocabulary
    return scores + bias + activations + logits


def available_bytes(device: torch.device) -> int:
    """Return the free memory of a device; on a CPU, the memory available without swapping."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    return host_memory()


def batch_size(config, tokens: int, scored: int, samples: int, device: torch.device) -> int:
    """Return the largest number of samples whose pass fits the planned share of memory, at least 1.

    At most 65,536 tokens at a time: beyond that a larger batch is not faster.
    """
    budget = SHARE * available_bytes(device)
    size = max(1, min(samples, 65536 // tokens))
    while size > 1 and forward_bytes(config, size, tokens, scored) > budget:
        size //= 2
    return size


def batch_size_of(test_set: TestSet, device: torch.device) -> int:
    """Return the batch size for a test set; raises MemoryError when not even one sequence fits."""
    config = test_set.config
    check_fits(config, test_set.token_length, device)  # before any sample is drawn
    tokens, scored = test_set.sample_size
    check_fits(config, tokens, device, scored)
    return batch_size(config, tokens, scored, test_set.samples, device)


def in_batches(test_set: TestSet, size: int, work: Callable[[Batch], Found]) -> Iterator[Found]:
    """Yield work(batch) for the samples of a test set, `size` at a time.

    Batches are halved if memory runs out. Raises MemoryError when a single sample does not fit.
    """
    done = 0
    while done < test_set.samples:
        batch = test_set.stream.batch(done, min(size, test_set.samples - done))
        try:
            result = work(batch)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if size == 1:
                raise MemoryError(str(error).splitlines()[0]) from None
            size //= 2
            continue
        done += len(batch.inputs)
        yield result


def is_out_of_memory(error: Exception) -> bool:
    """Tell an out-of-memory error from others; the CPU allocator has no error class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def check_fits(config, tokens: int, device: torch.device, scored: int = 1) -> None:
    """Raise MemoryError when not even one sequence fits the planned share of memory."""
    need, have = forward_bytes(config, 1, tokens, scored), available_bytes(device)
    if need > SHARE * have:
        need, have = (f"{count / 2**30:.1f} GiB" for count in (need, have))
        raise MemoryError(f"one sequence needs {need} of the {have} available")
