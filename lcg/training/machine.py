"""Whether what a config asks for is on this machine; what can be told before torch is imported."""

from __future__ import annotations

import importlib.util
import os
import platform
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

from lcg.config import Config
from lcg.config.schema import Trainer

if TYPE_CHECKING:
    import torch

NODE_VARIABLES = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def check_machine(trainer: Trainer) -> None:
    """Raise ValueError for a device or other nodes that cannot be there. Does not import torch."""
    check_nodes(trainer.nodes)
    possible = {"cpu": True, "cuda": _built_for_cuda(), "mps": platform.system() == "Darwin"}
    possible |= {"gpu": possible["cuda"], "auto": True}
    if not possible[trainer.accelerator]:
        raise ValueError(_nothing_there(trainer.accelerator))
    if trainer.precision == "16-mixed" and not (possible["cuda"] or possible["mps"]):
        raise ValueError(NEEDS_GPU)


def check_nodes(nodes: int) -> None:
    """Raise ValueError when this process cannot find the other nodes of its run."""
    missing = [name for name in NODE_VARIABLES if not os.environ.get(name)]
    if nodes > 1 and missing:
        raise ValueError(
            f"trainer.nodes={nodes} needs {', '.join(missing)} in the environment of each node: "
            "which of them it is, from 0, and where node 0 listens"
        )
    rank = os.environ.get("NODE_RANK", "0")
    if not rank.isdigit() or int(rank) >= nodes:
        raise ValueError(f"NODE_RANK={rank} is none of the {nodes} nodes of trainer.nodes={nodes}")


def device_of(config: Config) -> torch.device:
    """The device of `trainer.accelerator`.

    Raises ValueError when there is none, or one that cannot do what the config asks for.
    """
    import torch

    trainer = config.trainer
    there = {"cpu": True, "cuda": torch.cuda.is_available()}
    there |= {"gpu": there["cuda"], "mps": torch.backends.mps.is_available()}
    accelerator = trainer.accelerator
    if accelerator == "auto":
        accelerator = next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[accelerator]:
        raise ValueError(_nothing_there(accelerator))
    if trainer.precision == "16-mixed" and accelerator == "cpu":
        raise ValueError(NEEDS_GPU)
    device = torch.device({"gpu": "cuda"}.get(accelerator, accelerator))
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if config.attention.backend == "triton" and device.type != "cuda" and not interpreted:
        raise ValueError(
            "attention.backend=triton needs a CUDA device, and there is none; use backend=auto"
        )
    return device


def slow_precision(trainer: Trainer, device: torch.device) -> str | None:
    """Return a line about a precision that the device computes in without instructions for it."""
    import torch

    if device.type != "cpu" or not trainer.precision.startswith("bf16"):
        return None
    if not torch.backends.mkldnn.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    return (
        f"trainer.precision={trainer.precision} is slow on this CPU, which has no instructions "
        "for bf16; 32-true is faster"
    )


NEEDS_GPU = "trainer.precision=16-mixed needs a GPU; a CPU has bf16-mixed"


def _nothing_there(accelerator: str) -> str:
    return f"trainer.accelerator={accelerator}: there is none on this machine"


def _built_for_cuda() -> bool:
    """Whether the torch that would be imported knows CUDA devices, AMD's among them."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return True
    try:
        facts = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    except OSError:
        return True
    return bool(facts.get("cuda") or facts.get("hip"))
