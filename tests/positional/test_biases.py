"""Encodings that bias or map scores, or hide keys: numbers worked out by hand, what they are equal
to, and what each of them promises. tests/attention/test_oracle.py has their formulas."""

import dataclasses
import math

import pytest
import torch
from oracles import attention as oracle
from oracles import encodings_bias as biases
from oracles.registered import SIZES, assert_near, label, labels, randomize, small_decoder, tokens
from sampling import sampled

from lcg.attention import Attention
from lcg.attention.backends import blockwise
from lcg.attention.layer import FullAttention, MultiHeadAttention
from lcg.attention.normalizers.entmax import Entmax
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import LogScaling, NoScaling
from lcg.config.errors import ConfigError
from lcg.config.load import load_config
from lcg.config.schema import Model
from lcg.models.transformer import Decoder, Encoder
from lcg.positional.base import Sizes, Tile
from lcg.positional.contextual import DAPE, CoPE, TransformerXL
from lcg.positional.distance import KERPLE, T5, Sandwich, ScaleInvariant
from lcg.positional.fire import FIRE
from lcg.positional.forgetting import CABLE, FoX
from lcg.positional.groups import Heads, Layers
from lcg.positional.nope import NoPE
from lcg.positional.rotary import RoPE
from lcg.positional.slopes import ALiBi
from lcg.positional.windows import HardALiBi, Window

ENCODINGS = [
    *(T5(buckets=8, farthest=16), KERPLE(), KERPLE("power"), Sandwich(), ScaleInvariant()),
    *(FIRE(hidden=5, train_length=8), TransformerXL(), CoPE(most=4), FoX(), CABLE()),
    *(FoX(gates="bias", init="log_spaced"), Window(size=3), HardALiBi()),
    *(DAPE(hidden=6), DAPE(ALiBi("linear")), DAPE(T5()), DAPE(FoX()), DAPE(FIRE(train_length=4))),
    *(Window(RoPE(), size=9), ScaleInvariant(RoPE())),
    Heads([Window(size=2), NoPE()], [1, 1]),
    Heads([TransformerXL(), CoPE(most=3)], [1, 1]),
]
one = Sizes(heads=1, kv_heads=1, head_dim=1, d_model=1)
two = Sizes(heads=2, kv_heads=2, head_dim=1, d_model=2)


def layer_of(position, sizes=SIZES[0], kind=MultiHeadAttention, like=None, **parts):
    torch.manual_seed(0)
    layer = kind(Attention(**parts), position, sizes)
    randomize(layer)
    if like is not None:
        own = {k: v for k, v in like.state_dict().items() if "position" not in k}
        layer.load_state_dict(own, strict=False)
    return layer.requires_grad_(False)


def near(numbers):
    return pytest.approx(numbers, abs=2e-6)


def tile_of(q_ids, k_ids, q=None, k=None, **more):
    q = torch.zeros(1, 1, len(q_ids), 1) if q is None else q
    k = torch.zeros(1, 1, len(k_ids), 1) if k is None else k
    return Tile(torch.tensor(q_ids)[:, None], torch.tensor(k_ids), q, k, **more)


# ---- numbers by hand


@pytest.mark.parametrize(
    ("causal", "of_distance"),
    [
        (True, {0: 0, 15: 15, 16: 16, 18: 16, 19: 17, 24: 19, 31: 21, 32: 21, 40: 23, 64: 26}),
        (True, {-3: 0, 100: 30, 127: 31, 1000: 31}),
        (False, {200: 15, 20: 10, 8: 8, 1: 1, 0: 0, -1: 17, -7: 23, -8: 24, -20: 26, -200: 31}),
    ],
)
def test_buckets_of_t5(causal, of_distance):
    learned = T5().learned(one._replace(causal=causal))
    start = 0
    for tensor in learned.values():  # the number of a bucket is its number
        tensor.copy_(torch.arange(start, start + tensor.shape[1])[None])
        start += tensor.shape[1]
    assert start == 32
    distances = sorted(of_distance)
    found = T5().table(torch.tensor(distances), learned)
    assert found[0].tolist() == [of_distance[d] for d in distances]
    for distance, bucket in of_distance.items():
        assert biases.t5_bucket(distance, 32, 128, causal) == bucket


