"""Who sees whom: `attend` under a causal mask, a key mask, both, and in blocks of queries."""

import pytest
import torch
from oracles.registered import assert_near, label, variants

from lcg.attention.functional import Bias, attend, attention_weights
from lcg.positional.base import Sizes

HEADS, WIDTH, LENGTH = 4, 8, 9
SIZES = Sizes(HEADS, 2, WIDTH, HEADS * WIDTH)

normalizers = pytest.mark.parametrize("normalizer", variants("normalizer"), ids=label)
directions = pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])


def added(tensor):
    """The fields of a bias that adds this tensor, given for the whole or for a part."""

    def part(tile, learned):
        queries, keys = tile.q_ids.flatten() // 2, tile.k_ids // 2
        whole = learned["additive"]
        if whole.dim() > 1 and whole.shape[-2] > 1:
            whole = whole[..., queries - (LENGTH - whole.shape[-2]), :]
        return whole[..., keys] if whole.shape[-1] > 1 else whole

    return {"additive": part, "learned": {"additive": tensor}}


def inputs(normalizer, batch=2, seed=0, queries=LENGTH):
    """q, k, v with gradients, a bias with slopes and an additive part, and learned tensors."""
    torch.manual_seed(seed)
    q = torch.randn(batch, HEADS, queries, WIDTH)
    k, v = torch.randn(2, batch, SIZES.kv_heads, LENGTH, WIDTH)
    positions = torch.arange(LENGTH) * 2 + 1
    bias = Bias(
        positions[-queries:],
        positions,
        slopes=torch.tensor([0.5, 0.1, 0.0, 0.02]),
        **added(torch.randn(HEADS, queries, LENGTH)),
    )
    learned = normalizer.learned(SIZES)
    for tensor in (q, k, v, bias.learned["additive"], *learned.values()):
        tensor.requires_grad_()
    return q, k, v, bias, learned


@normalizers
@directions
def test_a_masked_key_is_as_if_it_were_not_there(normalizer, causal):
    """Output, and the gradient of q; k and v get none where masked."""
    q, k, v, bias, learned = inputs(normalizer)
    torch.manual_seed(1)
    mask = torch.rand(2, LENGTH) < 0.6
    mask[0, 0], mask[1] = False, torch.arange(LENGTH) < 5  # a hole at the start; right padding
    cotangent = torch.randn(2, HEADS, LENGTH, WIDTH)

    whole = attend(q, k, v, normalizer, bias._replace(causal=causal, key_mask=mask), learned)
    (q_grad, k_grad, v_grad) = torch.autograd.grad(whole, (q, k, v), cotangent)

    for row, kept in enumerate(mask):
        one = slice(row, row + 1)
        less = bias._replace(
            k_positions=bias.k_positions[kept],
            causal=causal,
        )
        expected = attend(q[one], k[one][:, :, kept], v[one][:, :, kept], normalizer, less, learned)
        sees_any = bias.q_positions >= less.k_positions[0] if causal else bias.q_positions >= 0
        (expected_grad,) = torch.autograd.grad(
            expected[:, :, sees_any], q, cotangent[one][:, :, sees_any]
        )
        assert_near(whole[one][:, :, sees_any], expected[:, :, sees_any], 1e-5)
        assert_near(q_grad[one][:, :, sees_any], expected_grad[one][:, :, sees_any], 1e-4)
        assert (k_grad[row][:, ~kept] == 0).all() and (v_grad[row][:, ~kept] == 0).all()


@normalizers
@directions
def test_a_query_that_sees_nothing_gets_zeros_and_passes_no_gradient(normalizer, causal):
    q, k, v, bias, learned = inputs(normalizer)
    mask = torch.arange(LENGTH) >= torch.tensor([[3], [LENGTH]])  # the second sample has no key
    blind = torch.zeros(2, LENGTH, dtype=torch.bool)
    blind[0, :3], blind[1] = causal, True
    out = attend(q, k, v, normalizer, bias._replace(causal=causal, key_mask=mask), learned)
    assert (out.transpose(1, 2)[blind] == 0).all()
    out.backward(torch.randn_like(out))
    leaves = {"q": q, "k": k, "v": v, "additive": bias.learned["additive"], **learned}
    for name, tensor in leaves.items():
        assert tensor.grad is not None and tensor.grad.isfinite().all(), name
    assert (q.grad.transpose(1, 2)[blind] == 0).all()
    assert (bias.learned["additive"].grad[:, blind.all(0)] == 0).all()
    assert (k.grad[1] == 0).all() and (v.grad[1] == 0).all()


