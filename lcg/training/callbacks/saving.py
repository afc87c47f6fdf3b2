"""The checkpoints from which an interrupted run resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.fabric.plugins import TorchCheckpointIO

from lcg.config import Config, identity
from lcg.runs import checkpoints
from lcg.training.callbacks.finite import Finite


class Checkpoints(Callback):
    """Saves every checkpoint_every steps, at the end, and when asked to stop."""

    def __init__(self, config: Config, folder: Path, finite: Finite) -> None:
        self.config, self.folder, self.finite = config, folder, finite
        self._saved_at: int | None = None

    def on_save_checkpoint(self, trainer, module, checkpoint: dict[str, Any]) -> None:
        checkpoint["identity"] = identity(self.config)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx: int) -> None:
        step = trainer.global_step
        due = step % self.config.trainer.checkpoint_every == 0
        if due or step == self.config.trainer.steps:
            self.save(trainer, module)

    def save(self, trainer, module) -> None:
        """Write last.ckpt, unless it is written, or what it would hold is not finite."""
        if self._saved_at != trainer.global_step and self.finite.holds(trainer, module):
            trainer.save_checkpoint(self.folder / checkpoints.LAST)
            self._saved_at = trainer.global_step


class AtomicCheckpointIO(TorchCheckpointIO):
    """How Lightning writes and reads checkpoints here."""

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        checkpoints.save_last(checkpoint, Path(path))

    def load_checkpoint(self, path, map_location=None, weights_only=None):
        return checkpoints.load(Path(path))
