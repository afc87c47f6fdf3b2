"""Checkpoints: written atomically, `previous` kept behind `last`, read only when whole."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lcg.results import write_atomic

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be read; the message is one line that names the file."""


class Resume(NamedTuple):
    """Where to go on from: the file, its step, and the identity of the config it belongs to."""

    path: Path
    step: int
    identity: str | None


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU, no code executed.

    Raises FileNotFoundError, ValueError when the system does not let us read it, and
    DamagedCheckpoint when what it lets us read is not what was written.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    with file:
        try:
            # torch takes wrong bytes inside a tensor for right ones. The file is a zip archive with
            # a checksum for each of its parts, so it is asked first.
            with zipfile.ZipFile(file) as archive:
                wrong = archive.testzip()
            if wrong is None:
                file.seek(0)
                return torch.load(file, map_location="cpu", weights_only=True)
            reason = f"the checksum of its part {wrong} is wrong"
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "unreadable"
    raise DamagedCheckpoint(f"{path} is damaged ({reason[:120]})")


def save(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a crash leaves either the old one or the new one."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def save_last(content: dict[str, Any], path: Path) -> None:
    """Write `last`, and keep the one before as `previous`.

    The new one is whole on disk before any other is touched, so that at every moment `last` or
    `previous` is whole, also when the disk is full.
    """
    staged = path.with_name("next.ckpt")
    save(content, staged)
    if path.exists():
        os.replace(path, path.with_name(PREVIOUS))
    os.replace(staged, path)


def newest_readable(folder: Path, warn) -> Resume | None:
    """`last`, or `previous` when `last` is damaged; None when there is nothing to go on from.

    Calls `warn` with one line for a damaged file. Raises DamagedCheckpoint when all are.
    """
    damaged = []
    for path in (folder / LAST, folder / PREVIOUS):
        try:
            content = load(path)
        except FileNotFoundError:
            continue
        except DamagedCheckpoint as error:
            damaged.append(str(error))
            continue
        for message in damaged:
            warn(f"{message}; going on from {path.name}")
        return Resume(path, content["global_step"], content.get("identity"))
    if damaged:
        raise DamagedCheckpoint(
            f"{' and '.join(damaged)}; there is no other, move the run away to start over"
        )
    return None


def set_aside(folder: Path, resume: Resume) -> None:
    """Take a damaged `last` out of the way, or the next save would make it `previous`."""
    last = folder / LAST
    if resume.path != last and last.exists():
        os.replace(last, folder / f"{LAST}.damaged")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were in the middle of writing."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
