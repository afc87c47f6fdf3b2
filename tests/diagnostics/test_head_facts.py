"""Facts of heads against dense weights and naive loops; maps against naive pooling."""

import math

import numpy as np
import pytest
import torch
from oracles.registered import FIRST, assert_near, small_decoder, tokens

from lcg.diagnostics import capture
from lcg.diagnostics.capture import capture_inputs
from lcg.diagnostics.heads import HEADS, PooledMap, measure
from lcg.diagnostics.tables import facts_text
from lcg.registry import available


def small(normalizer, scaling="none", position="nape"):
    choices = {"normalizer": normalizer, "scaling": scaling, "position": position}
    return small_decoder(
        *(available(kind)[name](**FIRST.get(name, {})) for kind, name in choices.items())
    )


def naive_entropy(row, n):
    total = sum(row)
    if total == 0 or n < 2:
        return math.nan
    return -sum(w / total * math.log(w / total) for w in row if w > 0) / math.log(n)


def mean(values):
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


@pytest.mark.parametrize(
    "choice",
    [
        ("softmax", "log", "alibi"),
        ("entmax", "adaptive", "nape"),
        ("entmax_learned", "head", "rope"),
        ("relu", "none", "nape"),
        ("stick_breaking", "none", "nope"),
        ("topk", "none", "nape"),
    ],
    ids="|".join,
)
@pytest.mark.parametrize("together", [3, 2**22])
def test_facts_are_those_of_naive_loops(choice, together, monkeypatch):
    monkeypatch.setattr(capture, "TOGETHER", together)
    monkeypatch.setattr(capture, "LEAST", 1)
    model, inputs, heads = small(*choice), tokens(2, 9), [0, 3]
    with torch.no_grad(), capture_inputs(model) as seen:
        model(inputs)
        weights = [captured.weights() for captured in seen]
        scores = [captured.scores() for captured in seen]
        scalers = [captured.scaler() for captured in seen]
    (found,) = measure(model, (inputs,), HEADS, layers=[1], heads=heads, mapped=1)
    assert (found.name, found.heads) == ("layer_1", heads)
    means = found.means
    own = int(choice[0] != "stick_breaking")
    for place, head in enumerate(heads):
        rows = [(i, weights[1][b, head, i].tolist()) for b in range(2) for i in range(9)]
        kept = [sum(w > 0 for w in row) for _, row in rows]
        assert means["support"][place] == pytest.approx(sum(kept) / len(kept))
        assert found.median_support[place] == pytest.approx(np.median(kept))
        assert means["null"][place] == pytest.approx(sum(k == 0 for k in kept) / len(kept))
        assert means["max_weight"][place] == pytest.approx(
            mean([max(row) for _, row in rows]), rel=1e-5
        )
        entropy = mean([naive_entropy(row, i + own) for i, row in rows])
        assert means["entropy"][place] == pytest.approx(entropy, rel=1e-4, abs=1e-5)
        ranges, rhos = [], []
        for b, i in np.ndindex(2, 9):
            row = scores[1][b, head, i, : i + own].double().numpy()
            if len(row) > 1:
                ranges.append(row.max() - row.min())
                rhos.append(ranges[-1] / (2 * row.std() * math.sqrt(2 * math.log(len(row)))))
        assert means["logit_range"][place] == pytest.approx(mean(ranges), rel=1e-4)
        assert means["rho"][place] == pytest.approx(mean(rhos), rel=1e-3)
        scaled = model.blocks[1].attention.scaled_heads
        if choice[1] == "none" or head not in scaled:
            assert found.scaler[place] is None
        else:
            assert found.scaler[place]["max"] == pytest.approx(scalers[1][:, head].max().item())
        assert_near(found.map.blocks[place], weights[1][1, head], 1e-5)
    table = facts_text([found])
    assert ("alpha" in table) == (choice[0] == "entmax_learned")
    assert ("scaler p95" in table) == (choice[1] != "none")
    assert ("slope" in table) == (choice[2] in ("alibi", "nape"))
    assert ("without any weight" in table) == any(means["null"])


@pytest.mark.parametrize("side", [3, 8])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 5), (8, 8), (13, 13), (16, 40), (40, 3)])
def test_a_block_is_the_largest_weight_in_it(queries, keys, side):
    weights = torch.rand(1, 2, queries, keys, generator=torch.Generator().manual_seed(keys))
    found = PooledMap(2, queries, keys, side)
    for some in torch.arange(queries).split(3):
        found.add(weights[:, :, some], some)
    size = -(-max(queries, keys) // side)
    expected = torch.zeros(2, -(-queries // size), -(-keys // size))
    for h, i, j in np.ndindex(2, queries, keys):
        a, b = i // size, j // size
        expected[h, a, b] = max(expected[h, a, b], weights[0, h, i, j])
    assert torch.equal(found.blocks, expected) and found.size == size
    assert max(expected.shape[1:]) <= side


def test_memory_is_bounded_by_the_queries_treated_at_a_time(monkeypatch):
    """No more weights at a time than asked for, whatever the length."""
    monkeypatch.setattr(capture, "TOGETHER", 4 * 40 * 10)
    sizes = []
    weights = capture.LayerInput.weights
    monkeypatch.setattr(
        capture.LayerInput, "weights", lambda own, q: (sizes.append(len(q)), weights(own, q))[1]
    )
    found = measure(small("softmax"), (tokens(1, 40),), HEADS, mapped=0)
    assert sizes == [10] * 8 and len(found) == 2