@normalizers
def test_the_future_never_matters(normalizer):
    q, k, v, bias, learned = inputs(normalizer)
    out = attend(q, k, v, normalizer, bias, learned)
    for i in range(LENGTH):
        torch.manual_seed(i)
        later_k, later_v, later_bias = (
            k.clone(),
            v.clone(),
            bias.learned["additive"].clone(),
        )
        later_k[:, :, i + 1 :] = 10 * torch.randn_like(k[:, :, i + 1 :])
        later_v[:, :, i + 1 :] = 1e4 * torch.randn_like(v[:, :, i + 1 :])
        later_bias[..., i + 1 :] = 100
        changed = attend(
            q, later_k, later_v, normalizer, bias._replace(**added(later_bias)), learned
        )
        assert_near(changed[:, :, : i + 1], out[:, :, : i + 1], 1e-6, f"query {i}")
        gradients = torch.autograd.grad(out[:, :, i].sum(), (k, v), retain_graph=True)
        assert all((gradient[:, :, i + 1 :] == 0).all() for gradient in gradients)


@normalizers
@directions
def test_weights_are_zero_on_masked_keys_and_sum_to_one_where_declared(normalizer, causal):
    q, k, _, bias, learned = inputs(normalizer)
    mask = torch.arange(LENGTH) < torch.tensor([[4], [LENGTH]])
    bias = bias._replace(causal=causal, key_mask=mask)
    weights = attention_weights(q, k, normalizer, bias, learned)
    visible = mask[:, None, None, :].expand_as(weights)
    if causal:
        order = torch.ones(LENGTH, LENGTH).tril(0 if normalizer.sees_itself else -1).bool()
        visible = visible & order
    assert (weights[~visible] == 0).all()
    assert (weights >= 0).all() and weights.dtype == torch.float32
    total = weights.sum(-1)
    if normalizer.rows_sum_to_one:
        assert_near(total, torch.ones_like(total), 1e-6)
    else:
        assert (total - 1).abs().max() > 0.01, "declares that rows need not sum to one, but they do"


@normalizers
def test_a_query_sees_itself_where_declared(normalizer):
    """A key that scores far above all others takes the weight of the query beside it, or not."""
    q, k, _, bias, learned = inputs(normalizer)
    bias = bias._replace(**added(100 * torch.eye(LENGTH)))
    own = attention_weights(q, k, normalizer, bias, learned).diagonal(dim1=-2, dim2=-1)
    assert (own > 0.9).all() if normalizer.sees_itself else (own == 0).all()


@normalizers
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_scores_are_float32_and_the_result_has_the_type_of_the_values(normalizer, dtype):
    q, k, v, bias, learned = inputs(normalizer)
    exact = attend(q, k, v, normalizer, bias, learned)
    low = [tensor.detach().to(dtype) for tensor in (q, k, v)]
    out = attend(*low, normalizer, bias, learned)
    assert out.dtype == dtype and out.isfinite().all()
    weights = attention_weights(*low[:2], normalizer, bias, learned)
    assert weights.dtype == torch.float32
    if dtype == torch.float64:
        assert_near(out, exact, 1e-5)


@normalizers
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_queries_and_keys_give_the_weights_of_their_exact_product(normalizer, autocast):
    """A product rounded to bfloat16 would move a score of 30 by 0.06, and a weight by as much."""
    q, k, _, bias, learned = inputs(normalizer)
    low, high = [], []
    for tensor in (10 * q.detach(), k.detach()):
        low.append(tensor.bfloat16())
        high.append(low[-1].float())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        weights = attention_weights(*low, normalizer, bias, learned)
    assert_near(weights, attention_weights(*high, normalizer, bias, learned), 1e-5)
