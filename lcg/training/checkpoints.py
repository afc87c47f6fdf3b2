"""Checkpoints: written atomically, `previous` kept behind `last`, the best chosen by validation."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from lcg.results import write_atomic

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be read; the message is one line that names the file."""


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU, no code executed.

    Raises DamagedCheckpoint.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "unreadable"
        raise DamagedCheckpoint(f"{path} is damaged ({reason[:120]})") from None


def save(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a crash leaves either the old one or the new one."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def rotate(folder: Path) -> None:
    """Make `last` the `previous` one, keeping it readable as either at every moment."""
    last, previous = folder / LAST, folder / PREVIOUS
    if last.exists():
        staged = folder / f".{PREVIOUS}.{os.getpid()}"
        staged.unlink(missing_ok=True)
        os.link(last, staged)
        os.replace(staged, previous)


def newest_readable(folder: Path, warn) -> Path | None:
    """`last`, or `previous` when `last` is damaged; None when there is nothing to go on from.

    Calls `warn` with one line for a damaged file. Raises DamagedCheckpoint when all are.
    """
    damaged = []
    for path in (folder / LAST, folder / PREVIOUS):
        try:
            load(path)
        except FileNotFoundError:
            continue
        except DamagedCheckpoint as error:
            damaged.append(str(error))
            warn(str(error))
            continue
        return path
    if damaged:
        raise DamagedCheckpoint(
            f"{damaged[0]}, and there is no other; move the run away to restart"
        )
    return None


class AtomicCheckpointIO(TorchCheckpointIO):
    """How Lightning writes and reads checkpoints here."""

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        path = Path(path)
        if path.name == LAST:
            rotate(path.parent)
        save(checkpoint, path)

    def load_checkpoint(self, path, map_location=None, weights_only=None):
        return load(Path(path))


def selection_key(candidate: dict[str, Any]) -> tuple[float, float, int]:
    """What a better checkpoint has more of: exact match, then token accuracy, then steps."""
    return (candidate["exact_match"], candidate["token_accuracy"], candidate["step"])
