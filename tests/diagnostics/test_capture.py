"""The captured inputs of heads are those that the model computed its output from."""

import pytest
import torch
from einops import rearrange
from oracles import attention as oracle
from oracles.registered import (
    KINDS,
    SIZES,
    assert_near,
    choices,
    fitting,
    labels,
    pairwise,
    small_decoder,
    tokens,
    variants,
)
from sampling import sampled

from lcg.attention import Attention
from lcg.attention.normalizers.entmax import LearnedEntmax
from lcg.config import load_config
from lcg.config.schema import Model
from lcg.diagnostics.capture import capture_inputs, learned_alpha
from lcg.diagnostics.columns import attention_layers
from lcg.models.transformer import Encoder, EncoderDecoder
from lcg.positional.rotary import RoPE

NEAR = 1e-5
PAIRS = sampled(*map(variants, KINDS), SIZES, whole=pairwise, seed="capture")


@pytest.mark.parametrize("row", PAIRS, ids=labels)
def test_weights_times_values_is_the_output_of_every_layer(row):
    normalizer, scaling, position, output_norm, sizes = row
    sizes = fitting(output_norm, sizes)
    model = small_decoder(normalizer, scaling, position, sizes=sizes, output_norm=output_norm)
    outputs = []
    for block in model.blocks:
        block.attention.register_forward_hook(lambda *words: outputs.append(words[-1]))
    with torch.no_grad(), capture_inputs(model) as seen:
        model(tokens(2, 9))
        for captured, output in zip(seen, outputs, strict=True):
            layer = captured.layer
            v = layer.value(captured.x).unflatten(-1, (sizes.kv_heads, -1)).transpose(1, 2)
            v = output_norm.values(v, layer.output_norm_state)
            v = v.repeat_interleave(sizes.heads // sizes.kv_heads, dim=1)
            joined = output_norm.join(captured.weights() @ v, captured.x, layer.output_norm_state)
            expected = layer.output(joined)
            assert_near(output, expected, NEAR, "output")


@pytest.mark.parametrize(
    "row", sampled(*map(variants, KINDS[1:3]), SIZES, whole=pairwise), ids=labels
)
def test_scalers_are_the_formulas(row):
    scaling, position, sizes = row
    (normalizer,) = [n for n in variants("normalizer") if n.name == "softmax"][:1]
    model = small_decoder(normalizer, scaling, position, sizes=sizes)
    chosen = choices(Attention(normalizer, scaling), position, sizes)
    formula = oracle.formula(oracle.SCALINGS, "scaling", scaling.name)
    with torch.no_grad(), capture_inputs(model) as seen:
        model(tokens(1, 5))
    for captured in seen:
        with torch.no_grad():
            scaler = captured.scaler()
        if scaling.name == "none":
            assert scaler is None
            continue
        start = captured.layer.scaled_heads[0]
        assert (scaler[:, :start] == 1).all()
        state = {name: p.detach().double() for name, p in captured.layer.scaling_state.items()}
        for head in range(start, sizes.heads):
            for i, x in enumerate(captured.x[0].double()):
                expected = formula(x, i + 1, chosen.scaling.options, state, head - start)
                assert scaler[0, head, i].item() == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("normalizer", variants("normalizer"), ids=lambda n: n.name)
def test_alpha_is_there_where_it_is_learned(normalizer):
    (scaling, *_), (position, *_) = variants("scaling"), variants("position")
    model = small_decoder(normalizer, scaling, position)
    with torch.no_grad(), capture_inputs(model) as seen:
        model(tokens(1, 4))
    for captured in seen:
        if normalizer.name != "entmax_learned":
            assert learned_alpha(captured.layer) is None
            continue
        a = captured.layer.normalizer_state["a"].detach().double()
        expected = 1 + torch.clamp(1 / (1 + (-a).exp()), min=normalizer.floor)
        assert_near(learned_alpha(captured.layer), expected, 1e-6, "alpha")


def test_a_selected_query_is_seen_among_all_and_nothing_stays_behind():
    (normalizer, *_), (scaling, *_) = variants("normalizer"), variants("scaling")
    model = small_decoder(normalizer, scaling, variants("position")[0])
    inputs, select = tokens(2, 6), torch.tensor([1, 4])
    with torch.no_grad():
        before = model(inputs, select=select)
        with capture_inputs(model) as seen:
            assert torch.equal(model(inputs, select=select), before)
        assert [captured.x.shape[1] for captured in seen] == [6, 6]
        some, every = seen[0].weights(select), seen[0].weights()
    assert_near(some, every[:, :, select], 1e-6)
    assert not any(block.attention._forward_pre_hooks for block in model.blocks)
    with pytest.raises(ValueError, match="cache"), torch.no_grad(), capture_inputs(model):
        model(inputs, cache=model.make_cache(6))


KINDS = {"encoder": Encoder, "encoder_decoder": EncoderDecoder}
PAD = 11


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cross", ["none", "same"])
def test_layers_of_encoders_are_seen_with_what_they_attend_to(kind, cross):
    """Names, masks, and weights that make the layer's output, padding and selection included."""
    model = Model(
        kind=kind, d_model=16, heads=2, d_ff=12, layers=2, encoder_layers=1, cross_position=cross
    )
    (scaling,) = [s for s in variants("scaling") if s.name == "log" and s.offset == 1]
    attention = Attention(LearnedEntmax(), scaling)
    torch.manual_seed(0)
    made = KINDS[kind](model, attention, RoPE(), PAD + 1, PAD).eval()
    target, source, outputs = tokens(2, 5), tokens(2, 7, seed=1), []
    source[0, 4:], target[1, 3:] = PAD, PAD
    given = (source,) if kind == "encoder" else (target, source)
    for layer in made.attention_layers().values():
        layer.register_forward_hook(lambda *words: outputs.append(words[-1]))
    select = torch.tensor([2, 0])
    with torch.no_grad():
        expected = made(*given, select=select)
        outputs.clear()
        with capture_inputs(made) as seen:
            assert_near(made(*given, select=select), expected, NEAR, "logits")
    task = "n_back" if kind == "encoder" else "copy"
    config = load_config([f"model.kind={kind}", f"task={task}", "model.encoder_layers=1"])
    assert [(w.name, w.kind) for w in seen] == [tuple(layer) for layer in attention_layers(config)]
    for captured, output in zip(seen, outputs, strict=True):
        layer = captured.layer
        read = captured.x if captured.kind != "cross" else captured.memory
        real_queries = source if captured.kind == "full" else target
        assert (captured.query_mask == (real_queries != PAD)).all()
        assert captured.x.shape[1] == real_queries.shape[1], "all queries, whatever is selected"
        everyone = torch.arange(captured.x.shape[1])
        visible = captured.visible(everyone)
        seen_keys = torch.ones(visible.shape, dtype=torch.bool)
        if captured.kind == "causal":
            assert captured.key_mask is None
            seen_keys = seen_keys.tril()
        else:
            assert (captured.key_mask == (source != PAD)).all()
            seen_keys = seen_keys & (source != PAD)[:, None]
        assert torch.equal(visible, seen_keys)
        with torch.no_grad():
            weights, scores = captured.weights(), captured.scores()
            q, k = captured.queries_and_keys()
            v = layer.value(read).unflatten(-1, (2, -1)).transpose(1, 2)
            joined = rearrange(weights @ v, "b h q d -> b q (h d)")
            out = layer.output(joined)
        out = out if out.shape == output.shape else out[:, select]
        assert_near(output, out, NEAR, captured.name)
        assert (weights.masked_select(~visible[:, None]) == 0).all()
        products = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~visible[:, None], -torch.inf)
        torch.testing.assert_close(scores, products)