@pytest.mark.parametrize(
    ("variant", "p", "expected"),
    [
        ("log", 1.0, [0, -0.405465, -0.916291, -1.791759]),
        ("power", 0.5, [0, -0.5, -0.866025, -1.581139]),
        ("power", 1.0, [0, -0.5, -1.5, -5]),
    ],
)
def test_kerple_by_hand(variant, p, expected):
    raw_p = math.log(math.expm1(p)) if variant == "log" else math.log(p / (2 - p))
    raw = {"raw_a": math.log(math.expm1(0.5)), "raw_p": raw_p}
    learned = {name: torch.tensor([value]).requires_grad_() for name, value in raw.items()}
    found = KERPLE(variant).table(torch.tensor([0, 1, 3, 10]), learned)
    assert found[0].tolist() == near(expected)
    found.sum().backward()
    assert all(t.grad.isfinite().all() and t.grad.abs() > 0 for t in learned.values())


def test_sandwich_by_hand():
    position = Sandwich(width=4)
    four = position.learned(Sizes(4, 4, 1, 4))
    assert four["scale"].tolist() == near([0.5, 0.25, 1 / 6, 0.125])
    found = position.table(torch.tensor([0, 1, 2, 10]), {"scale": torch.ones(1)})
    assert found[0].tolist() == near([2, 1.540252, 0.583653, 0.155933])
    assert position.table(torch.tensor([1]), four)[1].item() == near(0.385063)


def test_fire_by_hand():
    position = FIRE(hidden=2, train_length=512)
    learned = position.learned(one)
    assert float(torch.nn.functional.softplus(learned["raw_c"])) == near(0.1)
    assert float(torch.nn.functional.softplus(learned["raw_length"])) == near(1.0)
    argument = learned | {"inner": torch.ones(2, 1), "inner_bias": torch.zeros(2)}
    argument |= {"outer": torch.tensor([[1.0, 0.0]]), "outer_bias": torch.zeros(1)}
    for i, distance, expected in (
        *((10, 4, 0.085073), (511, 4, 0.085073)),
        *((1000, 4, 0.072906), (1000, 1000, 1.0)),
    ):
        assert position.bias(tile_of([i], [i - distance]), argument).item() == near(expected)
    network = learned | {"inner": torch.tensor([[1.0], [-1.0]])}
    network |= {"inner_bias": torch.tensor([0.0, 0.5]), "outer": torch.tensor([[2.0, 3.0]])}
    network["outer_bias"] = torch.tensor([0.1])
    # 2·relu(x) + 3·relu(0.5 - x) + 0.1; with min in the place of max it would be 0.485427
    assert position.bias(tile_of([10], [6]), network).item() == near(1.514927)


def test_fox_and_cable_by_hand():
    kept = torch.tensor([0.9, 0.5, 0.8, 0.25])
    position, x = FoX(), kept.logit()[None, :, None]
    learned = {"w": torch.ones(1, 1), "b": torch.zeros(1)}
    sums = {"decay": position.state(x, learned)["decay"].double().cumsum(-1)}
    rows, columns = position.separable(sums, sums)
    last = (rows[..., None] + columns[..., None, :])[0, 0, 3]
    assert last.tolist() == near([-2.302585, -1.609438, -1.386294, 0])
    assert last.softmax(-1).tolist() == near([0.064516, 0.129032, 0.161290, 0.645161])
    position, x = CABLE(), torch.tensor([0.0, 1.0, -1.0])[None, :, None]
    sums = {"decay": position.state(x, learned)["decay"].double().cumsum(-1)}
    rows, columns = position.separable(sums, sums)
    assert (rows[0, 0, 2] + columns[0, 0]).tolist() == near([-1.626523, -0.313262, 0])


