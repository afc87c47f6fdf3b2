"""RoPE with frequencies that do not turn and with extensions beyond training; xPos and PoPE."""

import math

import pytest
import torch
from oracles.registered import assert_near, label, randomize, small_decoder, tokens

from lcg.attention import Attention
from lcg.attention.layer import MultiHeadAttention
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import LogScaling
from lcg.config import ConfigError, load_config, to_tree
from lcg.config.load import with_changes
from lcg.evaluation.evaluate import check_tensors
from lcg.positional.base import Sizes, Tile
from lcg.positional.nope import NoPE
from lcg.positional.polar import PoPE
from lcg.positional.rotary import RoPE, XPos


def theta(d, **options):
    return RoPE(**options).frequencies(d).tolist()


def score(position, q, k, i, j, learned=None):
    """The score of one query and one key, 1/√d included."""
    q, k = (torch.tensor(v, dtype=torch.float64)[None, None, None] for v in (q, k))
    ids, learned = torch.tensor([i, j]), learned or {}
    d = q.shape[-1]
    q = position.rotate_queries(q, ids[:1], learned)
    k = position.rotate_keys(k, ids[1:], learned)
    scores = q @ k.mT / math.sqrt(d)
    if position.has("map_scores"):
        scores = position.map_scores(scores, Tile(ids[:1, None], ids[1:], q, k), learned)
    return scores.item()


# ---- frequencies that do not turn


def test_frequencies_by_hand():
    assert theta(8, keep=0.5) == pytest.approx([1, 0.1, 0, 0])
    assert theta(4, fraction=0.5) == pytest.approx([1, 0.01])  # of 8 dimensions
    assert theta(8, cutoff="train_length", train_length=64) == pytest.approx([1, 0.1, 0, 0])
    assert theta(8, cutoff="train_length", train_length=630) == pytest.approx([1, 0.1, 0.01, 0])


def test_keeping_none_is_no_encoding_and_keeping_all_is_rope():
    x, ids = torch.randn(2, 3, 5, 8), torch.tensor([0, 1, 7, 100, 65_536])
    assert torch.equal(RoPE(keep=0.0).rotate_queries(x, ids, {}), x)
    assert torch.equal(RoPE(keep=1.0).rotate_keys(x, ids, {}), RoPE().rotate_keys(x, ids, {}))


@pytest.mark.parametrize("keep", [0.3, 0.55])
def test_a_share_with_a_fraction_of_a_pair_is_refused(keep):
    with pytest.raises(ValueError, match=r"^rope: keep·4 frequencies must be a whole number"):
        RoPE(keep=keep).check(Sizes(2, 2, 8, 16))


# ---- extensions


def test_interpolation_by_hand():
    q, k = [1, 0, 0, 1], [0, 1, 1, 0]
    assert score(RoPE(), q, k, 3, 1) == pytest.approx(0.444649, abs=1e-6)
    interpolated = RoPE(extension="interpolation", scale=4)
    assert score(interpolated, q, k, 3, 1) == pytest.approx(0.237213, abs=1e-6)


def test_ntk_by_hand():
    found, plain = theta(64, extension="ntk", scale=8), theta(64)
    assert found == pytest.approx(theta(64, base=85550.376), rel=1e-6)
    assert found[0] == 1 and found[31] / plain[31] == pytest.approx(0.125)
    assert found[1] / plain[1] == pytest.approx(0.935122, abs=1e-6)
    assert theta(2, extension="ntk", scale=8) == [1.0], "the only frequency is the highest"


YARN = {0: 1, 8: 1, 9: 0.932692, 16: 0.461538, 20: 0.192308, 25: 0.125, 31: 0.125}


def test_yarn_by_hand():
    yarn = RoPE(extension="yarn", scale=8, train_length=2048)
    found, plain = yarn.frequencies(64).tolist(), theta(64)
    ratios = {m: found[m] / plain[m] for m in YARN}
    assert ratios == pytest.approx(YARN, abs=1e-6)
    x = torch.randn(1, 1, 1, 64, dtype=torch.float64)
    longer = yarn.rotate_queries(x, torch.tensor([5]), {}).norm() / x.norm()
    assert longer.item() == pytest.approx(1.207944, abs=1e-6)
    assert score(yarn, [1] + [0] * 63, [8] + [0] * 63, 7, 7) == pytest.approx(1.459129, abs=1e-6)


