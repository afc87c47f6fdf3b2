"""What may not happen at every step: waiting for the device, and needless work.

`python -m benchmarks.loop` prints what the loop costs.
"""

import torch

from lcg.models import transformer
from lcg.training import callbacks
from lcg.training.loop import train
from lcg.training.module import TrainingModule

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
    # It looks at the ids only where they are on the CPU, as all is here.
    monkeypatch.setattr(transformer, "position_ids", lambda owner, value, length: value)
    words = ("trainer.log_every=10", "validation.every=10", "model.dropout=0")
    assert train(config(*words), progress=True).status == "finished"
    assert reads == []


def test_seeding_a_step_is_cheap(config, monkeypatch):
    """torch.manual_seed formats a stack trace where there is no GPU: a millisecond per step."""
    module = TrainingModule(config())
    monkeypatch.setattr(torch, "manual_seed", None)
    torch.default_generator.manual_seed(12345)
    module.on_train_batch_start(None, 0)
    assert torch.initial_seed() != 12345
