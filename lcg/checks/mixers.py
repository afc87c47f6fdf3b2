"""Properties of a mixer and of a loop: those of any model, and that a mixer is causal."""

from __future__ import annotations

import torch

from lcg.attention import Attention
from lcg.attention.mixers import Loop, Mixer
from lcg.checks import model
from lcg.checks.model import Case, Parts, each_case, expect_near, runs
from lcg.checks.properties import Properties
from lcg.models.transformer import loops_of
from lcg.positional.nope import NoPE

MIXER, LOOP = Properties(), Properties()
LENGTHS = (1, 2, 3, 10, 100, 1000)
LATER = 3


@MIXER.declare("shapes", each_case)
def mixer_shapes(parts: Parts, case: Case) -> None:
    """The module returns y of the shape of x and a state, and a model's output is finite."""
    runs(parts, case)


@MIXER.declare("causal", each_case)
@torch.no_grad()
def causal(parts: Parts, case: Case) -> None:
    """The output at a token does not depend on those that follow."""
    decoder, tokens = parts.model(case.sizes), case.tokens()
    more = torch.cat([tokens, tokens.flip(1)[:, :LATER]], dim=1)
    longer_output = decoder(more)[:, : case.length]
    expect_near(longer_output, decoder(tokens), "y of a token depends on tokens that follow,")


@LOOP.declare("shapes", each_case)
def loop_shapes(parts: Parts, case: Case) -> None:
    """Every length has a number of loops, at least 1, and a model's output is finite."""
    for length in LENGTHS:
        loops_of(parts.loop, length)
    runs(parts, case)


for name in ("cached = whole", "selected = all", "padded = unpadded", "draws repeat"):
    MIXER[name] = LOOP[name] = model.PROPERTIES[name]


def of_mixer(mixer: Mixer) -> tuple[Parts, Properties]:
    """A mixer in a model, and its properties."""
    return Parts(mixer, Attention(), NoPE(), mixer=mixer), MIXER


def of_loop(loop: Loop) -> tuple[Parts, Properties]:
    """A loop in a model, and its properties."""
    return Parts(loop, Attention(), NoPE(), loop=loop), LOOP
