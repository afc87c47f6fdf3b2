"""The rank of this process in a run, from the environment variables of launchers."""

from __future__ import annotations

import os

# Set by torchrun, Lightning, Slurm and mpirun. Lightning reads all of them, on import too.
OF_LAUNCHERS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
OF_LAUNCHERS += ("JSM_NAMESPACE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")

_rank = 0


def is_rank_zero() -> bool:
    """Return True in the main process: the only one of most commands, rank 0 of several."""
    return _rank == 0


def run_alone() -> list[str]:
    """Make this the main process in any case; return the launcher's variables that are ignored."""
    global _rank
    _rank = 0
    return [name for name in OF_LAUNCHERS if os.environ.pop(name, None) is not None]


def take_rank(devices: int, nodes: int) -> list[str]:
    """Set this process's rank in a run of `devices` processes on each of `nodes` machines.

    Returns the launcher's variables that a run of one process ignores. Raises ValueError, naming
    the variable, for a rank outside such a run.
    """
    global _rank
    if devices * nodes == 1:
        return run_alone()
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if "LOCAL_RANK" in os.environ and missing:
        raise ValueError(
            f"LOCAL_RANK is set without {' and '.join(missing)}, so that no launcher started this "
            "process; unset it: lcg starts the other processes of a run"
        )
    node = _place("NODE_RANK", nodes, f"trainer.nodes={nodes}")
    _rank = node * devices + _place("LOCAL_RANK", devices, f"trainer.devices={devices}")
    return []


def _place(name: str, count: int, option: str) -> int:
    text = os.environ.get(name, "0")
    if not (text.isascii() and text.isdigit()) or int(text) >= count:
        raise ValueError(f"{name}={text} is not in 0 to {count - 1}, as {option} implies; unset it")
    return int(text)
