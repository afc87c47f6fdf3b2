"""What is seen of the heads is what the model computed its output from."""

import pytest
import torch
from einops import rearrange
from oracles import attention as oracle
from oracles.registered import (
    KINDS,
    SIZES,
    assert_near,
    choices,
    labels,
    pairwise,
    small_decoder,
    tokens,
    variants,
)

from lcg.attention import Attention
from lcg.diagnostics.watching import watching

NEAR = 1e-5
PAIRS = pairwise(*(variants(kind) for kind in KINDS), SIZES)


@pytest.mark.parametrize("row", PAIRS, ids=labels)
def test_weights_times_values_is_the_output_of_every_layer(row):
    normalizer, scaling, position, output_norm, sizes = row
    model = small_decoder(normalizer, scaling, position, sizes=sizes, output_norm=output_norm)
    outputs = []
    for block in model.blocks:
        block.attention.register_forward_hook(lambda *words: outputs.append(words[-1]))
    with torch.no_grad(), watching(model) as seen:
        model(tokens(2, 9))
        for watched, output in zip(seen, outputs, strict=True):
            layer = watched.layer
            v = layer.value(watched.x).unflatten(-1, (sizes.kv_heads, -1)).transpose(1, 2)
            v = v.repeat_interleave(sizes.heads // sizes.kv_heads, dim=1)
            joined = rearrange(watched.weights() @ v, "b h q d -> b q (h d)")
            expected = layer.output(output_norm(joined, layer.output_norm_state))
            assert_near(output, expected, NEAR, "output")


@pytest.mark.parametrize("row", pairwise(*(variants(k) for k in KINDS[1:3]), SIZES), ids=labels)
def test_scalers_are_the_formulas(row):
    scaling, position, sizes = row
    (normalizer,) = [n for n in variants("normalizer") if n.name == "softmax"][:1]
    model = small_decoder(normalizer, scaling, position, sizes=sizes)
    chosen = choices(Attention(normalizer, scaling), position, sizes)
    formula = oracle.formula(oracle.SCALINGS, "scaling", scaling.name)
    with torch.no_grad(), watching(model) as seen:
        model(tokens(1, 5))
    for watched in seen:
        with torch.no_grad():
            scaler = watched.scaler()
        if scaling.name == "none":
            assert scaler is None
            continue
        start = watched.layer.unscaled_heads
        assert (scaler[:, :start] == 1).all()
        state = {name: p.detach().double() for name, p in watched.layer.scaling_state.items()}
        for head in range(start, sizes.heads):
            for i, x in enumerate(watched.x[0].double()):
                expected = formula(x, i + 1, chosen.scaling.options, state, head - start)
                assert scaler[0, head, i].item() == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("normalizer", variants("normalizer"), ids=lambda n: n.name)
def test_alpha_is_there_where_it_is_learned(normalizer):
    (scaling, *_), (position, *_) = variants("scaling"), variants("position")
    model = small_decoder(normalizer, scaling, position)
    with torch.no_grad(), watching(model) as seen:
        model(tokens(1, 4))
    for watched in seen:
        if normalizer.name != "entmax_learned":
            assert watched.alpha() is None
            continue
        a = watched.layer.normalizer_state["a"].detach().double()
        expected = 1 + torch.clamp(1 / (1 + (-a).exp()), min=normalizer.floor)
        assert_near(watched.alpha(), expected, 1e-6, "alpha")


def test_a_selected_query_is_seen_among_all_and_nothing_stays_behind():
    (normalizer, *_), (scaling, *_) = variants("normalizer"), variants("scaling")
    model = small_decoder(normalizer, scaling, variants("position")[0])
    inputs, select = tokens(2, 6), torch.tensor([1, 4])
    with torch.no_grad():
        before = model(inputs, select)
        with watching(model) as seen:
            assert torch.equal(model(inputs, select), before)
        assert [watched.x.shape[1] for watched in seen] == [6, 6]
        some, every = seen[0].weights(select), seen[0].weights()
    assert_near(some, every[:, :, select], 1e-6)
    assert not any(block.attention._forward_pre_hooks for block in model.blocks)
    with pytest.raises(ValueError, match="cache"), torch.no_grad(), watching(model):
        model(inputs, cache=model.make_cache(6))
