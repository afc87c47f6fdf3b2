"""`attend` and an attention layer as anyone's own module uses them, held to the formulas."""

import subprocess
import sys

import pytest
import torch
from oracles import attention as oracle
from oracles.attention import NORMALIZERS
from oracles.registered import SIZES, assert_near, choices, randomize

from lcg.attention import Attention, attend
from lcg.attention.layer import MultiHeadAttention
from lcg.attention.mask import Bias
from lcg.attention.normalizers.entmax import Entmax
from lcg.attention.normalizers.relu import ReLU
from lcg.attention.scalings import AdaptiveScaling
from lcg.positional.groups import NAPE

SLOPES = torch.tensor([0.5, 0.0])
CASES = [
    ("softmax", {}),
    ("entmax", {"alpha": 1.5}),
    ("entmax", {"alpha": 1.3}),
    ("relu", {}),
    ("topk", {"k": 2}),
]
named = pytest.mark.parametrize(("name", "options"), CASES)


def formula(name, options, q, k, v, slopes, causal, keys):
    """One row at a time, in float64; queries are the last of the keys where that matters."""
    b, h, n, d = q.shape
    m, out = k.shape[2], torch.zeros_like(q)
    for sample in range(b):
        for head in range(h):
            g = head // (h // k.shape[1])
            for i in range(n):
                at = i + m - n if causal else i
                seen = [j for j in range(keys[sample]) if not causal or j <= at]
                z = q[sample, head, i] @ k[sample, g, seen].T / d**0.5
                z = z - slopes[head] * torch.tensor([abs(at - j) for j in seen])
                p = NORMALIZERS[name](z, options, {}, head)
                out[sample, head, i] = p @ v[sample, g, seen]
    return out


def drawn(queries, keys, heads=2, kv_heads=1):
    generator = torch.Generator().manual_seed(queries)
    shapes = [(2, heads, queries, 4), (2, kv_heads, keys, 4), (2, kv_heads, keys, 4)]
    return [2 * torch.randn(shape, generator=generator) for shape in shapes]


@named
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("sizes", [(5, 5), (3, 7)])
@pytest.mark.parametrize("slopes", [None, SLOPES])
def test_forward_and_gradient(name, options, causal, sizes, slopes):
    ours = [tensor.requires_grad_() for tensor in drawn(*sizes)]
    exact = [tensor.detach().double().requires_grad_() for tensor in ours]
    found = attend(*ours, normalizer=name, slopes=slopes, causal=causal, **options)
    steep = torch.zeros(2) if slopes is None else slopes
    expected = formula(name, options, *exact, steep.double(), causal, [sizes[1]] * 2)
    assert_near(found, expected, 1e-5, "output")
    cotangent = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(found, ours, cotangent)
    wanted = torch.autograd.grad(expected, exact, cotangent.double())
    for part, got, want in zip("qkv", gradients, wanted, strict=True):
        assert_near(got, want, 1e-4, f"gradient of {part}", at_least=1e-2)


@named
def test_padding(name, options):
    q, k, v = (tensor.requires_grad_() for tensor in drawn(4, 6))
    lengths = [6, 3]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    found = attend(q, k, v, normalizer=name, causal=False, key_mask=mask, **options)
    exact = (tensor.detach().double() for tensor in (q, k, v))
    expected = formula(name, options, *exact, torch.zeros(2).double(), False, lengths)
    assert_near(found, expected, 1e-5)
    for gradient in torch.autograd.grad(found.sum(), (k, v)):
        assert (gradient[1, :, 3:] == 0).all()


def test_a_normalizer_that_learns_gets_its_tensors():
    q, k, v = drawn(4, 4)
    a = torch.tensor([0.3, -0.2])
    found = attend(q, k, v, normalizer="entmax_learned", learned={"a": a})
    for head, value in enumerate(a.sigmoid().tolist()):
        rows = q[:, head : head + 1], k, v
        assert_near(found[:, head : head + 1], attend(*rows, Entmax(1 + value)), 1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalizer": "softmx"}, "did you mean softmax"),
        ({"normalizer": Entmax(), "alpha": 1.5}, "options go with the name"),
        ({"normalizer": "entmax", "alpha": 0.5}, "entmax: alpha must be"),
        ({"normalizer": "topk", "backend": "triton"}, "normalizer=topk has no triton backend"),
        ({"slopes": SLOPES, "bias": Bias(*2 * [torch.arange(2)])}, "give either a bias or slopes"),
    ],
)
def test_mismatches_are_one_line(change, said):
    with pytest.raises(ValueError, match=said):
        attend(*3 * [torch.ones(1, 2, 2, 4)], **change)


def test_causal_queries_are_no_more_than_the_keys():
    with pytest.raises(ValueError, match="3 causal queries cannot be the last of 2 keys"):
        attend(torch.ones(1, 2, 3, 4), *2 * [torch.ones(1, 2, 2, 4)])


def test_a_layer_of_a_users_module():
    """`layer(x)` is all it takes: positions are the encoding's."""
    attention, position, sizes = Attention(Entmax(), AdaptiveScaling()), NAPE(), SIZES[1]
    layer = MultiHeadAttention(attention, position, sizes)
    randomize(layer)
    x = torch.randn(1, 6, sizes.d_model, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    found = layer(x)
    tensors = {"x": x} | dict(layer.named_parameters())
    exact = {name: t.detach().double().requires_grad_() for name, t in tensors.items()}
    chosen = choices(attention, position, sizes)
    expected, _ = oracle.attention(exact["x"][0], exact, chosen)
    assert_near(found[0], expected, 1e-5, "output")
    cotangent = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    found.backward(cotangent)
    expected.backward(cotangent[0].double())
    for name, tensor in tensors.items():
        assert_near(tensor.grad, exact[name].grad, 1e-4, f"gradient of {name}", at_least=0.1)
    longer = torch.cat([x.detach(), torch.randn(1, 3, sizes.d_model)], dim=1)
    assert_near(layer(longer)[:, :6], found, 1e-5, "what comes later changes nothing")


def test_importing_the_package_does_not_import_torch():
    program = (
        "import sys, lcg.attention\n"
        "assert 'torch' not in sys.modules\n"
        "from lcg.attention import attend\n"
        "assert callable(attend) and 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("count", [5, 150])
def test_a_separable_bias_learns_where_queries_and_keys_do_not(count):
    """Key heads are shared; the gradient is that beside queries that learn too."""
    q, k, v = drawn(count, count)
    positions, found = torch.arange(count), []
    for learning in (False, True):
        rows, columns = (torch.linspace(0, 1, count).expand(2, 2, -1).clone() for _ in range(2))
        bias = Bias(positions, positions, rows=rows.requires_grad_(), columns=columns.cos())
        heads = attend(q.clone().requires_grad_(learning), k, v, ReLU(), bias, backend="reference")
        heads.square().sum().backward()
        found.append(rows.grad)
    assert torch.equal(*found) and found[0].abs().max() > 0
