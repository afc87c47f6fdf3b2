# ruff: noqa: F722  (shapes in annotations)
"""The encoder: every token sees all others, and each gets a symbol of its own.

Shapes: b batch, t tokens, q selected positions, v vocabulary.
"""

from __future__ import annotations

from torch import Tensor, nn

from lcg.attention import Attention
from lcg.attention.layer import FullAttention
from lcg.config.schema import Model
from lcg.models.block import Block
from lcg.models.transformer import Transformer
from lcg.shapes import Bool, Float, Int


class Encoder(Transformer):
    """As `Decoder`, with full attention and without a cache: for tagging and masked tokens.

    Padding, the tokens that are `pad`, is never attended to. What is answered at a padded position
    means nothing.
    """

    def make_blocks(self, model: Model, attention: Attention) -> None:
        """As `Transformer` says."""
        self.position_state = self.position_tensors(model)
        self.blocks = nn.ModuleList(
            Block(model, attention, self.position, FullAttention) for _ in range(model.layers)
        )

    def forward(
        self, tokens: Int[Tensor, "b t"], select: Int[Tensor, " q"] | None = None
    ) -> Float[Tensor, "b q v"]:
        """Logits in float32, of all tokens or at tokens[:, select]; only these positions have
        queries in the last layer.
        """
        positions = self.positions(tokens.shape[1], tokens.device)
        mask = real_tokens(tokens, self.pad)
        x = self.embed(tokens, positions, self.position_state)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            x = block(x, positions, select if i == last else None, mask)
        return self.logits(x)


def real_tokens(tokens: Int[Tensor, "b t"], pad: int) -> Bool[Tensor, "b t"] | None:
    """Which tokens are no padding; None where it is known at no cost that all of them are."""
    real = tokens != pad
    if tokens.device.type == "cpu" and bool(real.all()):  # elsewhere asking stalls the device
        return None
    return real
