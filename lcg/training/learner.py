"""Optimiser steps, and the part of their state that a checkpoint stores."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.strategies import DDPStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lcg.config import identity
from lcg.config.schema import Trainer
from lcg.runs.checkpoints import check_like, check_weights
from lcg.training.module import TrainingModule
from lcg.training.validation import SCORES

GROUP = {"lr": 0.0, "initial_lr": 0.0, "betas": (0.0, 0.0), "eps": 0.0, "weight_decay": 0.0}
SCHEDULE = {"base_lrs": [0.0, 0.0], "_last_lr": [0.0, 0.0], "last_epoch": 0, "_step_count": 0}
CONTENT = {
    "lr_schedulers": [SCHEDULE],
    "optimizer_states": [{"state": {}, "param_groups": [GROUP, GROUP]}],
    "callbacks": {"Metrics": {"seconds": 0.0}, "LadderValidation": {}},
}
"""The content of a checkpoint besides its weights, for `check_like`."""
SCALER = "MixedPrecision"  # as Lightning calls it in a checkpoint


@contextmanager
def quiet() -> Iterator[None]:
    """Hide Lightning's messages about devices and processes, which are set by the config."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


@quiet()
def make_fabric(options: Trainer) -> Fabric:
    """Return the Fabric that runs steps on devices. Raises ValueError when these are missing."""
    try:
        return Fabric(
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.nodes,
            # Buffers are constants, or each process's own.
            strategy=DDPStrategy(broadcast_buffers=False) if options.processes > 1 else "auto",
            precision=options.precision,
            plugins=[LightningEnvironment()],
        )
    except MisconfigurationException as error:
        raise ValueError(
            f"trainer.accelerator={options.accelerator} trainer.devices={options.devices}: "
            + " ".join(str(error).split())
        ) from None


class Learner:
    """A training module on its device, with its optimiser and its schedule."""

    def __init__(self, fabric: Fabric, module: TrainingModule) -> None:
        self.fabric, self.module = fabric, module
        with quiet():
            self._wrapped = fabric.setup(module)
        (optimizer,), (schedule,) = module.configure_optimizers()
        self._optimizer = fabric.setup_optimizers(optimizer)
        self._schedule = schedule["scheduler"]

    def train_step(self, batch: dict[str, Tensor], step: int) -> None:
        """Perform step `step`, counted from 0, on this process's rows of a batch."""
        self.compute_gradients(batch, step)
        self.update()

    def compute_gradients(self, batch: dict[str, Tensor], step: int) -> None:
        """Compute the gradients of the whole batch, not yet clipped."""
        self.module.seed_dropout(step, self.fabric.global_rank)
        batch = self.fabric.to_device(batch)
        with self.fabric.autocast():  # Fabric itself casts in `forward` only
            loss = self._wrapped.training_step(batch, step)
        self._optimizer.zero_grad()
        self.fabric.backward(loss)
        self.fabric.strategy.precision.unscale_gradients(self._optimizer.optimizer)

    def update(self) -> None:
        """Clip the gradients, then step the optimiser and the schedule."""
        self.module.configure_gradient_clipping(self._optimizer)
        self._optimizer.step()
        self._schedule.step()

    def is_finite(self) -> bool:
        """Return whether loss and gradients so far and the weights now are finite, on all devices.

        Reading them at every step would make a GPU wait, so `module.finite` accumulates them there.
        """
        weights = [p.detach().isfinite().all() for p in self.module.model.parameters()]
        finite = torch.stack([self.module.finite, *weights]).all().float()
        return bool(self.fabric.all_reduce(finite, reduce_op="min"))

    def state_dict(self) -> dict[str, Any]:
        """Return weights, moments, schedule and gradient scale for a checkpoint."""
        state = {
            "state_dict": self.module.state_dict(),
            "optimizer_states": [self._optimizer.state_dict()],
            "lr_schedulers": [self._schedule.state_dict()],
        }
        scaler = self.fabric.strategy.precision.state_dict()
        return state | ({SCALER: scaler} if scaler else {})

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restore the state of a checkpoint that `check_resumable` has accepted."""
        self.module.load_state_dict(content["state_dict"])
        self._optimizer.load_state_dict(content["optimizer_states"][0])
        self._schedule.load_state_dict(content["lr_schedulers"][0])
        if SCALER in content:
            self.fabric.strategy.precision.load_state_dict(content[SCALER])


def check_resumable(content: dict[str, Any], module: TrainingModule) -> None:
    """Raise ValueError for a checkpoint with missing or invalid state for this run.

    A checkpoint of another config is rejected without further checks.
    """
    if content["identity"] != identity(module.config):
        return
    step, steps = content["global_step"], module.config.trainer.steps
    if step > steps:
        raise ValueError(f"global_step is {step!r:.40}, the last step is {steps}")
    check_weights(content.get("state_dict"), module)
    for name, weight in content["state_dict"].items():
        if not weight.isfinite().all():  # training saves none such
            raise ValueError(f"state_dict[{name}] has values that are not finite")
    check_like(content, CONTENT, "its content")
    counted = content["lr_schedulers"][0]["last_epoch"]
    if counted != step:
        raise ValueError(f"lr_schedulers has {counted!r:.40} steps, global_step is {step}")
    _check_moments(content["optimizer_states"][0], module)
    _check_validation(content["callbacks"]["LadderValidation"])


def _check_moments(state: dict[str, Any], module: TrainingModule) -> None:
    """AdamW takes moments of any shape, and fails at its first step."""
    (optimizer,), _ = module.configure_optimizers()
    numbers = [group["params"] for group in optimizer.state_dict()["param_groups"]]
    if [group.get("params") for group in state["param_groups"]] != numbers:
        raise ValueError("optimizer_states has other parameters than the model")
    ordered = [p for group in optimizer.param_groups for p in group["params"]]
    for number, moments in state["state"].items():
        where = f"optimizer_states[{number}]"
        if number not in range(len(ordered)):
            raise ValueError(f"{where} belongs to no parameter")
        moment = ordered[number]
        expected = {"step": torch.tensor(0.0), "exp_avg": moment, "exp_avg_sq": moment}
        check_like(moments, expected, where)


def _check_validation(state: dict[str, Any]) -> None:
    where, scored = "callbacks[LadderValidation]", dict.fromkeys(SCORES, 0.0)
    history, best, pending = (state.get(name) for name in ("history", "best", "pending"))
    if not isinstance(history, list) or not isinstance(pending, int | None):
        raise ValueError(f"{where} has no history, or {pending!r:.40} as its pending step")
    for candidate in (*history, *([] if best is None else [best])):
        check_like(candidate, {"step": 0, "lengths": {}} | scored, where)
        for length, scores in candidate["lengths"].items():
            if not str(length).isdecimal():
                raise ValueError(f"{where} has no length {length!r:.40}")
            check_like(scores, scored, where)
