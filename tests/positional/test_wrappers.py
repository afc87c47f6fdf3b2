"""An encoding around another is that other, but for what it changes; randomised positions."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from oracles.registered import FIRST, SIZES, label, randomize, single, small_decoder, tokens

from lcg.attention import Attention
from lcg.attention.layer import MultiHeadAttention
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import LogScaling
from lcg.config import ConfigError, load_config, to_tree
from lcg.config.identity import identity, run_directory
from lcg.config.load import config_from_tree, with_changes
from lcg.positional.absolute import Sinusoidal
from lcg.positional.base import PositionEncoding
from lcg.positional.groups import NAPE, Heads, Layers
from lcg.positional.nope import NoPE
from lcg.positional.rotary import RoPE
from lcg.positional.slopes import ALiBi
from lcg.positional.wrappers import Randomised, Wrapper

FIRE = Path(__file__).parents[1] / "extension" / "published" / "fire.py"


@dataclass
class Unchanged(Wrapper):
    name: ClassVar[str] = "unchanged"


def test_every_hook_is_handed_on():
    hooks = {
        name
        for name, member in vars(PositionEncoding).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    assert hooks <= vars(Wrapper).keys()


@pytest.mark.parametrize("name", single("position"))
def test_an_encoding_around_another_is_that_other(name):
    inner = single("position")[name](**FIRST.get(name, {}))
    outer, found = Unchanged(inner), []
    assert [outer.relative, outer.ordered] == [inner.relative, inner.ordered]
    for position in (inner, outer):
        torch.manual_seed(0)
        layer = MultiHeadAttention(Attention(Softmax(), LogScaling()), position, SIZES[0])
        randomize(layer)
        learned = position.learned_embedding(SIZES[0])
        x = position.embed(torch.randn(2, 7, SIZES[0].d_model), torch.arange(7), learned)
        found.append((layer(x), layer.state_dict().keys()))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1], "tensors keep their names"


@pytest.mark.parametrize(
    ("words", "position", "label"),
    [
        ("position=randomised", Randomised(RoPE()), "randomised rope"),
        ("position=randomised position.inner.base=50", Randomised(RoPE(50)), "randomised rope"),
        (
            "position=randomised position.inner=alibi position.inner.variant=linear",
            Randomised(ALiBi("linear")),
            "randomised alibi",
        ),
        (
            "position=randomised position.inner=alibi:4+nope:4 position.longest=4096",
            Randomised(Heads([ALiBi(), NoPE()], [4, 4]), 4096),
            "randomised alibi:4+nope:4",
        ),
        (
            "position=randomised position.inner=[rope,nope] position.inner.pattern.0.base=50",
            Randomised(Layers([RoPE(50), NoPE()])),
            "randomised rope,nope",
        ),
        (
            "position=[randomised,nope] position.pattern.0.inner=nape",
            Layers([Randomised(NAPE()), NoPE()]),
            "randomised,nope",
        ),
    ],
)
def test_inner_is_an_option_with_options(words, position, label):
    config = load_config(words.split())
    assert config.position == position
    assert config.labels["position"] == label
    assert config_from_tree(to_tree(config)) == config


def test_inner_counts_and_is_spelled_in_one_way():
    of = [load_config(["position=randomised", f"position.inner={n}"]) for n in ("rope", "alibi")]
    assert identity(of[0]) == identity(load_config(["position=randomised"])) != identity(of[1])
    assert run_directory(of[1]).name.startswith("copy-softmax-randomised_alibi-s0-")


def test_inner_in_a_file_and_of_a_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("position: {name: randomised, inner: alibi:6+nope:2}\n")
    config = load_config(["experiment=mine"])
    assert config.position == Randomised(Heads([ALiBi(), NoPE()], [6, 2]))
    config = load_config(["position=randomised", f"position.inner={FIRE}:FIRE"])
    assert config.position.inner.train_length == config.task.token_length(config.data.max_length)
    assert config.labels["position"] == "randomised fire"


def test_inner_at_evaluation():
    config = load_config(["position=rope", "position.base=50"])
    changed, changes = with_changes(config, ["position=randomised"])
    assert changed.position == Randomised(RoPE(10000.0))
    assert changes["position.name"] == "randomised"
    changed, changes = with_changes(changed, ["position.inner=alibi"])
    assert changes == {"position.inner.name": "alibi", "position.inner.variant": "geometric"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("position=randomised position.inner=alib", "did you mean alibi"),
        (
            "position=randomised position.inner.variant=linear",
            "inner.variant is not an option",
        ),
        ("position=nape position.inner=rope", "position.inner is not an option of nape"),
        ("position=randomised position.longest=0", "longest must be at least 1"),
    ],
)
def test_mistakes_are_one_line(words, said):
    with pytest.raises(ConfigError, match=said) as error:
        load_config(words.split())
    assert "\n" not in str(error.value)


# ---- randomised positions


def draw(longest, lengths, seed=0):
    rng = np.random.default_rng(seed)
    return Randomised(longest=longest).draw_positions(rng, np.array(lengths), True)


def test_ids_are_sorted_all_different_and_the_same_in_a_batch():
    ids = draw(50, [20, 3, 17])
    assert ids.shape == (3, 20)
    assert (np.diff(ids[0]) > 0).all() and ids.min() >= 0 and ids.max() < 50
    assert (ids == ids[0]).all()
    assert (draw(20, [20], seed=1)[0] == np.arange(20)).all()
    assert (draw(50, [20], seed=1)[0] != ids[0]).any()


def test_every_id_is_as_likely_as_the_others():
    counts = np.bincount(np.concatenate([draw(8, [3], seed)[0] for seed in range(2000)]))
    assert abs(counts / 2000 - 3 / 8).max() < 0.05


def test_more_tokens_than_ids_are_refused():
    with pytest.raises(ValueError, match=r"^randomised: 9 tokens .*longest=8; set .* to 9"):
        draw(8, [9, 2])


def test_the_example_with_alibi():
    """Ids 1, 4, 5, 9 and a slope of 1/2: the last query's bias is -4, -5/2, -2, 0."""
    layer = MultiHeadAttention(Attention(Softmax()), Randomised(ALiBi()), SIZES[0])
    layer._slopes = torch.full((4,), 0.5)
    torch.nn.init.zeros_(layer.query.weight)
    scores = layer.scores(torch.randn(1, 4, 16), torch.tensor([1, 4, 5, 9]))
    assert scores[0, 0, 3].tolist() == [-4.0, -2.5, -2.0, 0.0]


@pytest.mark.parametrize("inner", [RoPE(), ALiBi(), Sinusoidal(), NAPE()], ids=label)
@torch.no_grad()
def test_prefill_and_decoding_see_the_same_ids(inner):
    model = small_decoder(Softmax(), LogScaling(), Randomised(inner))
    words, ids = tokens(2, 9), torch.from_numpy(draw(200, [9, 9]))
    whole, cache = model(words, ids), model.make_cache(9, ids)
    parts = [model(part, cache=cache) for part in words.split([4, 1, 4], dim=1)]
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-5
    assert (model(words) - whole).abs().max() > 1e-3
