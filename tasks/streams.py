"""Data as a pure function of its address: no files and no state to restore on resuming.

Each stream has its own Philox key, a hash of its address. Its pieces (training batch t, evaluation
block b) differ in the highest word of the counter. The low words count the numbers drawn, so a
piece could draw 2^192 of them before it reached the next.

The key does not name the task: tasks that draw their sources in the same way have the same sources.
"""

import hashlib
from typing import Any, Literal

import numpy as np

from lcg.tasks.base import Batch, Task

BLOCK = 64
"""Evaluation samples are drawn this many at a time, so how they are batched cannot matter."""


def stream_rng(piece: int, *address: int | str) -> np.random.Generator:
    """Return the generator of one piece of the stream called `address`."""
    digest = hashlib.blake2b("\0".join(map(str, address)).encode(), digest_size=16).digest()
    key = int.from_bytes(digest, "little")
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, piece]))


def train_rng(seed: int, t: int) -> np.random.Generator:
    """Return the generator of training batch t."""
    return stream_rng(t, "train", seed)


def eval_rng(seed: int, split: str, length: int, block: int) -> np.random.Generator:
    """Return the generator of samples 64·block .. 64·block + 63 of a split at a length."""
    return stream_rng(block, "eval", seed, split, length)


def samples_of(task: Task, split: str, length: int, asked: int) -> int:
    """Return the number of samples asked for, or that of the split at a length if it is smaller."""
    found = task.distinct_samples(split, length)
    return asked if found is None else min(asked, found)


def train_batch(
    task: Task,
    seed: int,
    t: int,
    batch_size: int,
    min_length: int,
    max_length: int,
    per: Literal["sample", "batch"] = "sample",
    rank: int = 0,
    world: int = 1,
    separate_source: bool = False,
    position: Any = None,
) -> Batch:
    """Draw training batch t, or its rows rank::world.

    Nominal lengths are uniform in [min_length, max_length], drawn per sample or once per batch.
    Every rank draws the whole batch and keeps its rows, so the data does not depend on `world`.
    separate_source: see `Task.assemble`. position: an encoding that may draw position ids.
    """
    task.check_length(min_length)
    task.check_length(max_length)
    if per not in ("sample", "batch"):
        raise ValueError(f"lengths are drawn per sample or per batch, got per={per!r}")
    if max_length < min_length:
        raise ValueError(f"max_length={max_length} is less than min_length={min_length}")
    rng = train_rng(seed, t)
    lengths = rng.integers(min_length, max_length + 1, batch_size if per == "sample" else 1)
    lengths = np.broadcast_to(lengths, batch_size)
    source, target = task.draw(rng, lengths)
    rows = slice(rank, None, world)
    batch = task.assemble(source[rows], target[rows], lengths[rows], separate_source)
    if not is_numbered(task, position):
        return batch
    whole = task.assemble(source, target, lengths, separate_source)
    ids = position_ids(task, position, whole, stream_rng(t, "train", seed, "ids"), training=True)
    width = batch.inputs.shape[1]
    return batch if ids is None else batch._replace(ids=ids[rows, ..., :width])