@pytest.mark.parametrize("cls", [FoX, CABLE])
def test_log_spaced_biases_decay_by_e_in_as_many_tokens(cls):
    position = cls("bias", "log_spaced", shortest=2.0, longest=32.0)
    learned = position.learned(Sizes(5, 5, 1, 5))
    decay = position.state(torch.zeros(1, 1, 5), learned)["decay"][0, :, 0]
    assert (-1 / decay).tolist() == pytest.approx([2, 4, 8, 16, 32], rel=1e-5)
    assert learned.keys() == {"b"}


def test_cope_by_hand():
    position, learned = CoPE(most=3), {"e": torch.tensor([[0.0], [0.5], [-1.0]])}
    scores = torch.tensor([0.0, 2.0, -1.0, 1.0]).view(1, 1, 1, 4)
    tile = tile_of([3], [0, 1, 2, 3], q=torch.ones(1, 1, 1, 1))
    bias = (position.map_scores(scores, tile, learned) - scores).flatten()
    assert bias.tolist() == near([-1, -0.821196, 0.5, 0.365529])


def test_scale_invariant_attention_by_hand():
    position, tile = ScaleInvariant(), tile_of([1000], [1000, 990, 900, 0])
    shift = position.map_scores(torch.zeros(1, 1, 1, 4), tile, {})
    assert shift.flatten().tolist() == near([0, -1.386294, -4.795791, -9.230241])
    factor = position.map_scores(torch.ones(1, 1, 1, 4), tile, {}) - shift
    assert factor.flatten().tolist() == near([1, 1.544764, 2.407445, 3.198475])
    assert (shift + factor)[..., 2].item() == near(-2.388346)


def test_dape_by_hand():
    """B is given: ALiBi's slopes 1 and 1/4 at distance 1."""

    class Given(ALiBi):
        def slopes(self, heads):
            return torch.tensor([1.0, 0.25])

    learned = {
        "dape_inner": torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 0]]),
        "dape_outer": torch.tensor([[0.5, -1.0], [1.0, 0]]),
        "dape_inner_bias": torch.zeros(2),
        "dape_outer_bias": torch.zeros(2),
    }
    scores = torch.tensor([0.5, -0.3]).view(1, 2, 1, 1)
    q = torch.zeros(1, 2, 1, 1)
    found = DAPE(Given(), hidden=2).map_scores(scores, tile_of([1], [0], q, q), learned)
    assert found.flatten().tolist() == near([-0.362, -0.3])


def test_transformer_xl_by_hand():
    position = TransformerXL()
    tensors = {"u": [[0.1, 0.2]], "v": [[-0.3, 0.4]], "w": [[[1.0, 0.0], [0.0, 1.0]]]}
    learned = {name: torch.tensor(value) for name, value in tensors.items()}
    q, k = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0])
    tile = tile_of([2], [0], q.view(1, 1, 1, 2), k.view(1, 1, 1, 2))
    product = float(q @ k) / math.sqrt(2)
    assert product + position.bias(tile, learned).item() == near(-1.422872)


# ---- what they are equal to


def test_fox_with_gates_of_the_bias_is_alibi_with_learned_slopes():
    layer = layer_of(FoX("bias", "log_spaced"), normalizer=Entmax())
    alibi = layer_of(ALiBi(), like=layer, normalizer=Entmax())
    alibi._slopes = -torch.nn.functional.logsigmoid(layer.position_state["b"])
    x = torch.randn(2, 50, 16)
    assert_near(layer(x), alibi(x), 1e-6)


def test_cable_is_fox_with_the_signs_flipped():
    fox, x = layer_of(FoX()), torch.randn(2, 50, 16)
    cable = layer_of(CABLE(), like=fox)
    for name, tensor in cable.position_state.items():
        tensor.copy_(-fox.position_state[name])
    assert_near(cable(x), fox(x), 1e-6)


def test_kerples_power_of_1_is_alibi():
    kerple, x = layer_of(KERPLE("power")), torch.randn(2, 50, 16)
    alibi = layer_of(ALiBi(), like=kerple)
    kerple.position_state["raw_a"].copy_(alibi.slopes.expm1().log())
    kerple.position_state["raw_p"].zero_()
    assert_near(kerple.scores(x).exp(), alibi.scores(x).exp(), 1e-6)


