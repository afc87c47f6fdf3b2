"""The margin loss against naive loops, and that it learns what can be learned."""

import math

import pytest
import torch

from lcg.sparsefinder.projections import Examples, Projection, learn, margin_loss, squared_distances


def naive_loss(distance, gold, negative):
    """Over all negatives, weighed as if as many as positives; exact where so many are drawn."""
    losses = []
    for d, g, n in zip(
        distance.flatten(0, -2), gold.flatten(0, -2), negative.flatten(0, -2), strict=True
    ):
        near = [float(x) for x, yes in zip(d, g, strict=True) if yes]
        far = [float(x) for x, yes in zip(d, n, strict=True) if yes]
        if near and far:
            losses.append(max(0.0, 1 + sum(near) - len(near) / len(far) * sum(far)))
    return sum(losses) / max(1, len(losses))


def problem(share, seed=0, shape=(2, 3, 5, 8)):
    draw = torch.Generator().manual_seed(seed)
    distance = torch.rand(shape, generator=draw) * 3
    gold = torch.rand(shape, generator=draw) < share
    negative = ~gold & (torch.rand(shape, generator=draw) < 0.9)
    return distance, gold, negative


def test_loss_with_no_more_negatives_than_positives_is_that_of_loops():
    distance, gold, negative = problem(0.7)
    few = negative.sum(-1) <= gold.sum(-1)
    negative = negative & few[..., None]  # a query without negatives takes no part
    loss = margin_loss(distance, gold, negative, torch.Generator().manual_seed(1))
    assert loss.item() == pytest.approx(naive_loss(distance, gold, negative), rel=1e-5)


def test_as_many_negatives_are_drawn_as_there_are_positives_and_uniformly():
    distance = torch.zeros(1, 1, 4000, 9)
    distance[..., 8] = 1.0  # 1 of 6 negatives has a distance
    gold = torch.zeros(1, 1, 4000, 9, dtype=torch.bool)
    gold[..., :3] = True
    draw = torch.Generator().manual_seed(0)
    loss = margin_loss(distance, gold, ~gold, draw).item()
    # 3 of 6 are drawn, so that one with probability 1/2, and then the loss is 1 - 1 = 0.
    assert loss == pytest.approx(0.5, abs=0.03)
    # The relu comes after the sum: per pair, each positive would leave 1 or more.
    distance[..., :3] = 0.5
    distance[..., 3:] = 1.0
    assert margin_loss(distance, gold, ~gold, draw).item() == 0.0


def test_queries_without_negatives_or_positives_take_no_part():
    distance, gold, negative = problem(0.5)
    none = torch.zeros_like(gold)
    draw = torch.Generator().manual_seed(0)
    assert margin_loss(distance, gold, none, draw).item() == 0.0
    assert margin_loss(distance, none, negative, draw).item() == 0.0


def test_squared_distances_are_those_of_pairs():
    q, k = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 6, 5)
    naive = (q[..., None, :] - k[..., None, :, :]).square().sum(-1)
    torch.testing.assert_close(squared_distances(q, k), naive, atol=1e-5, rtol=1e-5)


def examples_of_groups(seed=0):
    """Queries link to the keys of their group, of twelve around a circle; two of eight dimensions
    tell, other ones for keys, and the rest is noise.
    """
    draw = torch.Generator().manual_seed(seed)
    angle = torch.arange(12) / 12 * 2 * math.pi
    corners = 2 * torch.stack([angle.cos(), angle.sin()], dim=-1)
    groups = torch.randint(12, (2, 4, 1, 24), generator=draw).expand(-1, -1, 2, -1)
    noise = torch.randn(2, 4, 2, 24, 8, generator=draw)
    q, k = noise[0].clone(), noise[1].clone()
    q[..., :2] = corners[groups[0]] + 0.1 * q[..., :2]
    k[..., 5:7] = corners[groups[1]] + 0.1 * k[..., 5:7]
    gold = groups[0][..., None] == groups[1][..., None, :]
    return Examples(q, k, gold, ~gold)


def separated(projection, data):
    """Return how often a linked pair is nearer than one that is not linked."""
    distance = squared_distances(projection.queries(data.q), projection.keys(data.k))
    linked, other = distance[data.gold], distance[data.negative]
    return (linked[:, None] < other).float().mean().item()


def test_learns_to_put_linked_keys_near():
    data, unseen = examples_of_groups(), examples_of_groups(seed=1)
    before = separated(Projection(2, 8, 2, False, 0), unseen)
    projection, losses = learn(data, 2, False, 400, seed=0, rate=0.01)
    assert sum(losses[-20:]) < 0.2 * sum(losses[:20])
    assert separated(projection, unseen) > 0.9 > 0.65 > before


def test_shared_is_one_map_and_the_seed_decides():
    data = examples_of_groups()
    shared, _ = learn(data, 3, True, 5, seed=4)
    assert torch.equal(shared.queries(data.k), shared.keys(data.k))
    first, losses = learn(data, 3, False, 5, seed=4)
    again, same = learn(data, 3, False, 5, seed=4)
    other, _ = learn(data, 3, False, 5, seed=5)
    assert losses == same
    assert torch.equal(first.matrices, again.matrices)
    assert not torch.equal(first.matrices, other.matrices)
    assert not torch.equal(first.queries(data.k), first.keys(data.k))
