"""Compiled training steps: the same losses, from batches of one width, and whole as one graph."""

import csv

import pytest
import torch
from processes import only_run
from tiny import tiny

from lcg.config.schema import Trainer
from lcg.training.data import Batches
from lcg.training.devices import compile_mode
from lcg.training.loop import train
from lcg.training.module import TrainingModule


@pytest.mark.parametrize(
    ("device", "options", "mode"),
    [
        ("cpu", {}, None),
        ("cuda", {}, "reduce-overhead"),
        ("cuda", {"devices": 2}, None),
        ("cuda", {"devices": 2, "compile": "default"}, "default"),
        ("cuda", {"compile": "none"}, None),
        ("cpu", {"compile": "default"}, "default"),
    ],
)
def test_where_steps_are_compiled(device, options, mode):
    assert compile_mode(Trainer(**options), torch.device(device)) == mode


KINDS = {
    "decoder": ["task=sort"],
    "without separator": ["task=flip_flop"],
    "tagging": ["task=n_back"],
    "encoder": ["task=n_back", "model.kind=encoder", "position=rope"],
    "encoder_decoder": ["task=sort", "model.kind=encoder_decoder", "position=rope"],
    "constant target": [
        *("task=mqmtar", "task.alphabet=16", "task.words=16", "task.queries=1"),
        *("task.key_length=1", "task.value_length=1"),
    ],
    "longest not widest": ["task=mqmtar", "data.min_length=95", "data.max_length=100"],
    "ragged": ["task=parallel_text", "data.min_length=12", "data.max_length=12"],
}


@pytest.mark.parametrize("words", KINDS.values(), ids=KINDS)
def test_batches_of_one_width_have_the_same_loss(config, words):
    lengths = ("validation.lengths=16", "evaluation.lengths=16")
    lengths += ("data.min_length=12", "data.max_length=16")
    options = config(*lengths, *words, "model.dropout=0", "data.batch_size=3")
    module = TrainingModule(options)
    shapes = set()
    for t in range(12):
        plain, wide = Batches(options, 0, 1)[t], Batches(options, 0, 1, one_width=True)[t]
        shapes.add(tuple(tuple(tensor.shape) for tensor in wide.values()))
        for name, tensor in plain.items():
            kept = wide[name][..., : tensor.shape[-1]] if tensor.dim() else wide[name]
            assert torch.equal(kept, tensor)
        torch.testing.assert_close(module.summed_loss(wide), module.summed_loss(plain))
    assert len(shapes) == 1


def test_the_width_is_that_of_the_longest(config):
    options = config("task=copy", "data.batch_size=64")
    longest = max(Batches(options, 0, 1)[t]["inputs"].shape[1] for t in range(4))
    assert Batches(options, 0, 1, one_width=True)[0]["inputs"].shape[1] == longest


class Fails(torch.autograd.Function):
    """Forward or, if that is not wanted, backward."""

    @staticmethod
    def forward(ctx, loss, at_once):
        if at_once:
            raise RuntimeError("no\ncompiler")
        return loss.clone()

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError("no\ncompiler")


@pytest.mark.parametrize("at_once", [True, False], ids=["forward", "backward"])
def test_training_continues_uncompiled(config, monkeypatch, capsys, at_once):
    def refuses(function, **options):
        return lambda *given: Fails.apply(function(*given), at_once)

    monkeypatch.setattr(torch, "compile", refuses)
    assert train(config("trainer.compile=default"), progress=False).status == "finished"
    said = [line for line in capsys.readouterr().err.splitlines() if "compile" in line]
    assert len(said) == 1 and said[0].startswith("torch cannot compile the training step")


def test_trying_draws_no_random_numbers(config, monkeypatch):
    """A run that is resumed tries again, and must go on as if it had not been stopped."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    losses = []
    for name in ("tries", "does not"):
        outcome = train(config("trainer.compile=default", f"name={name}"), progress=False)
        with (outcome.directory / "metrics.csv").open() as lines:
            losses.append([row["train/loss"] for row in csv.DictReader(lines)])
        monkeypatch.setattr(TrainingModule, "_try_compiled", lambda self, given: None)
    assert losses[0] == losses[1]


WHOLE = """
import torch
from lcg.config import load_config
from lcg.models.transformer import model_inputs
from lcg.training.data import Batches
from lcg.training.devices import compile_mode
from lcg.training.module import TrainingModule
for words in {runs!r}:
    print(*words)
    options = load_config(words)
    module, batches = TrainingModule(options), Batches(options, 0, 1, one_width=True)
    compiled = torch.compile(module._summed, backend="eager", fullgraph=True, dynamic=False)
    for t in range(3):
        with torch.compiler.set_stance("fail_on_recompile" if t else "default"):
            compiled(batches[t]["labels"], *model_inputs(batches[t])).backward()
    torch.compiler.reset()
"""


def test_a_step_is_one_graph_compiled_once(lcg):
    """In a process whose shapes nobody checks, which cannot be compiled."""
    attentions = ("softmax", "asentmax", "rela_g")
    runs = [tiny(f"attention={attention}", "model.dropout=0") for attention in attentions]
    done = lcg.run(before=WHOLE.format(runs=runs) + "raise SystemExit(0)")
    assert done.code == 0, done.out + done.err


@pytest.mark.slow
def test_a_compiled_run_is_as_a_plain_one(lcg, tmp_path):
    losses = []
    for mode in ("none", "default"):
        runs = tmp_path / mode
        words = [f"runs={runs}", f"trainer.compile={mode}", "attention=asentmax"]
        process = lcg.run("train", *tiny(*words, "model.dropout=0"))
        assert process.code == 0, process.err
        assert "cannot compile" not in process.err
        with (only_run(runs) / "metrics.csv").open() as lines:
            rows = csv.DictReader(lines)
            losses.append([float(row["train/loss"]) for row in rows if row["train/loss"]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
