"""What may not happen at every step: waiting for the device, and needless work."""

import time

import pytest
import torch
from torch.nn import functional as F

from lcg.tasks.base import IGNORE
from lcg.training import callbacks
from lcg.training.batches import Batches
from lcg.training.module import TrainingModule
from lcg.training.run import train

READS = ("__bool__", "__float__", "__int__", "item", "tolist", "numpy", "cpu")


def test_no_step_reads_from_the_device(config, monkeypatch):
    """On a GPU every such read would wait for all that is under way.

    Counted from the start of the forward pass to the end of the callbacks, at steps with nothing
    due; the optimiser's own reading of its step counter, on the CPU, is not ours.
    """
    reads, quiet = [], [False]
    for name in READS:
        original = getattr(torch.Tensor, name)

        def counted(tensor, *words, name=name, original=original, **options):
            if quiet[0]:
                reads.append(name)
            return original(tensor, *words, **options)

        monkeypatch.setattr(torch.Tensor, name, counted)

    def only_here(owner, method):
        original = getattr(owner, method)

        def watched(self, *words, **options):
            trainer = self.trainer if isinstance(self, TrainingModule) else words[0]
            step = trainer.global_step + isinstance(self, TrainingModule)  # that under way
            quiet[0] = step not in due
            try:
                return original(self, *words, **options)
            finally:
                quiet[0] = False

        monkeypatch.setattr(owner, method, watched)

    due = {10, 20, 30}
    for method in ("on_train_batch_start", "training_step", "configure_gradient_clipping"):
        only_here(TrainingModule, method)
    for name in callbacks.__all__:
        if "on_train_batch_end" in vars(getattr(callbacks, name)):
            only_here(getattr(callbacks, name), "on_train_batch_end")
    words = ("trainer.log_every=10", "validation.every=10", "model.dropout=0")
    assert train(config(*words), progress=True).status == "finished"
    assert reads == []


def test_seeding_a_step_is_cheap(config):
    """torch.manual_seed formats a stack trace where there is no GPU: a millisecond per step."""
    module = TrainingModule(config())
    module.on_train_batch_start(None, 0)
    started = time.process_time()
    for _ in range(200):
        module.on_train_batch_start(None, 0)
    ours = time.process_time() - started
    started = time.process_time()
    for _ in range(200):
        torch.manual_seed(1)
    assert ours < 0.5 * (time.process_time() - started)


@pytest.mark.slow
def test_the_loop_costs_less_than_three_milliseconds_a_step(config):
    """Lightning and the callbacks, beside a bare loop over the same batches and the same model."""
    steps = 500
    words = ("model.d_model=2", "model.d_ff=1", "data.batch_size=1", "model.dropout=0")
    words += (f"trainer.steps={steps}", "trainer.log_every=50", "trainer.checkpoint_every=500")
    options = config(*words, "validation.every=500")
    started = time.process_time()
    assert train(options, progress=True).status == "finished"
    ours = time.process_time() - started

    module, batches = TrainingModule(options), Batches(options, 0, 1)
    ((optimizer,), (schedule,)) = module.configure_optimizers()
    started = time.process_time()
    for t in range(steps):
        batch = batches[t]
        logits = module.model(batch["inputs"]).flatten(0, 1)
        loss = F.cross_entropy(logits, batch["labels"].flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule["scheduler"].step()
    bare = time.process_time() - started
    print(f"a step: {1000 * ours / steps:.2f} ms, of which bare {1000 * bare / steps:.2f} ms")
    assert (ours - bare) / steps < 0.003