def test_scale_invariants_shift_is_kerples_logarithm():
    """At scores of 0, with p = 2 and a = 1/τ."""
    distances, heads = torch.arange(3000), Sizes(2, 2, 1, 2)
    kerple = KERPLE()
    learned = kerple.learned(heads)
    learned["raw_a"].fill_(math.log(math.expm1(1 / 25)))
    learned["raw_p"].fill_(math.log(math.expm1(2)))
    tile = tile_of([2999], (2999 - distances).tolist())
    shift = ScaleInvariant(tau=25.0).map_scores(torch.zeros(1, 2, 1, 3000), tile, {})
    assert_near(shift[0, :, 0], kerple.table(distances, learned), 1e-6)


def test_fire_is_a_function_of_the_distance_up_to_the_training_length():
    layer = layer_of(FIRE(train_length=40), like=layer_of(NoPE()))
    layer.position_state["raw_length"].fill_(math.log(math.expm1(0.5)))  # L is 20 now
    x, ids = torch.randn(1, 12, 16), torch.arange(12)
    still = layer.scores(x, ids).exp()
    assert_near(layer.scores(x, ids + 8).exp(), still, 1e-6)
    assert (layer.scores(x, ids + 20).exp() - still).abs().max() > 1e-3


def test_hard_alibi_is_a_masked_softmax():
    layer, x = layer_of(HardALiBi()), torch.randn(2, 9, 16)
    products = layer_of(NoPE(), like=layer).scores(x)  # -inf after the query
    distance = torch.arange(9)[:, None] - torch.arange(9)
    for h, hidden in enumerate((distance > 0, distance > 1, None, None)):
        scores = products[:, h] if hidden is None else products[:, h].masked_fill(hidden, -math.inf)
        assert_near(layer.weights(x)[:, h], scores.softmax(-1), 1e-6, f"head {h}")


def test_windows_as_wide_as_the_sequence_are_the_encoding_within():
    x = torch.randn(2, 9, 16)
    inner = layer_of(RoPE())
    assert_near(layer_of(Window(RoPE(), size=9))(x), inner(x), 0.0)
    assert (layer_of(Window(RoPE(), size=8))(x) - inner(x)).abs().max() > 1e-4


# ---- formulas of those that are made of others, and under full attention


WRAPPED = {
    "alibi": (ALiBi("linear"), oracle.POSITIONS["alibi"].bias),
    "t5": (T5(buckets=8, farthest=10), biases.t5),
    "fox": (FoX(), biases.forgetting(1)),
    "fire": (FIRE(hidden=4, train_length=5), biases.fire),
}


@pytest.mark.parametrize("inner", WRAPPED)
def test_dape_is_its_formula(inner, monkeypatch):
    encoding, bias = WRAPPED[inner]
    formula = oracle.Encoding(scores=biases.dape(bias, dataclasses.asdict(encoding)))
    monkeypatch.setitem(oracle.POSITIONS, "dape", formula)
    compare(layer_of(DAPE(encoding, hidden=5), SIZES[1], scaling=LogScaling()), "dape")


@pytest.mark.parametrize("position", [Window(size=2), HardALiBi()], ids=label)
def test_windows_without_a_causal_mask_are_on_both_sides(position):
    layer = layer_of(position, SIZES[1], FullAttention)
    compare(layer, position.name, "full")


def compare(layer, position, kind="causal"):
    """Output and gradient of softmax attention with those of the formulas."""
    layer.requires_grad_()
    sizes, scaling = layer.sizes, layer.attention.scaling
    x = torch.randn(1, 7, sizes.d_model, requires_grad=True)
    exact = {
        name: tensor.detach().double().requires_grad_()
        for name, tensor in [("x", x), *layer.named_parameters()]
    }
    chosen = oracle.Choices(
        oracle.Chosen("softmax"),
        oracle.Chosen(scaling.name, dataclasses.asdict(scaling)),
        oracle.Chosen(position, dataclasses.asdict(layer.position)),
        oracle.Chosen("none"),
        *(sizes.heads, sizes.kv_heads),
    )
    expected, _ = oracle.attention(exact["x"][0], exact, chosen, kind)
    actual, cotangent = layer(x), torch.randn(1, 7, sizes.d_model)
    assert_near(actual[0], expected, 1e-5)
    actual.backward(cotangent)
    expected.backward(cotangent[0].double())
    at_least = 0.05 * exact["x"].grad.abs().max().item()
    for name, tensor in [("x", x), *layer.named_parameters()]:
        assert_near(tensor.grad, exact[name].grad, 5e-4, name, at_least)


