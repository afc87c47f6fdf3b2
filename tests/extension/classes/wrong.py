"""Users' classes, each wrong in one way that its name says."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from lcg.attention.mixers import Mixer
from lcg.attention.normalizers.base import Normalizer
from lcg.attention.output_norms import OutputNorm
from lcg.attention.scalings import QueryScaling
from lcg.positional.base import PositionEncoding
from lcg.tasks.base import IGNORE, Task


@dataclass
class Base(Task):
    name: ClassVar[str] = "base"
    symbols: int = 8

    def sample(self, rng, lengths):
        s = rng.integers(0, self.symbols, (len(lengths), lengths.max()))
        return self.change(s, s, lengths)

    def change(self, s, t, lengths):
        return s, t


@dataclass
class Short(Base):
    def change(self, s, t, n):
        return s, t[:, :-1]


@dataclass
class Symbol(Base):
    def change(self, s, t, n):
        return s + 1, t


@dataclass
class Floats(Base):
    def change(self, s, t, n):
        return s, t / 2


@dataclass
class Negative(Base):
    def change(self, s, t, n):
        return s, t - 1


@dataclass
class Unscored(Base):
    kind: ClassVar[str] = "labelled"

    def change(self, s, t, n):
        return s, np.where(np.arange(len(n))[:, None] == 0, IGNORE, t)


@dataclass
class NoneTask(Base):
    def change(self, s, t, n):
        return None


@dataclass
class Lists(Base):
    def change(self, s, t, n):
        return s.tolist(), t


@dataclass
class Raises(Base):
    def change(self, s, t, n):
        return {}["x"]


@dataclass
class RaisesValue(Base):
    def change(self, s, t, n):
        return s + np.zeros((3, 3, 3, 3)), t


@dataclass
class HalfLength(Base):
    def source_length(self, length):
        return length / 2


@dataclass
class Tag(Base):
    kind: ClassVar[str] = "tagging"

    def change(self, s, t, n):
        return s, np.where(t > 3, t, IGNORE)


@dataclass
class Kind(Base):
    kind: ClassVar[str] = "taging"


@dataclass
class Later(Base):
    """Wrong from its 21st batch."""

    def change(self, s, t, n):
        self.drawn = getattr(self, "drawn", 0) + 1
        if self.drawn > 20:
            raise KeyError("later")
        return s, t


@dataclass
class LaterShape(Base):
    """Wrong from its 21st batch."""

    def change(self, s, t, n):
        self.drawn = getattr(self, "drawn", 0) + 1
        return (s, t) if self.drawn <= 20 else None


@dataclass
class BadBias(PositionEncoding):
    name: ClassVar[str] = "bad_bias"

    def bias(self, c, learned):
        return c.q.new_zeros(3, 5, 7)


@dataclass
class ShortPositions(PositionEncoding):
    name: ClassVar[str] = "short_positions"

    def positions(self, length, device=None):
        return torch.arange(length - 1, device=device)


@dataclass
class BadSlopes(PositionEncoding):
    name: ClassVar[str] = "bad_slopes"

    def slopes(self, heads):
        return torch.ones(heads + 1)


@dataclass
class BadLearned(PositionEncoding):
    name: ClassVar[str] = "bad_learned"

    def learned(self, sizes):
        return [torch.ones(3)]


@dataclass
class BadRotate(PositionEncoding):
    name: ClassVar[str] = "bad_rotate"

    def rotate_queries(self, q, ids, learned):
        return q[..., :-1]


@dataclass
class OldRotate(PositionEncoding):
    name: ClassVar[str] = "old_rotate"

    def rotate_keys(self, k, positions):
        return k


@dataclass
class OldBias(PositionEncoding):
    name: ClassVar[str] = "old_bias"

    def bias(self, c, learned):
        return -(c.q_positions[:, None] - c.k_positions).abs()


@dataclass
class OldPromise(PositionEncoding):
    name: ClassVar[str] = "old_promise"
    data_dependent: ClassVar[bool] = True


@dataclass
class BadState(PositionEncoding):
    name: ClassVar[str] = "bad_state"

    def state(self, x, learned):
        return {"gate": x.mean(-1)}


@dataclass
class BadEmbed(PositionEncoding):
    name: ClassVar[str] = "bad_embed"

    def embed(self, x, ids, learned):
        return x[0]


@dataclass
class RaisingBias(PositionEncoding):
    name: ClassVar[str] = "raising_bias"

    def bias(self, c, learned):
        return self.found(learned)

    def found(self, learned):
        return learned["x"]


@dataclass
class Wrong(Normalizer):
    name: ClassVar[str] = "wrong"

    def weights(self, scores, statistics, keys, learned):
        return scores.softmax(-1)[..., :-1]


@dataclass
class Double(Normalizer):
    name: ClassVar[str] = "double"

    def weights(self, scores, statistics, keys, learned):
        return scores.softmax(-1).double()


@dataclass
class Long(PositionEncoding):
    name: ClassVar[str] = "long"

    def bias(self, c, learned):
        if len(c.k_ids) > 12:
            raise IndexError("beyond the table")
        return c.q.new_zeros(1)


@dataclass
class IntLearned(Normalizer):
    name: ClassVar[str] = "int_learned"

    def learned(self, sizes):
        return {"a": torch.ones(sizes.heads, dtype=torch.long)}

    def weights(self, scores, statistics, keys, learned):
        return scores.softmax(-1)


@dataclass
class BadScaling(QueryScaling):
    name: ClassVar[str] = "bad_scaling"

    def __call__(self, x, n, learned):
        return n.log()


@dataclass
class BadNorm(OutputNorm):
    name: ClassVar[str] = "bad_norm"

    def __call__(self, x, learned):
        return x.repeat(1, 1, 2)


@dataclass
class Leaks(PositionEncoding):
    name: ClassVar[str] = "leaks"
    relative: ClassVar[bool] = False

    def embed(self, x, ids, learned):
        return x + x.roll(-1, 1)


@dataclass
class LeaksMean(OutputNorm):
    name: ClassVar[str] = "leaks_mean"

    def __call__(self, x, learned):
        return x - x.mean(1, keepdim=True)


@dataclass
class Misspelt(PositionEncoding):
    name: ClassVar[str] = "misspelt"

    def rotate_query(self, q, ids, learned):
        return 2 * q


@dataclass
class NoSuchSum(PositionEncoding):
    name: ClassVar[str] = "no_such_sum"
    cumulative: ClassVar[tuple[str, ...]] = ("decay",)

    def state(self, x, learned):
        return {"c": x.mean(-1)[:, None].expand(-1, 4, -1)}

    def separable(self, q_state, k_state):
        return q_state["c"], -k_state["c"]


@dataclass
class OnlyY(Mixer):
    name: ClassVar[str] = "only_y"

    def make(self, sizes):
        return torch.nn.Linear(sizes.d_model, sizes.d_model)


@dataclass
class NoMake(Mixer):
    name: ClassVar[str] = "no_make"
