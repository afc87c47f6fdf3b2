"""An option without effect gets a remark; a config in which everything counts gets none."""

import pytest

from lcg.config import choices, load_config
from lcg.config.compatibility import warnings

NO_EFFECT = {
    "data.lengths_per=batch data.min_length=32": "data.lengths_per=batch has no effect",
    "task=n_back evaluation.decode=greedy": "evaluation.decode=greedy has no effect: n_back",
    "attention=entmax_learned attention.normalizer.alpha=1.7": "normalizer.alpha has no effect",
    "position=alibi position.variant=interleaved": "model.heads=8 is a power of two",
    "model.encoder_layers=1": "model.encoder_layers and model.cross_position have no effect",
    "task=n_back model.kind=encoder model.cross_position=same": "model.kind=encoder",
    "model.allow_no_position=true": "model.allow_no_position=true has no effect",
    "model.kind=encoder_decoder model.allow_no_position=true": "no effect with position=nape",
    "position=[rope,rope,rope,nope]": "position has a pattern of 4 layers; model.layers=2",
    "attention=[softmax,ssmax,entmax15]": "attention has a pattern of 3 layers; model.layers=2",
    "trainer.steps=50": "the learning rate never reaches optimizer.lr=0.001",
}
COUNTS = [
    "data.lengths_per=batch",
    "evaluation.decode=greedy",
    "attention=entmax_learned attention.normalizer.alpha=1.7 attention.normalizer.init=constant",
    "position=alibi position.variant=interleaved model.heads=6 model.d_model=48",
    "model.kind=encoder_decoder model.encoder_layers=1 model.cross_position=same",
    "model.kind=encoder_decoder model.allow_no_position=true position=nope",
    "trainer.steps=50 optimizer.warmup_steps=10",
    "position=[rope,nope]",
]


@pytest.mark.parametrize("words", NO_EFFECT)
def test_no_effect_is_a_warning(words, here):
    (remark,) = warnings(load_config(words.split()))
    assert NO_EFFECT[words] in remark


@pytest.mark.parametrize("words", COUNTS)
def test_options_with_an_effect_have_no_warning(words, here):
    assert warnings(load_config(words.split())) == []


# Those on text need files: tests/cli/test_text.py makes some.
@pytest.mark.parametrize("name", [n for n in choices("experiment") if not n.startswith("text/")])
def test_our_experiments_set_nothing_in_vain(name, here):
    assert warnings(load_config([f"experiment={name}"])) == []


def test_an_encoding_without_hooks_is_told(here):
    file = here / "empty.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from lcg.positional.base import PositionEncoding\n\n@dataclass\n"
        "class Empty(PositionEncoding):\n    name: ClassVar[str] = 'empty'\n    a: int = 1\n"
    )
    (line,) = warnings(load_config([f"position={file}:Empty", "task=copy"]))
    assert line.endswith("it is the same as nope")
