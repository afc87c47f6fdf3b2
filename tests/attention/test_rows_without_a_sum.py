"""Normalizers whose rows need not sum to one: examples by hand, what they declare, n, and reach."""

import pytest
import torch
from oracles.normalizers import softmax_with_sink
from oracles.registered import assert_near

from lcg.attention import Attention
from lcg.attention.backends import blockwise
from lcg.attention.layer import FullAttention, MultiHeadAttention
from lcg.attention.normalizers.relu import ReLUPerKey, ThresholdReLU
from lcg.attention.normalizers.sigmoid import Sigmoid
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.normalizers.softpick import Softpick
from lcg.attention.sink import WithSink
from lcg.config import load_config
from lcg.positional.base import Sizes
from lcg.positional.nope import NoPE
from lcg.positional.slopes import ALiBi

ROW = [2.0, 1.0, 0.0, -1.0]
SIZES = Sizes(heads=2, kv_heads=1, head_dim=8, d_model=16)
AT_HALF, AT_ONE = {"threshold": torch.tensor([0.5])}, {"sink": torch.tensor([1.0])}


def weights(normalizer, row=ROW, learned=None):
    scores = torch.tensor(row).view(1, 1, 1, -1)
    return normalizer(scores, torch.arange(len(row)), learned or {})[0, 0, 0]


EXAMPLES = [
    (WithSink(Softmax(), "zero"), {}, [0.592299, 0.217895, 0.080159, 0.029489]),
    (WithSink(Softmax(), "learned"), AT_ONE, [0.520594, 0.191516, 0.070455, 0.025919]),
    (Sigmoid(), {}, [0.648786, 0.404610, 0.2, 0.084224]),
    (ReLUPerKey(), {}, [0.5, 0.25, 0, 0]),
    (ReLUPerKey(power=2.0), {}, [1, 0.25, 0, 0]),
    (ThresholdReLU(), AT_HALF, [1.5, 0.5, 0, 0]),
    (Softpick(), {}, [0.731059, 0.196612, 0, 0]),
]


@pytest.mark.parametrize(("normalizer", "learned", "expected"), EXAMPLES)
def test_weights_by_hand(normalizer, learned, expected):
    found = weights(normalizer, learned=learned)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert ((found == 0) == (torch.tensor(expected) == 0)).all()
    masked = weights(normalizer, [-torch.inf, *ROW, -torch.inf], learned)
    assert_near(masked[1:-1], found, 1e-6)
    assert masked[0] == masked[-1] == 0


PROPERTIES = {  # shift-invariant, rows sum to one, exact zeros
    "softmax": (True, True, False),
    "entmax15": (True, True, True),
    "softmax1": (False, False, False),
    "softmax_sink": (False, False, False),
    "entmax_sink": (False, False, True),
    "sigmoid": (False, False, False),
    "relu_n": (False, False, True),
    "squared_relu_n": (False, False, True),
    "relu_threshold": (False, False, True),
    "softpick": (False, False, True),
}


@pytest.mark.parametrize("preset", PROPERTIES)
def test_presets_have_the_properties_of_the_literature(preset):
    normalizer = load_config([f"attention={preset}"], fitting=False).attention.weighting
    learned = normalizer.learned(SIZES._replace(heads=1))
    invariant, one, zeros = PROPERTIES[preset]
    assert (normalizer.shift_invariant, normalizer.rows_sum_to_one) == (invariant, one)
    found = weights(normalizer, learned=learned)
    moved = weights(normalizer, [z - 2 for z in ROW], learned)
    assert torch.allclose(found, moved, atol=1e-6) == invariant
    assert ([p.sum().item() for p in (found, moved)] == pytest.approx([1, 1])) == one
    assert bool((found == 0).any()) == zeros


