"""Sizes of a model and a batch, by arithmetic, before any work and without torch."""

from __future__ import annotations

import copy
import dataclasses
from numbers import Integral
from typing import TYPE_CHECKING, Any

from lcg.config.schema import (
    COUNT,
    HEADS,
    PARAMETERS,
    SHORTEST,
    VOCABULARY,
    Config,
    Model,
    TooLarge,
    shown,
)

if TYPE_CHECKING:
    from lcg.tasks.base import Task


def parameter_count(model: Model, vocabulary: int) -> int:
    """Count a model's matrices, embeddings and norms.

    These are all parameters but those that encoding, normalizer, scaling and output norm learn,
    which are few beside them.
    """
    width = model.d_model
    heads_width = model.heads * model.width_of_head
    keys_width = model.key_heads * model.width_of_head
    gemma = model.block == "gemma2"
    norms = width * (2 if gemma else 1)  # of one sublayer
    attention = 2 * width * (heads_width + keys_width) + norms
    block = attention + width * model.d_ff * (3 if gemma else 2) + norms
    ends = 2 * vocabulary * width + width
    if not model.separate_source:
        return ends + model.layers * block
    return ends + width + model.source_layers * block + model.layers * (block + attention)


def largest_option(config: Config) -> str:
    """`option=value` of what makes the model as large as it is: least is left with a 1 there."""
    names = ("layers", "encoder_layers", "d_model", "heads", "head_dim", "kv_heads", "d_ff")
    left = {}
    for name in names:
        value = getattr(config.model, name)
        if value is not None:
            smaller = copy.copy(config.model)
            setattr(smaller, name, 1)
            left[f"model.{name}={shown(value)}"] = parameter_count(smaller, config.task.vocabulary)
    left[_largest_of_task(config.task)] = parameter_count(config.model, 1)
    return min(left, key=left.get)


def _largest_of_task(task: Any) -> str:
    """The option of a task that most likely makes its vocabulary large."""
    values = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    numbers = {name: value for name, value in values.items() if type(value) is int}
    if not numbers:
        return f"the vocabulary of {task.name}"
    name = max(numbers, key=numbers.get)
    return f"task.{name}={shown(numbers[name])}"


def check_task_sizes(task: Task) -> None:
    """Raise ValueError for a task whose vocabulary or shortest length is beyond any machine."""
    if task.vocabulary > VOCABULARY:
        raise ValueError(
            f"{_largest_of_task(task)} makes a vocabulary of {shown(task.vocabulary)} tokens; at "
            f"most {shown(VOCABULARY)} are possible"
        )
    least = task.min_length
    if isinstance(least, bool) or not isinstance(least, Integral) or least < 0:
        raise ValueError(
            f"{type(task).__name__}.min_length is {least!r:.40}, expected a whole number"
        )
    if least > SHORTEST:
        raise ValueError(
            f"{type(task).__name__}.min_length is {shown(least)}: the shortest length of a task is "
            f"at most {shown(SHORTEST)}"
        )


def check_sizes(config: Config) -> None:
    """Raise ValueError, naming the option to change, for a model or a batch beyond any machine."""
    model, data, task = config.model, config.data, config.task
    count = parameter_count(model, task.vocabulary)
    if count > PARAMETERS:
        raise TooLarge(
            f"{largest_option(config)} makes a model of {shown(count)} parameters; at most "
            f"{shown(PARAMETERS)} are possible"
        )
    heads = model.heads * (
        2 * model.layers + model.source_layers if model.separate_source else model.layers
    )
    if heads > HEADS:
        larger = "heads" if model.heads > model.layers else "layers"
        raise TooLarge(
            f"model.{larger}={shown(getattr(model, larger))} makes {shown(heads)} heads in all "
            f"layers; at most {shown(HEADS)} are possible"
        )
    tokens = data.batch_size * int(task.token_length(data.max_length))
    if tokens > COUNT:
        larger = "batch_size" if data.batch_size > data.max_length else "max_length"
        raise TooLarge(
            f"data.{larger}={shown(getattr(data, larger))} makes batches of {shown(tokens)} "
            f"tokens; at most {shown(COUNT)} are possible"
        )
