"""Gates, pairs of heads and LASER: examples by hand, and whole models of their presets."""

import math

import pytest
import torch
from oracles.registered import SIZES, assert_near, randomize, tokens

from lcg.attention import Attention
from lcg.attention.functional import attend
from lcg.attention.layer import MultiHeadAttention
from lcg.attention.normalizers.entmax import Entmax
from lcg.attention.normalizers.relu import ReLU
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.output_norms import Differential, Gated, Laser
from lcg.config import load_config
from lcg.config.schema import Model
from lcg.models.transformer import Decoder
from lcg.positional.base import Sizes
from lcg.positional.nope import NoPE
from lcg.positional.slopes import ALiBi

PRESETS = ("differential", "differential_entmax", "gated", "gated_entmax", "laser")
ONE = Sizes(heads=1, kv_heads=1, head_dim=2, d_model=2)


def model_of(preset, position=None, dtype=torch.float32):
    attention = load_config([f"attention={preset}"], fitting=False).attention
    torch.manual_seed(0)
    model = Decoder(Model(d_model=16, heads=4, d_ff=12), attention, position or ALiBi(), 11, pad=10)
    randomize(model)
    return model.to(dtype).eval()


@pytest.mark.parametrize("preset", PRESETS)
@torch.no_grad()
def test_decoding_and_padding_change_nothing(preset):
    model, words = model_of(preset), tokens(2, 23) % 10
    whole = model(words)
    cache = model.make_cache(23)
    parts = [model(part, cache=cache) for part in words.split([5, 1, 1, 12, 4], dim=1)]
    assert_near(torch.cat(parts, dim=1), whole, 1e-5)
    padded = torch.nn.functional.pad(words, (0, 4), value=10)
    assert_near(model(padded)[:, :23], whole, 1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_bfloat16_is_near_float32_and_its_gradients_are_finite(preset):
    words = tokens(2, 17) % 10
    precise, rough = model_of(preset)(words), model_of(preset, dtype=torch.bfloat16)
    found = rough(words)
    assert_near(found, precise, 0.1)
    found.float().square().mean().backward()
    for name, tensor in rough.named_parameters():
        assert not tensor.requires_grad or tensor.grad.isfinite().all(), name


@torch.no_grad()
def test_a_gate_of_each_dimension_and_of_each_head_by_hand():
    heads, x = torch.tensor([[[[1.0, -2.0]]]]), torch.tensor([[[1.0, math.log(3)]]])
    found = Gated().join(heads, x, {"gate": torch.tensor([[0.0, 0.0], [0.0, 1.0]])})
    assert found.flatten().tolist() == pytest.approx([0.5, -1.5])
    found = Gated(per="head").join(heads, x, {"gate": torch.tensor([[0.0, 1.0]])})
    assert found.flatten().tolist() == pytest.approx([0.75, -1.5])
    assert Gated().learned(SIZES[1])["gate"].shape == (32, 10)
    assert Gated("head").learned(SIZES[1])["gate"].shape == (4, 10)


@torch.no_grad()
def test_laser_by_hand():
    """v = (0, 1) after the bound, p = (.25, .75)."""
    laser, v = Laser(), torch.tensor([0.0, 15 * math.atanh(1 / 15)])
    sums = (torch.tensor([0.25, 0.75]) * laser.values(v, {})).sum()
    assert laser(sums, {}).item() == pytest.approx(0.827989, abs=1e-6)
    assert laser(torch.zeros(3), {}).tolist() == [0, 0, 0]
    largest = laser.values(torch.tensor([1e4, -1e4]), {})
    assert laser(largest, {}).tolist() == pytest.approx([15, -15], rel=1e-5)
    largest = laser.values(torch.tensor([1e4, -1e4], dtype=torch.float16), {})
    assert laser(largest, {}).tolist() == pytest.approx([11.09, -11.09], rel=1e-2)
    with pytest.raises(ValueError, match="laser: bound must be in"):
        Laser(bound=100.0)


def test_a_head_without_weight_passes_nothing_through_laser():
    layer = MultiHeadAttention(Attention(ReLU(), output_norm=Laser()), NoPE(), ONE)
    with torch.no_grad():
        layer.query.weight.copy_(torch.eye(2)), layer.key.weight.copy_(-torch.eye(2))
    x = torch.randn(1, 3, 2, requires_grad=True)
    out = layer(x[:, :1])
    out.sum().backward()
    assert (out == 0).all() and (x.grad == 0).all()


def test_lambda_starts_by_the_layer():
    for layer, init in zip(
        (0, 1, 2, 3, 11), (0.2, 0.355509, 0.470713, 0.556058, 0.777870), strict=True
    ):
        tensors = Differential().learned(SIZES[0]._replace(layer=layer))
        assert tensors["init"].item() == pytest.approx(init, abs=1e-6)
        assert not tensors["init"].requires_grad
    decoder = model_of("differential")
    first, second = (layer.sizes.layer for layer in decoder.attention_layers().values())
    assert (first, second) == (0, 1)


@torch.no_grad()
def test_a_pair_of_rows_by_hand():
    """z = (2, 1, 0, -1), z' = (0, 1, 2, 0), λ = .5: rows of values that are units show weights."""
    scores = torch.tensor([[2.0, 1, 0, -1], [0.0, 1, 2, 0]])
    heads = Softmax()(scores, torch.arange(4), {}).view(1, 2, 1, 4)  # values of width 2d = 4
    learned = {name: torch.zeros(2) for name in ("q1", "k1", "q2", "k2")}
    learned |= {"init": torch.tensor(0.5), "scale": torch.ones(4)}
    found = Differential(eps=0.0).join(heads, torch.zeros(1, 1, 4), learned).flatten()
    expected = torch.tensor([0.602617, 0.124625, -0.218004, -0.009239])
    assert_near(found, 0.5 * expected / expected.square().mean().sqrt(), 2e-6)
    assert expected.sum().item() == pytest.approx(0.5, abs=2e-6)


@pytest.mark.parametrize("sizes", [SIZES[1], SIZES[2]], ids=["shared keys", "odd heads"])
def test_pairs_need_heads_with_keys_of_their_own(sizes):
    with pytest.raises(ValueError, match=r"differential: needs pairs of heads .* got heads="):
        MultiHeadAttention(Attention(output_norm=Differential()), NoPE(), sizes)


@torch.no_grad()
def test_gated_entmax_is_entmax_times_the_gate():
    gated = MultiHeadAttention(Attention(Entmax(), output_norm=Gated()), ALiBi(), SIZES[1])
    plain = MultiHeadAttention(Attention(Entmax()), ALiBi(), SIZES[1])
    state = {k: v for k, v in gated.state_dict().items() if "output_norm" not in k}
    plain.load_state_dict(state)
    x = torch.randn(2, 9, 10)
    q, k, v, bias = plain.project(x)
    heads = attend(q, k, v, Entmax(), bias).transpose(1, 2).flatten(2)
    gate = (x @ gated.output_norm_state["gate"].mT).sigmoid()
    assert_near(gated(x), gated.output(heads * gate), 1e-6)
    assert (gated.weights(x) == 0).sum() > (torch.ones(9, 9).triu(1).sum() * 8)
    some = torch.tensor([4, 1])
    assert_near(gated(x, select=some), gated(x)[:, some], 1e-6)
