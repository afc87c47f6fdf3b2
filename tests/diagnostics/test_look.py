"""`look`: the same samples, predictions and weights as evaluation has, or one line why not."""

import shutil

import numpy as np
import pytest
import torch

from lcg.diagnostics import look
from lcg.evaluation.evaluate import load_model
from lcg.evaluation.ladder import evaluate_lengths
from lcg.evaluation.test_sets import TestSet
from lcg.tasks.base import IGNORE


def test_look_sees_what_is_evaluated(tiny_run):
    found = look(tiny_run, 8, 5)
    config, tokens = found.config, int(found.config.task.token_length(8)) - 1
    heads, layers = config.model.heads, config.model.layers
    assert found.inputs.shape == found.labels.shape == (5, tokens)
    scored = (found.labels[0] != IGNORE).nonzero().flatten()
    assert torch.equal(found.positions, scored)
    model, step = load_model(tiny_run, config)
    (cell,) = evaluate_lengths(model, [TestSet(config, "test", 8, 5)], step=step)
    right = found.predicted == found.labels[:, found.positions]
    assert right.float().mean().item() == pytest.approx(cell.token_accuracy)
    assert len(found.layers) == layers
    for layer in found.layers:
        assert layer.weights.shape == (5, heads, tokens, tokens)
        assert layer.weights.dtype == torch.float32
        assert (layer.weights.triu(1) == 0).all()
        torch.testing.assert_close(layer.weights.sum(-1), torch.ones(5, heads, tokens))
        assert layer.scaler.shape == (5, heads, tokens)
        assert (layer.scaler[:, 0] == 1).all() and (layer.scaler[:, 1] != 1).all()  # NAPE
        assert layer.alpha is None
    first = np.asarray(look(tiny_run, 8, 1).layers[1].weights[0])
    assert np.abs(first - found.layers[1].weights[0].numpy()).max() < 1e-6


def test_look_refuses_in_one_line(tiny_run, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="does not exist"):
        look(tmp_path / "nowhere", 8, 1)
    with pytest.raises(ValueError, match="too short"):
        look(tiny_run, 0, 1)
    with pytest.raises(ValueError, match="at least 1"):
        look(tiny_run, 8, 0)
    with pytest.raises(ValueError, match=r"need .* GiB"):
        look(tiny_run, 200_000, 100)
    untrained = shutil.copytree(tiny_run, tmp_path / "run")
    (untrained / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(ValueError, match=r"no best\.ckpt"):
        look(untrained, 8, 1)
