"""The backends of `attend()`: one file each, and here what each of them can run.

Importing this package does not import torch, so that a config can be checked at once.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

from lcg.positional.base import PositionEncoding

if TYPE_CHECKING:
    import torch

    from lcg.attention.normalizers.base import Normalizer

BACKENDS = {
    "reference": "materialises all scores; the ground truth of the others",
    "blockwise": "exact, memory linear in the length, plain torch",
    "triton": "the same in kernels for CUDA devices; the forms of bias that are tensors",
}
"""Name -> what it is."""

OPTIONS = {
    "sink": ("reference", "blockwise"),
    "softcap": ("reference", "blockwise"),
    "selective": ("reference",),
}
"""Options of attention that not every backend runs -> those that do."""

TRITON = importlib.util.find_spec("triton") is not None
"""True where triton is installed; asked here, as torch 2.11 cannot compile the question."""


def check_backend(
    backend: str, normalizer: Normalizer, position: PositionEncoding | None = None
) -> None:
    """Raise ValueError, in one line that names the options, when a backend cannot run these."""
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend={backend} is not known; use one of auto, {', '.join(BACKENDS)}")
    if backend != "auto" and backend not in normalizer.backends:
        raise ValueError(
            f"normalizer={normalizer.name} has no {backend} backend; "
            f"use backend={' or '.join(normalizer.backends)}"
        )
    if position is not None and backend not in ("auto", *usable(normalizer, position)):
        raise ValueError(
            f"position={position.name} cannot run on backend={backend}: it has a "
            f"{' and a '.join(_too_general(backend, position))}; "
            f"use backend={' or '.join(usable(normalizer, position))}"
        )


def check_installed(backend: str) -> None:
    """Raise ValueError, in one line, when what a backend is made of is not installed."""
    if backend == "triton" and not TRITON:
        raise ValueError(
            "attention.backend=triton needs triton: pip install 'lcg[triton]', or use backend=auto"
        )


def unrunnable(backend: str, device: torch.device) -> str | None:
    """Why a backend can run nothing on that device, or None."""
    if backend != "triton":
        return None
    if not TRITON:
        return "needs triton: pip install 'lcg[triton]'"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"needs a CUDA device (or TRITON_INTERPRET=1), not {device.type}"
    return None


FORMS = {
    "slopes": "-m·|i - j|, a slope m for each head",
    "table": "a number for each head and distance i - j",
    "separable": "u_i + w_j for each head",
    "window": "the nearest keys alone, as many as each head says",
    "bias": "any tensor of ids and states, a part at a time",
    "map_scores": "any function of the scores of all heads, of whole rows",
}
"""The forms of a bias, from cheap to general: hooks of `PositionEncoding` -> what they give."""
RUN_BY = {
    "reference": tuple(FORMS),
    "blockwise": tuple(FORMS),
    "triton": ("slopes", "table", "separable", "window"),
}
"""Backend -> the forms that it runs."""


def usable(normalizer: Normalizer, position: PositionEncoding) -> list[str]:
    """The backends that can run both."""
    return [name for name in normalizer.backends if not _too_general(name, position)]


def _too_general(backend: str, position: PositionEncoding) -> list[str]:
    """Name what a backend does not run of an encoding: forms of its bias, or wider products."""
    general = [form for form in FORMS if position.has(form) and form not in RUN_BY[backend]]
    return general + ["wider query and key"] * (position.widens and backend == "triton")
