"""Query scalings: the numbers they give, the keys they count, and the heads they leave alone."""

import math

import pytest
import torch
from oracles.registered import assert_near, label, randomize, variants

from lcg.attention import Attention
from lcg.attention.cache import LayerCache
from lcg.attention.layer import MultiHeadAttention
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.normalizers.stick_breaking import StickBreaking
from lcg.attention.scalings import (
    AdaptiveScaling,
    HeadScaling,
    InfoScale,
    Llama4,
    LogRatio,
    LogScaling,
    NoScaling,
    QwenLog,
    YaRNTemperature,
)
from lcg.config import ConfigError, load_config
from lcg.config.load import with_changes
from lcg.positional.base import Sizes
from lcg.positional.groups import NAPE
from lcg.positional.nope import NoPE
from lcg.positional.slopes import ALiBi

SIZES = Sizes(heads=4, kv_heads=4, head_dim=4, d_model=6)
scalings = pytest.mark.parametrize(
    "scaling", [s for s in variants("scaling") if s.name != "none"], ids=label
)


def layer(scaling, position, normalizer=None):
    torch.manual_seed(0)
    made = MultiHeadAttention(Attention(normalizer or Softmax(), scaling), position, SIZES)
    randomize(made)
    return made


def scaler(made, length=5):
    return made.scaler(torch.randn(2, length, SIZES.d_model), torch.arange(length))


# ---- numbers

N = torch.tensor([1.0, 2.0, 7.0])
LOG = [math.log(2), math.log(3), math.log(8)]  # log(n + 1)


def test_log_scaling_by_hand():
    x, s = torch.zeros(1, 3, 6), torch.tensor([1.0, 0.5])
    assert_near(LogScaling()(x, N, {"s": s}), torch.tensor([LOG, [0.5 * v for v in LOG]]), 1e-6)
    paper = LogScaling(offset=0.0)(x, N, {"s": s[:1]})[0]
    assert paper.tolist() == pytest.approx([0, math.log(2), math.log(7)])


PUBLISHED = [
    (LogRatio(512), {64: 0.666667, 4096: 1.333333}),
    (QwenLog(2048), {1024: 1.0, 4096: 1.090909, 16384: 1.272727}),
    (Llama4(), {8191: 1.0, 8192: 1.069315, 16384: 1.109861, 131072: 1.283321}),
    (InfoScale(64, 32), {16: 0.833724, 64: 1.0, 256: 1.131193, 4096: 1.330829}),
    (InfoScale(64, 64), {4096: 1.370447}),
    (YaRNTemperature(8.0), {1: 1.459129, 4096: 1.459129}),
    (YaRNTemperature(1.0), {7: 1.0}),
]


@pytest.mark.parametrize(("scaling", "values"), PUBLISHED, ids=label)
def test_scalings_that_learn_nothing_by_hand(scaling, values):
    """n counts the query's own key: it is i + 1 for query i."""
    n = torch.tensor([*values], dtype=torch.float32)
    found = scaling(torch.zeros(1, len(n), 6), n, {})
    assert found.shape == (1, len(n))
    assert found[0].tolist() == pytest.approx([*values.values()], abs=1e-6)


def test_ssmax_by_hand():
    n, s = torch.tensor([2.0, 64.0, 1024.0]), torch.tensor([0.43])
    found = LogScaling(offset=0.0)(torch.zeros(1, 3, 6), n, {"s": s})[0]
    assert found.tolist() == pytest.approx([0.298053, 1.788320, 2.980533], abs=1e-6)
    biased, learned = LogScaling(offset=0.0, bias=True), {"s": s, "b": torch.tensor([0.5])}
    assert_near(biased(torch.zeros(1, 3, 6), n, learned)[0], found + 0.5, 1e-6)
    assert biased.learned(3, 6)["b"].tolist() == [0, 0, 0]


def test_head_scaling_by_hand():
    learned = {"beta": torch.tensor([0.5, 2.0]), "gamma": torch.tensor([-1.0, 2.0])}
    expected = [[1 + 0.5 / v for v in LOG], [1 + 2 * v**2 for v in LOG]]
    actual = HeadScaling()(torch.zeros(1, 3, 6), N, learned)
    assert_near(actual, torch.tensor(expected), 1e-6)


def test_adaptive_scaling_by_hand():
    """Two heads of which the first reads x_0 and the second x_1; one value per (b, h, q)."""
    x = torch.tensor([[[0.0, 1.0], [2.0, -1.0], [0.5, 0.0]]])
    learned = {
        "beta_weight": torch.eye(2),
        "beta_bias": torch.tensor([0.0, 1.0]),
        "gamma_weight": 0.5 * torch.eye(2),
        "gamma_bias": torch.tensor([0.25, 0.0]),
    }
    expected = [
        [
            1 + math.log1p(math.exp(b)) * log ** (2 * math.tanh(g))
            for b, g, log in zip(betas, gammas, LOG, strict=True)
        ]
        for betas, gammas in [([0, 2, 0.5], [0.25, 1.25, 0.5]), ([2, 0, 1], [0.5, -0.5, 0])]
    ]
    assert_near(AdaptiveScaling()(x, N, learned)[0], torch.tensor(expected), 1e-6)


