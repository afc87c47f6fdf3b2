"""Measurements of heads against loops over dense weights, for every kind of model."""

import math

import numpy as np
import pytest
import torch
from oracles.registered import FIRST, VOCABULARY, randomize
from sampling import sampled

from lcg.attention import Attention
from lcg.attention.normalizers.entmax import Entmax
from lcg.config.schema import Model
from lcg.diagnostics import capture
from lcg.diagnostics.capture import capture_inputs
from lcg.diagnostics.heads import ANALYSES, OFFSETS, LayerHeads, measure
from lcg.diagnostics.tables import Analysed, analyses_text
from lcg.models.transformer import KINDS
from lcg.positional.groups import NAPE
from lcg.positional.nope import NoPE
from lcg.registry import available

PAD = VOCABULARY - 1
HEADS = 4


def small(kind, normalizer, position=None):
    """A model of two layers (encoder–decoder: two and two) with random parameters."""
    sizes = {"d_model": 12, "heads": HEADS, "head_dim": 4, "d_ff": 8}
    model = Model(kind=kind, layers=2, **sizes)
    chosen = available("normalizer")[normalizer](**FIRST.get(normalizer, {}))
    torch.manual_seed(0)
    made = KINDS[kind](model, Attention(chosen), position or NAPE(), VOCABULARY, PAD)
    randomize(made)
    return made.eval()


def analyse(model, reads, **options):
    return measure(model, reads, ANALYSES, **options)


def reads_of(kind, padded):
    generator = torch.Generator().manual_seed(3)
    count = 2 if kind == "encoder_decoder" else 1
    reads = [torch.randint(PAD, (3, 9 + 2 * i), generator=generator) for i in range(count)]
    for read in reads if padded else ():
        read[1, -3:] = PAD
    return tuple(reads)


def mean(values):
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def entropy(row):
    return -sum(p * math.log(p) for p in row if p > 0)


def naive(weights, visible, real):
    """Compute the means of LayerHeads from dense weights [b h q k], one number at a time."""
    rows = [(b, i) for b in range(len(weights)) for i in range(weights.shape[2]) if real[b][i]]
    found = {name: [] for name in ("density", "null", "confidence", "offsets")}
    diverse = []
    for head in range(weights.shape[1]):
        each = [weights[b, head, i].tolist() for b, i in rows]
        seen = [int(visible[b, i].sum()) for b, i in rows]
        share = [
            sum(w > 0 for w in r) / n if n else math.nan for r, n in zip(each, seen, strict=True)
        ]
        found["density"].append(mean(share))
        found["null"].append(mean([float(sum(r) == 0) for r in each]))
        found["confidence"].append(mean([max(r) / sum(r) for r in each if sum(r)]))
        at = [
            max(j for j, w in enumerate(r) if w >= max(r) * (1 - 1e-5)) - i if sum(r) else None
            for r, (_, i) in zip(each, rows, strict=True)
        ]
        found["offsets"].append([mean([float(a == step) for a in at]) for step in OFFSETS])
    for b, i in rows:
        kept = [w for w in weights[b, :, i].tolist() if sum(w) > 0]
        kept = [[x / sum(w) for x in w] for w in kept]
        if len(kept) > 1:
            middle = [sum(column) / len(kept) for column in zip(*kept, strict=True)]
            diverse.append(entropy(middle) - sum(map(entropy, kept)) / len(kept))
    return found | {"diversity": [mean(diverse)]}


CASES = [
    ("decoder", "softmax", False),
    ("decoder", "entmax_learned", False),
    ("decoder", "relu", False),
    ("decoder", "stick_breaking", False),
    ("decoder", "topk", True),
    ("encoder", "entmax", True),
    ("encoder_decoder", "entmax_learned", True),
    ("encoder_decoder", "relu", True),
]