# ---- what each of them promises


@pytest.fixture
def small(monkeypatch):
    """Tiles of a few rows, so that short sequences have many."""
    for name, size in {"SMALL": 0, "KEPT": 0, "TILE": 512, "QUERIES": 8, "LONG": 32}.items():
        monkeypatch.setattr(blockwise, name, size)


@pytest.mark.parametrize(
    "row", sampled(ENCODINGS, [Softmax(), Entmax(), Entmax(2.0)], [False, True]), ids=labels
)
def test_tiles_are_as_the_whole(small, row):
    """With ids of each sequence too, far beyond those of training."""
    position, normalizer, with_ids = row
    model, words = small_decoder(normalizer, LogScaling(), position), tokens(2, 45)
    ids = torch.randint(0, 90, (2, 45)).sort(dim=1).values if with_ids else None
    found = {}
    for backend in ("reference", "blockwise"):
        for layer in model.attention_layers().values():
            layer.backend = backend
        model.zero_grad()
        out = model(words, ids=ids)
        out.square().mean().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found[backend] = [out.detach(), *gradients]
    scale = max(gradient.abs().max().item() for gradient in found["reference"][1:])
    for actual, expected in zip(found["blockwise"], found["reference"], strict=True):
        assert_near(actual, expected, 1e-4, at_least=0.05 * scale)


