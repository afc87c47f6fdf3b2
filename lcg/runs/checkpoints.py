"""Checkpoints: written atomically, `previous` kept with `last`, read only if intact.

A file may load and still not be a checkpoint of this run: callers pass a `check` of its content,
which raises ValueError. `check_like` helps to write such checks.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lcg.runs.files import BEST, LAST, PREVIOUS, move_aside, write_atomic
from lcg.system import require_file

NEXT = "next.ckpt"  # on its way to be `last`


Check = Callable[[dict[str, Any]], None]


class UnreadableCheckpoint(ValueError):
    """The system cannot read a checkpoint; the message is one line, with the file."""


class DamagedCheckpoint(UnreadableCheckpoint):
    """A file is not a checkpoint of this run; the message is one line, with the file."""


class Resume(NamedTuple):
    """A checkpoint to resume from: its file, its step, and the identity of its config."""

    path: Path
    step: int
    identity: str


def load(path: Path, check: Check = lambda content: None) -> dict[str, Any]:
    """Read a checkpoint, tensors on the CPU, without executing code.

    Raises FileNotFoundError, UnreadableCheckpoint when the system cannot read it, and
    DamagedCheckpoint when its content is not what was written, or `check` rejects it.
    """
    try:
        require_file(path)
        # torch takes wrong bytes inside a tensor for right ones. The file is a zip archive with a
        # checksum for each of its parts, so it is asked first.
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            if wrong := archive.testzip():
                raise ValueError(f"the checksum of its part {wrong} is wrong")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableCheckpoint(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:
        reason = (str(error).strip() or "unreadable").splitlines()[0]
        raise DamagedCheckpoint(f"{path} is damaged ({reason[:120]})") from None
    try:
        check_like(content, {}, "its content")
        check(content)
    except ValueError as error:
        raise DamagedCheckpoint(f"{path} is not a checkpoint of this run ({error})") from None
    return content


KINDS = (dict, list | tuple, torch.Tensor, None | bool, int | float)


def check_like(found: Any, expected: Any, where: str) -> None:
    """Raise ValueError, naming the part, unless `found` has the structure of `expected`.

    A mapping must have all expected keys, a sequence the same length, a tensor the same shape and a
    floating type if that is expected. For other values the type counts: all numbers are one type,
    and None and bool are interchangeable.
    """
    kind = next((kind for kind in KINDS if isinstance(expected, kind)), type(expected))
    if not isinstance(found, kind) or (isinstance(found, bool) and kind == int | float):
        raise ValueError(f"{where} is of type {type(found).__name__}")
    match expected:
        case dict():
            for key, value in expected.items():
                if key not in found:
                    raise ValueError(f"{where} lacks {key}")
                check_like(found[key], value, f"{where}[{key}]")
        case list() | tuple():
            if len(found) != len(expected):
                raise ValueError(f"{where} has {len(found)} items, not {len(expected)}")
            for i, (item, value) in enumerate(zip(found, expected, strict=True)):
                check_like(item, value, f"{where}[{i}]")
        case torch.Tensor():
            shape, wanted = tuple(found.shape), tuple(expected.shape)
            if shape != wanted:
                raise ValueError(f"{where} has shape {shape}, not {wanted}")
            if found.is_floating_point() != expected.is_floating_point():
                raise ValueError(f"{where} is of {found.dtype}, not {expected.dtype}")


def check_weights(found: Any, model: torch.nn.Module, where: str = "state_dict") -> None:
    """Raise ValueError unless `found` is a state_dict of this model, to the name and the shape."""
    expected = model.state_dict()
    check_like(found, expected, where)
    if foreign := sorted(map(str, found.keys() - expected.keys())):
        raise ValueError(f"{where} has {foreign[0]}, which the model does not have")


def check_step(content: dict[str, Any], key: str) -> None:
    """Raise ValueError unless a checkpoint has a step, a whole number of at least 0."""
    check_like(content, {key: 0}, "its content")
    step = content[key]
    if type(step) is not int or step < 0:
        raise ValueError(f"{key} is {step!r:.40}, not a step")


def save(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a crash leaves either the old file or the new one."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def save_last(content: dict[str, Any], path: Path) -> None:
    """Write `last`, and keep the one before as `previous`.

    The new file is complete on disk before any other is changed. So `last` or `previous` is intact
    at every moment, also when the disk is full.
    """
    staged = path.with_name(NEXT)
    save(content, staged)
    if path.exists():
        os.replace(path, path.with_name(PREVIOUS))
    os.replace(staged, path)


def newest_readable(
    folder: Path, warn: Callable[[str], None], check: Check = lambda content: None
) -> Resume | None:
    """Return `last`, or `previous` when `last` cannot be used; None when there is neither.

    Calls `warn` with one line for a file that cannot be used: that does not load, that `check`
    rejects, or that the system cannot read. If none is left, raises the worst of these errors, with
    all of them in its message.
    """

    def check_all(content: dict[str, Any]) -> None:
        check_step(content, "global_step")
        check_like(content, {"identity": ""}, "its content")
        check(content)

    problems: list[UnreadableCheckpoint] = []
    for path in (folder / LAST, folder / PREVIOUS):
        try:
            content = load(path, check_all)
        except FileNotFoundError:
            continue
        except UnreadableCheckpoint as error:
            problems.append(error)
            continue
        for problem in problems:
            warn(f"{problem}; resuming from {path.name}")
        return Resume(path, content["global_step"], content["identity"])
    if not problems:
        return None
    kind, remedy = DamagedCheckpoint, "move the run directory away to start over"
    if not all(isinstance(problem, DamagedCheckpoint) for problem in problems):
        kind, remedy = UnreadableCheckpoint, "make it readable to resume"
    raise kind(f"{' and '.join(map(str, problems))}; there is no other checkpoint; {remedy}")


def set_aside(folder: Path, resume: Resume | None) -> None:
    """Rename files that a save would fail on, or keep as `previous`.

    These are a `last` that could not be used, and anything but a file with the name of a
    checkpoint.
    """
    for name in (LAST, PREVIOUS, BEST, NEXT):
        path = folder / name
        unused = name == LAST and resume is not None and resume.path != path
        if (path.exists() and not path.is_file()) or (unused and os.path.lexists(path)):
            move_aside(path)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