def test_n_may_differ_between_samples():
    """[b q] for padded batches gives what [q] gives each sample by itself."""
    for scaling in variants("scaling"):
        torch.manual_seed(0)
        learned = scaling.learned(3, 6)
        x, n = torch.randn(2, 4, 6), torch.tensor([[1.0, 2, 3, 4], [1, 1, 2, 2]])
        both = scaling(x, n, learned)
        for row in range(2):
            alone = scaling(x[row : row + 1], n[row], learned)
            if alone is not None:
                assert_near(both[row].expand(3, 4), alone.reshape(-1, 4).expand(3, 4), 1e-6)


def test_adaptive_scaler_at_the_start():
    """init=unit: 1.05 for every query. init=authors: near 1 + softplus(0) = 1.69."""
    x, n = torch.randn(4, 64, 256), torch.arange(1.0, 65.0)
    torch.manual_seed(0)
    unit = AdaptiveScaling(init="unit")
    assert_near(unit(x, n, unit.learned(8, 256)), torch.full((4, 8, 64), 1.05), 1e-6)
    authors = AdaptiveScaling()
    start = authors(x, n, authors.learned(8, 256))
    assert start.median().item() == pytest.approx(1.69, abs=0.05)
    assert start.std() > 0.05 and start.min() > 1


def test_learned_scalers_start_from_the_authors_distributions():
    torch.manual_seed(0)
    s = LogScaling().learned(4000, 6)["s"]
    assert s.mean().item() == pytest.approx(1, abs=1e-3)
    assert s.std().item() == pytest.approx(0.01, rel=0.1)
    head = HeadScaling().learned(4000, 6)
    assert head["beta"].min() >= 0.1 and head["beta"].max() <= 1
    assert head["beta"].mean().item() == pytest.approx(0.55, abs=0.02)
    assert head["gamma"].std().item() == pytest.approx(0.1, rel=0.1)
    adaptive = AdaptiveScaling().learned(100, 40)
    assert adaptive["beta_weight"].std().item() == pytest.approx(0.02, rel=0.1)
    assert adaptive["gamma_weight"].std().item() == pytest.approx(0.02, rel=0.1)
    assert (adaptive["beta_bias"] == 0).all() and (adaptive["gamma_bias"] == 0).all()


# ---- what n counts


def test_n_counts_the_keys_that_a_query_sees():
    """log(n + 1) is log(i + 2) at query i = 0, 1, …; also behind a prefix that is not in x."""
    made = layer(LogScaling(), NoPE())
    torch.nn.init.ones_(made.scaling_state["s"])
    expected = torch.tensor([math.log(i + 2) for i in range(5)])
    assert_near(scaler(made), expected.expand(4, 5), 1e-6)
    cache = LayerCache()
    made(torch.randn(2, 3, SIZES.d_model), cache=cache)
    later = made.scaler(torch.randn(2, 2, SIZES.d_model), cache=cache)
    assert_near(later, expected[3:].expand(4, 2), 1e-6)


def test_n_counts_keys_not_position_ids():
    made = layer(LogScaling(), NoPE())
    x, ids = torch.randn(1, 4, SIZES.d_model), torch.tensor([3, 10, 11, 400])
    assert torch.equal(made.scaler(x, ids), made.scaler(x, torch.arange(4)))


def test_n_leaves_the_own_key_out_where_a_query_does_not_see_it():
    """Stick-breaking sees i keys at query i = 0, 1, …, and the count is never below 1."""
    made = layer(LogScaling(), NoPE(), StickBreaking())
    torch.nn.init.ones_(made.scaling_state["s"])
    expected = torch.tensor([math.log(max(i, 1) + 1) for i in range(5)])
    assert_near(scaler(made), expected.expand(4, 5), 1e-6)


# ---- what is multiplied


@scalings
def test_the_additive_bias_is_not_scaled(scaling):
    """With q·k = 0 the weights are those of the bias alone, whatever the scaler."""
    made = layer(scaling, ALiBi())
    torch.nn.init.zeros_(made.query.weight)
    x, positions = torch.randn(1, 6, SIZES.d_model), torch.arange(6)
    distance = (positions[:, None] - positions).float()
    for h in range(4):
        bias = torch.where(distance >= 0, -(2.0 ** (-2 * (h + 1))) * distance, -torch.inf)
        assert_near(made.weights(x, positions)[0, h], bias.softmax(-1), 1e-6)


