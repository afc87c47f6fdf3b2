"""The model of a config, by its kind."""

from __future__ import annotations

from typing import Any

import torch

from lcg.config import Config
from lcg.models.decoder import Decoder
from lcg.models.encoder import Encoder
from lcg.models.encoder_decoder import EncoderDecoder

KINDS = {"decoder": Decoder, "encoder": Encoder, "encoder_decoder": EncoderDecoder}
"""model.kind -> its class."""


def build_model(config: Config) -> Any:
    """The model of a config, its weights drawn from the run's seed."""
    task = config.task
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        cls = KINDS[config.model.kind]
        return cls(config.model, config.attention, config.position, task.vocabulary, task.pad)
