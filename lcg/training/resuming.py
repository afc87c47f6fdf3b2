"""Checks that a checkpoint can be trained on, before anything of the run is changed."""

from __future__ import annotations

import re
from typing import Any

import torch
from lightning import Trainer

from lcg.config import identity
from lcg.runs.checkpoints import check_like, check_weights
from lcg.training.module import TrainingModule

VERSION = "pytorch-lightning_version"
SCORES = {"exact_match": 0.0, "token_accuracy": 0.0}
GROUP = {"lr": 0.0, "initial_lr": 0.0, "betas": (0.0, 0.0), "eps": 0.0, "weight_decay": 0.0}


def check_resumable(content: dict[str, Any], module: TrainingModule, trainer: Trainer) -> None:
    """Raise ValueError for a checkpoint that lacks what this run needs to go on, or has it wrong.

    One of another config is not looked into: it is refused as such.
    """
    if content["identity"] != identity(module.config):
        return
    step, steps = content["global_step"], module.config.trainer.steps
    if step > steps:
        raise ValueError(f"global_step is {step!r:.40}, the last step is {steps}")
    check_weights(content.get("state_dict"), module)
    schedule = {"base_lrs": [0.0, 0.0], "_last_lr": [0.0, 0.0], "last_epoch": 0, "_step_count": 0}
    check_like(content, {"lr_schedulers": [schedule], "epoch": 0, VERSION: ""}, "its content")
    if not re.match(r"\d+\.\d+\.\d+", content[VERSION]):
        raise ValueError(f"{VERSION} is {content[VERSION]!r:.40}, no version")
    _check_optimizer(content.get("optimizer_states"), module)
    _check_loops(content.get("loops"), trainer, step)
    _check_callbacks(content.get("callbacks"))


def _check_optimizer(states: Any, module: TrainingModule) -> None:
    """AdamW takes moments of any shape, and fails at its first step."""
    check_like(states, [{"state": {}, "param_groups": [GROUP, GROUP]}], "optimizer_states")
    (optimizer,), _ = module.configure_optimizers()
    (state,) = states
    numbers = [group["params"] for group in optimizer.state_dict()["param_groups"]]
    for found, expected in zip(state["param_groups"], numbers, strict=True):
        if found.get("params") != expected:
            raise ValueError("optimizer_states has other parameters than the model")
    ordered = [p for group in optimizer.param_groups for p in group["params"]]
    for number, moments in state["state"].items():
        where = f"optimizer_states[{number}]"
        if number not in range(len(ordered)):
            raise ValueError(f"{where} is of no parameter")
        moment = ordered[number]
        expected = {"step": torch.tensor(0.0), "exp_avg": moment, "exp_avg_sq": moment}
        check_like(moments, expected, where)


def _check_loops(loops: Any, trainer: Trainer, step: int) -> None:
    """Lightning counts steps in here; global_step is a copy."""
    check_like(loops, {"fit_loop": trainer.fit_loop.state_dict()}, "loops")
    progress = loops["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]
    counted = progress["optimizer"]["step"]["total"]["completed"]
    if counted != step:
        raise ValueError(f"loops has {counted!r:.40} steps, global_step is {step}")


def _check_callbacks(callbacks: Any) -> None:
    check_like(callbacks, {"Metrics": {"seconds": 0.0}, "LadderValidation": {}}, "callbacks")
    where = "callbacks[LadderValidation]"
    validation = {"history": None, "best": None, "pending": None} | callbacks["LadderValidation"]
    if not isinstance(validation["history"], list):
        raise ValueError(f"{where} has no history")
    if not isinstance(validation["pending"], int | None):
        raise ValueError(f"{where}[pending] is {validation['pending']!r:.40}, not a step")
    best = [] if validation["best"] is None else [validation["best"]]
    for candidate in (*validation["history"], *best):
        check_like(candidate, {"step": 0, "lengths": {}, **SCORES}, where)
        for length, scores in candidate["lengths"].items():
            if not str(length).isdecimal():
                raise ValueError(f"{where} has no length {length!r:.40}")
            check_like(scores, SCORES, where)
