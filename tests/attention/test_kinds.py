"""Full and cross attention are what the formulas say, in every choice, backend and padding."""

import pytest
import torch
from oracles import attention as oracle
from oracles.registered import (
    SIZES,
    assert_near,
    choices,
    crosses,
    fitting,
    labels,
    pairwise,
    randomize,
    variants,
)
from sampling import sampled

from lcg.attention import Attention
from lcg.attention.backends import blockwise
from lcg.attention.cache import LayerCache
from lcg.attention.layer import CrossAttention, FullAttention, Memory
from lcg.attention.mask import ALL
from lcg.attention.normalizers.entmax import LearnedEntmax
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.normalizers.stick_breaking import StickBreaking
from lcg.attention.output_norms import NoNorm
from lcg.attention.scalings import AdaptiveScaling, LogScaling
from lcg.positional.groups import NAPE
from lcg.positional.nope import NoPE

FORWARD, GRADIENT = 1e-5, 5e-4  # as in test_oracle.py
BOTH = {"full": FullAttention, "cross": CrossAttention}
NORMALIZERS = [n for n in variants("normalizer") if not n.causal_only]
POSITIONS = [p for p in variants("position") if crosses(p)]
FACTORS = [NORMALIZERS, variants("scaling"), POSITIONS, variants("output_norm"), SIZES]

kinds = pytest.mark.parametrize("kind", BOTH)
rows = pytest.mark.parametrize("row", sampled(*FACTORS, whole=pairwise, seed="kinds"), ids=labels)


def layer_of(kind, row):
    normalizer, scaling, position, output_norm, sizes = row
    torch.manual_seed(0)
    sizes = fitting(output_norm, sizes)
    layer = BOTH[kind](Attention(normalizer, scaling, output_norm), position, sizes)
    randomize(layer)
    return layer


def given_to(layer, memory, mask=None):
    """The layer's keywords; its input has the memory's tokens if it is full."""
    if layer.kind == "full":
        return {"mask": mask}
    return {"memory": Memory(memory, layer.position.positions(memory.shape[1]), mask)}


def call(layer, x, memory, mask=None, select=ALL):
    positions = layer.position.positions(x.shape[1])
    return layer(x, positions, select, **given_to(layer, memory, mask))


def inputs(kind, sizes, queries, keys, batch=1, seed=0):
    """x, and the memory: the same tensor in full attention, for as many keys."""
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randn(batch, keys, sizes.d_model, generator=generator)
    x = torch.randn(batch, queries, sizes.d_model, generator=generator)
    return (memory, memory) if kind == "full" else (x, memory)


def gradient(tensor):
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


@kinds
@rows
def test_forward_and_gradient_match_the_formulas(row, kind):
    layer = layer_of(kind, row)
    normalizer, scaling, position, output_norm, _ = row
    sizes = layer.sizes
    attention = Attention(normalizer, scaling, output_norm)
    for queries, keys in ((5, 5),) if kind == "full" else ((3, 7), (5, 1)):
        layer.zero_grad(set_to_none=True)
        x, memory = inputs(kind, sizes, queries, keys)
        leaves = [("x", x.requires_grad_()), ("memory", memory.requires_grad_())]
        leaves = leaves[: 1 + (kind == "cross")]
        actual = call(layer, x, memory)
        cotangent = torch.randn(actual.shape, generator=torch.Generator().manual_seed(1))
        actual.backward(cotangent)
        named = [*leaves, *layer.named_parameters()]
        exact = {name: t.detach().double().requires_grad_(t.requires_grad) for name, t in named}
        source = exact["memory"][0] if kind == "cross" else None
        chosen = choices(attention, position, sizes)
        expected, _ = oracle.attention(exact["x"][0], exact, chosen, kind, source)
        expected.backward(cotangent[0].double())
        assert_near(actual[0], expected, FORWARD, "output")
        # Of one key the queries have no gradient, and then that of the memory is the measure.
        scale = max(1e-3, *(0.05 * gradient(exact[n]).abs().max().item() for n, _ in leaves))
        for name, tensor in named:
            if not tensor.requires_grad:  # a constant
                continue
            want = gradient(exact[name])
            assert_near(gradient(tensor), want, GRADIENT, f"gradient of {name}", at_least=scale)


@kinds
@rows
def test_weights_match_the_formulas_and_are_zero_on_padding(row, kind):
    layer, (normalizer, scaling, position, output_norm, _) = layer_of(kind, row), row
    sizes = layer.sizes
    x, memory = inputs(kind, sizes, 5, 7)
    more = torch.randn(1, 4, sizes.d_model)
    padded = torch.cat([memory, more], dim=1)
    mask = torch.arange(11)[None] < 7
    queries = padded if kind == "full" else x
    positions = position.positions(queries.shape[1])
    weights = layer.weights(queries, positions, **given_to(layer, padded, mask))[0]
    assert (weights[..., 7:] == 0).all()
    state = {name: p.detach().double() for name, p in layer.named_parameters()}
    chosen = choices(Attention(normalizer, scaling, output_norm), position, sizes)
    source = memory[0].double() if kind == "cross" else None
    _, expected = oracle.attention(x[0].double(), state, chosen, kind, source)
    for h, rows in enumerate(expected):
        assert_near(weights[h, : len(rows), :7], torch.stack(rows), FORWARD, f"head {h}")


