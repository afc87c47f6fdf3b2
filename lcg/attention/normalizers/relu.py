"""ReLU: rectified linear attention, whose rows need not sum to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lcg.attention.normalizers.base import Normalizer, count_keys
from lcg.positional.base import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass
class ReLU(Normalizer):
    """p_j = max(z_j, 0) (ReLA, 2104.07012). Rows need not sum to one and may be all zeros.

    The paper applies an RMSNorm to the concatenated heads: the presets `rela` and `rela_g`. The sum
    of a row grows with the number of keys.
    """

    name: ClassVar[str] = "relu"
    shift_invariant: ClassVar[bool] = False
    rows_sum_to_one: ClassVar[bool] = False

    sparse: ClassVar[bool] = True
    backends: ClassVar[tuple[str, ...]] = ("reference", "blockwise", "triton")

    def support_edge(self, scores, learned):
        return scores.new_zeros(*scores.shape[:-1], 1)

    def steepness(self, learned):
        return 1.0

    def kernel(self, learned):
        return "relu", 0.0

    def weights(self, scores, statistics, keys, learned):
        return scores.relu()


@dataclass
class ReLUPerKey(Normalizer):
    """p_j = max(z_j, 0)^power / n^gamma, n the number of keys that the query sees (2309.08586).

    Differs from the paper in that its n is the length of the sequence, the same for all rows.
    """

    name: ClassVar[str] = "relu_n"
    shift_invariant: ClassVar[bool] = False
    rows_sum_to_one: ClassVar[bool] = False

    power: float = 1.0
    """Power of the rectified scores, at least 1; 2 is squared ReLU."""
    gamma: float = 1.0
    """Power of n that weights are divided by; 0 leaves n out."""

    def __post_init__(self) -> None:
        check_power(self.name, self.power)
        if not 0 <= self.gamma <= 2:
            raise ValueError(f"relu_n: gamma must be in [0, 2], got {self.gamma:g}")

    def steepness(self, learned):
        return 1 / self.power

    def row_statistics(self, scores, keys, learned):
        return (count_keys(scores) ** self.gamma,)

    def weights(self, scores, statistics, keys, learned):
        return scores.relu() ** self.power / statistics[0]


@dataclass
class ThresholdReLU(Normalizer):
    """p_j = max(z_j - t_h, 0)^power, the threshold t learned by each head, from 0 on.

    Keys that score below t have no weight and need not be read. Nothing divides the weights: an
    output norm (`attention.output_norm=rms`) makes up for sums that grow with the number of keys.
    """

    name: ClassVar[str] = "relu_threshold"
    shift_invariant: ClassVar[bool] = False
    rows_sum_to_one: ClassVar[bool] = False
    sparse: ClassVar[bool] = True

    power: float = 1.0
    """Power of what is above the threshold, at least 1."""

    def __post_init__(self) -> None:
        check_power(self.name, self.power)

    def learned(self, sizes):
        return {"threshold": torch.zeros(sizes.heads)}

    def support_edge(self, scores, learned):
        return self._threshold(scores, learned).expand(*scores.shape[:-1], 1)

    def steepness(self, learned):
        return 1 / self.power

    def weights(self, scores, statistics, keys, learned):
        return (scores - self._threshold(scores, learned)).relu() ** self.power

    @staticmethod
    def _threshold(scores: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        return learned["threshold"].to(scores.dtype)[:, None, None]


def check_power(name: str, power: float) -> None:
    """Raise ValueError for a power whose derivative at 0 is infinite, or that overflows."""
    if not 1 <= power <= 8:
        raise ValueError(f"{name}: power must be in [1, 8], got {power:g}")