class EvalStream:
    """The samples of one split at one length, numbered from 0.

    The last block is kept, so that small batches of long sequences draw each block once.
    separate_source: see `Task.assemble`. position: an encoding that may draw position ids.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        split: str,
        length: int,
        separate_source: bool = False,
        position: Any = None,
    ):
        task.check_evaluation(split, length)
        self.separate_source, self.position = separate_source, position
        self.task = task.for_split(split)
        self.address = (seed, split, length)
        self.length = length
        self._held = -1, None  # block number, its (source, target)

    def batch(self, start: int, count: int) -> Batch:
        """Return samples start .. start + count - 1."""
        stop = start + count
        pieces, ids = [], []
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first = block * BLOCK
            rows = slice(max(start - first, 0), stop - first)
            pieces.append([part[rows] for part in self._block(block)])
            if (of_block := self._ids(block)) is not None:
                ids.append(of_block[rows])
        source, target = map(_joined, zip(*pieces, strict=True))
        batch = self._assembled(source, target)
        return batch._replace(ids=_side_by_side(ids, batch.inputs.shape[1])) if ids else batch

    def _assembled(self, source: np.ndarray, target: np.ndarray) -> Batch:
        lengths = np.full(len(source), self.length)
        return self.task.assemble(source, target, lengths, self.separate_source)

    def _ids(self, block: int) -> np.ndarray | None:
        """Return the position ids of all samples of a block, for any subset asked for."""
        if not is_numbered(self.task, self.position):
            return None
        rng = stream_rng(block, "eval", *self.address, "ids")
        batch = self._assembled(*self._block(block))
        return position_ids(self.task, self.position, batch, rng, training=False)

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        if self._held[0] != block:
            lengths = np.full(BLOCK, self.length)
            rng = eval_rng(*self.address, block)
            drawn = self.task.draw(rng, lengths, block * BLOCK)
            self._held = block, drawn
        return self._held[1]


def is_numbered(task: Task, position: Any) -> bool:
    """True when the task or the encoding may give tokens position ids of their own."""
    by_task = type(task).position_ids is not Task.position_ids
    return by_task or (position is not None and position.has("draw_positions"))


def position_ids(
    task: Task, position: Any, batch: Batch, rng: np.random.Generator, training: bool
) -> np.ndarray | None:
    """Return the position ids of a batch: the task's, or drawn by the encoding.

    If both define ids, id n of the task's first level becomes the n-th drawn id. Raises ValueError
    for other shapes, and for ids that the encoding does not have.
    """
    ids = task.position_ids(batch, rng, training)
    shape = batch.inputs.shape
    if ids is not None:
        ids = _checked(f"{type(task).__name__}.position_ids()", ids, shape)
        if position is not None:
            levels = ids[:, None] if ids.ndim == 2 else ids
            position.check_ids([int(level.max()) + 1 for level in levels.swapaxes(0, 1)])
    if position is None or not position.has("draw_positions"):
        return ids
    counts = (batch.inputs != task.pad).sum(axis=1) if ids is None else _first(ids).max(axis=1) + 1
    drawn = np.asarray(position.draw_positions(rng, counts, training))
    name = f"{type(position).__name__}.draw_positions()"
    drawn = _checked(name, drawn, (shape[0], int(counts.max())))
    if ids is None:
        return np.pad(drawn, ((0, 0), (0, shape[1] - drawn.shape[1])), mode="edge")
    first = np.take_along_axis(drawn, _first(ids), axis=1)
    return first if ids.ndim == 2 else np.concatenate([first[:, None], ids[:, 1:]], axis=1)


def _checked(name: str, ids: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    fits = isinstance(ids, np.ndarray) and ids.ndim in (2, 3)
    fits = fits and (len(ids), ids.shape[-1]) == shape
    if not fits or ids.dtype.kind not in "iuf":
        found = f"{list(ids.shape)} of {ids.dtype}" if isinstance(ids, np.ndarray) else repr(ids)
        raise ValueError(f"{name} returned {found:.80}, expected numbers {list(shape)}")
    return ids


def _first(ids: np.ndarray) -> np.ndarray:
    """Return the ids that everything but the embeddings uses."""
    return ids if ids.ndim == 2 else ids[:, 0]


def _side_by_side(blocks: list[np.ndarray], width: int) -> np.ndarray:
    """Stack the ids of rows of several blocks; those beyond the end of a row are arbitrary."""
    room = [max(0, width - ids.shape[-1]) for ids in blocks]
    wide = [
        np.pad(ids, [(0, 0)] * (ids.ndim - 1) + [(0, more)])[..., :width]
        for ids, more in zip(blocks, room, strict=True)
    ]
    return np.concatenate(wide)


def _joined(pieces: tuple[np.ndarray, ...]) -> np.ndarray:
    """Join the rows of several blocks, which may have different widths in variable-length tasks."""
    width = max(piece.shape[1] for piece in pieces)
    room = [((0, 0), (0, width - piece.shape[1])) for piece in pieces]
    return np.concatenate(
        [
            piece if piece.shape[1] == width else np.pad(piece, more, constant_values=-1)
            for piece, more in zip(pieces, room, strict=True)
        ]
    )


def eval_batch(
    task: Task,
    seed: int,
    split: str,
    length: int,
    start: int,
    count: int,
    separate_source: bool = False,
    position: Any = None,
) -> Batch:
    """Return samples start .. start + count - 1 of a split at a length. For many: EvalStream."""
    stream = EvalStream(task, seed, split, length, separate_source, position)
    return stream.batch(start, count)
