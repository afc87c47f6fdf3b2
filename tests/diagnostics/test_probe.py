"""The probe logs what it says, and training does not notice it."""

import csv
import math
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from oracles.registered import small_decoder, tokens, variants
from processes import checkpoint, differences
from tiny import tiny

from lcg.config import load_config
from lcg.diagnostics import probe as probing
from lcg.diagnostics.capture import capture_inputs
from lcg.diagnostics.columns import alpha_columns, gradient_groups, probe_columns
from lcg.diagnostics.probe import (
    Probe,
    alpha_trajectories,
    group_norms,
    group_of,
    learned_alphas,
    probed_length,
)
from lcg.models.transformer import build_model
from lcg.tasks.streams import eval_batch
from lcg.training.loop import train
from lcg.training.record import Metrics

ATTENTIONS = ("softmax", "ssmax", "asentmax", "entmax_learned", "topk", "rela", "stick_breaking")
PAST = ("stick_breaking",)  # whose first query has no key, and so no weight


def rows(directory):
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("position", ["nape", "alibi", "rope", "nope"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_columns_are_what_the_probe_fills(attention, position):
    words = tiny(f"attention={attention}", f"position={position}", "model.layers=2")
    config = load_config(words)
    model = build_model(config)
    found = Probe(config)(model)
    assert list(found) == probe_columns(config)
    assert all(math.isfinite(value) for value in found.values())
    alphas = learned_alphas(model)
    assert list(alphas) == alpha_columns(config)
    assert bool(alphas) == (attention == "entmax_learned")
    assert all(1 < value < 2 for value in alphas.values())
    assert any(name.endswith("/null") for name in found) == (attention in ("rela", *PAST))
    names = {group_of(name) for name, _ in model.named_parameters()}
    assert names == set(gradient_groups(config))


def test_the_numbers_are_those_of_naive_loops():
    config = load_config(tiny("attention=asentmax", "model.heads=4"))
    model, task = build_model(config).eval(), config.task
    row = Probe(config)(model)
    seed = config.evaluation.seed
    inputs = torch.from_numpy(eval_batch(task, seed, "validation", 6, 0, 4).inputs)
    layer, t = model.blocks[0].attention, inputs.shape[1]
    with torch.no_grad():
        x = model.blocks[0].attention_norm(model.embedding(inputs) * model.embedding_scale)
        weights = layer.weights(x, torch.arange(t))
        scalers = sorted(layer.scaler(x, torch.arange(t))[:, 2:].flatten().tolist())
    for group, heads in {"unscaled": (0, 1), "scaled": (2, 3)}.items():
        each = [weights[b, h, i].tolist() for b in range(4) for h in heads for i in range(t)]
        support = sum(sum(w > 0 for w in r) for r in each) / len(each)
        largest = sum(max(r) for r in each) / len(each)
        assert row[f"heads/layer_0/{group}/support"] == pytest.approx(support, rel=1e-5)
        assert row[f"heads/layer_0/{group}/max_weight"] == pytest.approx(largest, rel=1e-5)
    assert row["scaler/layer_0/max"] == pytest.approx(scalers[-1], rel=1e-6)
    assert row["scaler/layer_0/p50"] == pytest.approx(scalers[len(scalers) // 2 - 1], rel=1e-6)


def test_null_attention_is_counted():
    """Return the share of rows of the probe's samples in which ReLU leaves nothing."""
    config = load_config(tiny("attention=rela", "model.heads=4"))
    model = build_model(config).eval()
    row = Probe(config)(model)
    seed = config.evaluation.seed
    inputs = torch.from_numpy(eval_batch(config.task, seed, "validation", 6, 0, 4).inputs)
    with torch.no_grad(), capture_inputs(model) as seen:
        model(inputs)
    weights = seen[0].weights()
    for group, heads in {"unscaled": (0, 1), "scaled": (2, 3)}.items():
        each = [weights[b, h, i] for b in range(4) for h in heads for i in range(weights.shape[2])]
        share = sum(bool((r == 0).all()) for r in each) / len(each)
        assert row[f"heads/layer_0/{group}/null"] == pytest.approx(share) and 0 < share < 1


def test_alpha_is_in_every_row_of_the_loss(tmp_path):
    words = ("attention=entmax_learned", "validation.every=30", "optimizer.lr=0.05")
    run = train(load_config(tiny(f"runs={tmp_path}", *words)), progress=False).directory
    logged = [r for r in rows(run) if r["train/loss"]]
    assert [int(r["step"]) for r in logged] == [4, 8, 12, 16, 20, 24, 28, 30]
    values = [float(r["alpha/layer_0/head_1"]) for r in logged]
    assert len(set(values)) == len(values)
    a = checkpoint(run)["state_dict"]["model.blocks.0.attention.normalizer_state.a"]
    assert values[-1] == pytest.approx(1 + a[1].double().sigmoid().item(), rel=1e-6)
    found = alpha_trajectories(run, {"layer_0": "causal"})
    assert [(h.layer, h.head) for h in found["causal"]] == [("layer_0", 0), ("layer_0", 1)]
    assert found["causal"][1].steps == [0, *(int(r["step"]) for r in logged)]
    assert found["causal"][1].values[1:] == values
    first = [r for r in rows(run) if r["step"] == "0"]  # where α starts, and nothing else
    assert len(first) == 1 and {k.split("/")[0] for k, v in first[0].items() if v} == {
        "step",
        "alpha",
    }
    assert alpha_trajectories(run, {"layer_9": "causal"}) == {}
    assert alpha_trajectories(tmp_path / "nowhere", {"layer_0": "causal"}) == {}


def test_a_resumed_run_does_not_log_where_alpha_started():
    config = load_config(tiny("attention=entmax_learned"))
    module = SimpleNamespace(model=build_model(config))
    for step, count in ((0, 1), (10, 0)):
        seen = []
        tracking = SimpleNamespace(log=lambda *words, seen=seen: seen.append(words))
        Metrics(config, tracking).start(SimpleNamespace(module=module), step)
        assert len(seen) == count


def test_long_sequences_are_probed_at_query_chunks_only(monkeypatch):
    config = load_config(tiny("data.max_length=40"))
    exact = Probe(config)
    tokens = exact.reads[0].shape[1]
    monkeypatch.setattr(probing, "SCORES", 2 * tokens * 20)
    some = Probe(config)
    queries = some.queries(tokens, tokens)
    assert len(some.reads[0]) == 1 and len(queries) == 20
    assert queries[0] == 0 and queries[-1] == tokens - 1
    assert set(some(build_model(config))) == set(probe_columns(config))


def test_gradient_norms_add_up_to_the_whole():
    (normalizer,) = [n for n in variants("normalizer") if n.name == "entmax_learned"]
    (scaling,) = [s for s in variants("scaling") if s.name == "adaptive"][:1]
    model = small_decoder(normalizer, scaling, variants("position")[0])
    assert group_norms(model) == {}
    model(tokens(2, 6)).square().sum().backward()
    norms = group_norms(model)
    assert set(norms) == {
        *("embedding", "attention", "scaling", "normalizer", "mlp", "norm", "head"),
    }
    scaler = [p.grad for n, p in model.named_parameters() if "scaling_state" in n]
    expected = math.sqrt(sum(float(g.double().square().sum()) for g in scaler))
    assert norms["scaling"].item() == pytest.approx(expected, rel=1e-5)
    whole = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert torch.stack(list(norms.values())).norm().item() == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize("attention", ["asentmax", "entmax_learned"])
def test_training_is_the_same_bit_for_bit_without_it(tmp_path, attention):
    """With dropout, whose masks a probe that drew a random number would change."""
    words = (f"attention={attention}", "model.layers=2", "validation.every=3")
    found = {}
    for name in ("with", "without"):
        config = load_config(tiny(f"runs={tmp_path / name}", *words))
        if name == "with":
            run = train(config, progress=False).directory
            probed = [r for r in rows(run) if r["heads/layer_1/scaled/support"]]
            assert [int(r["step"]) for r in probed] == list(range(3, 31, 3))
        else:
            quiet = patch.object(Probe, "__call__", lambda *words: {})
            still = patch.object(Metrics, "measure_gradients", lambda *words: None)
            with quiet, still:
                run = train(config, progress=False).directory
            assert not any(r["heads/layer_1/scaled/support"] for r in rows(run))
        last = checkpoint(run)
        found[name] = {key: last[key] for key in ("state_dict", "optimizer_states", "global_step")}
        found[name]["best"] = checkpoint(run, "best")["state_dict"]
        found[name]["losses"] = [r["train/loss"] for r in rows(run) if r["train/loss"]]
    assert differences(found["with"], found["without"]) == []


def test_the_norms_logged_are_of_whole_gradients_before_clipping(tmp_path):
    config = load_config(tiny(f"runs={tmp_path}", "optimizer.clip_norm=0.01"))
    run = train(config, progress=False).directory
    logged = [r for r in rows(run) if r["train/loss"]]
    assert logged
    for row in logged:
        groups = [float(v) for key, v in row.items() if key.startswith("grad_norm/")]
        assert math.hypot(*groups) == pytest.approx(float(row["train/grad_norm"]), rel=1e-4)
        assert float(row["train/grad_norm"]) > 0.1


def test_a_probe_leaves_no_trace():
    config = load_config(tiny("attention=asentmax", "model.dropout=0.5"))
    model = build_model(config)
    model.train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    probe = Probe(config)
    first = probe(model)
    assert torch.equal(torch.rand(3), expected)
    assert model.training and all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert first == probe(model)  # the same samples, no dropout


def test_the_probe_takes_what_there_is_to_validate_on(monkeypatch):
    """A corpus may have no held-out sample as long as the longest that is trained on."""
    config = load_config(tiny())
    config.validation.lengths = [4, 6, 40]
    assert probed_length(config) == config.data.max_length
    cut = lambda task, split, length: 0 if length > 6 else None  # noqa: E731
    monkeypatch.setattr(type(config.task), "distinct_samples", cut)
    assert probed_length(config) == 6
    assert Probe(config).reads[0].shape[1] == config.task.token_length(6) - 1