def test_softmax1_is_a_fixed_sink_of_zero_and_learned_sinks_start_there():
    zero, learned = (
        load_config([f"attention={name}"], fitting=False).attention.weighting
        for name in ("softmax1", "softmax_sink")
    )
    tensors = learned.learned(SIZES)
    assert zero.learned(SIZES) == {} and tensors["sink"].tolist() == [0, 0]
    for row in (ROW, [-30.0, -40.0], [60.0, 1.0]):
        found = weights(zero, row)
        assert found.tolist() == pytest.approx(softmax_with_sink(row, 0.0), rel=1e-5)
        assert torch.equal(found, weights(learned, row, {"sink": torch.zeros(1)}))


def test_softpick_does_not_overflow_and_keeps_small_scores():
    assert weights(Softpick(), [1000.0, 999.0, -1000.0]).tolist() == pytest.approx(
        [1 / (1 + 1 / torch.e), 1 / (1 + torch.e), 0], rel=1e-5
    )
    tiny = weights(Softpick(), [1e-6, 1e-6, -2e-6])
    assert tiny.tolist() == pytest.approx([0.25 / 1.0025, 0.25 / 1.0025, 0], rel=1e-4)
    assert weights(Softpick(), [-50.0, -1.0]).tolist() == [0, 0]


@pytest.mark.parametrize("normalizer", [Sigmoid(), ReLUPerKey()], ids=["sigmoid", "relu_n"])
@torch.no_grad()
def test_n_counts_the_keys_of_the_row_without_padding(normalizer):
    """With equal scores a row of n keys has n equal weights, which is 1/(1 + n/e) or 1/n."""
    x, count = torch.ones(1, 9, 16), torch.arange(1.0, 10)
    causal, full = (
        kind(Attention(normalizer), NoPE(), SIZES) for kind in (MultiHeadAttention, FullAttention)
    )
    for layer in (causal, full):
        for projection in (layer.query, layer.key):  # every score is 1
            projection.weight.fill_(8**-0.25 / 16)
    single = normalizer.name == "sigmoid"
    expected = 1 / (1 + count / torch.e) if single else 1 / count
    assert_near(causal.weights(x)[0, 0].diagonal(), expected, 1e-6)
    mask = torch.arange(9)[None] < 4
    padded = full.weights(x, mask=mask)[0, 0]
    assert_near(padded[:, :4], expected[3].expand(9, 4), 1e-6)
    assert (padded[:, 4:] == 0).all()


@torch.no_grad()
def test_keys_that_no_slope_lets_above_the_threshold_are_not_read(monkeypatch):
    read = {}

    def counting(q, k, v, problem, buffer=None):
        read[threshold] = read.get(threshold, 0) + q.shape[2] * k.shape[2]
        return q.new_zeros(*q.shape[:3], v.shape[-1])

    monkeypatch.setattr(blockwise, "_attend_tile", counting)
    layer = MultiHeadAttention(Attention(ThresholdReLU()), ALiBi("linear"), SIZES)
    x = torch.randn(1, 4096, 16, generator=torch.Generator().manual_seed(0))
    for threshold in (-2000.0, -200.0, 0.0):
        layer.normalizer_state["threshold"].fill_(threshold)
        layer(x)
    assert read[-2000.0] > 2 * read[-200.0] > 4 * read[0.0] > 0


@pytest.mark.parametrize("inner", [Sigmoid(), ReLUPerKey(), ThresholdReLU(), Softpick()])
def test_a_sink_without_a_sum_is_refused(inner):
    with pytest.raises(ValueError, match=r"attention\.sink=zero .* use attention\.sink=none"):
        Attention(inner, sink="zero")
    with pytest.raises(ValueError, match="has no triton backend; use backend=reference or block"):
        Attention(inner, backend="triton")


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReLUPerKey(power=0.5),
        lambda: ReLUPerKey(gamma=-1.0),
        lambda: ThresholdReLU(power=9.0),
        lambda: Softpick(eps=0.0),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match=r"^\w+: \w+ must be in "):
        make()
