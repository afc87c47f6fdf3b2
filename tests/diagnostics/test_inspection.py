"""Facts of heads against dense weights and naive loops; pictures against naive pooling."""

import math

import numpy as np
import pytest
import torch
from oracles.registered import FIRST, assert_near, small_decoder, tokens

from lcg.diagnostics import capture, inspection
from lcg.diagnostics.capture import watching
from lcg.diagnostics.inspection import Picture, inspect_layers
from lcg.diagnostics.tables import head_table
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
    with torch.no_grad(), watching(model) as seen:
        model(inputs)
        weights = [watched.weights() for watched in seen]
        scores = [watched.scores() for watched in seen]
        scalers = [watched.scaler() for watched in seen]
    found = list(inspect_layers(model, (inputs,), 1, [1], heads))
    assert [facts.layer for facts in found] == [1]
    own = int(choice[0] != "stick_breaking")
    for place, (head, facts) in enumerate(zip(heads, found[0].heads, strict=True)):
        rows = [(i, weights[1][b, head, i].tolist()) for b in range(2) for i in range(9)]
        kept = [sum(w > 0 for w in row) for _, row in rows]
        assert facts.head == head
        assert facts.support == pytest.approx(sum(kept) / len(kept))
        assert facts.median_support == pytest.approx(np.median(kept))
        assert facts.silent == pytest.approx(sum(k == 0 for k in kept) / len(kept))
        assert facts.max_weight == pytest.approx(mean([max(row) for _, row in rows]), rel=1e-5)
        entropy = mean([naive_entropy(row, i + own) for i, row in rows])
        assert facts.entropy == pytest.approx(entropy, rel=1e-4, abs=1e-5)
        ranges, rhos = [], []
        for b, i in np.ndindex(2, 9):
            row = scores[1][b, head, i, : i + own].double().numpy()
            if len(row) > 1:
                ranges.append(row.max() - row.min())
                rhos.append(ranges[-1] / (2 * row.std() * math.sqrt(2 * math.log(len(row)))))
        assert facts.logit_range == pytest.approx(mean(ranges), rel=1e-4)
        assert facts.rho == pytest.approx(mean(rhos), rel=1e-3)
        unscaled = model.blocks[1].attention.unscaled_heads
        if choice[1] == "none" or head < unscaled:
            assert facts.scaler is None
        else:
            assert facts.scaler["max"] == pytest.approx(scalers[1][:, head].max().item())
        assert_near(found[0].pictures[place], weights[1][1, head], 1e-5)
    table = head_table(found)
    assert ("alpha" in table) == (choice[0] == "entmax_learned")
    assert ("scaler p95" in table) == (choice[1] != "none")
    assert ("slope" in table) == (choice[2] in ("alibi", "nape"))
    assert ("without any weight" in table) == any(h.silent for h in found[0].heads)


@pytest.mark.parametrize("size", [1, 2, 5, 8, 13, 16, 40])
def test_a_pixel_is_the_largest_weight_in_it(size, monkeypatch):
    monkeypatch.setattr(inspection, "SIDE", 8)
    weights = torch.rand(2, size, size, generator=torch.Generator().manual_seed(size)).tril()
    picture = Picture(2, size, size)
    for queries in torch.arange(size).split(3):
        picture.add(weights[:, queries], queries)
    side = min(8, size)
    expected = torch.zeros(2, side, side)
    for h, i, j in np.ndindex(2, size, size):
        a, b = i * side // size, j * side // size
        expected[h, a, b] = max(expected[h, a, b], weights[h, i, j])
    assert torch.equal(picture.pixels, expected)


def test_memory_is_bounded_by_the_queries_treated_at_a_time(monkeypatch):
    """No more weights at a time than asked for, whatever the length."""
    monkeypatch.setattr(capture, "TOGETHER", 4 * 40 * 10)
    sizes = []
    add = Picture.add
    monkeypatch.setattr(Picture, "add", lambda self, w, q: (sizes.append(len(q)), add(self, w, q)))
    facts = list(inspect_layers(small("softmax"), (tokens(1, 40),), 0, [0, 1], [0, 1, 2, 3]))
    assert sizes == [10] * 8 and len(facts) == 2