@scalings
def test_the_scaler_multiplies_the_scores(scaling):
    made = layer(scaling, NoPE())
    plain = layer(NoScaling(), NoPE())
    plain.load_state_dict(
        {k: v for k, v in made.state_dict().items() if not k.startswith("scaling_state")}
    )
    x, positions = torch.randn(2, 6, SIZES.d_model), torch.arange(6)
    seen = torch.ones(6, 6).tril().bool()
    scores = plain.weights(x, positions).log()  # up to a constant per row
    factor = made.scaler(x, positions).expand(2, 4, 6)[..., None]
    expected = (factor * scores).masked_fill(~seen, -torch.inf).softmax(-1)
    assert_near(made.weights(x, positions), expected, 1e-4)


@scalings
def test_under_nape_only_heads_without_position_are_scaled(scaling):
    made, plain = layer(scaling, NAPE()), layer(NoScaling(), NAPE())
    plain.load_state_dict(made.state_dict(), strict=False)
    assert all(tensor.shape[0] == 2 for tensor in made.scaling_state.values())
    x, positions = torch.randn(1, 6, SIZES.d_model), torch.arange(6)
    scaled, unscaled = made.weights(x, positions), plain.weights(x, positions)
    assert torch.equal(scaled[:, :2], unscaled[:, :2])
    assert (scaled[:, 2] - unscaled[:, 2]).abs().max() > 1e-3
    assert (scaled[:, 3] - unscaled[:, 3]).abs().max() > 1e-3


# ---- what is refused


@pytest.mark.parametrize("scaling", [AdaptiveScaling, HeadScaling])
def test_an_offset_that_makes_log_n_zero_is_refused(scaling):
    with pytest.raises(ValueError, match=f"^{scaling.name}: offset .* 0") as error:
        scaling(offset=0.0)
    assert "\n" not in str(error.value)


@scalings
def test_the_first_query_has_finite_values_and_gradients(scaling):
    """At n = 1 with γ at its lower end, where log(n + offset) is smallest."""
    learned = scaling.learned(2, 6)
    learned = {name: (tensor - 50).requires_grad_() for name, tensor in learned.items()}
    x = torch.ones(1, 1, 6)
    value = scaling(x, torch.ones(1), learned)
    if learned:
        value.sum().backward()
    assert value.isfinite().all()
    assert all(tensor.grad.isfinite().all() for tensor in learned.values())


# ---- what a config fills in


def test_a_config_fills_in_training_length_and_head_dimension():
    words = ["model.d_model=64", "model.heads=4", "data.max_length=40"]
    config = load_config(["task=copy", "attention.scaling=info", *words])
    assert config.attention.scaling == InfoScale(config.task.token_length(40), 16)
    set_by_hand = load_config([*words, "attention={scaling: {name: info, head_dim: 8}}"])
    assert set_by_hand.attention.scaling.head_dim == 8


def test_without_a_config_one_line_names_what_is_missing():
    for scaling in (LogRatio(), InfoScale(train_length=8)):
        with pytest.raises(ValueError, match=f"^{scaling.name}: .* without a config; set it"):
            scaling(torch.zeros(1, 3, 6), N, {})


@pytest.mark.parametrize(
    "option",
    ["log_ratio.train_length=1", "info.head_dim=0", "llama4.floor=0", "yarn_temperature.scale=.5"],
)
def test_a_useless_option_is_refused(option):
    name, _, setting = option.partition(".")
    with pytest.raises(ConfigError, match=f"{name}: {setting.partition('=')[0]} must be"):
        load_config([f"attention.scaling={name}", f"attention.scaling.{setting}"])


@pytest.mark.parametrize("name", ["log_ratio", "qwen_log", "llama4", "info", "yarn_temperature"])
def test_a_scaling_that_learns_nothing_at_evaluation(name):
    """What a config fills in is no difference: it follows from the run."""
    config, words = load_config([]), [f"attention.scaling={name}"]
    changed, changes = with_changes(config, words)
    assert changes["attention.scaling.name"] == name
    assert not any(key.endswith(("train_length", "head_dim")) for key in changes)
    assert changed.attention.scaling == load_config(words).attention.scaling


def test_llama4_on_the_layers_without_rotation():
    words = ["position=[rope,rope,rope,nope]", "attention=[softmax,softmax,softmax,softmax]"]
    config = load_config([*words, "attention.pattern.3.scaling=llama4"])
    scalings = [config.attention.of_layer(i).scaling for i in range(8)]
    assert scalings == 2 * [NoScaling(), NoScaling(), NoScaling(), Llama4()]
    assert [config.position.of_layer(i).name for i in (3, 4)] == ["nope", "rope"]
