"""The LightningModule (model, loss, optimiser, schedule) and the LightningDataModule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lcg.config import Config
from lcg.config.schema import Optimizer
from lcg.log import log
from lcg.models.transformer import build_model, model_inputs
from lcg.tasks.base import IGNORE
from lcg.training.data import batch_loader


def learning_rate_factor(step: int, optimizer: Optimizer, steps: int) -> float:
    """Return the learning rate of a step as a fraction of the peak: linear warm-up, then decay
    to final_lr."""
    if step < optimizer.warmup_steps:
        return (step + 1) / optimizer.warmup_steps
    done = (step - optimizer.warmup_steps) / max(1, steps - optimizer.warmup_steps)
    left = 1 - min(1.0, done)
    if optimizer.decay == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * (1 - left)))
    return optimizer.final_lr + (1 - optimizer.final_lr) * left


class TrainingModule(LightningModule):
    """Cross-entropy over the scored positions, minimised by AdamW.

    `compile_steps` compiles training steps with torch; evaluation, whose lengths vary, is never
    compiled.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = build_model(config)
        self.compiled: Callable[..., Tensor] | None = None
        self._tried = False
        # Kept on the device and read now and then: reading them every step would stall a GPU.
        self.loss: Tensor | None = None
        self.grad_norm: Tensor | None = None
        self.register_buffer("finite", torch.ones((), dtype=torch.bool), persistent=False)

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        self.seed_dropout(self.global_step, self.global_rank)

    def seed_dropout(self, step: int, rank: int) -> None:
        """Seed the random state from (seed, step, rank), so that checkpoints need not store it."""
        mixed = ((self.config.seed * 1_000_003 + step) * 1009 + rank) % 2**63
        # As torch.manual_seed, which formats a stack trace each time where there is no GPU.
        torch.default_generator.manual_seed(mixed)
        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).manual_seed(mixed)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        total = self.summed_loss(batch)
        # The mean over the global batch: DDP averages over ranks, hence the factor.
        loss = total * self.trainer.world_size / batch["scored"]
        self.loss = loss.detach()
        self.finite &= self.loss.isfinite()
        return loss

    def summed_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Cross-entropy summed over the scored positions of a batch."""
        tensors = batch["labels"], *model_inputs(batch)
        if self.compiled and not self._tried:
            self._try_compiled(tensors)
        # A clone: what is computed by a CUDA graph is overwritten when it runs again.
        return self.compiled(*tensors).clone() if self.compiled else self._summed(*tensors)

    def _summed(self, labels: Tensor, *inputs: Tensor) -> Tensor:
        logits = self.model(*inputs).flatten(0, 1)
        return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE, reduction="sum")

    def compile_steps(self, mode: str) -> None:
        """Compile `summed_loss` from now on, if torch can: this is known after the first call."""
        self.compiled = torch.compile(self._summed, mode=mode, dynamic=False)

    def _try_compiled(self, tensors: tuple[Tensor, ...]) -> None:
        """Run forward and backward as a trial, whose errors must not end the run.

        Three times: with CUDA graphs the first compiles, the second records and the third replays.
        """
        self._tried = True
        devices = [self.device] if self.device.type == "cuda" else []
        learned = [p for p in self.model.parameters() if p.requires_grad]
        try:
            with torch.random.fork_rng(devices):  # a resumed run tries again
                for _ in range(3):
                    loss = self.compiled(*tensors).clone()
                    torch.autograd.grad(loss, learned, allow_unused=True)
            if devices:
                torch.cuda.synchronize(self.device)
        except Exception as error:  # compilers have many of their own
            reason = " ".join(str(error).split())[:200]
            log.warning(f"torch cannot compile the training step, so it runs uncompiled: {reason}")
            self.compiled = None

    def configure_gradient_clipping(self, optimizer, *args, **kwargs) -> None:
        """Clip to clip_norm, and keep the norm and whether it is finite."""
        limit = self.config.optimizer.clip_norm or math.inf
        self.grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        if self.config.trainer.precision != "16-mixed":  # there the scaler skips such a step
            self.finite &= self.grad_norm.isfinite()

    def configure_optimizers(self):
        """AdamW with decay on matrices only, and the schedule by step."""
        options, trainer = self.config.optimizer, self.config.trainer
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2]},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        # One kernel for all. It would unscale gradients itself, after they were clipped.
        fused = self.device.type == "cuda" and trainer.precision != "16-mixed"
        optimizer = torch.optim.AdamW(
            groups,
            lr=options.lr,
            betas=(options.beta1, options.beta2),
            weight_decay=options.weight_decay,
            fused=fused or None,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, options, trainer.steps)
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class TaskData(LightningDataModule):
    """The training stream, from the current step of a trainer.

    Lightning replays an epoch's data from its start after a resume, so the loader itself starts at
    the restored step.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        step, rank, world = trainer.global_step, trainer.global_rank, trainer.world_size
        return batch_loader(self.config, step, rank, world, trainer.strategy.root_device)
