# ruff: noqa: F722  (shapes in annotations)
"""Score a batch by one forward pass or by decoding, and return answers for a task's metrics.

Greedy decoding reproduces a target exactly if and only if the teacher-forced argmax is right at
every scored position (induction over positions), so exact match needs one pass for any target
length. The two can differ only if the two best logits tie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lcg.models.transformer import batch_tensors, model_inputs
from lcg.shapes import Int, Shaped
from lcg.tasks.base import IGNORE, Batch, Task

CLOSE = 1e-4  # two best logits nearer than this: rounding may order them either way
ROOM = 2  # generated are up to this many times the nominal length
PARTS = 10  # of a target, over which accuracy is kept apart
OCTAVES = 64  # of distances: bin i holds those below 2^i, from 2^(i-1) on


@dataclass
class Score:
    """Sums over samples; `+` adds them up."""

    outcomes: str = ""
    """A digit per sample, in order: 1 where every scored position is right, else 0."""
    positions: int = 0
    right: int = 0
    """Scored positions that are right."""
    prefix: float = 0.0
    """Sum over samples of the share of scored positions before the first wrong one."""
    close_calls: int = 0
    """Scored positions whose two best logits differ by less than CLOSE."""
    oracle: int = 0
    """Samples right at every scored position but that of EOS: were the length known."""
    edits: float = 0.0
    """Sum over samples of the edit distance between decoded and right target, per token of it."""
    by_part: np.ndarray = field(
        default_factory=lambda: np.zeros((PARTS, 2), np.int64), compare=False
    )
    """[PARTS, 2]: right and scored positions in each part of a row's scored positions, of rows that
    have at least PARTS."""
    by_distance: np.ndarray = field(
        default_factory=lambda: np.zeros((OCTAVES, 2), np.int64), compare=False
    )
    """[OCTAVES, 2]: the same by distance to the evidence."""
    finite: bool = True

    def __add__(self, other: Score) -> Score:
        sums = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return Score(**sums | {"finite": self.finite and other.finite})

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.outcomes)

    @property
    def correct(self) -> int:
        """Samples with every scored position right."""
        return self.outcomes.count("1")

    @property
    def outcomes_in_hexadecimal(self) -> str:
        """`outcomes` as a ladder cell keeps them, zeros after the last sample."""
        digits = -(-self.samples // 4)
        return f"{int(self.outcomes.ljust(4 * digits, '0'), 2):0{digits}x}"


def scored_positions(labels: Int[Tensor, "b t"]) -> Int[Tensor, " m"]:
    """Return the positions that are scored in any row: in most tasks the same in all rows."""
    return (labels != IGNORE).any(dim=0).nonzero().squeeze(-1)


@torch.no_grad()
def score_teacher_forcing(
    model,
    inputs: Int[Tensor, "b t"],
    labels: Int[Tensor, "b t"],
    source: Int[Tensor, "b s"] | None = None,
    ids: Shaped[Tensor, "b ... t"] | None = None,
    *,
    eos: int | None = None,
    distance: Int[Tensor, "b t"] | None = None,
) -> Score:
    """Score a batch of one length by one forward pass.

    source is what an encoder reads, ids are position ids, if any. eos: the label that `oracle`
    leaves out. distance: tokens from each scored position to its evidence, negative for none.
    """
    select = scored_positions(labels)
    logits = model(*_reads(inputs, source, ids), select=select)
    best = logits.topk(2, dim=-1).values
    target = labels[:, select]
    close = ((best[..., 0] - best[..., 1] < CLOSE) & (target != IGNORE)).sum()
    # argmax, as decoding does, since topk may order ties another way
    near = None if distance is None else distance[:, select]
    finite = bool(logits.isfinite().all())
    return _score(logits.argmax(dim=-1), target, int(close), finite, eos, near)


@torch.no_grad()
def score_greedy(
    model,
    inputs: Int[Tensor, "b t"],
    labels: Int[Tensor, "b t"],
    source: Int[Tensor, "b s"] | None = None,
    ids: Shaped[Tensor, "b ... t"] | None = None,
    *,
    eos: int | None = None,
    distance: Int[Tensor, "b t"] | None = None,
) -> Score:
    """Score a batch of one length by decoding the target token by token from its source."""
    predicted, finite = torch.full_like(labels, IGNORE), True
    for rows, start, decoded in _decoded(model, inputs, labels, source, ids):
        predicted[rows, start : start + decoded.shape[1]] = decoded
        finite &= bool((decoded >= 0).all())
    select = scored_positions(labels)
    near = None if distance is None else distance[:, select]
    score = _score(predicted[:, select], labels[:, select], 0, finite, eos, near)
    score.edits = float(edit_distances(predicted[:, select], labels[:, select]).sum())
    return score


def _reads(*parts: Tensor | None) -> list[Tensor]:
    """Return the arguments of a model: inputs, and source or position ids if there are any."""
    return [part for part in parts if part is not None]


def _decoded(
    model,
    inputs: Tensor,
    labels: Tensor,
    source: Tensor | None = None,
    ids: Tensor | None = None,
    count: int | None = None,
) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Yield rows whose targets begin at the same position, it, and what is written from there on.

    count: of tokens; by default as many as the longest target of these rows has.
    """
    scored = labels != IGNORE
    starts = scored.int().argmax(dim=-1)
    for start in starts.unique().tolist():  # before it nothing is padded
        rows = (starts == start).nonzero().squeeze(-1)
        prompt = _reads(inputs[rows, : start + 1], None if source is None else source[rows])
        new = count or int(scored[rows].sum(-1).max())
        numbered = {} if ids is None else {"ids": _numbered(ids[rows], start + new)}
        yield rows, start, model.greedy(*prompt, count=new, **numbered)


