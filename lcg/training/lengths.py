"""The training lengths that a run really sees."""

from __future__ import annotations

import numpy as np

from lcg.config import Config
from lcg.tasks.streams import train_batch


def drawn_lengths(config: Config, batches: int) -> np.ndarray:
    """Nominal lengths of the first training batches: one per sample, or one per batch."""
    data = config.data
    drawn = []
    for t in range(batches):
        batch = train_batch(
            config.task,
            config.seed,
            t,
            data.batch_size,
            data.min_length,
            data.max_length,
            data.lengths_per,
        )
        drawn.append(batch.lengths if data.lengths_per == "sample" else batch.lengths[:1])
    return np.concatenate(drawn)


def realised_lengths(config: Config) -> str:
    """One line on the lengths drawn, as found in the first batches."""
    per = config.data.lengths_per
    batches = min(config.trainer.steps, 16 if per == "sample" else 64)
    drawn = drawn_lengths(config, batches)
    low, middle, high = np.quantile(drawn, [0.1, 0.5, 0.9])
    return (
        f"training lengths {drawn.min()}–{drawn.max()}, drawn per {per}: mean {drawn.mean():.1f}, "
        f"median {middle:g}, 80 % in {low:g}–{high:g} (first {batches} batches)"
    )
