"""Predictors, patterns and baselines against loops over all pairs of a query and a key."""

import itertools
import math
from copy import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from sparsefinder.conftest import small_model, small_reads

from lcg.attention.normalizers.entmax import Entmax
from lcg.positional.rotary import RoPE
from lcg.positional.slopes import ALiBi
from lcg.sparsefinder import baselines
from lcg.sparsefinder.baselines import (
    big_bird,
    bound,
    exact,
    longformer,
    lsh,
    routing,
    strided,
    window,
)
from lcg.sparsefinder.graphs import collect
from lcg.sparsefinder.grid import Grid, full_grid
from lcg.sparsefinder.predictors import (
    buckets,
    clusters,
    distance,
    equal_parts,
    intervals,
    shared_clusters,
)
from lcg.sparsefinder.projections import Known, Projection, k_means, learn_centroids


@pytest.fixture(scope="module")
def layers():
    """Layers of an encoder–decoder: full, causal and cross-attention, and padding."""
    model = small_model("encoder_decoder", Entmax())
    return collect(model, small_reads("encoder_decoder"))


def known_of(heads, clusters=(1, 2, 3, 4), routes=(3,)):
    projection = Projection(heads.q.shape[1], heads.q.shape[-1], 3, False, 0)
    return learn_centroids(heads, projection.requires_grad_(False), clusters, routes, 0)


def graph_of(method, heads, known):
    """Asked for in two parts, among visible keys."""
    count = heads.q.shape[2]
    links = method.links(heads, known)
    parts = []
    for some in torch.arange(count).split(4):
        found = links(some) & heads.visible(some)
        parts.append(found.expand(*heads.q.shape[:2], -1, -1))
    return torch.cat(parts, dim=2)


def compare(method, heads, known, linked):
    """linked(b, h, i, j) is the naive answer for a visible pair."""
    found = graph_of(method, heads, known)
    visible = heads.visible(torch.arange(heads.q.shape[2]))[:, 0]
    for b, h, i, j in torch.cartesian_prod(*map(torch.arange, found.shape)).tolist():
        naive = bool(visible[b, i, j]) and linked(b, h, i, j)
        assert bool(found[b, h, i, j]) == naive, (method, b, h, i, j)
    assert found.any()


def projected(heads, known):
    return [x.double() for x in known.project(heads)]


@pytest.mark.parametrize("measure", ["l2", "cosine"])
def test_distance(layers, measure):
    for heads in layers:
        known = known_of(heads)
        q, k = projected(heads, known)

        def linked(b, h, i, j, q=q, k=k):
            x, y = q[b, h, i].tolist(), k[b, h, j].tolist()
            if measure == "l2":
                return math.dist(x, y) < 2.0
            dot = sum(s * t for s, t in zip(x, y, strict=True))
            return 1 - dot / math.hypot(*x) / math.hypot(*y) < 0.7

        threshold = 2.0 if measure == "l2" else 0.7
        compare(distance(threshold, measure), heads, known, linked)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_equal_size_buckets(layers, size):
    for heads in layers:
        known = known_of(heads)
        q, k = projected(heads, known)

        def bucket(x, real, b, h, i, r, buckets):
            column = x[b, h, :, r].tolist()
            own = [(v - column[i], at - i) for at, v in enumerate(column) if real[b, at]]
            near = 2e-6 * max(map(abs, column))  # the same symbol; then by their order
            before = sum(v < -near or (abs(v) <= near and at < 0) for v, at in own)
            return before * buckets // len(own)

        def linked(b, h, i, j, heads=heads, q=q, k=k, bucket=bucket):
            buckets = math.ceil(int(heads.real_keys[b].sum()) / size)
            return any(
                bucket(q, heads.real_queries, b, h, i, r, buckets)
                == bucket(k, heads.real_keys, b, h, j, r, buckets)
                for r in range(3)
            )

        compare(buckets(size), heads, known, linked)


@pytest.mark.parametrize("size", [1, 4])
def test_equal_intervals(layers, size):
    for heads in layers:
        known = known_of(heads)
        q, k = projected(heads, known)

        def linked(b, h, i, j, heads=heads, q=q, k=k):
            buckets = math.ceil(int(heads.real_keys[b].sum()) / size)
            edges = [-1 + 2 * part / buckets for part in range(1, buckets)]
            parts = [
                [sum(math.tanh(v) >= edge for edge in edges) for v in x]
                for x in (q[b, h, i].tolist(), k[b, h, j].tolist())
            ]
            return any(x == y for x, y in zip(*parts, strict=True))

        compare(intervals(size), heads, known, linked)


