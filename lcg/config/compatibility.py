"""What each kind of model can do, and with which parts: answered before torch is imported."""

from __future__ import annotations

from typing import Any

from lcg.config.schema import Model
from lcg.positional.base import PositionEncoding
from lcg.positional.nope import NoPE

TASKS = {
    "decoder": ("seq2seq", "tagging", "labelled"),
    "encoder": ("tagging", "masked"),
    "encoder_decoder": ("seq2seq",),
}
"""model.kind -> the kinds of tasks it learns."""


def cross_encoding(model: Model, position: PositionEncoding) -> PositionEncoding:
    """The encoding of cross-attention: that of the model with cross_position=same, else none."""
    return position if model.cross_position == "same" else NoPE()


def check_task(model: Model, task: Any) -> None:
    """Raise ValueError, in one line, for a task that this kind of model does not learn."""
    if task.kind in TASKS[model.kind]:
        return
    able = [kind for kind, tasks in TASKS.items() if task.kind in tasks]
    in_stream = task.kind == "masked" and model.kind == "decoder"
    more = ', or declare kind = "labelled" if labels follow from what was read' if in_stream else ""
    raise ValueError(
        f"{task.name} is a {task.kind} task and model.kind={model.kind} learns "
        f"{' and '.join(TASKS[model.kind])} tasks only; use model.kind={' or '.join(able)}{more}"
    )


def check_parts(model: Model, normalizer: Any, position: PositionEncoding) -> None:
    """Raise ValueError, in one line, for parts that this kind of model cannot have."""
    if model.kind == "decoder":
        return
    if normalizer.causal_only:
        raise ValueError(
            f"attention.normalizer={normalizer.name} runs in causal attention only and "
            f"model.kind={model.kind} has other; use model.kind=decoder or another normalizer"
        )
    if not position.ordered and not model.unordered:
        raise ValueError(
            f"position={position.name} tells model.kind={model.kind} nothing of order, since its "
            "encoder has no causal mask; use another position, or model.unordered=true to force it"
        )
