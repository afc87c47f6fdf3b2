"""Tables, separable biases, windows, ids and scales in the kernels, against the reference."""

import pytest
import torch
from oracles.kernels import DEVICE, FORWARD, GRADIENT, inputs, learned_by
from oracles.registered import assert_near, label, labels
from sampling import sampled

from lcg.attention.backends import triton
from lcg.attention.backends.triton import operators, tiles
from lcg.attention.functional import attend
from lcg.attention.mask import Bias
from lcg.attention.normalizers.entmax import Entmax, LearnedEntmax
from lcg.attention.normalizers.relu import ReLU
from lcg.attention.normalizers.softmax import Softmax

HEADS, SLOPES = 4, torch.tensor([0.5, 0.1, 0.02, 0.0])
LEARNED = LearnedEntmax(init="constant", alpha=1.6)
NORMALIZERS = [*map(Entmax, (1.3, 1.5, 2.0, 3.0)), LEARNED, Softmax(), ReLU()]


def quickly(*names):
    """Parametrise by normalizers, of which the quick suite runs these."""
    return pytest.mark.parametrize(
        "normalizer",
        [pytest.param(x, marks=() if label(x) in names else pytest.mark.slow) for x in NORMALIZERS],
        ids=label,
    )


@pytest.fixture(params=["one tile", "blocks"], autouse=True)
def regime(request, monkeypatch):
    """Rows in registers, and rows in many blocks with a window."""
    if request.param == "blocks":
        monkeypatch.setattr(tiles, "ONE_TILE", 0)
        monkeypatch.setattr(tiles, "BLOCKS", (16, 16))
        monkeypatch.setattr(operators, "WINDOWED", 0)
        monkeypatch.setattr(tiles, "CROWDED", 0)
    return request.param


def make(count, first=0, **fields):
    """Return the bias of the last of so many tokens, on the device, its forms to be learned."""
    positions = torch.arange(count)
    bias = Bias(positions[first:], positions, **fields)
    moved = {name: x.to(DEVICE) for name, x in bias._asdict().items() if torch.is_tensor(x)}
    learned = {
        name: moved[name].requires_grad_() for name in ("table", "rows", "columns") if name in moved
    }
    return bias._replace(**moved | learned)


def t5(low, high):
    """A number for each of 8 buckets of distances, which grow with the distance."""
    distances = torch.arange(low, high)
    buckets = (distances.abs() + 1).log2().long().clamp(max=7)
    values = torch.randn(HEADS, 8, generator=torch.Generator().manual_seed(5))
    return {"table": values[:, buckets] + 0.5 * (distances > 0), "table_start": low}


def fox(count, batch=1, first=0, offset=0.0, rate=1.0):
    """Minus the forgotten, log f summed over the keys after j up to i; log f about -rate / 3."""
    x = torch.randn(batch, HEADS, count, generator=torch.Generator().manual_seed(6))
    total = (rate * torch.nn.functional.logsigmoid(x + 1)).double().cumsum(-1) + offset
    return {"rows": total[..., first:].clone(), "columns": -total}


def compare(normalizer, tensors, bias, forward=FORWARD, gradient=GRADIENT):
    """Output and gradients, those of the bias included, of both backends."""
    learned = {name: x.requires_grad_() for name, x in learned_by(normalizer).items()}
    named = dict(zip("qkv", tensors, strict=True)) | learned
    named |= {field: x for (field, _), x in bias.tensors().items() if x.requires_grad}
    results = []
    for backend in ("triton", "reference"):
        out = attend(*tensors, normalizer, bias, learned, backend)
        cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
        results.append((out, torch.autograd.grad(out, list(named.values()), cotangent)))
    (ours, actual), (exact, wanted) = results
    assert_near(ours, exact, forward, "output")
    for name, got, want in zip(named, actual, wanted, strict=True):
        assert got.dtype == want.dtype
        assert_near(got, want, gradient, f"gradient of {name}", at_least=0.05)
    return ours


@quickly("entmax-alpha=3.0", "relu")
def test_a_table_that_is_a_slope(normalizer):
    """ALiBi as numbers for distances: as slopes do, with shared keys, over an odd length."""
    tensors = inputs(35, 35)
    bias = make(35, table=-SLOPES[:, None] * torch.arange(35))
    out = compare(normalizer, tensors, bias)
    sloped = bias._replace(table=None, slopes=SLOPES.to(DEVICE))
    assert_near(out, attend(*tensors, normalizer, sloped, learned_by(normalizer), "triton"), 1e-5)


@quickly("entmax", "softmax")
def test_a_table_in_both_directions_with_a_key_mask(normalizer):
    """As in an encoder of T5; the second sample sees nothing."""
    mask = torch.rand(2, 33, generator=torch.Generator().manual_seed(2)) < 0.6
    mask[1] = False
    bias = make(33, causal=False, key_mask=mask, **t5(-32, 33))
    compare(normalizer, inputs(33, 33, batch=2), bias)