@pytest.mark.parametrize("nearest", [1, 2])
def test_clusters(layers, nearest):
    for heads in layers:
        known = known_of(heads)
        q, k = projected(heads, known)
        centroids = known.centroids[4].double()

        def own(x, h, centroids=centroids):
            apart = [math.dist(x.tolist(), c.tolist()) for c in centroids[h]]
            return set(sorted(range(4), key=apart.__getitem__)[:nearest])

        def linked(b, h, i, j, q=q, k=k, own=own):
            return bool(own(q[b, h, i], h) & own(k[b, h, j], h))

        compare(clusters(4, nearest), heads, known, linked)


def test_routing_is_clustering_of_directions(layers):
    heads = layers[2]
    known = known_of(heads)

    def nearest(x, h):
        x = (x / x.norm()).tolist()
        apart = [math.dist(x, c) for c in known.routes[3][h].tolist()]
        return apart.index(min(apart))

    def linked(b, h, i, j):
        return nearest(heads.q[b, h, i], h) == nearest(heads.k[b, h, j], h)

    compare(routing(3), heads, known, linked)


def test_lsh_links_what_points_the_same_way(layers):
    heads = layers[0]
    turned, opposite = copy(heads), copy(heads)
    turned.k, opposite.k = heads.q * 2, -heads.q
    every = torch.arange(heads.q.shape[2])
    links = lsh(8).links(turned, None)(every)
    assert links.diagonal(dim1=-2, dim2=-1).all()  # the same direction, whatever its length
    links = lsh(8, rounds=1).links(opposite, None)(every)
    assert not links.diagonal(dim1=-2, dim2=-1).any()
    more, fewer = (lsh(n).links(heads, None)(every).float().mean() for n in (2, 16))
    assert more > fewer > 0


