# ruff: noqa: F722  (shapes in annotations)
"""Score a batch by one forward pass: who is right, where, and by how much.

Greedy decoding reproduces a target exactly if and only if the teacher-forced argmax is right at
every scored position (induction over positions), so exact match needs one pass whatever the
target's length. The two can part only where the two best logits tie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lcg.shapes import Int
from lcg.tasks.base import IGNORE

CLOSE = 1e-4  # two best logits nearer than this: rounding may order them either way


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
    finite: bool = True

    def __add__(self, other: Score) -> Score:
        return Score(
            self.outcomes + other.outcomes,
            self.positions + other.positions,
            self.right + other.right,
            self.prefix + other.prefix,
            self.close_calls + other.close_calls,
            self.finite and other.finite,
        )

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
    """Indices of the positions that are scored in any row: in most tasks the same in all of one
    length.
    """
    return (labels != IGNORE).any(dim=0).nonzero().squeeze(-1)


@torch.no_grad()
def score_teacher_forcing(
    model,
    inputs: Int[Tensor, "b t"],
    labels: Int[Tensor, "b t"],
    source: Int[Tensor, "b s"] | None = None,
) -> Score:
    """Score a batch of one length by one forward pass; source is what an encoder reads, if any."""
    select = scored_positions(labels)
    logits = model(*_reads(inputs, source), select=select)
    best = logits.topk(2, dim=-1).values
    target = labels[:, select]
    close = ((best[..., 0] - best[..., 1] < CLOSE) & (target != IGNORE)).sum()
    # argmax, as decoding does, since topk may order ties another way
    return _score(logits.argmax(dim=-1), target, int(close), bool(logits.isfinite().all()))


@torch.no_grad()
def score_greedy(
    model,
    inputs: Int[Tensor, "b t"],
    labels: Int[Tensor, "b t"],
    source: Int[Tensor, "b s"] | None = None,
) -> Score:
    """Score a batch of one length by decoding the target token by token from its source.

    Rows whose targets begin at the same position are decoded together.
    """
    scored = labels != IGNORE
    starts = scored.int().argmax(dim=-1)
    predicted, finite = torch.full_like(labels, IGNORE), True
    for start in starts.unique().tolist():
        rows = (starts == start).nonzero().squeeze(-1)
        count = int(scored[rows].sum(dim=-1).max())
        known = _reads(inputs[rows, : start + 1], None if source is None else source[rows])
        decoded = model.greedy(*known, count=count)
        predicted[rows, start : start + count] = decoded
        finite &= bool((decoded >= 0).all())
    select = scored_positions(labels)
    return _score(predicted[:, select], labels[:, select], 0, finite)


def _reads(inputs: Tensor, source: Tensor | None) -> tuple[Tensor, ...]:
    return (inputs,) if source is None else (inputs, source)


def _score(
    predicted: Int[Tensor, "b m"], target: Int[Tensor, "b m"], close: int, finite: bool
) -> Score:
    scored = target != IGNORE
    right = predicted == target
    unbroken = (right | ~scored).long().cumprod(dim=-1)
    if bool(scored.all()):
        prefix = unbroken.sum(dim=-1).double().mean(dim=0) * len(target) / target.shape[1]
    else:
        counts = scored.sum(dim=-1)
        shares = (unbroken * scored).sum(dim=-1) / counts.clamp_min(1).double()
        prefix = shares.masked_fill(counts == 0, 1.0).sum()  # nothing to get wrong
    outcomes = "".join("01"[exact] for exact in unbroken.all(dim=-1).tolist())
    counts = int(scored.sum()), int((right & scored).sum())
    return Score(outcomes, *counts, float(prefix), close, finite)


@contextmanager
def addressed_draws(seed: int, split: str, length: int, device: torch.device) -> Iterator[None]:
    """Draw random numbers in here by their address, and leave the generators as they were.

    A model that draws, such as one with randomised positions, draws the same for every batch of a
    length, so that neither the batch size nor an earlier evaluation changes a result.
    """
    address = hashlib.sha256(f"{seed} {split} {length}".encode()).digest()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(address[:8], "big") >> 1)
        yield
