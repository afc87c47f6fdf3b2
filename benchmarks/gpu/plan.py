"""The cases timed on a device, and those run on a CPU to see that all of it works."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn.attention import SDPBackend

TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
PEERS = {
    "bf16": {
        "SDPA flash": SDPBackend.FLASH_ATTENTION,
        "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
    },
    "fp32": {"SDPA efficient": SDPBackend.EFFICIENT_ATTENTION},
}
"""Torch's softmax attentions; neither of the first two takes float32."""


@dataclass(frozen=True)
class Plan:
    """The timed cases and their device."""

    device: str = "cuda"
    types: tuple[str, ...] = ("bf16", "fp32")
    lengths: tuple[int, ...] = tuple(1024 * 2**i for i in range(8))
    widths: tuple[int, ...] = (64, 32)
    heads: int = 8
    alpha: float = 1.25
    """Another than 1.5, at `alpha_lengths` in float32."""
    alpha_lengths: tuple[int, ...] = (4096, 16384)
    short: tuple[tuple[int, int], ...] = ((128, 98), (128, 130))
    """Sequences and tokens of short rows."""
    checked: tuple[tuple[int, int], ...] = ((2, 98), (2, 130), (2, 1500), (1, 4096))
    """Sequences and tokens at which outputs and gradients are held against `reference`; at the last
    two blocks of queries look for candidates together."""
    climbed: tuple[int, ...] = (64, 256, 1024, 4096)
    """Nominal lengths at which the MQMTAR model must say what it says with `reference`."""
    blockwise: int = 16384
    """The longest nominal length at which it is timed with `blockwise`."""
    steps: int = 1000
    """Steps of Sort training."""
    precisions: tuple[str, ...] = ("bf16-true", "bf16-mixed", "32-true")
    """Precisions of Sort training; the preset's own first."""
    peers: dict[str, dict[str, SDPBackend]] = field(default_factory=lambda: PEERS)
    words: tuple[str, ...] = ()
    """Overrides of the models' configs."""

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()


REHEARSAL = Plan(
    device="cpu",
    types=("fp32",),  # the interpreter cannot form bfloat16 products
    lengths=(32, 64),
    widths=(16,),
    heads=2,
    alpha_lengths=(32,),
    short=((2, 9),),
    checked=((1, 9), (1, 40)),
    climbed=(8,),
    blockwise=32,
    steps=6,
    precisions=("32-true",),
    peers={"fp32": {"SDPA": SDPBackend.MATH}},
    words=(
        *("data.batch_size=2", "data.min_length=4", "data.max_length=6", "validation.lengths=4"),
        *("validation.monitor=4", "trainer.accelerator=cpu"),
        *("evaluation.lengths=4", "model.layers=1", "model.d_model=32", "model.heads=2"),
        *("model.head_dim=16", "model.d_ff=32"),
    ),
)
