"""The triton backend against the formulas in float64, forward and gradients."""

import numpy as np
import pytest
import torch
from oracles.entmax import entmax_row
from oracles.kernels import DEVICE, FORWARD, GRADIENT, compare, inputs, learned_by, make_bias
from oracles.registered import assert_near, label
from torch.autograd import forward_ad

from lcg.attention.backends import triton
from lcg.attention.backends.triton import operators, tiles
from lcg.attention.functional import attend
from lcg.attention.normalizers.entmax import Entmax, LearnedEntmax
from lcg.attention.normalizers.relu import ReLU
from lcg.attention.normalizers.softmax import Softmax
from lcg.positional.base import Sizes

SLOPES = torch.tensor([0.5, 0.1, 0.02, 0.0])
NORMALIZERS = [
    *(Entmax(alpha) for alpha in (1.05, 1.2, 1.5, 1.7, 2.0, 3.0)),
    LearnedEntmax(),
    Softmax(),
    ReLU(),
]
normalizers = pytest.mark.parametrize("normalizer", NORMALIZERS, ids=label)


@pytest.fixture(params=["one tile", "blocks"], autouse=True)
def regime(request, monkeypatch):
    """Both ways at tiny sizes: rows in registers, and rows in many blocks with a window."""
    if request.param == "blocks":
        monkeypatch.setattr(tiles, "ONE_TILE", 0)
        monkeypatch.setattr(tiles, "BLOCKS", (16, 16))
        monkeypatch.setattr(operators, "WINDOWED", 0)
        monkeypatch.setattr(tiles, "CROWDED", 0)
    return request.param


@normalizers
def test_causal_with_slopes_and_shared_keys(normalizer):
    torch.manual_seed(0)
    compare(normalizer, inputs(), make_bias(19, 19, slopes=SLOPES.to(DEVICE)))


@normalizers
def test_full_with_a_key_mask_and_fewer_queries(normalizer):
    """Holes, right padding, and a sample without any key; a width that is not a power of two."""
    torch.manual_seed(1)
    mask = torch.rand(3, 21) < 0.6
    mask[1], mask[2] = torch.arange(21) < 9, False
    bias = make_bias(6, 21, causal=False, key_mask=mask.to(DEVICE))
    compare(normalizer, inputs(6, 21, d=20, heads=4, batch=3), bias)


@normalizers
def test_causal_with_a_hole_at_the_start(normalizer):
    """The first queries see nothing: zeros, and zero gradients."""
    torch.manual_seed(2)
    mask = (torch.arange(18) >= 5)[None]
    bias = make_bias(18, 18, slopes=SLOPES.to(DEVICE), key_mask=mask.to(DEVICE))
    out = compare(normalizer, inputs(18, 18), bias)
    assert (out[:, :, :5] == 0).all()


@normalizers
def test_one_query(normalizer):
    torch.manual_seed(3)
    compare(normalizer, inputs(1, 35), make_bias(1, 35, slopes=SLOPES.to(DEVICE)))


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("what", ["a query of NaN", "a key of NaN", "an infinite query"])
@normalizers
def test_values_that_are_not_finite_reach_the_output(normalizer, what):
    """A model that has overflowed must not go on with finite numbers."""
    torch.manual_seed(8)
    q, k, v = inputs()
    spoiled = k if "key" in what else q
    spoiled.data[:, :, 7] = torch.inf if "infinite" in what else torch.nan
    bias = make_bias(19, 19, slopes=SLOPES.to(DEVICE))
    learned = learned_by(normalizer)
    out = attend(q, k, v, normalizer, bias, learned, "triton")
    expected = attend(q, k, v, normalizer, bias, learned, "reference")
    assert expected.isnan().any() and not expected.isnan().all()
    assert torch.equal(out.isnan().any(dim=-1), expected.isnan().any(dim=-1))
    gradients = torch.autograd.grad(out.sum(), (q, k))
    assert not all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("d", [32, 64])
@pytest.mark.parametrize("normalizer", [Entmax(1.5), Softmax()], ids=label)
def test_wider_heads(normalizer, d):
    compare(normalizer, inputs(9, 33, d=d, heads=2, groups=2), make_bias(9, 33, causal=False))


