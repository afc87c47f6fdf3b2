"""Each measure against brute-force counts, the identity, and accuracy on a graph only."""

import math

import pytest
import torch
from oracles.registered import assert_near
from sparsefinder.conftest import small_model, small_reads

from lcg.attention.normalizers.base import Normalizer
from lcg.attention.normalizers.entmax import Entmax, LearnedEntmax
from lcg.attention.normalizers.relu import ReLU
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.normalizers.stick_breaking import StickBreaking
from lcg.attention.normalizers.topk import TopK
from lcg.sparsefinder import baselines, check_sparse
from lcg.sparsefinder.baselines import exact, window
from lcg.sparsefinder.graphs import collect
from lcg.sparsefinder.metrics import Gold, check_identity, evenly, measure, overall
from lcg.sparsefinder.restricting import restricted
from lcg.sparsefinder.writing import best, front

SPARSE = [Entmax(), Entmax(2.0), Entmax(1.3), Entmax(4.0), LearnedEntmax(), ReLU(), TopK(3)]


def name_of(normalizer):
    return f"{normalizer.name}-{getattr(normalizer, 'alpha', '')}"


@torch.no_grad()
def layers_of(normalizer, kind="decoder", **size):
    model = small_model(kind, normalizer)
    return collect(model, small_reads(kind, **size))


@pytest.mark.parametrize("normalizer", [Entmax(), ReLU()], ids=name_of)
@pytest.mark.parametrize("share", [0.3, 0.9])
@torch.no_grad()
def test_measures_are_brute_force_counts(kind, normalizer, share):
    for heads in layers_of(normalizer, kind):
        links = baselines.random(share).links(heads, None)
        found, _ = measure(Gold(heads), links)
        b, h, n, m = len(heads.q), heads.q.shape[1], heads.q.shape[2], heads.k.shape[2]
        every = torch.arange(n)
        weights, predicted = heads.captured.weights(every), links(every)[0]
        causal = heads.captured.kind == "causal"
        for head in range(h):
            values = {"sparsity": [], "recall": [], "exact": [], "mass": []}
            for s in range(b):
                edges = pairs = hits = links = exact = queries = 0
                masses = []
                for i in range(n):
                    if not heads.real_queries[s, i]:
                        continue
                    keys = [j for j in range(m) if heads.real_keys[s, j] and not (causal and j > i)]
                    row = {j: float(weights[s, head, i, j]) for j in keys}
                    mine = {j for j in keys if predicted[head, i, j]}
                    right = {j for j in keys if row[j] > 0}
                    edges, pairs = edges + len(mine), pairs + len(keys)
                    hits, links = hits + len(mine & right), links + len(right)
                    exact, queries = exact + (right <= mine), queries + 1
                    if right:
                        masses.append(sum(row[j] for j in mine) / sum(row.values()))
                values["sparsity"].append(1 - edges / pairs)
                values["recall"].append(hits / links if links else math.nan)
                values["exact"].append(exact / queries)
                values["mass"].append(sum(masses) / len(masses) if masses else math.nan)
            for measured, numbers in values.items():
                known = [x for x in numbers if not math.isnan(x)]
                expected = sum(known) / len(known) if known else math.nan
                value = found[measured][head]
                assert value == pytest.approx(expected, abs=1e-6, nan_ok=True), measured


def test_means_over_heads_and_layers_leave_out_what_is_not_there():
    layer, _ = measure(
        Gold(layers_of(Entmax())[0]), lambda queries: torch.ones(1, dtype=torch.bool)
    )
    assert overall([layer]) == {
        "sparsity": 0.0,
        "recall": 1.0,
        "exact": 1.0,
        "mass": pytest.approx(1),
    }
    layer["recall"] = [0.5, math.nan, 1.0, math.nan]
    assert overall([layer, layer])["recall"] == 0.75


@pytest.mark.parametrize("normalizer", SPARSE, ids=name_of)
@torch.no_grad()
def test_a_fully_predicted_query_has_the_same_weights(kind, normalizer):
    """On the real path: whole layers, scores with slopes, keys off the support taken away."""
    compared = different = 0
    for heads in layers_of(normalizer, kind, length=60):
        every = torch.arange(heads.q.shape[2])
        weights, visible = heads.captured.weights(every), heads.visible(every)
        draw = torch.Generator().manual_seed(0)
        for share in (0.0, 0.7):
            more = torch.rand(weights.shape, generator=draw) < share
            graph = ((weights > 0) | more) & visible
            alone = heads.weights_on(heads.captured.scores(every), graph)
            assert torch.equal(alone > 0, (weights > 0) & visible)
            # Padded queries are nobody's: all their keys are hidden.
            apart = (alone - weights.masked_fill(~visible, 0.0)).abs().amax(dim=-1)
            assert apart.max() <= 1e-6
            different += int((apart > 0).sum())
            compared += apart.numel()
        found, identity = measure(Gold(heads), exact().links(heads, None))
        assert set(found["recall"]) - {math.nan} <= {1.0} and set(found["exact"]) == {1.0}
        assert identity.same_support and identity.largest_difference <= 1e-6
        assert identity.queries > 20
    assert compared
    if isinstance(normalizer, Entmax) and normalizer.alpha in (1.5, 2.0):
        assert different == 0  # closed form: the same bits