@pytest.mark.parametrize("extension", ["interpolation", "ntk", "yarn"])
def test_a_scale_of_one_is_rope(extension):
    x, ids = torch.randn(2, 3, 5, 8), torch.tensor([0, 1, 7, 100, 65_536])
    extended = RoPE(extension=extension, scale=1.0, train_length=16)
    assert_near(extended.rotate_queries(x, ids, {}), RoPE().rotate_queries(x, ids, {}), 1e-6)


def test_dynamic_ntk_is_ntk_for_what_each_query_sees():
    """RoPE up to the training length, and for query i the static extension with s = (i + 1)/L."""
    sizes, n, length = Sizes(4, 2, 8, 16), 20, 8

    def scores(position):
        torch.manual_seed(0)
        layer = MultiHeadAttention(Attention(), position, sizes)
        randomize(layer)
        return layer.scores(torch.randn(2, n, 16, generator=torch.Generator().manual_seed(1)))

    found = scores(RoPE(extension="dynamic_ntk", train_length=length, fraction=0.75, keep=2 / 3))
    for i in range(n):
        s = max(1, (i + 1) / length)
        static = scores(RoPE(extension="ntk", scale=s, fraction=0.75, keep=2 / 3))
        assert_near(found[:, :, i, : i + 1], static[:, :, i, : i + 1], 1e-5)
    plain = scores(RoPE(fraction=0.75, keep=2 / 3))
    assert (found - plain)[:, :, -1].abs().max() > 1e-2


EXTENDED = [
    RoPE(keep=0.5),
    RoPE(cutoff="train_length", train_length=30),
    RoPE(extension="yarn", scale=4, train_length=8),
    RoPE(extension="dynamic_ntk", train_length=8),
    XPos(),
    PoPE(init="uniform"),
]
extended = pytest.mark.parametrize("position", EXTENDED, ids=label)


@extended
@torch.no_grad()
def test_cached_decoding_and_chunks_are_the_whole_beyond_the_training_length(position):
    model = small_decoder(Softmax(), LogScaling(), position)
    words = tokens(2, 19)
    whole = model(words)
    for chunks in (1, [10, 1, 6, 2]):
        cache = model.make_cache(19)
        parts = [model(part, cache=cache) for part in words.split(chunks, dim=1)]
        assert_near(torch.cat(parts, dim=1), whole, 2e-5)
    assert_near(model(words[:, :9]), whole[:, :9], 2e-5, "what comes later changes nothing")


@extended
@torch.no_grad()
def test_ids_of_each_sequence_and_those_far_from_zero(position):
    """Scores are those of each sequence alone; where relative, a shift of a million is none."""
    torch.manual_seed(0)
    layer = MultiHeadAttention(Attention(), position, Sizes(4, 2, 8, 16))
    x, ids = torch.randn(2, 6, 16), torch.tensor([[0, 1, 2, 3, 4, 5], [3, 7, 7, 20, 21, 40]])
    both = layer.scores(x, ids).tril()
    for row in range(2):
        assert_near(both[row], layer.scores(x[row : row + 1], ids[row])[0].tril(), 1e-5)
    if position.relative:
        assert_near(layer.scores(x, ids + 10**6).tril(), both, 1e-4)


@extended
@torch.no_grad()
def test_bfloat16(position):
    torch.manual_seed(0)
    layer = MultiHeadAttention(Attention(), position, Sizes(4, 2, 8, 16))
    x, ids = torch.randn(2, 6, 16), torch.arange(6) + 1000
    exact = layer.scores(x, ids).tril()
    low = layer.bfloat16().scores(x.bfloat16(), ids).tril()
    assert_near(low.float(), exact, 0.05)


# ---- as options


def test_runs_made_with_rope_keep_their_names():
    assert to_tree(load_config(["position=rope"]).position, identity=True) == {
        "name": "rope",
        "base": 10000.0,
        "fraction": 1.0,
    }
    yarn = load_config(["position=rope", "position.extension=yarn", "position.scale=4"])
    length = yarn.task.token_length(yarn.data.max_length)
    assert yarn.position.train_length == length
    assert to_tree(yarn.position, identity=True)["train_length"] == length