@kinds
@rows
def test_padding_changes_nothing_and_gets_no_gradient(row, kind):
    layer = layer_of(kind, row)
    sizes = layer.sizes
    lengths = (4, 7)
    x, memory = inputs(kind, sizes, 7 if kind == "full" else 3, 7, batch=2)
    memory = memory.detach().requires_grad_()
    x = memory if kind == "full" else x
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    whole = call(layer, x, memory, mask)
    real = [n if kind == "full" else 3 for n in lengths]
    cotangents = [torch.randn(n, sizes.d_model) for n in real]
    parts = [whole[i, : real[i]] for i in range(2)]
    (got,) = torch.autograd.grad(parts, memory, cotangents)
    assert (got[0, 4:] == 0).all()
    for i, n in enumerate(lengths):
        alone = memory[i : i + 1, :n].detach().requires_grad_()
        out = call(layer, alone if kind == "full" else x[i : i + 1], alone)
        (want,) = torch.autograd.grad(out[0, : real[i]], alone, cotangents[i])
        assert_near(parts[i], out[0], FORWARD, f"output of row {i}")
        scale = 0.05 * want.abs().max().item()
        assert_near(got[i, :n], want[0], GRADIENT, f"gradient of row {i}", max(1e-3, scale))


@kinds
@pytest.mark.parametrize(
    "row",
    sampled(*FACTORS, [False], whole=pairwise)
    + sampled(
        *(NORMALIZERS, [LogScaling()], POSITIONS, [NoNorm()], SIZES[1:2], [True]),
        whole=pairwise,
    ),
    ids=labels,
)
def test_blockwise_is_the_reference(row, kind, monkeypatch):
    """In tiles of a few queries, over rows so long that candidates and windows are looked for."""
    *row, long = row
    keys, queries = (600, 40) if long else (13, 9)
    monkeypatch.setattr(blockwise, "KEPT", 0)
    for name in ("TILE", "SMALL"):
        monkeypatch.setattr(blockwise, name, 2**14 if long else 64)
    layer = layer_of(kind, row)
    x, memory = inputs(kind, layer.sizes, queries, keys, batch=2)
    mask = torch.arange(keys) < torch.tensor([[keys - 5], [keys]])
    select = torch.arange(0, x.shape[1], max(1, x.shape[1] // 40))
    found = {}
    for backend in ("reference", "blockwise"):
        layer.backend = backend
        layer.zero_grad(set_to_none=True)
        x, memory = x.detach().requires_grad_(), memory.detach().requires_grad_()
        out = call(layer, x, x if kind == "full" else memory, mask, select)
        out.backward(torch.ones_like(out))
        found[backend] = out, gradient(x), gradient(memory)
    for name, want, got in zip(("output", "x", "memory"), *found.values(), strict=True):
        assert_near(got, want, FORWARD if name == "output" else GRADIENT, name)


def test_n_is_the_number_of_keys_without_padding():
    """SSMax of equal scores: log(n + 1) of the unpadded keys, the same for all queries."""
    sizes = SIZES[1]
    mask = torch.arange(9) < torch.tensor([[4], [9]])
    for kind, layer in BOTH.items():
        layer = layer(Attention(Softmax(), LogScaling()), NoPE(), sizes)
        torch.nn.init.ones_(layer.scaling_state["s"])
        memory, x = torch.randn(2, 9, sizes.d_model), torch.randn(2, 3, sizes.d_model)
        x = memory if kind == "full" else x
        scaler = layer.scaler(x, torch.arange(x.shape[1]), **given_to(layer, memory, mask))
        expected = torch.tensor([5.0, 10.0]).log()[:, None, None].expand_as(scaler)
        assert_near(scaler, expected, 1e-6)
        scaler = layer.scaler(x, torch.arange(x.shape[1]), **given_to(layer, memory))
        assert_near(scaler, torch.full_like(scaler, 10.0).log(), 1e-6)


def test_cross_attention_without_an_encoding_scales_all_heads():
    sizes = SIZES[0]
    choice = Attention(LearnedEntmax(), AdaptiveScaling())
    assert CrossAttention(choice, NAPE(), sizes).scaled_heads == [2, 3]
    layer = CrossAttention(choice, NoPE(), sizes)
    assert layer.scaled_heads == [0, 1, 2, 3]
    assert layer.scaling_state["beta_weight"].shape == (4, sizes.d_model)


def test_a_cache_makes_keys_and_values_once():
    row = (Softmax(), LogScaling(), NAPE(), NoNorm(), SIZES[1])
    layer = layer_of("cross", row)
    x, memory = inputs("cross", row[-1], 3, 6)
    positions = layer.position.positions(3)
    given = given_to(layer, memory) | {"cache": LayerCache()}
    expected, calls = call(layer, x, memory), []
    layer.key.register_forward_hook(lambda *words: calls.append(1))
    for i in range(3):
        out = layer(x[:, i : i + 1], positions[i : i + 1], **given)
        assert_near(out, expected[:, i : i + 1], FORWARD)
    assert len(calls) == 1


@kinds
def test_stick_breaking_has_no_meaning_without_an_order_of_keys(kind):
    with pytest.raises(ValueError, match=f"normalizer=stick_breaking .* not in {kind} attention"):
        BOTH[kind](Attention(StickBreaking()), NAPE(), SIZES[0])