@pytest.mark.parametrize(
    ("normalizer", "kind"),
    [
        pytest.param(normalizer, kind, id=f"{label(normalizer)}-{kind}")
        for normalizer in NORMALIZERS[:6] + NORMALIZERS[7:]
        for kind in ("tied", "all tied", "one-hot", "large")
        if not (kind == "all tied" and normalizer == ReLU())  # which solves nothing
    ],
)
def test_rows_that_are_hard_to_solve(normalizer, kind):
    """Scores are multiples of 1/8 with an exact product, so that float64 sees the same ones."""
    generator = torch.Generator().manual_seed(4)
    q = torch.zeros(1, 4, 17, 16)
    k = torch.zeros(1, 2, 17, 16)
    q[..., 0] = 4.0
    levels = {
        "tied": torch.randint(0, 3, (1, 2, 17), generator=generator) / 8,
        "all tied": torch.ones(1, 2, 17),
        "one-hot": torch.nn.functional.one_hot(torch.tensor(3), 17) * 40.0,
        "large": torch.randint(-100, 101, (1, 2, 17), generator=generator).float(),
    }
    k[..., 0] = levels[kind]
    v = torch.randn(1, 2, 17, 16, generator=generator)
    tensors = [tensor.to(DEVICE).requires_grad_() for tensor in (q, k, v)]
    out = attend(*tensors, normalizer, make_bias(17, 17, causal=False), {}, "triton")
    cotangent = torch.randn(out.shape, generator=generator)
    found = torch.autograd.grad(out, tensors, cotangent.to(DEVICE))

    z = k[0, :, :, 0].detach().double().numpy()  # q·k/√16 with q = 4: of all queries of a head
    p, slope = weights_and_slope(normalizer, z)
    shared = np.arange(4) // 2
    exact = [tensor[0].detach().double().numpy() for tensor in (q, k, v)]
    dp = cotangent[0].double().numpy() @ exact[2][shared].swapaxes(1, 2)
    u = slope[shared][:, None]
    mean = (u * dp).sum(-1, keepdims=True) / u.sum(-1, keepdims=True)
    ds = u * (dp - (mean if normalizer.rows_sum_to_one else 0)) / 4
    per_query = np.repeat(p[shared][:, None], 17, axis=1)
    wanted = [
        ds @ exact[1][shared],
        (ds.swapaxes(1, 2) @ exact[0]).reshape(2, 2, 17, 16).sum(1),
        (per_query.swapaxes(1, 2) @ cotangent[0].double().numpy()).reshape(2, 2, 17, 16).sum(1),
    ]
    assert_near(out.detach().cpu()[0], torch.from_numpy(per_query @ exact[2][shared]), FORWARD)
    largest = max(1.0, np.abs(u).max())  # above α = 2 terms are multiplied by p^(2-α) and cancel
    for name, gradient, want in zip("qkv", found, wanted, strict=True):
        error = np.abs(gradient.cpu()[0].double().numpy() - want).max()
        assert error < GRADIENT * max(largest, np.abs(want).max()), name