def test_the_identity_notices_a_difference():
    heads = layers_of(Entmax(), length=30)[1]
    looked = Gold(heads)
    looked.weights[..., 3] += 1e-3 * (looked.weights[..., 3] > 0)
    _, found = measure(looked, exact().links(heads, None))
    assert found.different and found.largest_difference > 9e-4 and found.same_support


@pytest.mark.parametrize("normalizer", [Entmax(), LearnedEntmax(), ReLU()], ids=name_of)
def test_the_exact_graph_changes_no_answer(kind, normalizer):
    model, reads = small_model(kind, normalizer), small_reads(kind)
    select = torch.tensor([2, 5, 9])
    with torch.no_grad():
        plain = model(*reads, select=select)
        with restricted(model, lambda heads: exact().links(heads, None)):
            same = model(*reads, select=select)
        with restricted(model, lambda heads: window(3).links(heads, None)):
            near = model(*reads, select=select)
        after = model(*reads, select=select)
    assert_near(same, plain, 2e-6)
    assert torch.equal(after, plain)
    assert (near - plain).abs().max() > 1e-2


@torch.no_grad()
def test_outputs_on_a_graph_are_those_of_its_keys_alone(kind):
    """By loops: entmax over the scores of a query's own keys, times their values."""
    from oracles.entmax import entmax_row

    from lcg.sparsefinder.restricting import output

    for heads in layers_of(Entmax(), kind):
        n, h = heads.q.shape[2], heads.q.shape[1]
        graph = window(3).links(heads, None)(torch.arange(n))[0]
        found = output(heads, lambda heads: window(3).links(heads, None))
        layer, captured = heads.captured.layer, heads.captured
        memory = captured.x if captured.memory is None else captured.memory
        values = layer.value(memory).unflatten(-1, (layer.sizes.kv_heads, -1))
        scores, visible = captured.scores(), heads.visible(torch.arange(n))[:, 0]
        joined = torch.zeros(len(heads.q), n, h, values.shape[-1])
        for b, head, i in torch.cartesian_prod(*map(torch.arange, heads.q.shape[:3])).tolist():
            keys = (graph[i] & visible[b, i]).nonzero().flatten()
            if len(keys):
                weights = torch.from_numpy(
                    entmax_row(scores[b, head, i, keys].double().numpy(), 1.5)
                ).float()
                own = values[b, keys, head * layer.sizes.kv_heads // h]
                joined[b, i, head] = weights @ own
        assert_near(found, layer.output(joined.flatten(2)), 1e-5)


def test_only_normalizers_with_zeros_are_taken():
    for normalizer in (Softmax(), StickBreaking(), Entmax(1.0)):
        with pytest.raises(ValueError, match="weight to every key"):
            check_sparse(normalizer)
    for normalizer in SPARSE:
        check_sparse(normalizer)
        check_identity(normalizer, {"a": torch.randn(4)}, 4)


def test_a_users_normalizer_gets_an_error_naming_the_declaration():
    class Sharper(Entmax):
        name = "sharper"

        def __call__(self, scores, keys, learned):
            return super().__call__(2 * scores, keys, learned)

    with pytest.raises(ValueError, match=r"says `sparse: ClassVar\[bool\] = True`"):
        check_sparse(Sharper())
    Sharper.sparse = True
    check_sparse(Sharper())


def test_a_normalizer_that_notices_taken_keys_is_refused():
    class Share(Normalizer):
        name, sparse = "share", True

        def row_statistics(self, scores, keys, learned):
            return ((scores > -torch.inf).sum(-1, keepdim=True),)

        def weights(self, scores, statistics, keys, learned):
            return scores.relu() / statistics[0]

    with pytest.raises(ValueError, match="share gives other weights"):
        check_identity(Share(), {}, 2)


def test_queries_looked_at_are_even():
    assert evenly(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert evenly(100, 4).tolist() == [0, 33, 66, 99]


def test_fronts_fall():
    points = [(0.0, 1.0), (0.5, 0.7), (0.4, 0.6), (0.9, 0.2), (0.9, 0.1)]
    points += [(math.nan, 1.0), (0.95, math.nan), (0.5, 0.7)]
    assert front(points) == [(0.0, 1.0), (0.5, 0.7), (0.9, 0.2)]
    assert best(points, 0.45) == 0.7 and best(points, 0.9) == 0.2
    assert math.isnan(best(points, 0.92))
    assert front([]) == []
