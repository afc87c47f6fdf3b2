"""An LSTM in the place of attention, the recurrent baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lcg.attention.mixers import Mixer


@dataclass
class LSTM(Mixer):
    """y = the outputs of an LSTM over the tokens; its state goes on in decoding."""

    name: ClassVar[str] = "lstm"

    layers: int = 1
    """Number of LSTM layers in each block."""

    def make(self, sizes):
        return nn.LSTM(sizes.d_model, sizes.d_model, self.layers, batch_first=True)