def weights_and_slope(normalizer, z):
    """Compute from rows z [heads keys] in float64 p, and u with ds = u (dp - Σ u dp / Σ u)."""
    if normalizer.name == "relu":
        return np.maximum(z, 0), (z > 0).astype(float)
    if normalizer.name == "softmax":
        weights = np.exp(z - z.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return weights, weights
    weights = np.stack([entmax_row(row, normalizer.alpha) for row in z])
    on = weights > 0
    return weights, np.where(on, weights, 1.0) ** (2 - normalizer.alpha) * on


@pytest.mark.parametrize("normalizer", NORMALIZERS[:6], ids=label)
def test_weights_sum_to_one_where_many_scores_are_tied_near_the_edge(normalizer, regime):
    """One score above many equal ones, which share what it leaves."""
    keys = 128 if regime == "one tile" else 300
    q, k = torch.ones(1, 1, 1, 16), torch.zeros(1, 1, keys, 16)
    k[0, 0, 0, 0] = 4 * 0.9 / (normalizer.alpha - 1)
    v = torch.ones(1, 1, keys, 16)
    bias = make_bias(1, keys, causal=False)
    out = attend(q.to(DEVICE), k.to(DEVICE), v.to(DEVICE), normalizer, bias, {}, "triton")
    assert_near(out.cpu(), torch.ones(1, 1, 1, 16), 3e-6)


@pytest.mark.parametrize("spread", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("normalizer", NORMALIZERS[:6], ids=label)
def test_weights_sum_to_one(normalizer, spread, regime):
    keys = 128 if regime == "one tile" else 400
    q, k, v = inputs(20, keys, spread=spread)
    out = attend(q, k, torch.ones_like(v), normalizer, make_bias(20, keys), {}, "triton")
    assert_near(out.cpu(), torch.ones(1, 4, 20, 16), 1e-6)


@pytest.mark.parametrize("normalizer", NORMALIZERS[:5], ids=label)
def test_halved_brackets_end_at_the_same_weights(normalizer, monkeypatch):
    """Rows that need many steps beside rows that are done after a few."""
    monkeypatch.setattr(operators, "NEWTON", 0)
    tensors = inputs(20, 70, spread=0.3)
    with torch.no_grad():
        tensors[0][:, :, ::3] *= 30
    compare(normalizer, tensors, make_bias(20, 70))


@pytest.mark.parametrize("normalizer", [*NORMALIZERS[:5], LearnedEntmax()], ids=label)
def test_rows_with_more_support_than_the_lanes_hold(normalizer):
    """Scores so alike that nearly all keys have weight: the first bound is far from the edge."""
    tensors = inputs(18, 150, spread=0.05)
    bias = make_bias(18, 150, slopes=torch.tensor([0.0, 0.0, 1e-4, 1e-3], device=DEVICE))
    compare(normalizer, tensors, bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("normalizer", [Entmax(1.5), Softmax(), Entmax(3.0)], ids=label)
def test_16_bit_inputs(normalizer, dtype):
    """As far from the formula on the same rounded inputs as the rounding of the result."""
    tensors = [x.detach().to(dtype).requires_grad_() for x in inputs()]
    unit = torch.finfo(dtype).eps
    compare(normalizer, tensors, make_bias(19, 19), 2 * unit, 8 * unit)


@pytest.mark.parametrize("normalizer", [Entmax(1.5), ReLU()], ids=label)
def test_a_window_leaves_out_keys_that_slopes_hide(normalizer, regime):
    """Steep slopes: few blocks are active, and the result is that of all of them."""
    tensors = inputs(50, 50, heads=4, spread=0.5)
    bias = make_bias(50, 50, slopes=torch.tensor([4.0, 2.0, 1.0, 0.5], device=DEVICE))
    compare(normalizer, tensors, bias)


@normalizers
def test_under_torch_compile(normalizer):
    """Compiled as one opaque operator: the same output and gradients.

    Not through `attend`, whose shapes are checked here by what cannot be compiled. On a CPU
    without generating code, which needs a compiler.
    """
    torch.compiler.reset()
    backend = "inductor" if DEVICE == "cuda" else "aot_eager"
    tensors = inputs()
    bias = make_bias(19, 19, slopes=SLOPES.to(DEVICE))
    learned = {name: x.to(DEVICE) for name, x in normalizer.learned(Sizes(4, 2, 16, 64)).items()}

    def call(q, k, v):
        return triton.attend(q * 1.0, k, v, normalizer, bias, learned) * 2

    results = []
    for function in (call, torch.compile(call, backend=backend, fullgraph=True)):
        out = function(*tensors)
        results.append([out, *torch.autograd.grad(out.square().sum(), tensors)])
    for plain, compiled in zip(*results, strict=True):
        assert_near(compiled, plain, 1e-6)


def test_forward_mode_is_refused():
    q, k, v = (tensor.detach() for tensor in inputs())
    a, slopes = torch.zeros(4, device=DEVICE), SLOPES.to(DEVICE)
    for which in range(3):
        with forward_ad.dual_level(), pytest.raises(ValueError, match="forward-mode"):
            moving = [
                forward_ad.make_dual(x, x) if i == which else x
                for i, x in enumerate((q, a, slopes))
            ]
            bias = make_bias(19, 19, slopes=moving[2])
            attend(moving[0], k, v, LearnedEntmax(), bias, {"a": moving[1]}, backend="triton")


@pytest.mark.parametrize("keys", [19, 400])
def test_a_score_that_has_fallen_to_minus_infinity_has_no_weight(keys, regime):
    q, k, v = inputs(keys, keys, d=16, heads=2)
    with torch.no_grad():
        q[:], k[:] = q.abs() * 1e20, k * 1e-20
        k[:, :, 3] = -1e20
        bias = make_bias(keys, keys)
        ours = attend(q, k, v, Entmax(), bias, backend="triton")
        exact = attend(q, k, v, Entmax(), bias, backend="reference")
    assert exact.isfinite().all()
    assert_near(ours, exact, 1e-5)


def test_one_graph_serves_lengths_of_one_tile_size():
    """The sizes told to torch.compile are inequalities."""
    torch.compiler.reset()
    graphs = []

    def count(graph, examples):
        graphs.append(graph)
        return graph

    def call(q, k, v):
        bias = make_bias(q.shape[2], k.shape[2], slopes=SLOPES.to(DEVICE))
        return triton.attend(q * 1.0, k, v, Entmax(1.5), bias, {})

    compiled = torch.compile(call, backend=count, fullgraph=True, dynamic=True)
    for length in (270, 300, 301):
        tensors = inputs(length, length, d=16)
        assert_near(compiled(*tensors), call(*tensors), 1e-6)
    assert len(graphs) == 1


@pytest.mark.parametrize("mode", range(6))
def test_operators_are_what_torch_compile_takes_them_for(mode, regime):
    """Their schemas, shapes without values, and gradients."""
    q, k, v = inputs()
    epsilon = {2: 0.5, 3: 1.0, 4: 0.3, 5: 2.0}.get(mode, 0.0)
    epsilon = torch.full((4,), epsilon, dtype=torch.float64, device=DEVICE)
    positions = torch.arange(19, dtype=torch.int32, device=DEVICE)
    places = (positions, positions, SLOPES.to(DEVICE), *(None,) * 7)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    given = (q, k, v, epsilon.requires_grad_(mode == 4), *places, mode, True, 0.25, 0, True)
    torch.library.opcheck(operators._forward, given, test_utils=checks)
