"""Check that a normalizer makes a graph that can be predicted at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lcg.positional.base import torch

if TYPE_CHECKING:
    from lcg.attention.normalizers.base import Normalizer

KEYS = 512
"""More than any top-k keeps by default."""


def check_sparse(normalizer: Normalizer) -> None:
    """Raise ValueError for a normalizer that has no zeros by design; without torch."""
    if normalizer.sparse and getattr(normalizer, "alpha", None) != 1:
        return
    if type(normalizer).__module__.partition(".")[0] == "lcg" or normalizer.sparse:
        raise ValueError(
            f"normalizer={normalizer.name} gives weight to every key that a query sees, so there "
            "is no graph to predict; use a run with entmax, entmax_learned, relu or topk"
        )
    label = type(normalizer).__name__
    raise ValueError(
        f"normalizer={normalizer.name} does not say that low scores have weight 0: if they have, "
        f"write `sparse: ClassVar[bool] = True` into {label}, and support_edge() (a class that "
        "writes weights of its own does not inherit them)"
    )


def check_identity(normalizer: Normalizer, learned: Any, heads: int) -> None:
    """Raise ValueError unless keys without weight can be taken away and nothing changes.

    That is what makes a fully predicted support as good as all keys. It is tried, on random rows
    with keys off the support taken away at random, so that it is known of a user's own normalizer.
    """
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(heads, 8, KEYS, generator=draw) * 3
    taken = torch.rand(rows.shape, generator=draw) < 0.5
    learned = {name: tensor.detach().cpu() for name, tensor in learned.items()}
    keys = torch.arange(KEYS)
    with torch.no_grad():
        whole = normalizer(rows, keys, learned)
        part = normalizer(rows.masked_fill(taken & (whole == 0), -torch.inf), keys, learned)
    if not torch.allclose(whole, part, atol=1e-6, rtol=0):
        raise ValueError(
            f"normalizer={normalizer.name} gives other weights when keys without weight are taken "
            "away, so a predicted graph cannot stand for all keys"
        )
