# ruff: noqa: F722  (shapes in annotations)
"""What one forward pass says about a batch: who is right, where, and by how much.

Greedy decoding reproduces a target exactly if and only if the teacher-forced argmax is right at
every scored position (induction over positions), so exact match needs one pass whatever the
target's length. The two can part only where the two best logits tie.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcg.shapes import Int
from tasks.base import IGNORE

CLOSE = 1e-4  # two best logits nearer than this: rounding may order them either way


@dataclass
class Score:
    """Sums over samples; `+` adds them up."""

    samples: int = 0
    correct: int = 0
    """Samples with every scored position right."""
    positions: int = 0
    right: int = 0
    """Scored positions that are right."""
    prefix: float = 0.0
    """Sum over samples of the share of scored positions before the first wrong one."""
    close_calls: int = 0
    """Scored positions whose two best logits differ by less than CLOSE."""
    finite: bool = True
    outcomes: int = 0
    """One bit per sample, the first the most significant: is it an exact match?"""

    def __add__(self, other: Score) -> Score:
        return Score(
            self.samples + other.samples,
            self.correct + other.correct,
            self.positions + other.positions,
            self.right + other.right,
            self.prefix + other.prefix,
            self.close_calls + other.close_calls,
            self.finite and other.finite,
            self.outcomes << other.samples | other.outcomes,
        )

    @property
    def outcomes_in_hexadecimal(self) -> str:
        """`outcomes` as a ladder cell keeps them, zeros after the last sample."""
        digits = -(-self.samples // 4)
        return f"{self.outcomes << (-self.samples % 4):0{digits}x}"


def scored_positions(labels: Int[Tensor, "b t"]) -> Int[Tensor, " m"]:
    """Indices of the scored positions; the same in every row of one length."""
    return (labels[0] != IGNORE).nonzero().squeeze(-1)


@torch.no_grad()
def score_teacher_forcing(model, inputs: Int[Tensor, "b t"], labels: Int[Tensor, "b t"]) -> Score:
    """Score a batch of one length by one forward pass."""
    select = scored_positions(labels)
    logits = model(inputs, select)
    best = logits.topk(2, dim=-1).values
    close = (best[..., 0] - best[..., 1] < CLOSE).sum()
    # argmax, as decoding does, since topk may order ties another way
    score = _score(logits.argmax(dim=-1), labels[:, select], close)
    score.finite = bool(logits.isfinite().all())
    return score


@torch.no_grad()
def score_greedy(model, inputs: Int[Tensor, "b t"], labels: Int[Tensor, "b t"]) -> Score:
    """Score a batch of one length by decoding the target token by token from its source."""
    select = scored_positions(labels)
    decoded = model.greedy(inputs[:, : int(select[0]) + 1], len(select))
    score = _score(decoded, labels[:, select], torch.zeros((), dtype=torch.long))
    score.finite = bool((decoded >= 0).all())
    return score


def _score(predicted: Int[Tensor, "b m"], target: Int[Tensor, "b m"], close: Tensor) -> Score:
    right = predicted == target
    prefix = right.long().cumprod(dim=-1).sum(dim=-1)
    exact = right.all(dim=-1).tolist()
    return Score(
        samples=len(target),
        correct=sum(exact),
        positions=right.numel(),
        right=int(right.sum()),
        prefix=float(prefix.double().mean(dim=0) * len(target) / target.shape[1]),
        close_calls=int(close),
        outcomes=int("".join("01"[flag] for flag in exact), 2),
    )