@quickly("entmax-alpha=2.0", "relu")
def test_a_separable_bias(normalizer):
    """Forget gates from x, of each sequence its own, with holes and fewer queries than keys."""
    mask = torch.ones(2, 37, dtype=torch.bool)
    mask[0, :3], mask[1, 20:25] = False, False
    bias = make(37, 4, key_mask=mask, **fox(37, batch=2, first=4))
    compare(normalizer, inputs(33, 37, batch=2), bias)


@quickly("entmax_learned-init=constant-alpha=1.6")
def test_all_forms_at_once(normalizer):
    """Ids that repeat and fall, in both directions, another scale, windows."""
    ids = torch.randint(0, 30, (2, 35), generator=torch.Generator().manual_seed(3))
    forms = t5(-30, 31) | fox(35, batch=2, rate=0.1) | {"q_ids": ids, "k_ids": ids}
    window = torch.tensor([1, 9, 2**62, 20])
    bias = make(35, causal=False, slopes=SLOPES, window=window, scale=0.4, **forms)
    compare(normalizer, inputs(35, 35, batch=2, spread=0.6), bias)


def test_small_differences_of_large_sums_count():
    """Float32 tells numbers of 10⁶ apart by 1/16."""
    tensors = inputs(35, 35)
    near = compare(Entmax(1.5), tensors, make(35, **fox(35)))
    far = compare(Entmax(1.5), tensors, make(35, **fox(35, offset=-1e6)))
    assert_near(far, near, 1e-5)


@pytest.mark.parametrize("regime", ["blocks"], indirect=True)
@pytest.mark.parametrize(
    "case",
    sampled([Entmax(1.5), ReLU(), Softmax()], ["table", "separable", "window"]),
    ids=labels,
)
def test_keys_out_of_reach_are_never_read(case, regime, monkeypatch):
    (normalizer, form), windows = case, []

    def spy(*arguments):
        windows.append(operators_window(*arguments))
        return windows[-1]

    operators_window = operators.key_window
    monkeypatch.setattr(operators, "key_window", spy)
    steep = 8 if normalizer.is_softmax else 1  # its weights are 0 where they underflow
    forms = {
        "table": {"table": -steep * torch.arange(80.0).expand(HEADS, -1)},
        "separable": fox(80, rate=3.0 * steep),
        "window": {"window": torch.tensor([4, 8, 12, 16])},
    }
    compare(normalizer, inputs(80, 80, spread=0.3), make(80, **forms[form]))
    first, last = windows[0]
    assert ((last - first) <= 48).all() and (first[..., -1] >= 32).all()


@pytest.mark.parametrize("regime", ["blocks"], indirect=True)
def test_a_negative_slope_reaches_the_farthest_keys(regime):
    bias = make(50, slopes=torch.tensor([-1.0, -0.2, 0.3, 2.0]))
    compare(Entmax(1.5), inputs(50, 50, spread=0.3), bias)


@pytest.mark.parametrize("learning", ["table", "rows", "columns"])
def test_one_form_alone_may_learn(learning):
    """Only what is asked for has a gradient."""
    tensors, bias = inputs(21, 21), make(21, **t5(0, 21), **fox(21))
    frozen = {name: getattr(bias, name).detach() for name in ("table", "rows", "columns")}
    frozen[learning].requires_grad_()
    compare(ReLU(), tensors, bias._replace(**frozen))


def test_a_table_alone_may_learn():
    """Queries, keys and values need no gradient."""
    tensors, bias = [x.detach() for x in inputs(21, 21)], make(21, **t5(0, 21))
    found = []
    for backend in ("triton", "reference"):
        out = attend(*tensors, Entmax(1.5), bias, {}, backend)
        found += torch.autograd.grad(out.square().sum(), bias.table)
    assert_near(*found, GRADIENT, at_least=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_inputs(dtype):
    tensors = [x.detach().to(dtype).requires_grad_() for x in inputs(35, 35)]
    unit = torch.finfo(dtype).eps
    compare(Entmax(1.5), tensors, make(35, **t5(0, 35), **fox(35)), 2 * unit, 16 * unit)


def test_under_torch_compile():
    """The gradients of all that the bias learned, through the opaque operators."""
    torch.compiler.reset()
    tensors, table, sums = inputs(), t5(0, 19)["table"], fox(19)
    leaves = [*tensors, *(x.to(DEVICE).requires_grad_() for x in (table, *sums.values()))]

    def call(q, k, v, table, rows, columns):
        places = torch.arange(19, device=DEVICE)
        bias = Bias(places, places, table=table, rows=rows, columns=columns)
        return triton.attend(q * 1.0, k, v, Entmax(1.5), bias, {}) * 2

    results = []
    for function in (call, torch.compile(call, backend="aot_eager", fullgraph=True)):
        out = function(*leaves)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for plain, compiled in zip(*results, strict=True):
        assert_near(compiled, plain, 1e-6)
