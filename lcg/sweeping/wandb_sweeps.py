"""Hand a sweep to Weights & Biases, whose agents then train its runs on any number of machines."""

from __future__ import annotations

import os

from lcg.config import load_config
from lcg.runs.wandb_logger import choose_mode
from lcg.sweeping.file import Sweep, for_wandb


def register_with_wandb(sweep: Sweep) -> str:
    """Create the sweep; returns ENTITY/PROJECT/ID. Raises ValueError when W&B cannot be asked."""
    mode, why = choose_mode("auto")
    if mode != "online":
        raise ValueError(f"--wandb needs W&B: {why or f'its mode is {mode}'}")
    import wandb

    asked = load_config(sweep.words(sweep.example)).wandb
    entity = asked.entity or sweep.content.get("entity")
    said = "wandb.project" in sweep.fixed
    project = asked.project if said else sweep.content.get("project") or asked.project
    try:
        name = wandb.sweep(for_wandb(sweep), entity=entity, project=project)
        entity = entity or os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"--wandb: W&B did not take the sweep: {reason}") from None
    return f"{entity}/{project}/{name}"
