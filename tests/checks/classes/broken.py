"""Users' classes, each of which breaks one promise."""

import os
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from lcg.attention.mixers import Loop, Mixer
from lcg.attention.normalizers.base import Normalizer
from lcg.attention.output_norms import OutputNorm
from lcg.attention.scalings import QueryScaling
from lcg.positional.base import PositionEncoding
from lcg.tasks.base import IGNORE, Task


@dataclass
class Right(Task):
    """Nothing is wrong with it."""

    name: ClassVar[str] = "right"
    symbols: int = 997

    def sample(self, rng, lengths):
        source = rng.integers(0, self.symbols, (len(lengths), lengths.max()))
        return source, source


@dataclass
class Narrow(Right):
    def sample(self, rng, lengths):
        source, target = super().sample(rng, lengths)
        return source, target[:, 1:]


@dataclass
class ByProcess(Right):
    def sample(self, rng, lengths):
        source, _ = super().sample(rng, lengths)
        return source, (source + os.getpid()) % self.symbols


@dataclass
class Unscored(Right):
    kind: ClassVar[str] = "labelled"

    def sample(self, rng, lengths):
        source, target = super().sample(rng, lengths)
        return source, np.where(lengths[:, None] < 5, target, IGNORE)


@dataclass
class Counted(Right):
    def token_length(self, length):
        return super().token_length(length) + 1


@dataclass
class Spaced(Right):
    def symbol(self, symbol):
        return f"s {symbol}"


@dataclass
class Remembers(Right):
    def sample_block(self, rng, lengths, start):
        self.calls = getattr(self, "calls", 0) + 1
        source, target = self.sample(rng, lengths)
        return (source + self.calls) % self.symbols, target


@dataclass
class Misnamed(Right):
    metrics: ClassVar[tuple[str, ...]] = ("distance",)

    def measure(self, predicted, reference):
        return {"distances": 0.0}


@dataclass
class ChangesLater(Right):
    calls: ClassVar[int] = 0

    def sample(self, rng, lengths):
        type(self).calls += 1
        source, target = super().sample(rng, lengths)
        return source, (target + (type(self).calls > 6)) % self.symbols


@dataclass
class ByFirstRow(Right):
    def sample(self, rng, lengths):
        source, target = super().sample(rng, lengths)
        return source, (target + source[:1, :1]) % self.symbols


@dataclass
class ReversesPadding(Right):
    def sample(self, rng, lengths):
        source, _ = super().sample(rng, lengths)
        return source, source[:, ::-1]


@dataclass
class GlobalRandom(Right):
    def sample(self, rng, lengths):
        source = np.random.randint(0, self.symbols, (len(lengths), lengths.max()))
        return source, source


@dataclass
class DrawnIds(Right):
    name: ClassVar[str] = "drawn_ids"

    def position_ids(self, batch, rng, training):
        return np.random.randint(0, 9, batch.inputs.shape)


@dataclass
class LabelIds(Right):
    name: ClassVar[str] = "label_ids"

    def position_ids(self, batch, rng, training):
        return np.maximum(batch.labels, 0)


@dataclass
class WideIds(Right):
    name: ClassVar[str] = "wide_ids"

    def position_ids(self, batch, rng, training):
        return np.arange(batch.inputs.shape[1])[::-1] + 0 * batch.inputs


@dataclass
class Weights(Normalizer):
    """Softmax, before a subclass breaks it."""

    name: ClassVar[str] = "weights"

    def weights(self, scores, statistics, keys, learned):
        visible = scores > -torch.inf
        top = scores.detach().amax(-1, keepdim=True)
        e = torch.where(visible, (scores.masked_fill(~visible, 0.0) - top).exp(), 0.0)
        return e / e.sum(-1, keepdim=True)

    elementwise: ClassVar[bool] = False


@dataclass
class NotOne(Weights):
    def weights(self, scores, statistics, keys, learned):
        return 1.1 * super().weights(scores, statistics, keys, learned)


@dataclass
class NotShiftInvariant(Weights):
    def weights(self, scores, statistics, keys, learned):
        flat = (scores / 4).tanh().masked_fill(scores == -torch.inf, -torch.inf)
        return super().weights(flat, statistics, keys, learned)


@dataclass
class WrongGradient(Weights):
    def weights(self, scores, statistics, keys, learned):
        found = super().weights(scores, statistics, keys, learned)
        return found + 0.5 * (found - found.detach())