def _numbered(ids: Tensor, tokens: int) -> Tensor:
    """The ids of so many tokens; those beyond the known ones go on from the last, one by one."""
    more = torch.arange(1, tokens - ids.shape[-1] + 1, device=ids.device)
    return torch.cat([ids, ids[..., -1:] + more], dim=-1)[..., :tokens]


def _score(
    predicted: Int[Tensor, "b m"],
    target: Int[Tensor, "b m"],
    close: int,
    finite: bool,
    eos: int | None,
    distance: Int[Tensor, "b m"] | None,
) -> Score:
    scored = target != IGNORE
    right = predicted == target
    unbroken = (right | ~scored).long().cumprod(dim=-1)
    counts = scored.sum(dim=-1, keepdim=True)
    if bool(scored.all()):
        prefix = unbroken.sum(dim=-1).double().mean(dim=0) * len(target) / target.shape[1]
    else:
        shares = (unbroken * scored).sum(dim=-1) / counts[:, 0].clamp_min(1).double()
        prefix = shares.masked_fill(counts[:, 0] == 0, 1.0).sum()  # nothing to get wrong
    outcomes = "".join("01"[exact] for exact in unbroken.all(dim=-1).tolist())
    oracle = (right | ~scored | (target == (IGNORE if eos is None else eos))).all(dim=-1).sum()
    sums = int(scored.sum()), int((right & scored).sum()), float(prefix), close, int(oracle)
    part = (scored.cumsum(dim=-1) - 1) * PARTS // counts.clamp_min(1)
    score = Score(outcomes, *sums, finite=finite)
    score.by_part = _tally(part, right, scored & (counts >= PARTS), PARTS)
    if distance is not None:
        octave = (distance.double() + 1).clamp_min(1).log2().ceil().long()  # exact: powers of two
        score.by_distance = _tally(octave, right, scored & (distance >= 0), OCTAVES)
    return score


def _tally(bins: Tensor, right: Tensor, counted: Tensor, size: int) -> np.ndarray:
    """[size, 2]: how many of those counted are right, and how many there are, in each bin."""
    of_all, of_right = bins[counted], bins[counted & right]
    pair = [each.bincount(minlength=size) for each in (of_right, of_all)]
    return torch.stack(pair, dim=-1).cpu().numpy()


def edit_distances(predicted: Int[Tensor, "b m"], target: Int[Tensor, "b m"]) -> np.ndarray:
    """Levenshtein distance [b] between the scored positions of two rows, per position: 0 to 1."""
    rows = zip(predicted.cpu().numpy(), target.cpu().numpy(), strict=True)
    pairs = [(p[t != IGNORE], t[t != IGNORE]) for p, t in rows]
    return np.array([_levenshtein(p, t) / max(1, len(t)) for p, t in pairs])


def _levenshtein(first: np.ndarray, second: np.ndarray) -> int:
    """Insertions, deletions and replacements that turn one sequence into the other."""
    steps = np.arange(len(second) + 1)
    row = steps
    for count, symbol in enumerate(first, 1):
        best = np.minimum(row[:-1] + (second != symbol), row[1:] + 1)
        # An insertion costs 1 a step: a running minimum of what is left of the steps' own cost.
        row = np.minimum.accumulate(np.concatenate([[count], best]) - steps) + steps
    return int(row[-1])


@torch.no_grad()
def generated(model, task: Task, batch: Batch) -> list[np.ndarray]:
    """Decode each row's target greedily, up to EOS or `ROOM` times the length.

    A row also ends where logits were not finite.
    """
    tensors = batch_tensors(batch, next(model.parameters()).device)
    found: list[np.ndarray] = [np.empty(0, np.int64)] * len(batch.inputs)
    for rows, _, decoded in _decoded(model, **tensors, count=ROOM * int(batch.lengths.max())):
        for i, row in zip(rows.tolist(), decoded.cpu().numpy(), strict=True):
            ends = np.flatnonzero((row == task.eos) | (row < 0))
            found[i] = row[: ends[0]] if len(ends) else row
    return found


@torch.no_grad()
def labelled(model, task: Task, batch: Batch) -> list[np.ndarray]:
    """Return the best symbol at each scored position of each row."""
    device = next(model.parameters()).device
    best = model(*model_inputs(batch_tensors(batch, device))).argmax(dim=-1).cpu().numpy()
    return [row[labels != IGNORE] for row, labels in zip(best, batch.labels, strict=True)]


def references(task: Task, batch: Batch) -> list[np.ndarray]:
    """Return the right answer of each row, without EOS."""
    rows = [row[row != IGNORE] for row in batch.labels]
    return [row[:-1] for row in rows] if task.kind == "seq2seq" else rows


def sources(task: Task, batch: Batch) -> list[np.ndarray]:
    """Return the symbols of each row's source (seq2seq)."""
    if batch.source is not None:
        return [row[row < task.symbol_count] for row in batch.source]
    ends = (batch.labels != IGNORE).argmax(axis=1) + 1 - task.separator
    return [row[1:end] for row, end in zip(batch.inputs, ends, strict=True)]