@pytest.mark.parametrize("row", sampled(CASES, [3, 2**22], seed="loops"), ids=str)
def test_heads_are_those_of_naive_loops(row, monkeypatch):
    (kind, normalizer, padded), together = row
    monkeypatch.setattr(capture, "TOGETHER", together)
    monkeypatch.setattr(capture, "LEAST", 2)
    model, reads = small(kind, normalizer), reads_of(kind, padded)
    units = []
    found = analyse(model, reads, progress=lambda *words: units.append(words))
    assert [layer.name for layer in found] == list(model.attention_layers())
    assert units[-1] == (3 * len(found),) * 2 and len(units) == 3 * len(found)
    dense = {layer.name: [] for layer in found}
    with torch.no_grad(), capture_inputs(model) as seen:
        for sample in range(3):
            model(*(read[sample : sample + 1] for read in reads))
    for captured in seen:
        queries = torch.arange(captured.x.shape[1])
        real = queries >= 0 if captured.query_mask is None else captured.query_mask[0]
        dense[captured.name].append((captured.weights()[0], captured.visible(queries)[0], real))
    for layer in found:
        weights, visible, real = map(torch.stack, zip(*dense[layer.name], strict=True))
        assert bool(real.all()) != padded
        for name, expected in naive(weights, visible, real).items():
            value = layer.offsets.tolist() if name == "offsets" else layer.means[name]
            assert np.allclose(value, expected, atol=1e-5, equal_nan=True), (layer.name, name)
        shares = layer.offsets.sum(dim=1) + torch.tensor(layer.means["null"])
        assert (shares <= 1 + 1e-6).all()
        assert (layer.alpha is not None) == (normalizer == "entmax_learned")
    text = analyses_text([Analysed("A", "run", normalizer, found)])
    assert all(f"{layer.name}     {head}" in text for layer in found for head in range(HEADS))
    assert ("α of " in text) == (normalizer == "entmax_learned")
    assert text.count("null") == 2 * (normalizer in ("relu", "stick_breaking"))  # legend and column


REPEATED = sampled(KINDS, ["softmax", "entmax", "entmax_learned", "relu", "topk"], seed="heads")


@pytest.mark.parametrize("row", REPEATED, ids="-".join)
def test_repeated_symbols_have_the_same_strongest_key_in_chunks(row, monkeypatch):
    """In the first layer, without position, the same symbol has the same score everywhere; its last
    occurrence counts, however many queries are treated together.
    """
    kind, normalizer = row
    model = small(kind, normalizer, NoPE())
    generator = torch.Generator().manual_seed(0)
    reads = [torch.randint(3, (3, 33 + 4 * i), generator=generator) for i in range(len(KINDS))]
    reads = reads[: 2 if kind == "encoder_decoder" else 1]
    found = []
    for together in (3, 700, 2**22):
        monkeypatch.setattr(capture, "TOGETHER", together)
        monkeypatch.setattr(capture, "LEAST", 2)
        found.append(analyse(model, reads))
    for parts in zip(*found, strict=True):
        offsets = [part.rows["offset"].nan_to_num(99) for part in parts]
        assert all(torch.equal(own, offsets[0]) for own in offsets)
        assert all(
            part.means["density"] == pytest.approx(parts[0].means["density"]) for part in parts
        )
    last = [  # the offsets at which a query sees a symbol for the last time
        {max(j for j in range(i + 1 if kind == "decoder" else len(row)) if row[j] == symbol) - i}
        for row in reads[-1].tolist()
        for i in range(len(row))
        for symbol in set(row[: i + 1] if kind == "decoder" else row)
    ]
    allowed = set().union(*last)
    first = found[0][0]
    used = {int(step) for step in first.rows["offset"].nan_to_num(0).unique()}
    assert used <= allowed


def test_another_normalizer_on_the_same_scores():
    """Its own normalizer gives a model's own heads; sparsemax of the same scores is sparser."""
    model, reads = small("encoder_decoder", "entmax"), reads_of("encoder_decoder", True)
    own = analyse(model, reads)
    same = analyse(model, reads, normalizer=Entmax(1.5))
    sparser = analyse(model, reads, normalizer=Entmax(2.0))
    dense = analyse(model, reads, normalizer=Entmax(1.0))
    for a, b, c, d in zip(own, same, sparser, dense, strict=True):
        assert a.means["density"] == b.means["density"]
        assert a.means["diversity"] == pytest.approx(b.means["diversity"], abs=1e-6)
        own_density, sparse, full = (sum(layer.means["density"]) for layer in (a, c, d))
        assert sparse < own_density < full == HEADS
        assert c.offsets.argmax(1).tolist() == d.offsets.argmax(1).tolist()


def test_the_best_offset_of_equals_is_the_nearest():
    offsets = torch.tensor([[-7.0, -2.0, 4.0, -9.0, torch.nan]])
    layer = LayerHeads("layer_0", "causal", [0], {"offset": offsets})
    assert layer.best_offset(0) == (-2, pytest.approx(0.2))
