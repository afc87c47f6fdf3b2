"""benchmarks/weight_sums.py against loops over rows."""

import math

import pytest
import torch
from oracles.registered import SIZES, small_decoder, tokens
from tiny import tiny

from benchmarks.weight_sums import by_kind, layer_sums, measured
from lcg.attention.normalizers.relu import ReLU
from lcg.attention.output_norms import RMSNorm
from lcg.attention.scalings import NoScaling
from lcg.config import load_config
from lcg.diagnostics import capture
from lcg.diagnostics.capture import capture_inputs
from lcg.models.transformer import build_model
from lcg.positional.groups import NAPE


def test_sums_of_relu(monkeypatch):
    monkeypatch.setattr(capture, "TOGETHER", 3)
    sizes = SIZES[1]  # two heads to a key head
    model = small_decoder(ReLU(), NoScaling(), NAPE(), sizes=sizes, output_norm=RMSNorm())
    with torch.no_grad(), capture_inputs(model) as seen:
        model(tokens(1, 23))
    found = layer_sums(seen[1])
    weights = seen[1].weights()[0].tolist()
    v = seen[1].layer.value(seen[1].x)[0].tolist()
    sums = [[sum(row) for row in head] for head in weights]
    heads = [h * sizes.kv_heads // sizes.heads * sizes.head_dim for h in range(sizes.heads)]
    rms = []
    for i in range(23):
        joined = [
            sum(weights[h][i][j] * v[j][start + d] for j in range(23))
            for h, start in enumerate(heads)
            for d in range(sizes.head_dim)
        ]
        rms.append(math.sqrt(sum(x * x for x in joined) / len(joined)))
    flat = [total for head in sums for total in head]
    assert found["sum"] == pytest.approx(sum(flat) / len(flat), rel=1e-5)
    late = [total for head in sums for total in head[-2:]]
    assert found["last_sum"] == pytest.approx(sum(late) / len(late), rel=1e-5)
    assert found["null"] == pytest.approx(sum(t == 0 for t in flat) / len(flat))
    assert found["rms"] == pytest.approx(sum(rms) / len(rms), rel=1e-5)


def test_each_kind_of_attention_has_its_own_means():
    config = load_config(tiny("attention=rela", "model.kind=encoder_decoder", "model.layers=2"))
    layers = measured(build_model(config).eval(), config, 6, 2)
    kinds = by_kind(config, layers)
    assert list(kinds) == ["full", "causal", "cross"]
    for kind, name in {"full": "encoder", "causal": "decoder", "cross": "cross"}.items():
        both = [layers[f"{name}_{i}"]["sum"] for i in range(2)]
        assert kinds[kind]["sum"] == pytest.approx(sum(both) / 2)