def test_patterns(layers):
    for heads in layers:
        compare(window(5), heads, None, lambda b, h, i, j: abs(i - j) <= 2)
        compare(window(4), heads, None, lambda b, h, i, j: abs(i - j) <= 1)
        compare(window(1), heads, None, lambda b, h, i, j: i == j)
        near = longformer(2, 3)
        compare(near, heads, None, lambda b, h, i, j: abs(i - j) <= 1 or i < 2 or j < 2)
        compare(strided(4), heads, None, lambda b, h, i, j: abs(i - j) < 4 or j % 4 == 3)
        blocks = big_bird(0, size=3)
        compare(blocks, heads, None, lambda b, h, i, j: abs(i // 3 - j // 3) <= 1 or min(i, j) < 3)


def test_windows_and_globals_are_joined(layers):
    heads = layers[1]
    known = known_of(heads)
    alone = graph_of(clusters(4), heads, known)

    def linked(b, h, i, j):
        return bool(alone[b, h, i, j]) or abs(i - j) <= 1 or i < 1 or j < 1

    compare(replace(clusters(4), window=3, globals=1), heads, known, linked)


def test_random_links_have_their_share_and_depend_on_head_and_seed(layers):
    keys = torch.arange(400)
    places = SimpleNamespace(k=torch.empty(1, 4, 400, 1))

    def draw(method, queries=keys):
        return method.links(places, None)(queries)[0]

    drawn = draw(baselines.random(0.3))
    assert drawn.float().mean(dim=(1, 2)).sub(0.3).abs().max() < 0.01
    assert drawn.float().mean(dim=2).sub(0.3).abs().max() < 0.12  # no query, no key is special
    assert drawn.float().mean(dim=1).sub(0.3).abs().max() < 0.12
    agree = (drawn[0] == drawn[1]).float().mean().item()
    assert agree == pytest.approx(0.3**2 + 0.7**2, abs=0.02)
    other = draw(baselines.random(0.3, seed=1))
    assert (drawn == other).float().mean().item() == pytest.approx(0.58, abs=0.02)
    assert (drawn <= draw(baselines.random(0.5))).all()  # nested
    assert torch.equal(drawn[:, 7:9], draw(baselines.random(0.3), keys[7:9]))
    blocks = draw(big_bird(3, size=4))[:, 200:204].float()
    assert (blocks.unflatten(-1, (100, 4)).var(dim=-1) == 0).all()


def test_grids_end_where_everything_is_linked(layers):
    for grid in (Grid(), Grid(joined=((3, 0),)), full_grid(0)):
        ends = [method for method in grid.methods() if method.links_all]
        families = {method.family for method in ends}
        assert {method.family for method in grid.methods() if method.learned} == families
        for heads in layers:
            known = known_of(heads)
            visible = heads.visible(torch.arange(heads.q.shape[2]))
            for method in ends:
                assert torch.equal(
                    graph_of(method, heads, known), visible.expand(-1, heads.q.shape[1], -1, -1)
                )


def test_growing_settings_are_nested_where_they_must_be(layers):
    heads = layers[0]
    known = known_of(heads)
    for settings in (
        [distance(t) for t in full_grid(0).l2],
        [distance(t, "cosine") for t in full_grid(0).cosine],
        [window(size) for size in full_grid(0).only_windows],
    ):
        graphs = [graph_of(method, heads, known) for method in settings]
        for smaller, larger in itertools.pairwise(graphs):
            assert (smaller <= larger).all()
    # Sizes that do not divide each other are not nested, so only fronts are monotone.
    three, four = (graph_of(buckets(size), heads, known) for size in (3, 4))
    assert not (three <= four).all()


@pytest.mark.parametrize("position", [None, ALiBi(), RoPE()], ids=["nape", "alibi", "rope"])
def test_the_bound_and_the_exact_graph_lose_nothing(kind, position):
    model = small_model(kind, Entmax(), position)
    for heads in collect(model, small_reads(kind, length=40)):
        every = torch.arange(heads.q.shape[2])
        gold = (heads.captured.weights(every) > 0) & heads.visible(every)
        assert torch.equal(graph_of(exact(), heads, None), gold)
        pairs = graph_of(bound(1, 1), heads, None)
        blocks = graph_of(bound(8, 4), heads, None)
        assert (gold <= pairs).all() and (pairs <= blocks).all()


def test_k_means_finds_separate_groups_and_is_deterministic():
    draw = torch.Generator().manual_seed(0)
    corners = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    group = torch.arange(90) % 3
    points = (corners[group] + 0.1 * torch.randn(90, 2, generator=draw))[None].repeat(2, 1, 1)
    found = k_means(points, 3, 0)
    assert torch.equal(found, k_means(points, 3, 0))
    for head in found:
        assert torch.cdist(corners, head).amin(dim=1).max() < 0.1
    few = k_means(torch.ones(1, 5, 2), 3, 0)  # fewer distinct points than clusters
    torch.testing.assert_close(few, torch.ones(1, 3, 2))


def test_rounding_neither_orders_the_same_symbol_nor_sends_it_to_another_cluster():
    draw = torch.Generator().manual_seed(0)
    symbols = torch.randn(2, 3, 5, 4, generator=draw)
    which = torch.randint(5, (60,), generator=draw)
    tokens = symbols[:, :, which]
    noisy = tokens * (1 + 2e-7 * torch.randn(tokens.shape, generator=draw))
    real = torch.ones(2, 60, dtype=torch.bool)
    real[1, 50:] = False
    counts = torch.tensor([12, 10])[:, None, None, None]
    assert torch.equal(*(equal_parts(x, real, counts) for x in (tokens, noisy)))
    centroids = torch.cat([symbols[0], symbols[0][:, :2]], dim=1)  # two of them twice
    every = torch.arange(60)
    for nearest in (1, 2):
        clean, rounded = (
            shared_clusters(x, x, centroids, nearest)(every) for x in (tokens[:1], noisy[:1])
        )
        assert torch.equal(clean, rounded)
        if nearest == 1:
            assert torch.equal(clean[0, 0], which[:, None] == which)


def test_padding_is_not_learned_from(layers):
    heads = layers[0]
    assert not heads.real_keys.all()
    known = Known(Projection(heads.q.shape[1], heads.q.shape[-1], 3, False, 0), {}, {})
    far = heads.real_keys[:, None, :, None].logical_not() * 1e6
    moved = copy(heads)
    moved.q, moved.k = heads.q + far, heads.k + far
    first, second = (
        learn_centroids(x, known.projection.requires_grad_(False), [3], [3], 0)
        for x in (heads, moved)
    )
    assert torch.equal(first.centroids[3], second.centroids[3])
    assert torch.equal(first.routes[3], second.routes[3])
