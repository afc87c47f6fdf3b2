"""The whole decoder against its formulas, its size, and how its weights start."""

import pytest
import torch
from oracles import decoder as oracle
from oracles.registered import (
    SIZES,
    assert_near,
    choices,
    fitting,
    label,
    labels,
    pairwise,
    small_decoder,
    tokens,
    variants,
)
from sampling import sampled

from lcg.attention import Attention
from lcg.attention.normalizers.entmax import Entmax
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import AdaptiveScaling
from lcg.config import Config
from lcg.config.schema import Model
from lcg.models.transformer import Decoder, build_model
from lcg.positional.groups import NAPE
from lcg.tasks.copy import Copy

LAYERS = 2
BLOCKS = ["prenorm", "gemma2", "gpt2"]
ROWS = sampled(
    BLOCKS, variants("position"), variants("output_norm"), SIZES, whole=pairwise, seed="formulas"
)


@pytest.mark.parametrize("row", ROWS, ids=labels)
def test_logits_are_those_of_the_formulas(row):
    block, position, output_norm, sizes = row
    sizes = fitting(output_norm, sizes)
    attention = Attention(Entmax(), AdaptiveScaling(), output_norm)
    model = small_decoder(
        attention.normalizer,
        attention.scaling,
        position,
        sizes=sizes,
        layers=LAYERS,
        block=block,
        output_norm=output_norm,
    )
    words = tokens(1, 6)
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    made_of = choices(attention, position, sizes)
    expected = oracle.decoder(words[0].tolist(), state, made_of, LAYERS, block)
    assert_near(model(words)[0], expected, 5e-5)


def sort_model(attention):
    """The ASEntmax authors' model of the Sort task (2506.16640)."""
    model = Model(block="gemma2", layers=2, d_model=256, heads=8, head_dim=32, d_ff=1024)
    return Decoder(model, attention, NAPE(), vocabulary=37)


@pytest.mark.parametrize(
    ("attention", "parameters"),
    [(Attention(Softmax()), 2_118_400), (Attention(Entmax(), AdaptiveScaling()), 2_122_512)],
    ids=["softmax", "asentmax"],
)
def test_parameters_of_the_authors_sort_model(attention, parameters):
    assert sum(p.numel() for p in sort_model(attention).parameters()) == parameters


@pytest.mark.parametrize("block", ["prenorm", "gemma2"])
def test_matrices_start_from_a_normal_distribution_and_norms_from_one(block):
    torch.manual_seed(0)
    model = Model(block=block, layers=1, d_model=128, heads=4, d_ff=256, init_std=0.02)
    for name, p in Decoder(model, Attention(), NAPE(), 100).named_parameters():
        if "norm" in name:
            assert (p == 0).all(), name  # multiplies by 1 + w
        else:
            assert p.mean().abs() < 1e-3 and p.std().item() == pytest.approx(0.02, rel=0.03), name


def test_without_a_standard_deviation_every_layer_keeps_the_size_of_its_input():
    """1/√inputs for a matrix; for an embedding 1 where the blocks begin, whatever its factor."""
    torch.manual_seed(0)
    for block in ("prenorm", "gemma2"):
        model = Model(block=block, layers=1, d_model=64, heads=4, d_ff=300)
        decoder = Decoder(model, Attention(), NAPE(), 200)
        begin = decoder.embedding.weight * decoder.embedding_scale
        assert begin.std().item() == pytest.approx(1, rel=0.03)
        for module in decoder.modules():
            if isinstance(module, torch.nn.Linear):
                std = module.in_features**-0.5
                assert module.weight.std().item() == pytest.approx(std, rel=0.05)


def test_the_head_is_not_the_embedding():
    model = sort_model(Attention())
    assert model.head.weight.data_ptr() != model.embedding.weight.data_ptr()


@pytest.mark.parametrize("scaling", variants("scaling"), ids=label)
def test_weights_at_the_start_are_a_function_of_the_seed_alone(scaling):
    """Not of the random numbers drawn before, which are not disturbed either."""

    def weights(seed, before):
        torch.manual_seed(before)
        attention = Attention(Softmax(), scaling)
        config = Config(task=Copy(), attention=attention, position=NAPE(), seed=seed)
        model = build_model(config)
        assert torch.initial_seed() == before
        after = torch.rand(3)
        torch.manual_seed(before)
        assert torch.equal(after, torch.rand(3))
        return model.state_dict()

    one, same, other = weights(1, before=5), weights(1, before=6), weights(2, before=5)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert not torch.equal(one["embedding.weight"], other["embedding.weight"])


def test_layers_start_from_different_weights():
    state = sort_model(Attention(Entmax(), AdaptiveScaling())).state_dict()
    for name in [n for n in state if n.startswith("blocks.0.") and "weight" in n]:
        if "norm" not in name:
            assert not torch.equal(state[name], state[name.replace("blocks.0.", "blocks.1.")]), name


def test_dropout_acts_in_training_only():
    model = Model(dropout=0.5, d_model=16, heads=4)
    torch.manual_seed(0)
    decoder = Decoder(model, Attention(), NAPE(), 11)
    words = tokens(1, 5)
    assert not torch.equal(decoder(words), decoder(words))
    decoder.eval()
    assert torch.equal(decoder(words), decoder(words))