@pytest.mark.parametrize("position", ENCODINGS, ids=label)
@torch.no_grad()
def test_reading_in_parts_with_ids_of_each_sequence_is_reading_at_once(position):
    """Ids repeat and fall, as those that a task gives may."""
    model, words = small_decoder(Softmax(), NoScaling(), position), tokens(2, 11)
    ids = torch.randint(0, 30, (2, 11))
    whole = model(words, ids)
    cache = model.make_cache(11, ids)
    parts = [model(part, cache=cache) for part in words.split([5, 1, 1, 4], dim=1)]
    assert_near(torch.cat(parts, dim=1), whole, 2e-5)
    padded = torch.nn.functional.pad(words, (0, 4))
    assert_near(model(padded, torch.nn.functional.pad(ids, (0, 4)))[:, :11], whole, 2e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert_near(model(words, ids), whole, 0.1)
    for name, tensor in model.to(torch.bfloat16).state_dict().items():
        assert tensor.dtype == torch.bfloat16, name
    assert model(words, ids).isfinite().all()


@pytest.mark.parametrize(
    "position", [FIRE(train_length=64), TransformerXL(), DAPE(), T5(farthest=3000)], ids=label
)
@torch.no_grad()
def test_neighbours_far_away_differ_in_bfloat16(position):
    layer = layer_of(position, normalizer=Softmax())
    layer.query.weight.zero_()
    x = torch.ones(1, 1200, 16)
    exact = layer.weights(x, select=torch.tensor([1199]))
    with torch.autocast("cpu", torch.bfloat16):
        found = layer.weights(x, select=torch.tensor([1199]))
    assert_near(found.log(), exact.log(), 1e-3)


def test_layers_may_share_one_table():
    def model_of(position):
        torch.manual_seed(0)
        model = Model(layers=4, d_model=16, heads=4, d_ff=8)
        return Decoder(model, Attention(), position, 11)

    words = tokens(2, 9)
    for position, names in (
        (T5(share=True), ["blocks.0.attention.position_state.before"]),
        (Layers([NoPE(), T5(share=True)]), ["blocks.1.attention.position_state.before"]),
        (Heads([T5(share=True), ALiBi()]), ["blocks.0.attention.position_state.group0_before"]),
    ):
        model = model_of(position)
        assert [name for name, _ in model.named_parameters() if "position" in name] == names
        model(words).square().sum().backward()
        assert model.get_parameter(names[0]).grad.abs().sum() > 0
        again = model_of(position)
        again.load_state_dict(model.state_dict())
        assert torch.equal(again(words), model(words))
    assert sum("position" in name for name, _ in model_of(T5()).named_parameters()) == 4


def test_an_encoder_has_buckets_for_both_sides_and_a_decoder_for_one():
    model = Model(layers=1, d_model=16, heads=4, d_ff=8, kind="encoder")
    encoder = Encoder(model, Attention(), T5(), 11, 10)
    sides = encoder.blocks[0].attention.position_state
    assert {name: list(t.shape) for name, t in sides.items()} == {
        "before": [4, 16],
        "after": [4, 16],
    }


# ---- what is refused


@pytest.mark.parametrize("name", ["fox", "cable", "cope"])
def test_an_encoding_of_the_past_runs_in_causal_attention_only(name):
    with pytest.raises(ConfigError, match=f"position={name} runs in causal attention only"):
        load_config([f"position={name}", "model.kind=encoder", "task=n_back"])
    with pytest.raises(ConfigError, match="runs in causal attention only"):
        load_config([f"position={name}:4+alibi:4", "model.kind=encoder", "task=n_back"])
    with pytest.raises(ValueError, match=f"position={name} runs in causal attention only"):
        layer_of({"fox": FoX(), "cable": CABLE(), "cope": CoPE()}[name], kind=FullAttention)


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ("position=window", "window"),
        ("position=window position.inner=rope", "window rope"),
        ("position=scale_invariant", "scale_invariant"),
        ("position=dape", "dape kerple"),
    ],
)
def test_labels(words, label):
    assert load_config(["task=copy", *words.split()]).labels["position"] == label


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (T5, {"buckets": 6}),
        (T5, {"buckets": 32, "farthest": 16}),
        (Sandwich, {"width": 3}),
        (Sandwich, {"base": 1.0}),
        (ScaleInvariant, {"tau": 0.0}),
        (FIRE, {"c": 0.0}),
        (FIRE, {"hidden": 0}),
        (FIRE, {"train_length": 0}),
        (FoX, {"shortest": 0.0}),
        (CABLE, {"shortest": 9.0, "longest": 3.0}),
        (CABLE, {"start": math.inf}),
        (CoPE, {"most": 1}),
        (DAPE, {"hidden": 0}),
        (TransformerXL, {"base": 0.5}),
        (Window, {"size": 0}),
        (HardALiBi, {"windowed": 0}),
    ],
)
def test_options_out_of_range_are_refused(cls, options):
    with pytest.raises(ValueError, match=f"^{cls.name}: .*{[*options][-1]}") as error:
        cls(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (FIRE(), "^fire: train_length is not known"),
        (HardALiBi(windowed=3), "^hard_alibi: windowed=3 is more than model.heads=2"),
        (DAPE(RoPE()), "^dape: inner=rope must add a bias"),
        (DAPE(CoPE()), "^dape: inner=cope must add a bias"),
    ],
)
def test_sizes_and_encodings_that_do_not_fit_are_refused(position, words):
    with pytest.raises(ValueError, match=words) as error:
        position.check(two)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("position", [TransformerXL(), DAPE(), T5()], ids=label)
def test_ids_that_are_no_whole_numbers_are_refused(position):
    with pytest.raises(ValueError, match=f"^{position.name}.* ids"):
        layer_of(position)(torch.randn(1, 3, 16), torch.tensor([0.0, 0.5, 1.0]))


def test_the_training_length_is_that_of_the_run():
    config = load_config(["task=copy", "position=fire", "data.max_length=40"])
    assert config.position.train_length == config.task.token_length(40)
    inner = load_config(["task=copy", "position=dape", "position.inner=fire"]).position.inner
    assert inner.train_length == config.task.token_length(32)
