"""No step waits for the device or does needless work.

`python -m benchmarks.loop` prints what the loop costs.
"""

import torch

from lcg.models import transformer
from lcg.training.learner import Learner
from lcg.training.loop import train
from lcg.training.module import TrainingModule
from lcg.training.signals import StopRequest

READS = ("__bool__", "__float__", "__int__", "item", "tolist", "numpy", "cpu")


def test_no_step_reads_from_the_device(config, monkeypatch):
    """On a GPU every such read would wait for all that is under way.

    Counted from the start of the forward pass to the end of the step, at steps with nothing due;
    the optimiser's own reading of its step counter, on the CPU, is not ours.
    """
    reads, quiet = [], [False]
    for name in READS:
        original = getattr(torch.Tensor, name)

        def counted(tensor, *words, name=name, original=original, **options):
            if quiet[0]:
                reads.append(name)
            return original(tensor, *words, **options)

        monkeypatch.setattr(torch.Tensor, name, counted)

    steps, due = [], {10, 20, 30}
    compute_gradients, asked = Learner.compute_gradients, StopRequest.asked
    optimizer_step = torch.optim.AdamW.step

    def begin(learner, batch, step):
        steps.append(step + 1)
        quiet[0] = steps[-1] not in due
        compute_gradients(learner, batch, step)

    def update(optimizer, *words, **options):
        before, quiet[0] = quiet[0], False
        optimizer_step(optimizer, *words, **options)
        quiet[0] = before

    def end(stop):
        quiet[0] = False
        return asked(stop)

    monkeypatch.setattr(Learner, "compute_gradients", begin)
    monkeypatch.setattr(torch.optim.AdamW, "step", update)
    monkeypatch.setattr(StopRequest, "asked", end)
    # It looks at the ids only where they are on the CPU, as all is here.
    monkeypatch.setattr(transformer, "position_ids", lambda owner, value, length: value)
    words = ("trainer.log_every=10", "validation.every=10", "model.dropout=0")
    assert train(config(*words), progress=True).status == "finished"
    assert steps == list(range(1, 31))
    assert reads == []


def test_seeding_a_step_is_cheap(config, monkeypatch):
    """torch.manual_seed formats a stack trace where there is no GPU: a millisecond per step."""
    module = TrainingModule(config())
    monkeypatch.setattr(torch, "manual_seed", None)
    torch.default_generator.manual_seed(12345)
    module.seed_dropout(0, 0)
    assert torch.initial_seed() != 12345