@pytest.mark.parametrize("extension", ["interpolation", "ntk", "yarn"])
def test_a_run_with_rope_is_evaluated_with_an_extension(extension):
    config = load_config(["position=rope", "position.base=500"])
    words = [f"position.extension={extension}", "position.scale=8"]
    changed, changes = with_changes(config, words)
    assert changes == {"position.extension": extension, "position.scale": 8.0}
    assert changed.position.base == 500
    check_tensors(config, changed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("position.scale=8", "scale=8 means nothing with extension=none"),
        ("position.extension=dynamic_ntk position.scale=2", "scale=2 means nothing with ext"),
        ("position.extension=yarn position.scale=.5", "scale must be at least 1"),
        ("position.keep=1.5", r"keep must be in \[0, 1\]"),
        ("position.extension=yarm", "did you mean yarn"),
    ],
)
def test_options_that_mean_nothing_are_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        load_config(["position=rope", *words.split()])


def test_without_a_config_one_line_names_what_is_missing():
    with pytest.raises(ValueError, match=r"^rope: train_length is not known without a config"):
        RoPE(extension="yarn", scale=2).frequencies(8)


# ---- xPos


def test_xpos_by_hand():
    zeta = [0.285714, 0.642857]
    at = XPos()
    for m, expected in enumerate([0.855050, 0.946268]):
        assert zeta[m] ** (64 / 512) == pytest.approx(expected, abs=1e-6)
        unit = [0.0, 0, 0, 0]
        unit[m] = math.sqrt(2)  # times itself and over √d: 1
        turn = math.cos(64 * 10000 ** (-m / 2))
        assert score(at, unit, unit, 70, 6) == pytest.approx(expected * turn, abs=1e-5)
    assert score(at, [1] * 4, [1] * 4, 2, 0) == pytest.approx(0.583961, abs=1e-6)


def test_xpos_does_not_overflow_in_a_million_tokens():
    """The last 200 queries of a million tokens with keys from the first on, and the gradient."""
    torch.manual_seed(0)
    q_ids = torch.arange(10**6 - 200, 10**6)
    k_ids = torch.cat([torch.arange(300), torch.arange(10**6 - 300, 10**6)])
    q, k = torch.randn(1, 2, 200, 8, requires_grad=True), torch.randn(1, 1, 600, 8)
    found = XPos().map_scores(None, Tile(q_ids[:, None], k_ids, q, k), {})
    near = XPos().map_scores(
        None, Tile(q_ids[:, None] - 999_000, k_ids[300:] - 999_000, q, k[:, :, 300:]), {}
    )
    assert found.isfinite().all()
    assert (found[..., :300] == 0).all(), "a factor of 0.29^1950"
    seen = q_ids[:, None] >= k_ids[300:]
    assert_near(found[..., 300:][:, :, seen], near[:, :, seen], 1e-4)
    found[..., 300:][:, :, seen].sum().backward()
    assert q.grad.isfinite().all()


def test_xpos_keys_far_after_a_query_have_finite_scores_and_gradients():
    """In causal attention they are hidden, but 0 times their gradient is taken."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 2, 3, 8, requires_grad=True), torch.randn(1, 2, 2, 8, requires_grad=True)
    tile = Tile(torch.arange(3)[:, None], torch.tensor([1, 10**6]), q, k)
    found = XPos().map_scores(None, tile, {})
    assert found.isfinite().all()
    found[..., 0].sum().backward()
    assert q.grad.isfinite().all() and k.grad.isfinite().all()


# ---- PoPE


def test_pope_by_hand():
    for b, expected in (([0.0, 0.0], 0.022981), ([0.0, -math.pi / 2], -0.273678)):
        found = score(PoPE(), [0, 1], [1, -1], 3, 1, {"b": torch.tensor([b])})
        assert found == pytest.approx(expected, abs=1e-6)


def test_pope_keeps_its_angles_in_range():
    """-7 counts as -2π, 1 as 0."""
    clamped, full_turn = (
        score(PoPE(), [0, 1], [1, -1], 3, 1, {"b": torch.tensor([b])})
        for b in ([-7.0, 1.0], [-2 * math.pi, 0.0])
    )
    assert clamped == full_turn == pytest.approx(0.022981, abs=1e-6)
    drawn = PoPE(init="uniform").learned(Sizes(4, 2, 8, 16))["b"]
    assert drawn.shape == (2, 8) and -2 * math.pi <= drawn.min() < drawn.max() <= 0
    assert (PoPE().learned(Sizes(4, 2, 8, 16))["b"] == 0).all()


def test_no_encoding_has_the_scores_of_rope_without_rotation():
    q, k = [1, 0.5, 0, 1], [0.2, 1, 1, 0]
    assert score(RoPE(keep=0.0), q, k, 9, 2) == pytest.approx(score(NoPE(), q, k, 9, 2))