@dataclass
class NoEdge(Weights):
    sparse: ClassVar[bool] = True

    def weights(self, scores, statistics, keys, learned):
        return super().weights(scores, statistics, keys, learned)

    def support_edge(self, scores, learned):
        return scores.amax(-1, keepdim=True)


@dataclass
class Dense(Weights):
    sparse: ClassVar[bool] = True

    def weights(self, scores, statistics, keys, learned):
        return super().weights(scores, statistics, keys, learned)


@dataclass
class Overflows(Weights):
    def weights(self, scores, statistics, keys, learned):
        e = scores.exp()
        return e / e.sum(-1, keepdim=True).clamp(min=1e-30)


@dataclass
class NotElementwise(Weights):
    elementwise: ClassVar[bool] = True


@dataclass
class Unused(Weights):
    def learned(self, sizes):
        return {"spare": torch.zeros(sizes.heads)}


@dataclass
class WrongShape(Weights):
    def weights(self, scores, statistics, keys, learned):
        return super().weights(scores, statistics, keys, learned)[..., :1]


SHARED = {heads: torch.ones(heads) for heads in range(9)}


@dataclass
class Shared(Weights):
    def learned(self, sizes):
        return {"heat": SHARED[sizes.heads]}

    def weights(self, scores, statistics, keys, learned):
        heat = learned["heat"][:, None, None]
        heated = (scores.masked_fill(scores == -torch.inf, 0.0) * heat).masked_fill(
            scores == -torch.inf, -torch.inf
        )
        return super().weights(heated, statistics, keys, learned)


@dataclass
class Absolute(PositionEncoding):
    name: ClassVar[str] = "absolute"

    def embed(self, x, ids, learned):
        return x + 0.3 * ids.to(x)[:, None].cos()


@dataclass
class AbsoluteFar(PositionEncoding):
    name: ClassVar[str] = "absolute_far"

    def bias(self, tile, learned):
        return -0.1 * tile.distance.abs() * (1 + (tile.k_ids > 100).float())


@dataclass
class ReadsHidden(PositionEncoding):
    """Reads the scores of keys that a query does not see."""

    name: ClassVar[str] = "reads_hidden"

    def map_scores(self, scores, tile, learned):
        return scores * (1 + scores.mean(dim=-1, keepdim=True))


@dataclass
class Counts(PositionEncoding):
    """Counts queries and keys, instead of reading their positions."""

    name: ClassVar[str] = "counts"

    def bias(self, tile, learned):
        queries, keys = (torch.arange(x.shape[2]) for x in (tile.q, tile.k))
        return -(queries[:, None] - keys).abs().to(tile.q)


@dataclass
class Widens(PositionEncoding):
    name: ClassVar[str] = "widens"

    def embed(self, x, ids, learned):
        return x.float() + 1


@dataclass
class Random(PositionEncoding):
    name: ClassVar[str] = "random"
    relative: ClassVar[bool] = False

    def positions(self, length, device=None):
        return torch.arange(length, device=device) + torch.randint(0, 99, ())

    def embed(self, x, ids, learned):
        return x + ids.to(x)[:, None].cos()


@dataclass
class InfiniteAtOne(QueryScaling):
    name: ClassVar[str] = "infinite_at_one"

    def __call__(self, x, n, learned):
        return (1 / n.log())[..., None, :] * torch.ones(2, 1)[: x.shape[2] // 4 or 1]


@dataclass
class ByLongest(QueryScaling):
    name: ClassVar[str] = "by_longest"

    def learned(self, heads, d_model):
        return {"s": torch.ones(heads)}

    def __call__(self, x, n, learned):
        return learned["s"][:, None] * torch.full_like(n, float(n.max().log()))[..., None, :]


@dataclass
class AcrossTokens(OutputNorm):
    name: ClassVar[str] = "across_tokens"

    def __call__(self, x, learned):
        return x - x.mean(1, keepdim=True)


class SumOfAll(torch.nn.Module):
    def forward(self, x, state):
        return x + x.sum(dim=1, keepdim=True), None


class SumsAnew(torch.nn.Module):
    def forward(self, x, state):
        return x.cumsum(dim=1), None


@dataclass
class SeesLater(Mixer):
    name: ClassVar[str] = "sees_later"

    def make(self, sizes):
        return SumOfAll()


@dataclass
class Forgets(Mixer):
    name: ClassVar[str] = "forgets"

    def make(self, sizes):
        return SumsAnew()


@dataclass
class NoLoop(Loop):
    name: ClassVar[str] = "no_loop"

    def count(self, length):
        return length // 100
